"""The mode edit: inpainting, outpainting and class editing of one picture."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import chosen_step, exported, files, pictures, processes, replacing, stores
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError, size_text
from evqgan.core.progress import Progress, counted
from evqgan.data import folder as folders
from evqgan.inference import planning, records
from evqgan.inference.editing import GREY, check_margins
from evqgan.inference.images import read_image
from evqgan.inference.keywords import EditKeywords
from evqgan.inference.masks import check_mask, read_mask
from evqgan.inference.mode_inputs import load_model, of_flag
from evqgan.inference.model import Model

RESULT = re.compile(r"edit_\d{3,}\.png")  # the name of a result
MASKED, STRIP = "masked.png", "strip.png"
MADE = {"mode": "edit"}  # what these two say of how they were made


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """What is to be edited; each field is the flag of its name.

    image: the picture's file.
    mask: a picture's file, white where the image is generated.
    box: left, top, right, bottom of what is generated, in pixels, as texts.
    outpaint: by how many pixels the image grows at the left, top, right, bottom, as texts.
    label: the class of what is made, by number or name.
    num: how many results.
    seed: result n depends on (seed, n).
    margin, feather: see `inference.editing`; None: its defaults.
    force: also what may take weeks.
    batch_size, step: as of `load`.

    Of `mask`, `box` and `outpaint` exactly one is given.
    """

    image: str | None = None
    mask: str | None = None
    box: Sequence[str] | None = None
    outpaint: Sequence[str] | None = None
    label: int | str | None = None
    num: int = 4
    seed: int = 0
    margin: int | None = None
    feather: int | None = None
    force: bool = False
    batch_size: int | None = None
    step: chosen_step.Step = None


@processes.together()
def edit(
    config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path | None, request: EditRequest
) -> None:
    """Write edit_000.png ..., masked.png and strip.png into `out`, by default workdir/edits.

    They take the place of an earlier call's when all of them are made, and not before. Of several
    processes the first one does it alone.
    """
    out = out or exported.results(workdir) / "edits"
    check_apart(out, request)
    folders.check_apart(out, config.dataset.get("folder", ""), "--out", "--out")
    image, margins, hidden = checked(config, workdir, request)
    with contextlib.ExitStack() as stack:
        with processes.together():
            if processes.this()[0] == 0:
                files.tried(out)
                for name in names_of(request.num):
                    replacing.check(out / name, "edit")
                stack.enter_context(files.owned(out, "another --out"))
        # It takes all processes.
        model = load_model(config, workdir, request.batch_size, request.step)
        if processes.this()[0]:
            return
        if margins is not None:
            results, masked = outpainted(model, image, margins, request)
        else:
            results, masked = inpainted(model, image, hidden, request)
        write(out, masked, results, records_of(model, request, len(results)))
        are = "is" if len(results) == 1 else "are"
        print(f"{counted(len(results), 'edit')} {are} in {out}")


def check_apart(out: pathlib.Path, request: EditRequest) -> None:
    """Raise InputError for an image or mask that the edits would replace or remove."""
    for flag, file in (("--image", request.image), ("--mask", request.mask)):
        path = stores.real(file or ".")
        written = RESULT.fullmatch(path.name) or path.name in (MASKED, STRIP)
        if written and stores.same(path.parent, out):
            raise InputError(
                f"{flag}={file} lies in {out}, where edits of an earlier call are replaced: give "
                "another folder by --out"
            )


def checked(
    config: ConfigDict, workdir: pathlib.Path, request: EditRequest
) -> tuple[np.ndarray, tuple[int, int, int, int] | None, np.ndarray]:
    """Return the image [H,W,3], the margins if it is to grow, and what is hidden, bool [H,W].

    Raises InputError for a request that cannot be fulfilled, before anything is loaded.
    """
    where = (request.mask, request.box, request.outpaint)
    if not request.image or sum(x is not None for x in where) != 1:
        raise InputError(
            "edit needs --image=FILE and exactly one of --mask=FILE, --box=l,t,r,b, "
            "--outpaint=l,t,r,b"
        )
    classes = planning.classes_of(config, of_workdir(workdir)[1], "--mode=edit")
    shape = models.shape_of(config)
    planning.checked_edit_labels(classes, shape, request.label, request.num, request.seed)
    planning.sampler_of(config)
    with of_flag("--image"):
        image = read_image(request.image)
    nothing = np.zeros(image.shape[:2], bool)
    if request.outpaint is not None:
        margins = four_numbers("--outpaint", request.outpaint)
        with of_flag("--outpaint"):
            check_margins(margins)
        return image, margins, nothing
    return image, None, hidden_pixels(image, request)


def hidden_pixels(image: np.ndarray, request: EditRequest) -> np.ndarray:
    """Return where an image uint8 [H,W,3] is generated, by --mask or --box, as bool [H,W]."""
    height, width = image.shape[:2]
    if request.mask is not None:
        with of_flag("--mask"):
            white = read_mask(request.mask)
            check_mask(image, white)
        return white
    left, top, right, bottom = four_numbers("--box", request.box or ())
    box = f"--box={left},{top},{right},{bottom}"
    if left >= right or top >= bottom:
        raise InputError(
            f"{box}: expected left,top,right,bottom with left below right and top below bottom, "
            f"got left = {left}, top = {top}, right = {right}, bottom = {bottom}"
        )
    if not (left >= 0 and right <= width and top >= 0 and bottom <= height):
        raise InputError(f"{box} does not lie in the image of {size_text((height, width))}")
    hidden = np.zeros((height, width), bool)
    hidden[top:bottom, left:right] = True
    return hidden


def four_numbers(flag: str, texts: Sequence[str]) -> tuple[int, int, int, int]:
    """Return four whole numbers from the parts of a flag's value; InputError for all else."""
    try:
        left, top, right, bottom = (int(x) for x in texts)
    except ValueError:
        given = ",".join(texts)
        raise InputError(
            f"{flag} takes four whole numbers, left,top,right,bottom, not {given}"
        ) from None
    return left, top, right, bottom


