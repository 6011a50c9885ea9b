"""A causal transformer that can go on where it stopped: pre-norm blocks, optionally with a time shift.

What it keeps of a sequence, its memory: {"pairs" [layers,B,S,2,heads,d]: keys and values; with the time shift also
"last" [layers,B,1,c]: what the last token gives to the one after it}.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.nn.attention import MLP, Attention, repeat

EPSILON = 1e-5  # of the layer norms: PyTorch's, in both originals


def through(block, x, layers, unmasked=0, remat=False, memory=None, slot=0, keep=False, deterministic=True):
    """x [B,S,c] through `layers` turns of a bound `Block` -> x [B,S,c], its memory if `keep`.

    A token sees what is before it, and the first `unmasked` tokens see each other. memory: what a call has kept of the
    sequence before x, of which the first `slot` (traced) tokens count; x is then a single token. remat: keep only the
    blocks' inputs for the backward pass.
    """
    at = jnp.arange(x.shape[1])
    free = at < unmasked
    mask = (at[None] <= at[:, None]) | (free[None] & free[:, None])
    seen = (jnp.arange(memory["pairs"].shape[2]) < slot)[None, None, None] if memory else None

    def turn(block, x, memory):
        before, previous = ([(memory["pairs"], seen)], memory.get("last")) if memory else ((), None)
        x, kept = block(x, None if memory else mask[None, None], before, previous, deterministic)
        return x, kept if keep else None

    return repeat(turn, block, x, layers, remat, each=memory)


class Block(nn.Module):
    """x [B,S,c] -> [B,S,c], and its part of a memory.

    mask, before: as in `Attention`. time_shift: queries, keys and values are of a learned mix of each token with the
    one to its left (enhancing-transformers, after RWKV); left of x is `previous` [B,1,c], a memory's "last", or, where
    None or the block is `forgetful`, nothing.
    """

    heads: int
    mlp_ratio: float
    activation: str
    attention_bias: bool
    mlp_bias: bool
    time_shift: bool
    forgetful: bool
    dropout: float  # of both residual branches
    attention_dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, mask, before=(), previous=None, deterministic=True):
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        y, keep = norm(name="norm1")(x), {}
        if self.time_shift:
            keep = {"last": y[:, -1:]}
            mix = self.param("time_mix", ramp, (1, 1, x.shape[-1]))
            previous = jnp.zeros_like(y[:, :1]) if self.forgetful or previous is None else previous
            y = y * mix + jnp.concatenate([previous, y[:, :-1]], axis=1) * (1 - mix)
        bias = self.attention_bias
        attention = Attention(self.heads, self.attention_dropout, self.dtype, bias, bias, name="attention")
        y, pair = attention(y.astype(self.dtype), before, mask, deterministic=deterministic)
        x = x + drop(y)
        mlp = MLP(self.mlp_ratio, 0.0, self.dtype, self.activation, self.mlp_bias, name="mlp")
        return x + drop(mlp(norm(name="norm2")(x), deterministic)), {**keep, "pairs": pair}


def ramp(rng, shape, dtype=jnp.float32):
    """How much of itself a token has in the time shift at first: 0 in the first channel to 1 in the last."""
    del rng
    return jnp.linspace(0.0, 1.0, shape[-1], dtype=dtype).reshape(shape)  # enhancing-transformers


def in_dtype(params, dtype):
    """Kernels in the dtype that they are multiplied in, once and not at each token; the numbers are the same."""
    return jax.tree_util.tree_map_with_path(lambda at, x: x.astype(dtype) if at[-1].key == "kernel" else x, params)
