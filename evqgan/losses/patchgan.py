"""The patch critic of VQGAN and RQ-VAE: logits of overlapping patches.

Source: taming-transformers, NLayerDiscriminator.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.core.kinds import Positive
from evqgan.nn.linear import Conv
from evqgan.nn.norms import BatchNorm

PRETRAINED: dict[str, str] = {}


def initialize(critic: "Critic", variables: dict, image: jax.Array) -> dict:
    """Return the variables of a critic whose `ActNorm`s normalize this batch, layer after layer.

    To be called once, on the first batch of training, with norm="act"; the original does it in its
    first pass.
    image: [B,H,W,3] in [-1, 1].
    """
    _, changed = critic.apply(variables, image, train=True, mutable=["params"])
    return {**variables, **changed}


class Critic(nn.Module):
    """image [B,H,W,3] in [-1, 1] -> logits [B,h,w,1] float32, h = H / 2^layers - 2, of patches.

    A convolution of stride 2, `layers` more of which the last has stride 1, each with a norm, and
    one to the logits; all 4x4; widths width * (1, 2, 4, ..., at most 8). The label is not used.
    norm: "batch" (BatchNorm, kept in "batch_stats"), or "act" (`ActNorm`), for critics trained
      elsewhere.
    Defaults: taming-transformers' configs. RQ-VAE uses layers=2. Raises InputError for sides below
    3 * 2^layers.
    Differs from the original: the biases of the convolutions start at zero, there at PyTorch's
    uniform default.
    """

    layers: Positive = 3
    width: Positive = 64
    norm: Literal["batch", "act"] = "batch"
    dtype: Any = "float32"
    label_classes = 0

    @property
    def trainable(self) -> bool:
        """Whether training can begin with it: an ActNorm first has to see a batch."""
        return self.norm != "act"

    @nn.compact
    def __call__(
        self, image: jax.Array, label: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Return the logits."""
        if min(image.shape[1:3]) < 3 * 2**self.layers:
            side = "x".join(map(str, image.shape[1:3]))
            raise InputError(
                f"patchgan with {self.layers} layers sees {3 * 2**self.layers} pixels or more, "
                f"got {side}"
            )

        def conv(width: int, stride: int, bias: bool, name: str) -> Conv:
            # N(0, 0.02): weights_init of the original
            init, padding = nn.initializers.normal(0.02), ((1, 1), (1, 1))
            return Conv(
                width,
                (4, 4),
                stride,
                padding,
                use_bias=bias,
                dtype=self.dtype,
                kernel_init=init,
                name=name,
            )

        x = nn.leaky_relu(conv(self.width, 2, True, "conv0")(image), 0.2)
        for i in range(1, self.layers + 1):
            width = self.width * min(2**i, 8)
            x = conv(width, 1 if i == self.layers else 2, self.norm == "act", f"conv{i}")(x)
            if self.norm == "act":
                x = ActNorm(name=f"norm{i}")(x)
            else:
                x = BatchNorm(scale_init=_near_one, name=f"norm{i}")(x, train)
            x = nn.leaky_relu(x, 0.2)
        return conv(1, 1, True, "logits")(x).astype(jnp.float32)


class ActNorm(nn.Module):
    """x [B,H,W,c] -> scale * (x + loc) in x's dtype (Kingma and Dhariwal, 2018).

    loc and scale [1,1,c,1], one a channel, begin as 0 and 1. A call in which "params" is mutable
    (see `initialize`) first sets them so that this x comes out with mean 0 and standard deviation
    1; 1e-6: taming-transformers.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, x.shape[-1], 1)  # the original's [1,c,1,1] in the layout of kernels
        loc = self.param("loc", nn.initializers.zeros, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        y = x.astype(jnp.float32)
        if self.is_mutable_collection("params") and not self.is_initializing():
            loc = -jnp.mean(y, (0, 1, 2)).reshape(shape)
            scale = 1 / (jnp.std(y, (0, 1, 2), ddof=1) + 1e-6).reshape(shape)
            self.put_variable("params", "loc", loc)
            self.put_variable("params", "scale", scale)
        wide = (1, 1, 1, x.shape[-1])
        return (scale.reshape(wide) * (y + loc.reshape(wide))).astype(x.dtype)


def _near_one(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return scales of N(1, 0.02): weights_init of the original."""
    return 1 + nn.initializers.normal(0.02)(key, shape, dtype)
