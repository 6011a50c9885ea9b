"""The network of `rqtransformer`: a body over positions, a head over the depths of each."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.core.kinds import PartialShare, Positive
from evqgan.generators import check_heads
from evqgan.nn.attention import Activation, flatten_tokens
from evqgan.nn.causal import EPSILON, Block, apply_layers
from evqgan.nn.dropout import Dropout
from evqgan.nn.linear import Dense

normal_init = nn.initializers.normal(0.02)  # of tables and classifiers: the original


def pair_of(value: Any) -> tuple:
    """Return an argument for body and head: both of a pair, or one value for both."""
    return value if isinstance(value, tuple) else (value, value)


class Model(nn.Module):
    """Logits [B,h,w,D,V] float32 of the codes ids [B,h,w,D], each given those before it.

    Defaults: the original's ImageNet 800M. Differs from the original: linear layers begin as
    truncated normal 0.02, its own as PyTorch has them.
    """

    codes: Positive  # V
    latent: tuple[Positive, Positive]  # (h, w), the token grid
    depth: Positive = 1  # D
    codebook_width: Positive = 256  # c
    classes: int = 0  # 0 for unconditional models
    layers: Positive = 24  # of the body
    head_layers: Positive = 4  # of the head, which runs over depths
    width: Positive = 1536
    heads: Positive = 24  # of the body
    head_heads: int = 0  # of the head; 0 = as many as the body's
    # Whether the body's inputs are the codes' vectors in the codebook, projected, or else learned
    # words.
    codebook_input: bool = True
    codebook_head: bool = True  # the same of the head's inputs
    cumulate: bool = True  # whether the head reads sums of vectors up to a depth, not single ones
    shared_words: bool = True  # whether all depths share one table of words, or have one each
    shared_classifier: bool = True  # the same of the last layer
    # One value, or a pair for body and head; the original's "v1" is "gelu", its "v2" "quick_gelu".
    activation: Activation | tuple[Activation, Activation] = "gelu"
    attention_bias: bool | tuple[bool, bool] = True
    mlp_bias: bool | tuple[bool, bool] = True
    dropout: PartialShare = 0.1  # of both residual branches
    attention_dropout: PartialShare = 0.0
    embedding_dropout: PartialShare = 0.0
    remat: bool = False  # keep only the layers' inputs for the backward pass
    unroll: int = 1  # how many layers the compiler sees in a turn of training's loop; 0 = all
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (("heads", self.heads), ("head_heads", self.head_heads or self.heads))
        for name, heads in numbers:
            check_heads(self.width, heads, name)

    @property
    def tokens(self) -> int:
        """The number of positions of the grid."""
        return self.latent[0] * self.latent[1]

    def setup(self) -> None:
        def dense() -> Dense:
            return Dense(self.width, dtype=self.dtype, kernel_init=normal_init)

        def block(
            heads: int, activation: Activation, attention_bias: bool, mlp_bias: bool
        ) -> Block:
            return Block(
                heads,
                mlp_ratio=4.0,
                activation=activation,
                attention_bias=attention_bias,
                mlp_bias=mlp_bias,
                time_shift=False,
                forgetful=False,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                dtype=self.dtype,
            )

        width = self.width
        self.condition = self.param("condition", normal_init, (self.classes or 1, width))
        self.condition_position = self.param("condition_position", normal_init, (1, width))
        self.place_positions = self.param("place_positions", normal_init, (self.tokens, width))
        self.depth_positions = self.param("depth_positions", normal_init, (self.depth, width))
        self.body_input = dense() if self.codebook_input else None
        self.head_input = dense() if self.codebook_head else None
        if not (self.codebook_input and self.codebook_head):
            tables = 1 if self.shared_words else self.depth
            self.words = self.param("words", normal_init, (tables * self.codes, width))
        options = map(pair_of, (self.activation, self.attention_bias, self.mlp_bias))
        heads = self.heads, self.head_heads or self.heads
        self.body, self.head = map(block, heads, *options)
        self.drop = Dropout(self.embedding_dropout)
        depths = 0 if self.shared_classifier else self.depth
        self.classifier = Classifier(self.codes, depths, self.dtype)

    def __call__(
        self,
        ids: jax.Array,
        codebook: jax.Array,
        label: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return the logits [B,h,w,D,V].

        ids: int32 [B,h,w,D].
        codebook: float32 [K,V,c], K = D, or 1 where all depths share it; it is frozen.
        label: int32 [B], not used by unconditional models.
        """
        states = self.states(ids, codebook, label, deterministic)
        logits = [self.classifier(states[..., d, :], d) for d in range(self.depth)]
        return jnp.stack(logits, axis=-2)

    def states(
        self,
        ids: jax.Array,
        codebook: jax.Array,
        label: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return the outputs of the head before the classifier [B,h,w,D,width], given all codes."""
        batch = ids.shape[0]
        tokens = ids.reshape(batch, self.tokens, self.depth)
        depths = jnp.broadcast_to(jnp.arange(self.depth), tokens.shape)
        vectors = self.vectors(tokens, depths, codebook)

        x = jnp.sum(self.embed(self.body_input, tokens, depths, vectors), axis=2)
        x = (x + self.place_positions[None]).astype(self.dtype)
        x = jnp.concatenate([self.start(label, batch)[:, None], x[:, :-1]], axis=1)
        x = self.drop(x, deterministic=deterministic)
        x = self.apply_layers(self.body, self.layers, x, deterministic)

        sums = jnp.cumsum(vectors, axis=2) if self.cumulate else vectors
        y = self.embed(self.head_input, tokens, depths, sums)[:, :, :-1]
        y = jnp.concatenate([x[:, :, None], y], axis=2)
        y = (y + self.depth_positions[None, None]).astype(self.dtype)
        y = y.reshape(-1, self.depth, self.width)
        y = self.apply_layers(self.head, self.head_layers, y, deterministic)
        return y.reshape(*ids.shape, self.width)

    def start(self, label: jax.Array | None, batch: int) -> jax.Array:
        """Return the first input of the body [B,width]: the class, if there are any."""
        if not self.classes:
            label = jnp.zeros(batch, jnp.int32)
        elif label is None:
            raise ValueError("a class-conditional model needs labels")
        return (self.condition[label] + self.condition_position).astype(self.dtype)

    def vectors(self, tokens: jax.Array, depths: jax.Array, codebook: jax.Array) -> jax.Array:
        """Return the vectors [...,c] float32 of tokens [...] at depths [...]."""
        return jax.lax.stop_gradient(codebook)[depths % len(codebook), tokens]

    def embed(
        self,
        project: nn.Module | None,
        tokens: jax.Array,
        depths: jax.Array,
        vectors: jax.Array,
    ) -> jax.Array:
        """Embed tokens [...] at depths [...] -> [...,width]: projected vectors, or learned words.

        project: None for learned words.
        vectors: [...,c], those of the tokens.
        """
        if project:
            return project(vectors)
        row = tokens if self.shared_words else tokens + self.codes * depths
        return self.words[row].astype(self.dtype)

    def apply_layers(
        self,
        block: Block,
        layers: int,
        x: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        """Apply all layers of body or head to x [B,S,width]."""
        how: dict[str, Any] = {"remat": self.remat, "unroll": self.unroll}
        x = x.astype(self.dtype)
        return apply_layers(block, x, layers, deterministic=deterministic, **how)[0]

    def empty_cache(self, batch: int, layers: int, heads: int, number: int) -> jax.Array:
        """Return an empty KV cache for `number` tokens [layers,B,number,2,heads,d]."""
        return jnp.zeros((layers, batch, number, 2, heads, self.width // heads), self.dtype)

    def step(
        self,
        block: Block,
        x: jax.Array,
        cache: jax.Array,
        n: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Apply all layers to one token more, x [B,width] at position n; return x and the cache.

        cache: [layers,B,S,2,heads,d].
        """
        x = x[:, None].astype(self.dtype)
        x, new = apply_layers(block, x, cache.shape[0], cache={"kv": cache}, length=n, keep=True)
        return x[:, 0], jax.lax.dynamic_update_slice_in_dim(cache, new["kv"], n, axis=2)

    def next_position(
        self,
        cache: jax.Array,
        n: jax.Array,
        before: jax.Array,
        codebook: jax.Array,
        label: jax.Array | None,
    ) -> tuple[jax.Array, tuple]:
        """Return the body's cache and the state of `next_depth`, for `autoregress`.

        cache: [layers,B,N,2,heads,d]; before: int32 [B,D], the codes at position n - 1.
        """
        batch = before.shape[0]
        depths = jnp.broadcast_to(jnp.arange(self.depth), before.shape)
        vectors = self.vectors(before, depths, codebook)
        x = jnp.sum(self.embed(self.body_input, before, depths, vectors), axis=1)
        x = (x + self.place_positions[jnp.maximum(n - 1, 0)][None]).astype(self.dtype)
        x = jnp.where(n == 0, self.start(label, batch), x)
        x, cache = self.step(self.body, x, cache, n)
        heads = self.head_heads or self.heads
        head_cache = self.empty_cache(batch, self.head_layers, heads, self.depth)
        return cache, (x, head_cache, jnp.zeros((batch, codebook.shape[-1]), codebook.dtype))

    def next_depth(
        self,
        state: tuple,
        d: jax.Array,
        before: jax.Array,
        codebook: jax.Array,
    ) -> tuple[tuple, jax.Array]:
        """Return the state and logits [B,V] at depth d, for `autoregress`.

        state: what the body said, the head's cache, the sum of vectors so far.
        before: int32 [B], the code at depth d - 1.
        """
        x, cache, total = state
        last = jnp.full_like(before, jnp.maximum(d - 1, 0))
        vector = jnp.where(d == 0, 0, self.vectors(before, last, codebook))
        total = total + vector if self.cumulate else vector
        y = jnp.where(d == 0, x, self.embed(self.head_input, before, last, total))
        y = (y + self.depth_positions[d][None]).astype(self.dtype)
        y, cache = self.step(self.head, y, cache, d)
        return (x, cache, total), self.classifier(y, d)


class Classifier(nn.Module):
    """Logits [...,codes] float32 of a state [...,width] at depth d (int or int32 scalar)."""

    codes: int
    depth: int  # 0 = the same weights at all depths
    dtype: Any

    @nn.compact
    def __call__(self, state: jax.Array, d: int | jax.Array) -> jax.Array:
        each = (self.depth,) if self.depth else ()
        kernel = self.param("kernel", normal_init, (*each, state.shape[-1], self.codes))
        bias = self.param("bias", nn.initializers.zeros, (*each, self.codes))
        if self.depth:
            kernel, bias = kernel[d], bias[d]
        x = flatten_tokens(nn.LayerNorm(EPSILON, self.dtype, name="norm")(state))
        kernel = kernel.astype(x.dtype)
        logits = jnp.einsum("nc,cv->nv", x, kernel, preferred_element_type=jnp.float32)
        return (logits + bias[None]).reshape(*state.shape[:-1], self.codes)
