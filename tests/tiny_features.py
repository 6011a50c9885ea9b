"""A module of evqgan/features that is quick to compile, for tests of what is done with features."""

import sys
import types

import flax.linen as nn
import jax.numpy as jnp

NETWORK = "tiny_network"


class Features(nn.Module):
    """pooled [B,4], spatial [B,6] and logits [B,5]: means over parts of the image, mixed."""

    power: float = 1.0
    resize = "none"

    @nn.compact
    def __call__(self, image):
        mixing = self.variable("frozen", "network", self.mixing).value["params"]
        x = (image.astype(jnp.float32) / 255) ** self.power
        left, right = jnp.split(x, 2, axis=2)
        parts = jnp.concatenate([left.mean((1, 2)), right.mean((1, 2))], axis=-1)
        return {"pooled": parts @ mixing["pooled"], "spatial": parts, "logits": parts @ mixing["k"]}

    def mixing(self):
        return {
            "params": {
                "pooled": nn.initializers.normal()(self.make_rng("params"), (6, 4)),
                "k": nn.initializers.normal()(self.make_rng("params"), (6, 5)),
            }
        }


def install(monkeypatch):
    """Make it the module evqgan.features.tiny while a test runs."""
    module = types.ModuleType("evqgan.features.tiny")
    module.Features, module.PRETRAINED = Features, {"network": NETWORK}
    monkeypatch.setitem(sys.modules, "evqgan.features.tiny", module)
