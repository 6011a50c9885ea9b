"""One layer of theirs that makes queries, keys and values, as three: before and after a table."""

import numpy as np

from evqgan.convert.mapping import Weights

PARTS = ("q", "k", "v")  # in the order of the rows of the layer


def split(theirs: Weights, layer: str) -> Weights:
    """Return the weights with every array of a layer [3*heads*d,...] as three.

    layer: what it is called, such as "qkv": those called "q", "k" and "v" take its place.
    """
    found: Weights = {}
    for name, array in theirs.items():
        if f".{layer}." in name and array.ndim and len(array) % len(PARTS) == 0:
            for part, third in zip(PARTS, np.split(array, len(PARTS)), strict=True):
                found[name.replace(f".{layer}.", f".{_called(layer, part)}.")] = third
        else:
            found[name] = array
    return found


def fuse(theirs: Weights, layer: str) -> Weights:
    """Return the weights with queries, keys and values together: the inverse of `split`."""
    first, *others = (f".{_called(layer, part)}." for part in PARTS)
    found: Weights = {}
    for name, array in theirs.items():
        if first in name:
            arrays = [array, *(theirs[name.replace(first, other)] for other in others)]
            found[name.replace(first, f".{layer}.")] = np.concatenate(arrays)
        elif not any(other in name for other in others):
            found[name] = array
    return found


def _called(layer: str, part: str) -> str:
    """Return what a third of a layer is called: "to_q" of "to_qkv"."""
    return layer.removesuffix("".join(PARTS)) + part
