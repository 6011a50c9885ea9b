"""Pieces that several tabs of the page have."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from evqgan.core.errors import InputError
from evqgan.demo import choices, uploads
from evqgan.demo.studio import Studio
from evqgan.demo.wiring import PRIVATE, QUIET, guarded


class Output(NamedTuple):
    """What a tab shows of a result, in the order of its handler's outputs."""

    line: gr.Markdown
    filling: gr.Image
    gallery: gr.Gallery
    archive: gr.DownloadButton
    command: gr.Code
    images: gr.State


class Shared(NamedTuple):
    """What the tabs of one visitor share: the images made last, and which of them is picked."""

    images: gr.State
    picked: gr.State


def output(images: gr.State, name: str) -> Output:
    """Lay out what a tab shows of a result.

    images: where those made last are kept. name: of the tab, for its elements' ids.
    """
    line = gr.Markdown("", elem_classes="line", elem_id=f"{name}-line")
    live = gr.Image(
        label="while it is made",
        visible=False,
        format="png",
        buttons=[],
        interactive=False,
        elem_classes="pixels",
        elem_id=f"{name}-filling",
        height=480,
    )
    gallery = gr.Gallery(
        label="Results",
        columns=2,
        height="auto",
        object_fit="contain",
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_classes="pixels",
        elem_id=f"{name}-gallery",
    )
    archive = gr.DownloadButton(
        "Download all (.zip)", interactive=False, size="sm", elem_id=f"{name}-zip"
    )
    command = gr.Code(
        label="The same in a shell",
        language="shell",
        interactive=False,
        lines=1,
        wrap_lines=True,
        show_line_numbers=False,
        buttons=["copy"],
        elem_id=f"{name}-command",
    )
    return Output(line, live, gallery, archive, command, images)


def seed_field(name: str) -> gr.Number:
    """Lay out the seed and a button for a new one.

    The field has no bounds: the studio's line on a wrong seed says which field it is of.
    """
    with gr.Row(equal_height=True):
        seed = gr.Number(0, label="Seed", step=1, elem_id=f"{name}-seed", scale=3)
        new = gr.Button("New seed", size="sm", min_width=90, scale=1, elem_classes="aside")
    new.click(
        lambda: int(np.random.default_rng().integers(2**31)),
        outputs=seed,
        **PRIVATE,
    )
    return seed


def class_field(studio: Studio, name: str, every: bool) -> gr.Dropdown:
    """Lay out the classes to choose one by typing its name; hidden of a model without classes."""
    listed = choices.classes(studio.model, every)
    return gr.Dropdown(
        listed,
        value=listed[0][1] if listed else None,
        label="Class (type to search)",
        visible=bool(studio.model.classes),
        elem_id=f"{name}-class",
    )


def picture(name: str, height: int) -> gr.Image:
    """Lay out the picture that a tab works on. height: of the element, in pixels of the screen."""
    return gr.Image(
        label="Picture",
        interactive=False,
        format="png",
        buttons=[],
        height=height,
        elem_classes="pixels",
        elem_id=f"{name}-picture",
    )


class Source(NamedTuple):
    """Where a tab takes its picture from."""

    upload: gr.UploadButton
    take: gr.Button
    picture: gr.State


def source(name: str) -> Source:
    """Lay out the buttons for an uploaded picture and for one that was made."""
    with gr.Row():
        upload = gr.UploadButton(
            "Upload a picture", file_types=["image"], size="sm", elem_id=f"{name}-upload"
        )
        take = gr.Button("Take one from Generate", size="sm", elem_id=f"{name}-take")
    return Source(upload, take, gr.State(None))


def connect(
    where: Source,
    shared: Shared,
    more: list[Any],
    outputs: list[Any],
    opened: Callable[..., tuple],
) -> None:
    """Let both buttons of a source open a picture.

    opened: opened(picture uint8 [H,W,3], *values of `more`) returns the values of the source's
      picture and of `outputs`.
    """

    def of_file(path: str | None, *values: Any) -> tuple:
        return opened(uploads.read(path), *values)

    def of_images(images: Any, picked: Any, *values: Any) -> tuple:
        return opened(picked_image(images, picked), *values)

    both = [where.picture, *outputs]
    where.upload.upload(guarded(of_file), [where.upload, *more], both, **QUIET)
    where.take.click(guarded(of_images), [shared.images, shared.picked, *more], both, **QUIET)


def picked_image(images: Any, picked: Any) -> np.ndarray:
    """Return the image that was picked in the gallery of Generate, or its first one."""
    if not images:
        raise InputError("there is no picture yet: make some in Generate, or upload one")
    return images[picked if isinstance(picked, int) and 0 <= picked < len(images) else 0]