def inpainted(
    model: Model, image: np.ndarray, hidden: np.ndarray, request: EditRequest
) -> tuple[np.ndarray, np.ndarray]:
    """Return results uint8 [num,H,W,3] of an image [H,W,3], and the image without what is hidden.

    hidden: bool [H,W], what is generated.
    """
    made = request.label, request.num, request.seed
    results = model.edit(image, hidden, *made, progress=window_report(), **how_of(request))
    return results, np.where(hidden[..., None], GREY, image)


def outpainted(
    model: Model,
    image: np.ndarray,
    margins: tuple[int, int, int, int],
    request: EditRequest,
) -> tuple[np.ndarray, np.ndarray]:
    """Return results uint8 [num,H',W',3] of an image [H,W,3], and the image in grey margins.

    margins: pixels at the left, top, right, bottom.
    """
    made = request.label, request.num, request.seed
    results = model.outpaint(image, *margins, *made, progress=window_report(), **how_of(request))
    left, top, right, bottom = margins
    around = ((top, bottom), (left, right), (0, 0))
    return results, np.pad(image, around, constant_values=GREY)


def how_of(request: EditRequest) -> EditKeywords:
    """Return the keywords of `Model.edit` and `Model.outpaint` that a request sets."""
    return {"margin": request.margin, "feather": request.feather, "force": request.force}


def window_report() -> Callable[[int, int, float], None]:
    """Return a report(done, total, seconds) for edits so large that they take several windows."""
    progress = Progress("edit", "windows", every=1.0)

    def report(done: int, total: int, seconds: float) -> None:
        if total > 1:
            progress(done, total, seconds)

    return report


def records_of(model: Model, request: EditRequest, num: int) -> list[dict[str, Any]]:
    """Return what the PNG of each of `num` results says of how it was made."""
    shared = records.of_model(model)
    label = 0 if request.label is None else model.label_of(request.label)
    seed, size = request.seed, model.runner.rows(num)
    return [
        records.of_image(model, shared, seed=seed, number=i, label=label, size=size, mode="edit")
        for i in range(num)
    ]


def write(
    out: pathlib.Path,
    masked: np.ndarray,
    results: np.ndarray,
    made: Sequence[dict[str, Any]],
) -> None:
    """Write results [num,H,W,3] and the masked image [H,W,3], all or none.

    What else an earlier call left goes: the results that it had more of. made: a record for each
    result.
    """
    if (out / STRIP).is_file():
        print(f"the edits of an earlier call in {out} are replaced", flush=True)

    def stale(name: str) -> bool:
        return bool(RESULT.fullmatch(name)) and replacing.maker_of(out / name) == "edit"

    with files.exchanged(out, stale) as folder:
        drawn = [*results, masked, pictures.row([masked, *results])]
        said = [*made, MADE, MADE]
        for name, picture, record in zip(names_of(len(results)), drawn, said, strict=True):
            pictures.save_png(folder / name, picture, record)


def names_of(num: int) -> list[str]:
    """Return the names of the files of `num` results."""
    return [*(f"edit_{i:03d}.png" for i in range(num)), MASKED, STRIP]
