"""InceptionV3 of 2015, the network of FID, sFID, KID and the Inception score."""

from typing import Literal

import flax.linen as nn
import jax

from evqgan.nn import frozen, inception

PRETRAINED = {"network": "inception"}
PREPARE = {"tf1": inception.prepare_tf1, "torch": inception.prepare_torch}
RESIZE = {
    "tf1": "bilinear from the corner, not antialiased, to 299x299 (TensorFlow 1, torch-fidelity)",
    "torch": "bilinear at pixel centres, not antialiased, to 299x299 (pytorch-fid)",
}


class Features(nn.Module):
    """image uint8 [B,H,W,3] -> pooled [B,2048], spatial [B,2023] and logits [B,1008].

    The logits are without the bias of the last layer, as torch-fidelity and ADM score them.

    prepare: how images become the input: as TensorFlow's first FID, ADM and torch-fidelity do, or
      as pytorch-fid does. Features, and with them FIDs, differ a little.

    Raises InputError for images that are not uint8.
    """

    prepare: Literal["tf1", "torch"] = "tf1"

    @property
    def resize(self) -> str:
        """How images become its input."""
        return RESIZE[self.prepare]

    @nn.compact
    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        """Return the features."""
        network = frozen.inside(self, inception.Network(parent=None), (75, 75, 3))
        made = network(PREPARE[self.prepare](image))
        return {
            "pooled": made["2048"],
            "spatial": made["spatial"],
            "logits": made["logits_unbiased"],
        }
