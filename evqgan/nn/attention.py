"""Multi-head attention, the MLP, and the pre-norm transformer block with its scanned stack."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.build import nearest
from evqgan.core.errors import InputError
from evqgan.nn.linear import Dense, DenseGeneral

kernel_init = nn.initializers.truncated_normal(0.02)  # Swin Transformer and MaskGIT


def attend(query, key, value, mask=None, bias=None, drop=None):
    """query [...,S,heads,d], key and value [...,T,heads,d] -> [...,S,heads,d] in the dtype of `value`.

    mask: bool [...,1 or heads,S,T], True where a query may look; a row that may look nowhere averages all of `value`.
    bias: [heads,S,T], added to the logits. drop: a function applied to the attention weights.
    """
    return attend_pieces(query, [(key, value, mask)], bias, drop)


def attend_pieces(query, pieces, bias=None, drop=None):
    """`attend` over keys and values that come in pieces (key, value, mask), side by side: one softmax over all of them.

    Dimensions in front of a piece may be 1 where the query's are not: that piece serves all of them without a copy.
    Logits and softmax are float32. Heads are moved in front first: on a CPU the products run three times faster so.
    """
    query = jnp.swapaxes(query, -3, -2)  # [...,heads,S,d]
    logits = []
    for key, _, mask in pieces:
        x = jnp.einsum("...sd,...td->...st", query, jnp.swapaxes(key, -3, -2), preferred_element_type=jnp.float32)
        x = x * query.shape[-1] ** -0.5
        logits.append(x if mask is None else jnp.where(mask, x, jnp.finfo(jnp.float32).min))
    logits = logits[0] if len(pieces) == 1 else jnp.concatenate(logits, axis=-1)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32).reshape((1,) * (logits.ndim - 3) + bias.shape)
    weights = jax.nn.softmax(logits).astype(pieces[0][1].dtype)
    if drop is not None:
        weights = drop(weights)
    ends = np.cumsum([key.shape[-3] for key, _, _ in pieces])[:-1]
    out = 0
    for part, (_, value, _) in zip(jnp.split(weights, ends, axis=-1), pieces, strict=True):
        out = out + jnp.einsum("...st,...td->...sd", part, jnp.swapaxes(value, -3, -2))
    return jnp.swapaxes(out, -3, -2)


def rows(x):
    """x [...,c] -> [n,c]: on a CPU the gradient of a dense layer is up to three times faster with a single row axis."""
    return x.reshape(-1, x.shape[-1])


def with_slope(function):
    """function(x float32) -> value, slope  =>  a function of x, value in the dtype of x, whose derivative is the slope.

    Ours: both are computed at once, and the slope is all that is kept for the backward pass, in the dtype of x. By
    itself XLA on a CPU computes a derivative again in every use of it.
    """

    def both(x):
        return [y.astype(x.dtype) for y in function(x.astype(jnp.float32))]

    @jax.custom_jvp
    @functools.wraps(function)
    def value(x):
        return both(x)[0]

    @value.defjvp
    def _(primals, tangents):
        y, slope = both(*primals)
        return y, tangents[0] * slope

    return value


@with_slope
def gelu(x):
    """x * P(a normal variable < x), the exact GELU of Swin Transformer.

    The chance is erfc(-x / sqrt 2) / 2. As 1/2 + erf / 2 it is 0 in bfloat16 from x = -3 on, and in float32 from -6.
    """
    below = 0.5 * jax.lax.erfc(x * -(0.5**0.5))
    return x * below, below + x * jnp.exp(-0.5 * x * x) * (2 * np.pi) ** -0.5


@with_slope
def tanh_gelu(x):
    """x * (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), the other form of GELU (BERT, MaskGIT).

    It is x * sigmoid(2 u), which has a tail below 0 that is not lost beside 1.
    """
    below = jax.nn.sigmoid(8**0.5 * np.pi**-0.5 * (x + 0.044715 * x**3))
    return x * below, below + x * below * (1 - below) * 8**0.5 * np.pi**-0.5 * (1 + 3 * 0.044715 * x * x)


class Attention(nn.Module):
    """x [...,S,c] -> [...,S,c] in `dtype`, and the keys and values of x as a pair [...,S,2,heads,d].

    before: (pair, mask) of tokens to the left, computed earlier; x looks at them and at itself. Masks and bias are as
    in `attend`. Parameters are float32: `query` [c,heads,d], `key_value` [c,2,heads,d], `out` [heads,d,c]; head_dim: d,
    0 = c / heads; project: whether there is an `out`, without which c = heads * d comes out as it is. InputError if c
    is not a multiple of `heads` where it has to be.
    """

    heads: int
    dropout: float = 0.0  # of the attention weights
    dtype: Any = "float32"
    qkv_bias: bool = True  # Swin Transformer
    out_bias: bool = True
    head_dim: int = 0
    project: bool = True

    @nn.compact
    def __call__(self, x, before=(), mask=None, bias=None, deterministic=True):
        width = x.shape[-1]
        if width % self.heads and not self.head_dim:
            raise InputError(f"expected a width that is a multiple of the {self.heads} heads, got {width}: change one")

        def project(features, name, axis=-1, use_bias=self.qkv_bias):
            return DenseGeneral(
                features, axis=axis, use_bias=use_bias, dtype=self.dtype, kernel_init=kernel_init, name=name
            )

        head = self.heads, self.head_dim or width // self.heads
        query = project(head, "query")(rows(x)).reshape(*x.shape[:-1], *head)
        pair = project((2, *head), "key_value")(rows(x)).reshape(*x.shape[:-1], 2, *head)
        drop = nn.Dropout(self.dropout, deterministic=deterministic) if self.dropout else None
        pieces = [(p[..., 0, :, :], p[..., 1, :, :], m) for p, m in (*before, (pair, mask))]
        out = attend_pieces(query, pieces, bias, drop).reshape(-1, *head)
        if not self.project:
            return out.reshape(x.shape), pair
        return project(width, "out", (-2, -1), self.out_bias)(out).reshape(x.shape), pair


ACTIVATIONS = {
    "gelu": gelu,  # Swin Transformer, GPT
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # RQ-Transformer's "v2"
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),  # enhancing-transformers' GPT
    "tanh": jnp.tanh,  # ViT-VQGAN, Sec. 3.1
}


class MLP(nn.Module):
    """x [...,c] -> [...,c] in `dtype` through c * `ratio` channels and one of ACTIVATIONS, the exact (erf) GELU."""

    ratio: float = 4.0  # Swin Transformer and MaskGIT
    dropout: float = 0.0
    dtype: Any = "float32"
    activation: str = "gelu"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x, deterministic=True):
        def dense(width, name):
            return Dense(width, self.use_bias, self.dtype, kernel_init=kernel_init, name=name)

        if self.activation not in ACTIVATIONS:
            raise InputError(f"there is no activation {self.activation!r}: {nearest(self.activation, ACTIVATIONS)}")
        width = x.shape[-1]
        y = ACTIVATIONS[self.activation](dense(round(width * self.ratio), "hidden")(rows(x)))
        y = nn.Dropout(self.dropout, deterministic=deterministic)(y)
        return dense(width, "out")(y).reshape(x.shape)


class Block(nn.Module):
    """Pre-norm transformer block. x [...,S,c] -> [...,S,c], and its pair of keys and values.

    before, mask: as in `Attention`; without them every token looks at every other one.
    """

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0  # of attention weights and of both residual branches
    dtype: Any = "float32"
    epsilon: float = 1e-5  # of the layer norms; Swin Transformer and GPT
    activation: str = "gelu"
    qkv_bias: bool = True
    head_dim: int = 0
    project: bool = True

    @nn.compact
    def __call__(self, x, before=(), mask=None, deterministic=True):
        def norm(name):
            return nn.LayerNorm(self.epsilon, self.dtype, name=name)

        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        attention = Attention(
            self.heads, self.dropout, self.dtype, self.qkv_bias, head_dim=self.head_dim, project=self.project,
            name="attention",
        )  # fmt: skip
        y, pair = attention(norm("norm1")(x), before, mask, deterministic=deterministic)
        x = x + drop(y)
        mlp = MLP(self.mlp_ratio, self.dropout, self.dtype, self.activation, name="mlp")
        return x + drop(mlp(norm("norm2")(x), deterministic)), pair


class Stack(nn.Module):
    """`layers` blocks in a row. x [...,S,c], mask as in `Block`, the same for all -> [...,S,c].

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
            return block(x, (), mask, deterministic)[0], None

        block = Block(self.heads, self.mlp_ratio, self.dropout, self.dtype, self.epsilon, name="blocks")
        return repeat(turn, block, x.astype(self.dtype), self.layers, self.remat, self.unroll)[0]


def repeat(turn, block, x, times, remat=False, unroll=1, each=None):
    """`times` turns of `turn(block, x, part of each) -> x, y`, each with parameters of its own: [times,...] -> x, ys.

    each: a tree of arrays [times,...], one slice a turn; ys: what the turns gave beside x, stacked alike.
    """
    if remat:
        turn = nn.remat(turn, prevent_cse=False)  # the scan already keeps XLA from merging the recomputation
    scan = nn.scan(
        turn, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=times, unroll=unroll
    )
    return scan(block, x, each)
