"""Public models by name: which there are, and where they lie once they have been converted.

`python -m evqgan.convert NAME --download` fetches and converts one; its files, licences and hashes
stand in `convert.public`.
"""

import os
import pathlib
from typing import Any

from evqgan.core import files

NAMES = (
    "maskgit-imagenet256",
    "maskgit-imagenet512",
    "vqgan-imagenet-f16-1024",
    "vqgan-imagenet-f16-16384",
    "vqgan-gumbel-f8-8192",
    "vqgan-ffhq-f16-1024",
    "taming-imagenet256",
    "rqtransformer-imagenet-480m",
    "rqtransformer-imagenet-821m",
    "rqtransformer-imagenet-1400m",
    "rqtransformer-imagenet-1400m-50e",
    "rqtransformer-imagenet-3800m-50e",
    "rqtransformer-ffhq",
    "rqtransformer-church",
    "rqtransformer-cat",
    "rqtransformer-bedroom",
    "vitvqgan-imagenet-small",
    "vitvqgan-imagenet-base",
)
SOURCE = "source.json"  # in such a model's folder: its files, what verified them, licences
CONVERTED = "what evqgan.convert writes"


def home() -> pathlib.Path:
    """Return the folder of converted models: EVQGAN_MODELS, or ~/.cache/evqgan/models."""
    return pathlib.Path(os.environ.get("EVQGAN_MODELS") or "~/.cache/evqgan/models").expanduser()


def folder(name: str) -> pathlib.Path:
    """Return where the model of a name lies, or would lie."""
    return home() / name


def name_of(path: pathlib.Path) -> str:
    """Return the name of the model that lies, or would lie, at a path; "" for other paths."""
    return path.name if path.name in NAMES and path.parent == home() else ""


def command(name: str) -> str:
    """Return the command line that fetches and converts a model."""
    return f"python -m evqgan.convert {name} --download"


def advice(path: pathlib.Path) -> str:
    """Return what to do for a public model that would lie at a path; "" if it does, or for others.

    path: as `exported.find` gives it.
    """
    if not (name := name_of(path)) or path.exists():
        return ""
    return f"{name} is not converted yet: `{command(name)}` fetches and converts it"


def origin(folder: pathlib.Path) -> dict[str, Any]:
    """Return what is kept of the files that a workdir was converted from, {} for other workdirs.

    folder: the workdir, or that of a part of a public model.
    """
    for place in (folder, folder.parent):
        if (place / SOURCE).is_file():
            return files.read_json(place / SOURCE, CONVERTED)
    return {}
