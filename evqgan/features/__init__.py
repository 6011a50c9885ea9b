"""Features of images by frozen networks: what FID and its kin compare.

To add one, write a module with a class `Features` of the form below, and PRETRAINED; an evaluator
then takes its name in `features`, or a dict of `name` and the other keys, which are arguments of
the constructor. A network's weights are NAME.safetensors (`core.weights`); `evqgan.convert` makes
it from a table in convert/frozen.py and an address in convert/download.py. `nn.frozen` holds a
network's weights inside a module; `extractor` runs it on all devices; `names` says what its
numbers are called. `tests/test_contracts.py` tests every one in this folder.
"""

from typing import Protocol

import jax


class FeaturesModule(Protocol):
    """What a module in this folder has beside its `Features`."""

    # {name in the collection `frozen`: network of `core.weights`}; empty: nothing is learned
    PRETRAINED: dict[str, str]


class Features(Protocol):
    """A frozen network, a linen module. Its weights are in the collection `frozen`.

    Everything is float32.
    """

    @property
    def resize(self) -> str:
        """How images of any size become its input, in words, for the card of a number."""

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return "pooled" [B,F], and where it has them "spatial" [B,S] and "logits" [B,K].

        image: uint8 [B,H,W,3] of any size; its input is made of them here.
        """
