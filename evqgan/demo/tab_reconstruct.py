"""The tab Reconstruct: a picture, what the tokenizer makes of it, and its ids."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from evqgan.data import transforms
from evqgan.demo import parts, uploads
from evqgan.demo.parts import Shared
from evqgan.demo.results import Result
from evqgan.demo.studio import Studio, Tell
from evqgan.demo.wiring import ON_MODEL, outcome, streamed


def lay_out(studio: Studio, shared: Shared) -> None:
    """Lay out the tab and connect it."""
    height, width = studio.model.size
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            where = parts.source("reconstruct")
            if not studio.generates:
                where.take.visible = False
            gr.Markdown(
                f"Scaled until it covers {width} x {height} pixels; its middle is kept.",
                elem_classes="line",
            )
            picture = parts.picture("reconstruct", height=260)
            run = gr.Button("Reconstruct", variant="primary", elem_id="reconstruct-run")
        with gr.Column(scale=3, min_width=400):
            shown = parts.output(gr.State(), "reconstruct")

    def opened(image: np.ndarray) -> tuple:
        size = studio.model.size
        image = np.ascontiguousarray(transforms.centre_crop(uploads.fitted(image, size), size))
        return image, uploads.canvas(image)["background"]

    def reconstruct(image: Any) -> Iterator:
        def work(tell: Tell) -> tuple[Result, np.ndarray]:
            return studio.reconstruct(uploads.required(image), tell)

        yield from streamed(studio, work, lambda pair: outcome(pair and pair[0]))

    parts.connect(where, shared, [], [picture], opened)
    run.click(reconstruct, [where.picture], list(shown), **ON_MODEL)
