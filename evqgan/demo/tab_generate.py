"""The tab Generate: new images of a class, and the image of a PNG again."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from evqgan.demo import choices, parts
from evqgan.demo.choices import EVERY, OWN
from evqgan.demo.parts import Shared
from evqgan.demo.studio import IMAGES, Studio
from evqgan.demo.wiring import ON_MODEL, PRIVATE, guarded, outcome, streamed


def lay_out(studio: Studio, shared: Shared) -> None:
    """Lay out the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = parts.class_field(studio, "generate", every=True)
            num = gr.Slider(1, IMAGES, value=4, step=1, label="Number", elem_id="generate-num")
            seed = parts.seed_field("generate")
            preset = gr.Dropdown(
                list(studio.presets), value=OWN, label="Sampler", elem_id="generate-preset"
            )
            with gr.Accordion("Settings of the sampler", open=False):
                fields = setting_fields(studio)
                gr.Markdown("Other settings are compiled once more.", elem_classes="line")
            watched = gr.Checkbox(True, label="Show the images while they are filled")
            run = gr.Button("Generate", variant="primary", elem_id="generate-run")
            again = gr.UploadButton(
                "Repeat a PNG", file_types=[".png"], size="sm", elem_id="generate-repeat"
            )
        with gr.Column(scale=3, min_width=400):
            shown = parts.output(shared.images, "generate")
    names = list(fields)

    def generate(
        label: Any, num: Any, seed: Any, preset: Any, watched: Any, *values: Any
    ) -> Iterator:
        given = dict(zip(names, values, strict=True))
        label = EVERY if label is None else label
        yield from streamed(
            studio,
            lambda tell: studio.generate(label, num, seed, preset, given, bool(watched), tell),
            lambda result: (*outcome(result), gr.skip() if result is None else 0),
        )

    def repeat(path: str | None) -> Iterator:
        yield from streamed(
            studio,
            lambda tell: studio.repeat(path, tell),
            lambda pair: (*outcome(pair and pair[0]), gr.skip() if pair is None else 0),
        )

    outputs = [*shown, shared.picked]
    run.click(generate, [label, num, seed, preset, watched, *fields.values()], outputs, **ON_MODEL)
    again.upload(repeat, again, outputs, **ON_MODEL)
    preset.change(
        guarded(lambda name: filled_in(studio, name)),
        preset,
        list(fields.values()),
        **PRIVATE,
    )
    shown.gallery.select(pick, None, shared.picked, **PRIVATE)


def pick(event: gr.SelectData) -> int:
    """Return which image of the gallery was picked."""
    return int(event.index)


def setting_fields(studio: Studio) -> dict[str, gr.Number]:
    """Lay out a field for each setting that the model's sampler has one for."""
    found = {}
    for key in choices.fields(studio.model):
        text, is_whole = choices.FIELDS[key]
        found[key] = gr.Number(
            studio.model.sampler[key],
            label=text,
            step=1 if is_whole else 0.1,
            elem_id=f"generate-{key}",
        )
    return found


def filled_in(studio: Studio, name: Any) -> Any:
    """Return the values of the settings' fields by a preset."""
    settings = studio.presets[name if name in studio.presets else OWN].settings
    values = [settings[key] for key in choices.fields(studio.model)]
    return values[0] if len(values) == 1 else values
