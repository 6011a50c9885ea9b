"""Batch normalization as PyTorch does it, for critics ported from there."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError


class BatchNorm(nn.Module):
    """x [B,...,c] of any float dtype -> the same, each channel normalized over all other axes.

    It is then scaled and shifted; all of it is computed in float32.
    train: normalize with the mean and the biased variance of this batch, and, if the collection
      "batch_stats" is mutable, move the running statistics: new = (1 - momentum) * old + momentum *
      batch, where the batch's variance is the unbiased one. Otherwise normalize with the running
      statistics. Raises InputError when training with one value a channel.

    Not linen's own BatchNorm: that one keeps the biased variance in its running statistics (and
    computes it as E[x^2] - E[x]^2), so a critic would judge differently from the original after
    training. Defaults: PyTorch's.

    Differs from the originals: under a sharded jit the batch is the global one, on any number of
    devices; the originals take the statistics of each GPU's part.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        y = x.astype(jnp.float32)
        if train:
            axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            if count < 2:
                raise InputError(
                    f"batch norm trains on over one value a channel, got {list(x.shape)}: "
                    "raise batch"
                )
            mean, var = jnp.mean(y, axes), jnp.var(y, axes)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased = var * (count / (count - 1))
                for running, new in ((running_mean, mean), (running_var, unbiased)):
                    new = jax.lax.stop_gradient(new)
                    running.value = (1 - self.momentum) * running.value + self.momentum * new
        else:
            mean, var = running_mean.value, running_var.value
        wide = (1,) * (x.ndim - 1) + shape
        factor = (jax.lax.rsqrt(var + self.eps) * scale).reshape(wide)
        y = (y - mean.reshape(wide)) * factor + bias.reshape(wide)
        return y.astype(x.dtype)
