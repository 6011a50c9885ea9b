"""The page: a heading and its tabs."""

import gradio as gr

from evqgan.core import checkpoint
from evqgan.demo import tab_edit, tab_generate, tab_reconstruct
from evqgan.demo.parts import Shared
from evqgan.demo.studio import Studio

WAITING = 16  # ours: clicks that wait; a further one is told to come again
HOUR = 3600


def build(studio: Studio) -> gr.Blocks:
    """Return the page of a studio; a tokenizer's has the tab Reconstruct alone."""
    model = studio.model
    with gr.Blocks(
        title=f"evqgan: {studio.workdir}", analytics_enabled=False, delete_cache=(HOUR, HOUR)
    ) as page:
        gr.Markdown(f"# Efficient-VQGAN\n{heading(studio)}", elem_id="heading")
        shared = Shared(gr.State(None), gr.State(0))
        if studio.generates:
            with gr.Tab("Generate"):
                tab_generate.lay_out(studio, shared)
            with gr.Tab("Inpaint and outpaint"):
                tab_edit.inpaint(studio, shared)
            if model.classes:
                with gr.Tab("Class edit"):
                    tab_edit.class_edit(studio, shared)
        with gr.Tab("Reconstruct"):
            tab_reconstruct.lay_out(studio, shared)
    return page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def heading(studio: Studio) -> str:
    """Return in a line which model it is."""
    model = studio.model
    height, width = model.size
    devices = model.runner.mesh.devices.ravel()
    parts = [
        f"**{studio.workdir}**",
        f"{width} x {height} pixels",
        f"{width // model.factor} x {height // model.factor} tokens of {model.codes:,} codes",
        *([f"{model.classes:,} classes"] if model.classes else []),
        checkpoint.trained(model.step),
        f"on {len(devices)} x {devices[0].platform}",
    ]
    return " · ".join(parts)
