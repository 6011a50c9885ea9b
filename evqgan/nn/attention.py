"""Multi-head attention, the MLP, and the pre-norm transformer block."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core.errors import InputError
from evqgan.core.mesh import platform
from evqgan.nn import fused
from evqgan.nn.dropout import Dropout
from evqgan.nn.kv_pieces import joined, joined_mask
from evqgan.nn.linear import Dense, DenseGeneral, KeyValue

kernel_init = nn.initializers.truncated_normal(0.02)  # Swin Transformer and MaskGIT


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: Callable | None = None,
) -> jax.Array:
    """Return scaled dot-product attention [...,S,heads,d] in the dtype of `value`.

    query: [...,S,heads,d]; key, value: [...,T,heads,d].
    mask: bool [...,1 or heads,S,T], True where a query may look. A row that may look nowhere
      averages all of `value`.
    bias: [heads,S,T], added to the logits.
    drop: applied to the attention weights.
    """
    return attend_pieces(query, [(key, value, mask)], bias, drop)


def attend_pieces(
    query: jax.Array,
    pieces: Sequence[tuple],
    bias: jax.Array | None = None,
    drop: Callable | None = None,
) -> jax.Array:
    """Return `attend` over keys and values that come in pieces: one softmax over all of them.

    On a GPU with neither bias nor drop one kernel, where it fits (`fused`); otherwise on GPUs and
    TPUs `attend_joined`, on a CPU `attend_one_by_one`. Logits and softmax are float32.

    pieces: (key, value, mask) side by side. Leading dimensions of a piece may be 1 where those of
      the query are not: the piece then serves all of them.
    """
    if bias is None and drop is None and fused.fits(query):
        return fused.attend(query, pieces)
    form = attend_one_by_one if platform() == "cpu" else attend_joined
    return form(query, pieces, bias, drop)


def attend_joined(
    query: jax.Array,
    pieces: Sequence[tuple],
    bias: jax.Array | None = None,
    drop: Callable | None = None,
) -> jax.Array:
    """Return `attend_pieces`, with the pieces' keys and values side by side.

    On a TPU half as many cycles as with logits side by side.
    """
    key, value = joined(pieces, query.shape[:-3])
    logits = jnp.einsum("...shd,...thd->...hst", query, key, preferred_element_type=jnp.float32)
    if drop is not None and platform() == "tpu":
        # Else XLA fuses the product with what comes after it, up to the next one. With dropout that
        # takes up to a third more cycles, and with `remat` libtpu 0.0.42 overflows its stack.
        logits = jax.lax.optimization_barrier(logits)
    logits = masked(logits * query.shape[-1] ** -0.5, joined_mask(pieces))
    weights = weights_of(logits, bias, value.dtype, drop)
    return jnp.einsum("...hst,...thd->...shd", weights, value)


def attend_one_by_one(
    query: jax.Array,
    pieces: Sequence[tuple],
    bias: jax.Array | None = None,
    drop: Callable | None = None,
) -> jax.Array:
    """Return `attend_pieces`, with products of one piece after the other: no piece is copied.

    Heads are moved in front first: on a CPU the products run three times faster so.
    """
    query = jnp.swapaxes(query, -3, -2)  # [...,heads,S,d]
    parts = []
    for key, _, mask in pieces:
        key = jnp.swapaxes(key, -3, -2)
        x = jnp.einsum("...sd,...td->...st", query, key, preferred_element_type=jnp.float32)
        parts.append(masked(x * query.shape[-1] ** -0.5, mask))
    logits = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    weights = weights_of(logits, bias, pieces[0][1].dtype, drop)
    ends = np.cumsum([key.shape[-3] for key, _, _ in pieces])[:-1]
    out = jnp.zeros((), weights.dtype)
    for part, (_, value, _) in zip(jnp.split(weights, ends, axis=-1), pieces, strict=True):
        out = out + jnp.einsum("...st,...td->...sd", part, jnp.swapaxes(value, -3, -2))
    return jnp.swapaxes(out, -3, -2)


def masked(logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return float32 logits with the least number where a mask is False."""
    return logits if mask is None else jnp.where(mask, logits, jnp.finfo(jnp.float32).min)


