"""Multi-head attention, the MLP, and the pre-norm transformer block with its scanned stack."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError

kernel_init = nn.initializers.truncated_normal(0.02)  # Swin Transformer and MaskGIT


def attend(query, key, value, mask=None, bias=None, drop=None):
    """query [...,S,heads,d], key and value [...,T,heads,d] -> [...,S,heads,d] in the dtype of `value`.

    mask: bool [...,1 or heads,S,T], True where a query may look; a row that may look nowhere averages all of `value`.
    bias: [heads,S,T], added to the logits. drop: a function applied to the attention weights.
    Logits and softmax are float32. Heads are moved in front first: on a CPU the products run three times faster so.
    """
    query, key, value = (jnp.swapaxes(x, -3, -2) for x in (query, key, value))  # [...,heads,S,d]
    logits = jnp.einsum("...sd,...td->...st", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.astype(jnp.float32).reshape((1,) * (logits.ndim - 3) + bias.shape)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    if drop is not None:
        weights = drop(weights)
    return jnp.swapaxes(jnp.einsum("...st,...td->...sd", weights, value), -3, -2)


def rows(x):
    """x [...,c] -> [n,c]: on a CPU the gradient of a dense layer is up to three times faster with a single row axis."""
    return x.reshape(-1, x.shape[-1])


@jax.custom_jvp
def gelu(x):
    """x * P(a normal variable < x), the exact GELU of Swin Transformer.

    Ours: its derivative is computed beside it, not again in every use of the backward pass (XLA on a CPU does that).
    """
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    below = 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)
    return x * below, dx * (below + x * jnp.exp(-0.5 * x * x) * (2 * np.pi) ** -0.5)


class Attention(nn.Module):
    """x [...,S,c], context [...,T,c] (default x) -> [...,S,c] in `dtype`; mask and bias as in `attend`.

    Parameters are float32: `query` [c,heads,d], `key_value` [c,2,heads,d], `out` [heads,d,c].
    InputError if c is not a multiple of `heads`.
    """

    heads: int
    dropout: float = 0.0  # of the attention weights
    dtype: Any = "float32"
    qkv_bias: bool = True  # Swin Transformer

    @nn.compact
    def __call__(self, x, context=None, mask=None, bias=None, deterministic=True):
        width = x.shape[-1]
        if width % self.heads:
            raise InputError(f"expected a width that is a multiple of the {self.heads} heads, got {width}: change one")
        context = x if context is None else context

        def project(features, name, axis=-1, use_bias=self.qkv_bias):
            return nn.DenseGeneral(
                features, axis=axis, use_bias=use_bias, dtype=self.dtype, kernel_init=kernel_init, name=name
            )

        head = self.heads, width // self.heads
        query = project(head, "query")(rows(x)).reshape(*x.shape[:-1], *head)
        pair = project((2, *head), "key_value")(rows(context)).reshape(*context.shape[:-1], 2, *head)
        key, value = pair[..., 0, :, :], pair[..., 1, :, :]
        drop = nn.Dropout(self.dropout, deterministic=deterministic) if self.dropout else None
        out = attend(query, key, value, mask, bias, drop).reshape(-1, *head)
        return project(width, "out", (-2, -1), True)(out).reshape(x.shape)


class MLP(nn.Module):
    """x [...,c] -> [...,c] in `dtype` through c * `ratio` channels and the exact (erf) GELU."""

    ratio: float = 4.0  # Swin Transformer and MaskGIT
    dropout: float = 0.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x, deterministic=True):
        width = x.shape[-1]
        y = nn.Dense(int(width * self.ratio), dtype=self.dtype, kernel_init=kernel_init, name="hidden")(rows(x))
        y = nn.Dropout(self.dropout, deterministic=deterministic)(gelu(y))
        return nn.Dense(width, dtype=self.dtype, kernel_init=kernel_init, name="out")(y).reshape(x.shape)


class Block(nn.Module):
    """Pre-norm transformer block. x [B,S,c], mask bool [B or 1,1 or heads,S,S] or None -> [B,S,c]."""

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0  # of attention weights and of both residual branches
    dtype: Any = "float32"
    epsilon: float = 1e-5  # of the layer norms; Swin Transformer and GPT

    @nn.compact
    def __call__(self, x, mask=None, deterministic=True):
        def norm(name):
            return nn.LayerNorm(self.epsilon, self.dtype, name=name)

        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        attention = Attention(self.heads, self.dropout, self.dtype, name="attention")
        x = x + drop(attention(norm("norm1")(x), mask=mask, deterministic=deterministic))
        mlp = MLP(self.mlp_ratio, self.dropout, self.dtype, name="mlp")
        return x + drop(mlp(norm("norm2")(x), deterministic))


class Stack(nn.Module):
    """`layers` blocks in a row. x [B,S,c], mask as in `Block`, the same for all -> [B,S,c].

    One scan over parameters stacked as [layers,...] under `blocks`, so that compile time does not grow with depth.
    `remat` keeps only the blocks' inputs for the backward pass. `unroll` blocks stand in one turn of the loop
    (`layers` = no loop): the same numbers, slower to compile.
    """

    layers: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: Any = "float32"
    epsilon: float = 1e-5
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(self, x, mask=None, deterministic=True):
        def turn(block, x, _):
            return block(x, mask, deterministic), None

        block = Block(self.heads, self.mlp_ratio, self.dropout, self.dtype, self.epsilon, name="blocks")
        return repeat(turn, block, x.astype(self.dtype), self.layers, self.remat, self.unroll)


def repeat(turn, block, x, times, remat=False, unroll=1):
    """x after `times` turns of `turn(block, x, None) -> x, None`, each with parameters of its own: [times,...]."""
    if remat:
        turn = nn.remat(turn, prevent_cse=False)  # the scan already keeps XLA from merging the recomputation
    scan = nn.scan(
        turn, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=times, unroll=unroll
    )
    return scan(block, x, None)[0]
