"""LPIPS v0.1 with VGG16 (Zhang et al., 2018): how differently two images look.

The perceptual loss of VQGAN.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn import frozen, vgg

PRETRAINED = {"trunk": "vgg16", "heads": "lpips"}
# Of images in [-1, 1]; richzhang/PerceptualSimilarity.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10  # beside the norm; richzhang/PerceptualSimilarity and taming-transformers


def init_heads(key: jax.Array) -> dict:
    """Return the variables of the five linear heads, random.

    Kernels are [1,1,c,1] float32, uniform in [0, 0.2): nonnegative, as the originals keep theirs,
    else it would not be a distance. Ours: the mean, 0.1, is about that of the released heads, so
    that the distance has their order of magnitude.
    """
    keys = jax.random.split(key, len(vgg.CHANNELS))
    kernels = [
        jax.random.uniform(k, (1, 1, c, 1), maxval=0.2)
        for k, c in zip(keys, vgg.CHANNELS, strict=True)
    ]
    return {"params": {f"head{i}": {"kernel": kernel} for i, kernel in enumerate(kernels)}}


def inverse_length(square: jax.Array) -> jax.Array:
    """Return what makes a vector of this squared length one of length 1, and 0 for a zero vector.

    Differs from the originals: the derivative at a zero vector is zero; theirs is not a number (a
    square root at 0).
    """
    is_positive = square > 0
    # Both where's keep the infinite derivative at 0 out of the backward pass.
    length = jnp.sqrt(jnp.where(is_positive, square, 1.0))
    return jnp.where(is_positive, 1 / (length + EPSILON), 0.0)


def compare(a: jax.Array, b: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return weighted squared differences [B,h,w] float32 of the unit vectors of two maps.

    Multiplied out: five sums over channels, which read the maps once and keep no unit vectors. On a
    TPU the distance and its gradient take half as many cycles so. For maps that are equal but for a
    part in 10^4, rounding is as large as what is left, 1e-7 of the weights.

    a, b: [B,h,w,c].
    kernel: the weights [1,1,c,1].
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    weights = kernel.reshape(1, 1, 1, -1)
    of_a, of_b = inverse_length(jnp.sum(a * a, -1)), inverse_length(jnp.sum(b * b, -1))
    aa, bb, ab = (jnp.sum(x * y * weights, -1) for x, y in ((a, a), (b, b), (a, b)))
    return jnp.maximum(of_a * of_a * aa + of_b * of_b * bb - 2 * of_a * of_b * ab, 0.0)


class Distance(nn.Module):
    """a, b [B,H,W,3] float32 in [-1, 1] -> [B] float32: 0 for equal images, larger if less alike.

    Sides are at least 16. Everything is in the collection "frozen" and gets no gradient: `trunk`
    (VGG16) and `heads`. The trunk computes in `dtype`, the comparison in float32. remat: see
    `vgg.Network`. The gradient is finite for all finite images, and zero at equal ones (up to
    rounding). Only an image that is differentiated costs a backward pass.
    Source: richzhang/PerceptualSimilarity and the copy of it in taming-transformers.
    """

    dtype: Any = "float32"
    remat: bool = False

    def setup(self) -> None:
        network = vgg.Network(self.dtype, self.remat, parent=None)
        self.trunk = frozen.inside(self, network, (16, 16, 3), "trunk")
        self.heads = self.variable("frozen", "heads", lambda: init_heads(self.make_rng("params")))

    def features(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Return the five maps of `vgg.Network` of image [B,H,W,3] float32 in [-1, 1]."""
        shift, scale = (jnp.array(x, jnp.float32).reshape(1, 1, 1, 3) for x in (SHIFT, SCALE))
        maps: Any = self.trunk((image - shift) / scale)
        return maps

    def maps(self, a: jax.Array, b: jax.Array) -> list[jax.Array]:
        """Return the summands before the mean over the pixels, float32.

        They are [B,H,W], [B,H/2,W/2], ..., [B,H/16,W/16].
        """
        heads = jax.lax.stop_gradient(self.heads.value)["params"]
        pairs = zip(self.features(a), self.features(b), strict=True)
        return [compare(x, y, heads[f"head{i}"]["kernel"]) for i, (x, y) in enumerate(pairs)]

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Return the distances."""
        return sum((jnp.mean(x, (1, 2)) for x in self.maps(a, b)), jnp.zeros((), jnp.float32))