def weights_of(
    logits: jax.Array, bias: jax.Array | None, dtype: Any, drop: Callable | None
) -> jax.Array:
    """Return attention weights [...,heads,S,T] in `dtype`; arguments as in `attend`."""
    if bias is not None:
        logits = logits + bias.astype(jnp.float32).reshape((1,) * (logits.ndim - 3) + bias.shape)
    weights = jax.nn.softmax(logits).astype(dtype)
    return weights if drop is None else drop(weights)


def flatten_tokens(x: jax.Array) -> jax.Array:
    """Flatten x [...,c] to [n,c].

    With a single row axis the gradient of a dense layer is up to three times faster on a CPU, and
    an MLP takes a quarter fewer cycles on a TPU.
    """
    return x.reshape(-1, x.shape[-1])


def with_slope(function: Callable) -> Callable:
    """Turn function(x float32) -> (value, slope) into a function of x with that derivative.

    The value has the dtype of x. Ours: both are computed at once, and the slope is all that is kept
    for the backward pass, in the dtype of x. By itself XLA on a CPU computes a derivative again in
    every use of it.
    """

    def both(x: jax.Array) -> list[jax.Array]:
        return [y.astype(x.dtype) for y in function(x.astype(jnp.float32))]

    @jax.custom_jvp
    @functools.wraps(function)
    def value(x: jax.Array) -> jax.Array:
        return both(x)[0]

    @value.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        y, slope = both(*primals)
        return y, tangents[0] * slope

    return value


# P(a normal variable > a) = exp(-a^2 / 2) t Q(t) with t = 1 / (1 + 0.4 a / sqrt 2) and a >= 0: the
# form of Hastings (Abramowitz and Stegun, 7.1.26). The coefficients of Q, from t^0 on, are ours,
# fitted to the least relative error, 1.3e-7.
TAIL = (
    *(0.112837932, 0.112834762, 0.103921934, 0.0842669230, 0.0707305289, -0.00283404327),
    *(0.0845776341, -0.0914719354, 0.0251363282),
)


def normal(x: jax.Array, density: jax.Array) -> jax.Array:
    """Return P(a normal variable < x), with little relative error; density: exp(-x^2 / 2)."""
    t = 1 / (1 + 0.4 * 0.5**0.5 * jnp.abs(x))
    tail = density * t * functools.reduce(lambda sum, factor: sum * t + factor, TAIL[::-1])
    return jnp.where(x < 0, tail, 1 - tail)


@with_slope
def gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return x * P(a normal variable < x), the exact GELU of Swin Transformer, and its slope.

    The probability keeps its relative accuracy in the tail: as 1/2 + erf / 2 it is 0 in bfloat16
    from x = -3 on, and in float32 from -6. `jax.lax.erfc` has so many operations that a TPU's
    compiler no longer fuses them: a training step took 2.9 times as many cycles with it. On a GPU
    it is 1/2 + erf / 2 in float32 nevertheless, whose error is 1e-7: XLA does not fuse the other
    form there, and writes it to memory.
    """
    density = jnp.exp(-0.5 * x * x)
    below = (1 + jax.lax.erf(x * 0.5**0.5)) / 2 if platform() == "gpu" else normal(x, density)
    return x * below, below + x * density * (2 * np.pi) ** -0.5


@with_slope
def tanh_gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the other form of GELU (BERT, MaskGIT), and its slope.

    x * (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3). It is x * sigmoid(2 u), which has
    a tail below 0 that is not lost beside 1.
    """
    below = jax.nn.sigmoid(8**0.5 * np.pi**-0.5 * (x + 0.044715 * x**3))
    slope_of_u = 8**0.5 * np.pi**-0.5 * (1 + 3 * 0.044715 * x * x)
    return x * below, below + x * below * (1 - below) * slope_of_u


