"""The tabs Inpaint and outpaint, and Class edit."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from evqgan.core.errors import InputError
from evqgan.demo import choices, parts, uploads
from evqgan.demo.parts import Shared
from evqgan.demo.studio import IMAGES, Studio
from evqgan.demo.wiring import QUEUE, outcome, streamed

BRUSH, BOX, SIDES = "brush", "box", "sides"
HOW = [("Paint over", BRUSH), ("A box", BOX), ("Grow the sides", SIDES)]
SIDE_NAMES = ("left", "top", "right", "bottom")
MODEL: dict[str, Any] = {
    "concurrency_id": QUEUE,
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "hidden",
}


def inpaint(studio: Studio, shared: Shared) -> None:
    """Lay out the tab Inpaint and outpaint, and connect it."""
    height, width = studio.model.size
    with gr.Row():
        with gr.Column(scale=3, min_width=400):
            where = parts.source("edit")
            fit = gr.Checkbox(True, label=f"Scale it to the model's {width} x {height} pixels")
            how = gr.Radio(HOW, value=BRUSH, label="What is made anew", elem_id="edit-how")
            with gr.Row(visible=False) as box_row:
                start = (width // 4, height // 4, width // 4 * 3, height // 4 * 3)
                box = numbers("edit-box", start)
            with gr.Row(visible=False) as sides_row:
                sides = numbers("edit-side", (width // 2, 0, width // 2, 0))
            editor = gr.ImageEditor(
                label="Paint over what is to be made anew",
                type="numpy",
                image_mode="RGBA",
                sources=(),
                transforms=(),
                layers=False,
                format="png",
                brush=gr.Brush(default_size=60, colors=["#ff4d6d"], color_mode="fixed"),
                eraser=gr.Eraser(default_size=60),
                canvas_size=(uploads.SHOWN, uploads.SHOWN),
                buttons=[],
                elem_id="edit-canvas",
                elem_classes="pixels",
                height=570,
            )
        with gr.Column(scale=2, min_width=320):
            label = parts.class_field(studio, "edit", every=False)
            num = gr.Slider(1, IMAGES // 2, value=4, step=1, label="Number", elem_id="edit-num")
            seed = parts.seed_field("edit")
            run = gr.Button("Make it anew", variant="primary", elem_id="edit-run")
            shown = parts.output(gr.State(), "edit")

    def opened(picture: np.ndarray, fit: Any) -> tuple:
        picture = uploads.fitted(picture, studio.model.size) if fit else picture
        uploads.check_canvas(*picture.shape[:2])
        return picture, uploads.canvas(picture)

    def edit(
        picture: Any, how: Any, drawn: Any, label: Any, num: Any, seed: Any, *sizes: Any
    ) -> Iterator:
        def work(tell: Any) -> Any:
            if picture is None:
                raise InputError("upload a picture first, or take one from Generate")
            if how == SIDES:
                grown = uploads.sides(picture, sizes[4:])
                return studio.outpaint(picture, grown, label, num, seed, tell)
            hidden = (
                uploads.brushed(drawn, picture)
                if how == BRUSH
                else uploads.boxed(picture, sizes[:4])
            )
            return studio.edit(picture, hidden, label, num, seed, tell)

        yield from streamed(studio, work, outcome)

    parts.connect(where, shared, [fit], [editor], opened)
    how.change(
        lambda how: (gr.update(visible=how == BOX), gr.update(visible=how == SIDES)),
        how,
        [box_row, sides_row],
        api_visibility="private",
    )
    given = [where.picture, how, editor, label, num, seed, *box, *sides]
    run.click(edit, given, list(shown), **MODEL)


def numbers(name: str, start: tuple[int, ...]) -> list[gr.Number]:
    """Lay out four fields for pixels at the left, top, right and bottom."""
    pairs = zip(SIDE_NAMES, start, strict=True)
    return [
        gr.Number(x, label=side, step=1, min_width=70, elem_id=f"{name}-{side}")
        for side, x in pairs
    ]


def class_edit(studio: Studio, shared: Shared) -> None:
    """Lay out the tab Class edit, and connect it."""
    listed = choices.classes(studio.model, every=False)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            where = parts.source("class")
            picture = gr.Image(
                label="Picture",
                interactive=False,
                format="png",
                buttons=[],
                height=300,
                elem_classes="pixels",
                elem_id="class-picture",
            )
            labels = gr.Dropdown(
                listed,
                value=[label for _, label in listed[:4]],
                multiselect=True,
                max_choices=IMAGES,
                label="Classes that it becomes (type to search)",
                elem_id="class-classes",
            )
            share = gr.Slider(
                20, 100, value=75, step=5, label="How much of its middle is made anew, in percent"
            )
            seed = parts.seed_field("class")
            run = gr.Button("Make it anew", variant="primary", elem_id="class-run")
        with gr.Column(scale=3, min_width=400):
            shown = parts.output(gr.State(), "class")

    def opened(image: np.ndarray) -> tuple:
        image = uploads.fitted(image, studio.model.size)
        return image, uploads.canvas(image)["background"]

    def edit(image: Any, labels: Any, share: Any, seed: Any) -> Iterator:
        def work(tell: Any) -> Any:
            if image is None:
                raise InputError("upload a picture first, or take one from Generate")
            hidden = uploads.middle(image, share)
            return studio.reclass(image, hidden, labels, seed, tell)

        yield from streamed(studio, work, outcome)

    parts.connect(where, shared, [], [picture], opened)
    run.click(edit, [where.picture, labels, share, seed], list(shown), **MODEL)
