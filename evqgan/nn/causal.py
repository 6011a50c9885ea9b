"""A causal transformer with a KV cache: pre-norm blocks, optionally with a time shift.

Its cache is {"kv": keys and values [layers,B,S,2,heads,d]; with the time shift also "last"
[layers,B,1,c]: what the last token gives to the one after it}.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.nn.attention import MLP, Activation, Attention
from evqgan.nn.dropout import Dropout
from evqgan.nn.layers import scan_layers

EPSILON = 1e-5  # of the layer norms: PyTorch's, in both originals


def apply_layers(
    block: nn.Module,
    x: jax.Array,
    layers: int,
    prefix_length: int = 0,
    remat: bool = False,
    cache: dict | None = None,
    length: int | jax.Array = 0,
    keep: bool = False,
    deterministic: bool = True,
    unroll: int = 1,
) -> tuple[jax.Array, dict]:
    """Apply `layers` scanned blocks with causal attention; return x and the KV cache.

    block: a bound `Block`.
    x: [B,S,c]; with a cache a single token, S = 1.
    prefix_length: the first tokens, of this number, attend to each other in both directions.
    remat: keep only the blocks' inputs for the backward pass.
    cache: that of the sequence before x, of which the first `length` (may be traced) tokens are
      valid.
    keep: whether the returned cache holds the keys and values of x; else it is empty.
    unroll: see `scan_layers`; of training, where `deterministic` is False. Else it is 1.
    """
    position = jnp.arange(x.shape[1])
    in_prefix = position < prefix_length
    mask = position[None] <= position[:, None]
    mask = (mask | (in_prefix[None] & in_prefix[:, None]))[None, None]
    is_known = (jnp.arange(cache["kv"].shape[2]) < length)[None, None, None] if cache else None

    def layer_step(block: nn.Module, x: jax.Array, cache: dict | None) -> tuple:
        if cache:
            known, previous = cache["kv"], cache.get("last")
            prefix = [(known[:, :, 0], known[:, :, 1], is_known)]
            x, kept = block(x, None, prefix, previous, deterministic)
        else:
            x, kept = block(x, mask, (), None, deterministic)
        return x, kept if keep else {}

    unroll = 1 if deterministic else unroll
    return scan_layers(layer_step, block, x, layers, remat, per_layer=cache, unroll=unroll)


class Block(nn.Module):
    """Pre-norm transformer block, [B,S,c] -> [B,S,c] and its part of a cache."""

    heads: int
    mlp_ratio: float
    activation: Activation
    attention_bias: bool
    mlp_bias: bool
    # Whether queries, keys and values are of a learned mix of each token with the one to its left
    # (enhancing-transformers, after RWKV).
    time_shift: bool
    forgetful: bool  # whether nothing is to the left of the first token, even with a cache
    dropout: float  # of both residual branches
    attention_dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        prefix: Sequence[tuple] = (),
        previous: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, dict]:
        """mask, prefix: as in `Attention`.

        previous: [B,1,c], a cache's "last": what is to the left of the first token; None = nothing.
        """
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        drop = Dropout(self.dropout, deterministic=deterministic)
        y, cache = norm(name="norm1")(x), {}
        if self.time_shift:
            cache = {"last": y[:, -1:]}
            mix = self.param("time_mix", ramp, (1, 1, x.shape[-1]))
            if self.forgetful or previous is None:
                previous = jnp.zeros_like(y[:, :1])
            y = y * mix + jnp.concatenate([previous, y[:, :-1]], axis=1) * (1 - mix)
        bias = self.attention_bias
        given = self.heads, self.attention_dropout, self.dtype
        attention = Attention(*given, qkv_bias=bias, out_bias=bias, name="attention")
        y, pair = attention(y.astype(self.dtype), prefix, mask, deterministic=deterministic)
        x = x + drop(y)
        mlp = MLP(self.mlp_ratio, self.dtype, self.activation, self.mlp_bias, name="mlp")
        return x + drop(mlp(norm(name="norm2")(x))), {**cache, "kv": jnp.stack(pair, axis=2)}


def ramp(rng: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return how much of itself a token has in the time shift at first.

    0 in the first channel to 1 in the last, as in enhancing-transformers.
    """
    del rng
    return jnp.linspace(0.0, 1.0, shape[-1], dtype=dtype).reshape(shape)
