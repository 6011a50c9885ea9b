"""Bicubic resizing as Pillow and as PyTorch have it, which differ."""

import jax
import jax.numpy as jnp
import numpy as np

SHARPNESS = -0.75  # of PyTorch's kernel (Keys, 1981, a); Pillow's and JAX's have -0.5


def pillow(image: jax.Array, side: int) -> jax.Array:
    """Return images uint8 [B,H,W,3] as [B,side,side,3], whole numbers from 0 to 255 in float32.

    As Pillow resizes an image of 8 bits, up to rounding: antialiased, first along the width, then
    along the height, and each time rounded and cut off. Of an image that is taller than wide,
    Pillow 13 begins with the height, which rounds otherwise; older ones do not.
    """
    batch, height, _, channels = image.shape
    x = image.astype(jnp.float32)
    for shape in ((batch, height, side, channels), (batch, side, side, channels)):
        x = jnp.clip(jnp.floor(jax.image.resize(x, shape, "bicubic") + 0.5), 0, 255)
    return x


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
        np.add.at(weights, (np.arange(made), index), _kernel(np.abs(places - at)))
    return weights.astype(np.float32)


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel at distances from 0 to 2 (Keys, 1981, equation 8)."""
    x, a = distance, SHARPNESS
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x <= 1, near, a * (x**3 - 5 * x**2 + 8 * x - 4))
