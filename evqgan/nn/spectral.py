"""Convolutions with spectral normalization (Miyato et al., 2018) as PyTorch does it.

For critics ported from there.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-12  # the least length a vector is divided by; PyTorch
FIRST = 15  # iterations at initialization; PyTorch's parametrizations.spectral_norm


def torch_kernel(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Return PyTorch's initialization of convolutions and linear layers.

    It is uniform within 1/sqrt(fan in) around 0.
    """
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """Return PyTorch's initialization of biases: uniform within 1/sqrt(fan_in) around 0."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def l2_normalize(x: jax.Array) -> jax.Array:
    """Return a vector divided by its length, but by no less than `EPSILON`."""
    return x / jnp.maximum(jnp.linalg.norm(x), EPSILON)


def times(kernel: jax.Array, v: jax.Array) -> jax.Array:
    """Return [o], the kernel [h,w,i,o] as a matrix [o, i*h*w] times v [i*h*w]."""
    h, w, i, _ = kernel.shape
    return jnp.einsum("hwio,ihw->o", kernel, v.reshape(i, h, w), precision="highest")


def transposed_times(kernel: jax.Array, u: jax.Array) -> jax.Array:
    """Return [i*h*w], the transposed matrix times u [o]."""
    return jnp.einsum("hwio,o->ihw", kernel, u, precision="highest").reshape(-1)


def iterate(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return u, v after one power iteration.

    They are unit vectors nearer to the first singular ones of the kernel's matrix.
    """
    v = l2_normalize(transposed_times(kernel, u))
    return l2_normalize(times(kernel, v)), v


class SpectralConv(nn.Module):
    """x [B,H,W,c] -> [B,H',W',channels] in `dtype`: a convolution by a kernel of spectral norm 1.

    The norm is u' W v, W the kernel as a matrix [channels, c*size*size], in float32; its gradient
    takes u and v as constants.
    train: u and v go through one power iteration first, and stay so if the collection "batch_stats"
      is mutable. Otherwise the stored ones are used as they are.
    padding: with zeros, on all sides.

    Not linen's SpectralNorm: that one iterates in evaluation too, and stores no v.
    Source: torch.nn.utils.spectral_norm and PyTorch's initialization of convolutions.
    Differs from it: u and v begin after 15 iterations (there: as random vectors), so that
    evaluation without training has the right norm.
    """

    channels: int
    size: int
    stride: int = 1
    padding: int = 0
    depthwise: bool = False
    use_bias: bool = True
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        groups = x.shape[-1] if self.depthwise else 1
        shape = (self.size, self.size, x.shape[-1] // groups, self.channels)
        kernel = self.param("kernel", torch_kernel, shape, jnp.float32)
        bias = (
            self.param("bias", torch_bias(math.prod(shape[:3])), shape[3:], jnp.float32)
            if self.use_bias
            else None
        )

        def start() -> jax.Array:
            u = l2_normalize(jax.random.normal(self.make_rng("params"), (self.channels,)))
            return jax.lax.fori_loop(0, FIRST, lambda _, u: iterate(kernel, u)[0], u)

        stored_u = self.variable("batch_stats", "u", start)
        stored_v = self.variable("batch_stats", "v", lambda: iterate(kernel, stored_u.value)[1])
        u, v = stored_u.value, stored_v.value
        if train:
            u, v = jax.lax.stop_gradient(iterate(kernel, u))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                stored_u.value, stored_v.value = u, v
        dtype = jnp.dtype(self.dtype)
        y = jax.lax.conv_general_dilated(
            x.astype(dtype),
            (kernel / jnp.dot(u, times(kernel, v), precision="highest")).astype(dtype),
            (self.stride,) * 2,
            ((self.padding,) * 2,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        # see `nn.linear`
        return y if bias is None else (y + bias.reshape(1, 1, 1, -1)).astype(dtype)
