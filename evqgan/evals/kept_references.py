"""Statistics of real images that `benchmark reference` keeps, under a hash of what decides them."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from evqgan.core import stores
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.evals.image_set import crop_of


def file_of(dataset: Dataset, split: str, features: Mapping[str, Any]) -> pathlib.Path:
    """Return the file that the statistics of a split have, or would have if they were kept.

    Its name is a hash of all that decides them; no image is read. Of image files the hash sees the
    names, sizes and times: one that is replaced has other statistics.

    features: the card of the network, see `features.extractor.card_of`.
    """
    source = pipeline.open_split(dataset, split)
    what = {
        "name": dataset.name,
        "keys": [dataset.image_key, dataset.classes, dataset.num_examples, dataset.max_bad],
        "split": split,
        "size": dataset.shape,
        "crop": crop_of(dataset),
        "features": features,
        **pipeline.identity(source),
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for line in _stamps(source):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return folder() / f"{digest.hexdigest()[:16]}.npz"


def _stamps(source: Any) -> Iterable[str]:
    """Yield a line for each file that a source is read from: its name, size and time."""
    if source.paths:
        paths = [(name, source.where(i)) for i, name in enumerate(source.paths)]
    else:  # of tfds: the folder of the data set; generated images have none
        place = getattr(source, "path", None)
        inside = sorted(stores.path(place).iterdir()) if place else []
        paths = [(path.name, str(path)) for path in inside]
    for name, path in paths:
        if stores.is_remote(path):
            yield f"{name} {stores.stamp(path)}\n"
        else:
            found = os.stat(path)
            yield f"{name} {found.st_size} {found.st_mtime_ns}\n"


def folder() -> pathlib.Path:
    """Return where statistics are kept."""
    usual = os.environ.get("EVQGAN_REFERENCES") or "~/.cache/evqgan/references"
    return pathlib.Path(usual).expanduser()
