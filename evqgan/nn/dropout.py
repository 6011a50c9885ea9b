"""Dropout (Srivastava et al., 2014) with the random bits that a device makes fastest."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from evqgan.core import mesh

VALUES = 2**16  # of 16 random bits


class Dropout(nn.Dropout):
    """`nn.Dropout`, which on a CPU it is to the bit.

    Elsewhere 16 bits decide on a value, and XLA's own generator makes them: JAX's, a hash of 32
    bits a value, was a tenth of a training step on a TPU. So a rate counts to 2^-16, and what is
    dropped depends on how many devices the batch is split over.
    """

    def __call__(
        self, inputs: jax.Array, deterministic: bool | None = None, rng: jax.Array | None = None
    ) -> jax.Array:
        """Return inputs [B,...], a share of them 0 and the others scaled up, in their dtype."""
        drops = not nn.merge_param("deterministic", self.deterministic, deterministic)
        below = round(self.rate * VALUES)
        if not drops or not 0 < below < VALUES or mesh.platform() == "cpu":
            return super().__call__(inputs, deterministic, rng)
        bits = random_bits(self.make_rng(self.rng_collection) if rng is None else rng, inputs.shape)
        scaled = inputs.astype(jnp.float32) * (VALUES / (VALUES - below))  # in bfloat16 a wrong one
        return jnp.where(bits >= below, scaled, 0).astype(inputs.dtype)


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return random uint16 [B,...] of a Threefry key, made where the batch is split to.

    Each device makes those of its part, as XLA's generator makes an array whole or not at all.
    Within `mesh.over`, if data x fsdp divide B; else they are made whole.
    """

    def drawn(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        words = jnp.tile(jax.random.key_data(key), 2)  # Threefry has two, the generator four
        return jax.random.bits(jax.random.wrap_key_data(words, impl="rbg"), shape, jnp.uint16)

    ways = mesh.splits(shape)
    if ways == 1:
        return drawn(key, shape)

    def part(key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, jax.lax.axis_index(mesh.SPLIT))
        return drawn(own, (shape[0] // ways, *shape[1:]))

    return jax.shard_map(part, in_specs=PartitionSpec(), out_specs=PartitionSpec(mesh.SPLIT))(key)
