"""The network of `gpt`: a causal transformer over a condition and the codes in raster order."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive
from evqgan.generators import check_heads
from evqgan.nn.attention import Activation, flatten_tokens, kernel_init
from evqgan.nn.causal import EPSILON, Block, apply_layers
from evqgan.nn.dropout import Dropout


class Model(nn.Module):
    """Logits of the code after each position of a sequence of condition and codes.

    Defaults: VQGAN's GPT of faces (24 x 1024); that of ImageNet, 48 x 1536 on 16384 codes at
    16 x 16, has 1,410,640,896 parameters. Differs from the originals: weights begin as truncated
    normals.
    """

    codes: Positive  # V
    latent: tuple[Positive, Positive]  # (h, w), the token grid
    classes: int = 0  # 0 for unconditional models
    layers: Positive = 24
    width: Positive = 1024
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    activation: Activation = "gelu"  # enhancing-transformers: "squared_relu"
    attention_bias: bool = True
    mlp_bias: bool = True
    # "class", of condition_tokens words, or "coordinates", a word for each token that says where it
    # lies (`sliding.coordinates`).
    condition: Literal["class", "coordinates"] = "class"
    condition_tokens: Positive = 1  # more only where labels [B,C] are given
    factor: Positive = 16  # of the tokenizer, 16 in taming-transformers
    # (h, w) of the tokens that it sees at once, a window that slides over the grid; None = all
    window: tuple[Positive, Positive] | None = None
    # "shared": condition and codes use one embedding table (class n is embedded as code n, no class
    # as code 0) and one position table of `positions` entries (taming-transformers). "separate":
    # the condition has an embedding and a position table of its own (enhancing-transformers).
    tables: Literal["shared", "separate"] = "shared"
    positions: int = 0  # 0: the length of a sequence
    # The first `unmasked` tokens of the condition see each other; all other tokens see only those
    # before them (taming-transformers: 0; enhancing-transformers: the whole condition).
    unmasked: int = 0
    # Queries, keys and values are of a learned mix of each token with the one before it
    # (enhancing-transformers, after RWKV).
    time_shift: bool = False
    # Whether in sampling with a cache the time shift mixes nothing in. enhancing-transformers does
    # so, and therefore does not sample from the distribution that it learned.
    forgetful_time_shift: bool = False
    dropout: PartialShare = 0.1  # of the residual branches (VIM; taming-transformers: 0)
    embedding_dropout: PartialShare | None = None  # None: as `dropout`
    attention_dropout: PartialShare | None = None  # None: as `dropout`
    remat: bool = False  # keep only the layers' inputs for the backward pass
    unroll: int = 1  # how many layers the compiler sees in a turn of training's loop; 0 = all
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)
        if self.condition == "coordinates" and self.classes:
            given = f"classes = {self.classes}: drop one"
            raise InputError(f"generator.condition is 'coordinates' or a class, but {given}")
        if self.tables == "shared" and self.classes > self.codes:
            raise InputError(
                f"generator.classes = {self.classes}, but the words are {self.codes} codes: give "
                "the condition words of its own with generator.tables = 'separate'"
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Raise InputError unless window, condition and positions go together."""
        sides = zip(self.context, self.latent, strict=True)
        if any(own > length or own < 1 for own, length in sides):
            grid = f"the grid of {self.latent} tokens"
            raise InputError(f"generator.window = {self.window} is no part of {grid}")
        if not 0 <= self.unmasked <= self.conditions:
            raise InputError(
                f"generator.unmasked is 0 to {self.conditions}, the condition's tokens, not "
                f"{self.unmasked}: codes must not see later ones"
            )
        length = self.conditions + self.tokens - 1
        if self.positions and (self.tables == "separate" or self.positions < length):
            needs = f"shared tables need {length} or more, separate ones take none"
            raise InputError(f"generator.positions = {self.positions}: {needs}")

    @property
    def context(self) -> tuple[int, int]:
        """(h, w) of the tokens that the model sees at once."""
        h, w = self.window or self.latent
        return h, w

    @property
    def tokens(self) -> int:
        """The number of tokens that the model sees at once, beside the condition."""
        return self.context[0] * self.context[1]

    @property
    def conditions(self) -> int:
        """The number of tokens of the condition, C."""
        return self.tokens if self.condition == "coordinates" else self.condition_tokens

    def setup(self) -> None:
        zeros = nn.initializers.zeros  # of positions: both originals
        self.words = self.param("words", kernel_init, (self.codes, self.width))
        if self.tables == "shared":
            number = self.positions or self.conditions + self.tokens - 1
            self.condition_words = self.words
            self.position_table = self.param("positions", zeros, (number, self.width))
        else:
            number = self.codes if self.condition == "coordinates" else max(self.classes, 1)
            self.condition_words = self.param("condition_words", kernel_init, (number, self.width))
            first = self.param("condition_positions", zeros, (self.conditions, self.width))
            others = self.param("positions", zeros, (self.tokens, self.width))
            self.position_table = jnp.concatenate([first, others])
        self.blocks = Block(
            self.heads,
            self.mlp_ratio,
            self.activation,
            self.attention_bias,
            self.mlp_bias,
            self.time_shift,
            self.forgetful_time_shift,
            self.dropout,
            self.dropout if self.attention_dropout is None else self.attention_dropout,
            self.dtype,
        )
        self.norm = nn.LayerNorm(EPSILON, self.dtype)
        exact = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        self.head = nn.Dense(
            self.codes,
            False,
            self.dtype,
            kernel_init=kernel_init,
            dot_general=exact,
        )
        embedding_dropout = self.embedding_dropout
        self.drop = Dropout(self.dropout if embedding_dropout is None else embedding_dropout)

    def __call__(
        self,
        condition: jax.Array,
        ids: jax.Array,
        embeddings: jax.Array | None = None,
        skip: int = 0,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return logits [B,S-skip,V] float32 of the codes after all positions but the first `skip`.

        The sequence is embeddings | condition | codes.

        condition: int32 [B,C]; ids: int32 [B,N], of the codes.
        embeddings: float32 [B,E,c], explicit ones in front of all, which only shared tables have
          positions for.
        """
        x = self.drop(self.embed(condition, ids, embeddings), deterministic=deterministic)
        x, _ = self.apply_layers(x, deterministic=deterministic)
        return self.logits(x[:, skip:])

    def begin(self, condition: jax.Array) -> tuple[jax.Array, dict]:
        """Return logits [B,V] of the first code, and a KV cache with room for all codes.

        condition: int32 [B,C].
        """
        x, cache = self.apply_layers(self.embed(condition, condition[:, :0]), keep=True)
        room = [(0, 0)] * 2 + [(0, self.tokens - 1)] + [(0, 0)] * 3
        return self.logits(x[:, -1]), {**cache, "kv": jnp.pad(cache["kv"], room)}

    def step(self, cache: dict, code: jax.Array, n: jax.Array) -> tuple[jax.Array, dict]:
        """Return logits [B,V] of the code at position n, and the cache.

        code: int32 [B], the one at position n - 1; n: from 1, traced.
        """
        length = self.conditions + n - 1
        position = jnp.take(self.position_table, length, axis=0)[None, None]
        x = jnp.take(self.words, code, axis=0)[:, None] + position
        x, new = self.apply_layers(x, cache, length, keep=True)
        kv = jax.lax.dynamic_update_slice_in_dim(cache["kv"], new["kv"], length, axis=2)
        return self.logits(x[:, 0]), {**new, "kv": kv}

    def embed(
        self,
        condition: jax.Array,
        ids: jax.Array,
        embeddings: jax.Array | None = None,
    ) -> jax.Array:
        """Return the sequence embeddings | condition | codes as [B,S,c] float32."""
        if embeddings is not None and self.tables == "separate":
            raise ValueError("explicit embeddings have no positions where tables are separate")
        parts = [] if embeddings is None else [embeddings]
        for table, words in ((self.condition_words, condition), (self.words, ids)):
            parts.append(jnp.take(table, words, axis=0))
        x = jnp.concatenate(parts, axis=1)
        return x + self.position_table[None, : x.shape[1]]

    def apply_layers(self, x: jax.Array, *how: Any, **named: Any) -> tuple[jax.Array, dict]:
        """Apply `nn.causal.apply_layers` with this model's blocks."""
        given = self.layers, self.unmasked, self.remat
        named["unroll"] = self.unroll
        return apply_layers(self.blocks, x.astype(self.dtype), *given, *how, **named)

    def logits(self, x: jax.Array) -> jax.Array:
        """Return the logits [...,V] float32 of x [...,c]."""
        return self.head(flatten_tokens(self.norm(x))).reshape(*x.shape[:-1], self.codes)
