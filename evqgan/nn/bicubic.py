"""Bicubic resizing as Pillow and as PyTorch have it, which differ."""

import jax
import jax.numpy as jnp
import numpy as np

BITS = 22  # of the fractions that Pillow's weights are (its `Resample.c`)
LOW = 2 ** (BITS // 2)


def pillow(image: jax.Array, side: int) -> jax.Array:
    """Return images uint8 [B,H,W,3] as [B,side,side,3], whole numbers from 0 to 255 in float32.

    As Pillow resizes an image of 8 bits, bit for bit: antialiased, first along the width, then
    along the height, and each time rounded and cut off. Of an image that is taller than wide,
    Pillow 13 begins with the height, which rounds otherwise; older ones do not.
    """
    height, width = image.shape[1:3]
    x = _resized("bhwc,aw->bhac", image.astype(jnp.float32), width, side)
    return _resized("bhwc,ah->bawc", x, height, side)


def _resized(axes: str, x: jax.Array, given: int, made: int) -> jax.Array:
    """Return whole numbers float32 [B,H,W,c] with one axis resized as Pillow does.

    The weights are whole numbers of 22 bits. Products with each half of them and their sums are
    exact in float32 (up to eightfold downscaling), and are put together as int32.

    axes: of the einsum of x with weights [made,given].
    """
    weights = pillow_weights(given, made)
    high = (weights + LOW // 2) // LOW
    halves = (jnp.asarray(half, jnp.float32) for half in (high, weights - high * LOW))
    above, below = (
        jnp.einsum(axes, x, half, precision="highest").astype(jnp.int32) for half in halves
    )
    return jnp.clip((above * LOW + below + 2 ** (BITS - 1)) >> BITS, 0, 255).astype(jnp.float32)


def pillow_weights(given: int, made: int) -> np.ndarray:
    """Return Pillow's weights int64 [made,given] of an axis, as multiples of 2^-22."""
    step = given / made
    centres = (np.arange(made) + 0.5) * step
    distance = np.abs(np.arange(given) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = _kernel(distance, -0.5)
    weights *= 2**BITS / weights.sum(axis=1, keepdims=True)
    return (np.sign(weights) * np.floor(np.abs(weights) + 0.5)).astype(np.int64)


def torch_weights(given: int, made: int, scale: float) -> np.ndarray:
    """Return the float32 [made,given] whose product with a column resizes it.

    As PyTorch's `interpolate` does with a scale factor: not antialiased, the numbers at the ends
    repeated beyond them.

    given, made: how many numbers there are before and after.
    scale: the factor by which places are computed, which need not be made / given.
    """
    places = (np.arange(made) + 0.5) / scale - 0.5
    weights = np.zeros((made, given))
    for tap in range(-1, 3):
        at = np.floor(places) + tap
        index = at.clip(0, given - 1).astype(int)
        np.add.at(weights, (np.arange(made), index), _kernel(np.abs(places - at), -0.75))
    return weights.astype(np.float32)


def _kernel(distance: np.ndarray, a: float) -> np.ndarray:
    """Return the cubic convolution kernel at distances of 0 or more (Keys, 1981, equation 8).

    a: its sharpness.
    """
    x = np.minimum(distance, 2.0)  # where it ends, at 0
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x <= 1, near, a * (x**3 - 5 * x**2 + 8 * x - 4))
