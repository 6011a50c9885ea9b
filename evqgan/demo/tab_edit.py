"""The tabs Inpaint and outpaint, and Class edit."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from evqgan.demo import choices, parts, uploads
from evqgan.demo.parts import Shared
from evqgan.demo.results import Result
from evqgan.demo.studio import IMAGES, Studio, Tell
from evqgan.demo.wiring import ON_MODEL, PRIVATE, outcome, streamed

BRUSH, BOX, SIDES = "brush", "box", "sides"
HOW = [("Paint over", BRUSH), ("A box", BOX), ("Grow the sides", SIDES)]
SIDE_NAMES = ("left", "top", "right", "bottom")


class Place(NamedTuple):
    """Where a picture is made anew: how that is said, and the fields for each way to say it."""

    how: gr.Radio
    brush: gr.ImageEditor
    box: list[gr.Number]
    sides: list[gr.Number]

    @property
    def fields(self) -> list[Any]:
        """All of them, in the order of the arguments of `hidden_or_sides`."""
        return [self.how, self.brush, *self.box, *self.sides]


def inpaint(studio: Studio, shared: Shared) -> None:
    """Lay out the tab Inpaint and outpaint, and connect it."""
    height, width = studio.model.size
    with gr.Row():
        with gr.Column(scale=3, min_width=400):
            where = parts.source("edit")
            fit = gr.Checkbox(True, label=f"Scale it to the model's {width} x {height} pixels")
            place = lay_out_place(studio)
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

    def edit(picture: Any, label: Any, num: Any, seed: Any, *place: Any) -> Iterator:
        def work(tell: Tell) -> Result:
            image = uploads.required(picture)
            hidden, sides = hidden_or_sides(image, *place)
            if hidden is None:
                return studio.outpaint(image, sides, label, num, seed, tell)
            return studio.edit(image, hidden, label, num, seed, tell)

        yield from streamed(studio, work, outcome)

    parts.connect(where, shared, [fit], [place.brush], opened)
    given = [where.picture, label, num, seed, *place.fields]
    run.click(edit, given, list(shown), **ON_MODEL)


def lay_out_place(studio: Studio) -> Place:
    """Lay out how it is said what is made anew: by the brush, a box, or sides that grow."""
    height, width = studio.model.size
    how = gr.Radio(HOW, value=BRUSH, label="What is made anew", elem_id="edit-how")
    with gr.Row(visible=False) as box_row:
        box = numbers("edit-box", (width // 4, height // 4, width // 4 * 3, height // 4 * 3))
    with gr.Row(visible=False) as sides_row:
        sides = numbers("edit-side", (width // 2, 0, width // 2, 0))
    brush = gr.ImageEditor(
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
    how.change(
        lambda how: (gr.update(visible=how == BOX), gr.update(visible=how == SIDES)),
        how,
        [box_row, sides_row],
        **PRIVATE,
    )
    return Place(how, brush, box, sides)


def hidden_or_sides(
    image: np.ndarray, how: Any, drawn: Any, *numbers: Any
) -> tuple[np.ndarray | None, list[int]]:
    """Return what is hidden of a picture, bool [H,W]; or None and by how much each side grows.

    how, drawn, numbers: the values of `Place.fields`; numbers: the box's four, and the sides'.
    """
    if how == SIDES:
        return None, uploads.sides(image, numbers[4:])
    if how == BRUSH:
        return uploads.brushed(drawn, image), []
    return uploads.boxed(image, numbers[:4]), []


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
            picture = parts.picture("class", height=300)
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
        def work(tell: Tell) -> Result:
            picture = uploads.required(image)
            hidden = uploads.middle(picture, share)
            return studio.reclass(picture, hidden, labels, seed, tell)

        yield from streamed(studio, work, outcome)

    parts.connect(where, shared, [], [picture], opened)
    run.click(edit, [where.picture, labels, share, seed], list(shown), **ON_MODEL)
