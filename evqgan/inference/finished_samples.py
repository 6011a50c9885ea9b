"""Samples that an earlier call finished in a folder: whether they may go, and whether all is there.

They are samples.npz, grid.png, images/ and steps.png, as `mode_sample` writes them.
"""

import contextlib
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evqgan.core import npz, pictures, replacing, stores
from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import counted
from evqgan.data.image_files import EXTENSIONS
from evqgan.evals.provenance import MadeBy
from evqgan.inference.sample_settings import Settings, difference
from evqgan.metrics.references import IMAGES

PNG = re.compile(r"\d{5,}\.png")  # the name of a sample in images/
PICTURES = ("grid.png", "steps.png")  # which do not say what made them
OURS = {"samples.npz", "candidates"}  # of which a folder of samples has one, also a stopped one
ADVICE = "give another folder by --out=FOLDER, or replace them by --force"


def read(out: pathlib.Path) -> Settings | None:
    """Return the settings of the samples in a folder, with those of `MadeBy`; None: there are none.

    "workdir" and fingerprints are missing where they are not known. Raises InputError for a file
    that is none of ours.
    """
    file = out / "samples.npz"
    if not file.exists():
        return None
    with _opened(file) as saved:
        names = ("seed", *MadeBy._fields, "acceptance", "classifier", "workdir")
        if IMAGES not in saved:
            raise ValueError(f"it holds its images as images, which are now {IMAGES}")
        found = {name: saved[name].item() for name in names if name in saved}
        labels = _labels(saved)
        found |= {"labels": labels.tolist(), "sampler": json.loads(saved["sampler"].item())}
        return {"acceptance": 1.0, "classifier": None, **found}


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Yield the arrays of a samples.npz; InputError for what is none, in the body, too."""
    try:
        with npz.opened(file) as saved:
            yield saved
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{file} is not what --mode=sample writes: {first_line(error)}; {ADVICE}"
        ) from error


def _labels(saved: np.lib.npyio.NpzFile) -> np.ndarray:
    """Return the labels of samples, int32; of a model without classes, zeros."""
    if "labels" in saved:
        return saved["labels"]
    return np.zeros(len(saved["numbers"]), np.int32)


def check(
    out: pathlib.Path, there: Settings | None, here: Mapping[str, Any], advice: str = ADVICE
) -> None:
    """Raise InputError for finished samples of other settings than those asked for.

    there: what `read` says of the folder `out`.
    here: settings asked for, all or some.
    advice: what the error says to do.
    """
    if there is None:
        return
    known = {name: value for name, value in here.items() if name in there}
    if made := difference(there, known):
        number = counted(len(there["labels"]), "finished sample")
        raise InputError(f"{out} holds {number}, made with {made}: {advice}")


def outdated(out: pathlib.Path, there: Settings, now: MadeBy, weights: pathlib.Path) -> str:
    """Return why finished samples of the settings asked for are made again, "" if they are not.

    there: what `read` says of the folder `out`.
    now, weights: the model that samples would be made by, and where its weights lie on disk.
    """
    file = out / "samples.npz"
    if there["step"] != now.step:
        return f"the samples of step {there['step']:,} in {out} will be replaced"
    if any(there.get(name, value) != value for name, value in now._asdict().items()):
        return f"the samples of other weights in {out} will be replaced"
    if stores.stamp(file).time < stores.stamp(weights).time:
        return f"{weights} is newer than the samples in {out}, which will be replaced"
    # of a call that was stopped while it replaced samples
    return f"{out / 'candidates'} is left" if (out / "candidates").exists() else ""


def lacking(out: pathlib.Path, pngs: int, strip: bool) -> str:
    """Return which picture of finished samples is not there, or damaged; "": there are all.

    pngs: how many files of images/ are asked for.
    strip: whether steps.png is.
    """
    shown = ["grid.png", *(["steps.png"] if strip else [])]
    images = [f"images/{i:05d}.png" for i in range(pngs)]
    absent = [name for name in [*shown, *images] if not (out / name).is_file()]
    if absent:
        return f"{out / absent[0]} is not there yet"
    damaged = [name for name in shown if not pictures.is_whole(out / name)]
    return f"{out / damaged[0]} is damaged" if damaged else ""


def made(out: pathlib.Path) -> tuple[dict[str, np.ndarray], int]:
    """Return finished samples as `resumable.generate` does, and how many candidates there were.

    {"ids", "labels", "numbers"}, and "scores" if they are the best of the candidates; else 0.
    """
    with _opened(out / "samples.npz") as saved:
        ids, labels, numbers = saved["ids"], _labels(saved), saved["numbers"]
        scores = {"scores": saved["scores"]} if "scores" in saved else {}
        candidates = saved["candidates"].item() if "candidates" in saved else 0
    return {"ids": ids, "labels": labels, "numbers": numbers, **scores}, candidates


def check_no_strangers(out: pathlib.Path) -> None:
    """Raise InputError if a folder holds other files, and no samples, finished or begun."""
    names = sorted(path.name for path in out.glob("*") if not path.name.startswith("."))
    if names and not OURS & set(names):
        raise InputError(
            f"{out} holds other files, such as {names[0]}: give another --out, or write among "
            "them by --force"
        )


def check_no_images(out: pathlib.Path) -> None:
    """Raise InputError if a folder holds images that no mode wrote, even by --force.

    They may be a data set, of which samples would become a part.
    """
    for path in sorted(out.glob("*")):
        is_image = path.suffix.lower() in EXTENSIONS and path.name not in PICTURES
        if is_image and not replacing.maker_of(path):
            raise InputError(
                f"{out} holds images that are no samples, such as {path.name}, and samples would "
                "be taken for one of them: give another --out"
            )


def check_only_samples(folder: pathlib.Path) -> None:
    """Raise InputError if a folder that will be replaced holds more than an earlier call's PNGs."""
    for path in folder.glob("*"):
        if not PNG.fullmatch(path.name):
            raise InputError(
                f"{folder} would be replaced, but holds {path.name}, no sample: give another --out"
            )