class Attention(nn.Module):
    """Multi-head attention of x [...,S,c] to itself and to what came before it.

    Returns [...,S,c] in `dtype`, and the keys and the values of x, each [...,S,heads,d]. Parameters
    are float32: `query` [c,heads,d], `key_value` [c,2,heads,d], `out` [heads,d,c]. InputError if c
    is not a multiple of `heads` where it has to be.
    """

    heads: int
    dropout: float = 0.0  # of the attention weights
    dtype: Any = "float32"
    qkv_bias: bool = True  # Swin Transformer
    out_bias: bool = True
    head_dim: int = 0  # d; 0 = c / heads
    project: bool = True  # whether the layer `out` follows; without it c has to be heads * d

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        prefix: Sequence[tuple] = (),
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """prefix: (keys, values, mask) of tokens to the left, computed earlier.

        mask, bias: as in `attend`; the mask is that of x alone.
        """
        width = x.shape[-1]
        if width % self.heads and not self.head_dim:
            expected = f"a width that is a multiple of the {self.heads} heads"
            raise InputError(f"expected {expected}, got {width}: change width or heads")
        head = self.heads, self.head_dim or width // self.heads
        keys = {"dtype": self.dtype, "kernel_init": kernel_init}
        # Elsewhere than on a CPU the axes stay: products with heads would have to bring them back.
        rows = flatten_tokens(x) if platform() == "cpu" else x
        query = DenseGeneral(head, use_bias=self.qkv_bias, name="query", **keys)(rows)
        key_value = KeyValue(*head, self.qkv_bias, name="key_value", **keys)(rows)
        query, key, value = (y.reshape(*x.shape[:-1], *head) for y in (query, *key_value))
        is_dropped = self.dropout and not deterministic
        drop = Dropout(self.dropout, deterministic=False) if is_dropped else None
        out = attend_pieces(query, [*prefix, (key, value, mask)], bias, drop)
        if not self.project:
            return out.reshape(x.shape), (key, value)
        out = out.reshape(*rows.shape[:-1], *head)
        dense = DenseGeneral(width, (-2, -1), use_bias=self.out_bias, name="out", **keys)
        return dense(out).reshape(x.shape), (key, value)


Activation = Literal["gelu", "quick_gelu", "squared_relu", "tanh"]
ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,  # Swin Transformer, GPT
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # RQ-Transformer's "v2"
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),  # enhancing-transformers' GPT
    "tanh": jnp.tanh,  # ViT-VQGAN, Sec. 3.1
}


class MLP(nn.Module):
    """Two dense layers, [...,c] -> [...,c] in `dtype`, with c * `ratio` channels between them."""

    ratio: float = 4.0  # Swin Transformer and MaskGIT
    dtype: Any = "float32"
    activation: Activation = "gelu"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(width: int, name: str) -> Dense:
            return Dense(width, self.use_bias, self.dtype, kernel_init=kernel_init, name=name)

        width = x.shape[-1]
        y = dense(round(width * self.ratio), "hidden")(flatten_tokens(x))
        y = ACTIVATIONS[self.activation](y)
        return dense(width, "out")(y).reshape(x.shape)


class Block(nn.Module):
    """Pre-norm transformer block, [...,S,c] -> [...,S,c] and its keys and values, as `Attention`.

    Without masks every token looks at every other one.
    """

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0  # of both residual branches, and of attention weights
    dtype: Any = "float32"
    epsilon: float = 1e-5  # of the layer norms; Swin Transformer and GPT
    activation: Activation = "gelu"
    qkv_bias: bool = True
    head_dim: int = 0
    project: bool = True
    attention_dropout: float | None = None  # if another than that of the branches
    layer_scale: bool = False  # whether branches have a factor a channel (Touvron et al., 2021)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        prefix: Sequence[tuple] = (),
        mask: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """prefix, mask: as in `Attention`."""

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(self.epsilon, self.dtype, name=name)

        def scaled(y: jax.Array, name: str) -> jax.Array:
            if not self.layer_scale:
                return y
            scale = self.param(name, nn.initializers.ones, y.shape[-1:]).astype(y.dtype)
            return y * jnp.broadcast_to(scale, y.shape)

        attention = Attention(
            self.heads,
            self.dropout if self.attention_dropout is None else self.attention_dropout,
            self.dtype,
            self.qkv_bias,
            head_dim=self.head_dim,
            project=self.project,
            name="attention",
        )
        drop = Dropout(self.dropout, deterministic=deterministic)
        y, kv = attention(norm("norm1")(x), prefix, mask, deterministic=deterministic)
        x = x + drop(scaled(y, "scale1"))
        mlp = MLP(self.mlp_ratio, self.dtype, self.activation, name="mlp")
        return x + drop(scaled(mlp(norm("norm2")(x)), "scale2")), kv
