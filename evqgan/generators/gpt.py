"""A causal transformer over the codes in raster order: VQGAN's GPT, and VIM with other arguments.

One sequence an image:   condition | codes of the grid in raster order

From each place of it the next code is predicted. Sources: Esser et al., CVPR 2021 (VQGAN), Sec. 3.2, and its code,
CompVis/taming-transformers; Yu et al., ICLR 2022 (VIM), Sec. 4, and the port thuanz123/enhancing-transformers.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive, Share
from evqgan.generators import Traits, decoding, sliding
from evqgan.nn.attention import kernel_init, rows
from evqgan.nn.causal import EPSILON, Block, in_dtype, through

TRAITS = Traits(told=("factor",), fills="suffix")


class Model(nn.Module):
    """condition [B,C] int32, codes [B,S] int32 -> logits [B,C+S,V] float32, at each place those of the code after it.

    codes: V; latent: (h, w), the token grid; classes: 0 for unconditional models. condition: "class", of
    condition_tokens words (1; more only where labels [B,C] are given), or "coordinates", a word for each token that
    says where it lies (`sliding.coordinates`; factor: the tokenizer's, 16 in taming-transformers).
    window: tuple[Positive, Positive] | None
    tables: "shared" = the condition's words are the codes' words, class n is code n, none is code 0, and one table of
    `positions` (0: as many as a sequence has) goes over all (taming-transformers); "separate" = the condition has words
    and positions of its own (enhancing-transformers). unmasked: so many tokens of the condition see each other, the
    rest only what is before it (taming-transformers: 0; enhancing-transformers: the whole condition).
    time_shift: queries, keys and values are of a learned mix of each token with the one before it
    (enhancing-transformers, after RWKV). forgetful_time_shift: when sampling with a cache it mixes nothing in, as in
    enhancing-transformers, whose samples so are not of the distribution it learned.
    dropout: of the residual branches, and, where they are None, embedding_dropout and attention_dropout (VIM: 0.1; the
    configs of taming-transformers: 0). Defaults: VQGAN's GPT of faces (24 x 1024); that of ImageNet, 48 x 1536 on 16384
    codes at 16 x 16, has 1,410,640,896 parameters. Differs from the originals: weights begin as truncated normals.
    """

    codes: Positive
    latent: tuple[Positive, Positive]
    classes: int = 0
    layers: Positive = 24
    width: Positive = 1024
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    activation: str = "gelu"  # enhancing-transformers: "squared_relu"
    attention_bias: bool = True
    mlp_bias: bool = True
    condition: str = "class"
    condition_tokens: Positive = 1
    factor: Positive = 16
    window: tuple[Positive, Positive] | None = None
    tables: str = "shared"
    positions: int = 0
    unmasked: int = 0
    time_shift: bool = False
    forgetful_time_shift: bool = False
    dropout: PartialShare = 0.1
    embedding_dropout: PartialShare | None = None
    attention_dropout: PartialShare | None = None
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(f"generator.width = {self.width} is no multiple of generator.heads = {self.heads}")
        for name, known in (("condition", ("class", "coordinates")), ("tables", ("shared", "separate"))):
            if getattr(self, name) not in known:
                raise InputError(f"generator.{name} is {' or '.join(map(repr, known))}, not {getattr(self, name)!r}")
        if self.condition == "coordinates" and self.classes:
            raise InputError(f"generator.condition is 'coordinates' or a class, but classes = {self.classes}: drop one")
        if self.tables == "shared" and self.classes > self.codes:
            raise InputError(
                f"generator.classes = {self.classes}, but the words are {self.codes} codes: give the condition words "
                "of its own with generator.tables = 'separate'"
            )
        if any(own > whole or own < 1 for own, whole in zip(self.context, self.latent, strict=True)):
            raise InputError(f"generator.window = {self.window} is no part of the grid of {self.latent} tokens")
        if not 0 <= self.unmasked <= self.conditions:
            raise InputError(
                f"generator.unmasked is 0 to {self.conditions}, the condition's tokens, not {self.unmasked}: codes "
                "must not see later ones"
            )
        length = self.conditions + self.tokens - 1
        if self.positions and (self.tables == "separate" or self.positions < length):
            raise InputError(
                f"generator.positions = {self.positions}: shared tables need {length} or more, separate ones take none"
            )

    @property
    def context(self):
        """(h, w) of the tokens that the model sees at once."""
        return tuple(self.window or self.latent)

    @property
    def tokens(self):
        """The number of tokens that the model sees at once, beside the condition."""
        return self.context[0] * self.context[1]

    @property
    def conditions(self):
        """The number of tokens of the condition, C."""
        return self.tokens if self.condition == "coordinates" else self.condition_tokens

    def setup(self):
        zeros = nn.initializers.zeros  # of positions: both originals
        self.words = self.param("words", kernel_init, (self.codes, self.width))
        if self.tables == "shared":
            number = self.positions or self.conditions + self.tokens - 1
            self.condition_words, self.places = self.words, self.param("positions", zeros, (number, self.width))
        else:
            number = self.codes if self.condition == "coordinates" else max(self.classes, 1)
            self.condition_words = self.param("condition_words", kernel_init, (number, self.width))
            first = self.param("condition_positions", zeros, (self.conditions, self.width))
            self.places = jnp.concatenate([first, self.param("positions", zeros, (self.tokens, self.width))])
        self.blocks = Block(
            self.heads, self.mlp_ratio, self.activation, self.attention_bias, self.mlp_bias, self.time_shift,
            self.forgetful_time_shift, self.dropout,
            self.dropout if self.attention_dropout is None else self.attention_dropout, self.dtype,
        )  # fmt: skip
        self.norm = nn.LayerNorm(EPSILON, self.dtype)
        exact = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        self.head = nn.Dense(self.codes, False, self.dtype, kernel_init=kernel_init, dot_general=exact)
        self.drop = nn.Dropout(self.dropout if self.embedding_dropout is None else self.embedding_dropout)

    def __call__(self, condition, codes, embeddings=None, skip=0, deterministic=True):
        """-> logits [B,S-skip,V] after each place but the first `skip` of the sequence embeddings | condition | codes.

        embeddings: float32 [B,E,c], explicit ones in front of all, which only shared tables have positions for.
        """
        x = self.drop(self.embed(condition, codes, embeddings), deterministic=deterministic)
        return self.logits(self.through(x, deterministic=deterministic)[0][:, skip:])

    def begin(self, condition):
        """condition [B,C] -> logits [B,V] of the first code, its memory (`nn.causal`) with room for all codes."""
        x, memory = self.through(self.embed(condition, condition[:, :0]), keep=True)
        room = [(0, 0)] * 2 + [(0, self.tokens - 1)] + [(0, 0)] * 3
        return self.logits(x[:, -1]), {**memory, "pairs": jnp.pad(memory["pairs"], room)}

    def step(self, memory, code, n):
        """code [B] int32, the one at place n - 1 (n from 1, traced) -> logits [B,V] of the code at n, memory."""
        slot = self.conditions + n - 1
        x = jnp.take(self.words, code, axis=0)[:, None] + jnp.take(self.places, slot, axis=0)[None, None]
        x, new = self.through(x, memory, slot, keep=True)
        pairs = jax.lax.dynamic_update_slice_in_dim(memory["pairs"], new["pairs"], slot, axis=2)
        return self.logits(x[:, 0]), {**new, "pairs": pairs}

    def embed(self, condition, codes, embeddings=None):
        """-> the sequence [B,S,c] float32."""
        if embeddings is not None and self.tables == "separate":
            raise ValueError("explicit embeddings have no positions where tables are separate")
        words = (self.condition_words, condition), (self.words, codes)
        parts = [*([] if embeddings is None else [embeddings]), *(jnp.take(table, at, axis=0) for table, at in words)]
        x = jnp.concatenate(parts, axis=1)
        return x + self.places[None, : x.shape[1]]

    def through(self, x, *how, **named):
        """`nn.causal.through` with this model's blocks."""
        return through(self.blocks, x.astype(self.dtype), self.layers, self.unmasked, self.remat, *how, **named)

    def logits(self, x):  # [...,c] -> [...,V] float32
        return self.head(rows(self.norm(x))).reshape(*x.shape[:-1], self.codes)


def condition_of(model, label, number, corner=(0, 0)):
    """The words [B,C] int32 of the condition of `number` images, whose windows have these corners.

    label: [B] int32 classes, or [B,C] int32 words.
    """
    if model.condition == "coordinates":
        grid = jnp.asarray(sliding.coordinates(model.latent, model.factor, model.codes))
        return sliding.crop(jnp.broadcast_to(grid[None], (number, *grid.shape)), corner, model.context)
    if label is not None and label.ndim == 2:
        return label
    if not model.classes:
        return jnp.zeros((number, model.conditions), jnp.int32)  # taming-transformers' sos_token
    if label is None or model.conditions != 1:
        raise ValueError(f"a class-conditional model needs labels, here int32 [B,{model.conditions}]")
    return label[:, None]


def init(model, rng, label):
    """The parameters of `model`. label [1] int32."""
    codes = jnp.zeros((1, model.tokens - 1), jnp.int32)
    return model.init(rng, condition_of(model, label, 1), codes)["params"]


def predict(model, params, ids, label, rng, pkeep=1.0, train=False):
    """-> logits [B,N,V] and target [B,N] of the N codes of the grid, or, if it is larger, of a random window of each.

    pkeep: this share of the codes that the model sees is right, the others are drawn from all codes.
    """
    rng_window, rng_keep, rng_other, rng_dropout = jax.random.split(rng, 4)
    corner = sliding.random_corners(rng_window, len(ids), model.latent, model.context)
    target = sliding.crop(single(ids), corner, model.context)
    seen = target[:, :-1]
    if pkeep < 1:
        other = jax.random.randint(rng_other, seen.shape, 0, model.codes, seen.dtype)
        seen = jnp.where(jax.random.bernoulli(rng_keep, pkeep, seen.shape), seen, other)
    condition = condition_of(model, label, len(ids), corner)
    logits = model.apply(
        {"params": params}, condition, seen, skip=model.conditions - 1, deterministic=not train,
        rngs={"dropout": rng_dropout},
    )  # fmt: skip
    return logits, target


def loss(model, params, ids, label, rng, *, label_smoothing: PartialShare = 0.0, pkeep: Share = 1.0):
    """The mean negative log-likelihood of the codes (VQGAN, Sec. 3.2) -> scalar, {"accuracy"}.

    ids [B,h,w,1] int32, label [B] int32. pkeep: see `predict` (taming-transformers). Not smoothed in either original.
    """
    if not 0 <= pkeep <= 1:
        raise InputError(f"config.loss.pkeep is a share in [0, 1], not {pkeep}")
    logits, target = predict(model, params, ids, label, rng, pkeep, train=True)
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, model.codes), label_smoothing)
    metrics = {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == target)}
    return jnp.mean(optax.softmax_cross_entropy(logits, one_hot)), metrics


def evaluate(model, params, ids, label, rng):
    """{"cross_entropy@next": [B,2], "accuracy@next": [B,2]}: an image's sum over its codes, and their number.

    Each code given all those before it, in one pass; unsmoothed. With a window, of a random one of each image.
    """
    logits, target = predict(model, params, ids, label, rng)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    found = {"cross_entropy": nll, "accuracy": jnp.argmax(logits, axis=-1) == target}
    return {
        f"{name}@next": jnp.stack([jnp.sum(x, 1), jnp.full(len(ids), model.tokens)], axis=-1)
        for name, x in found.items()
    }


def sample(
    model,
    params,
    ids,
    mask,
    label,
    keys,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: Share = 1.0,
    trace: bool = False,
):
    """Generates ids [B,h,w,1] int32 where mask [B,h,w] is True, in raster order -> [B,h,w,1] int32.

    mask: True from some token on to the last (TRAITS.fills); the known ones before it stay, and condition the others.
    label as in `condition_of` (ignored by unconditional models); keys [B]: one random key an image; temperature, top_k,
    top_p: see `decoding.draw` (taming-transformers' sample_fast.py: 1.0, 250, 1.0). trace=True: -> [h,B,h,w,1], the
    grids after each row, V where not yet known.
    """
    start = jnp.where(mask, model.codes, single(ids))
    words = jnp.where(mask, 0, start).reshape(len(ids), -1)
    params = in_dtype(params, model.dtype)
    place, carry = (cached if model.context == tuple(model.latent) else slide)(model, params, words, label)
    made = decoding.autoregress(
        place, lambda logits, d, before: (logits, logits), carry, start.reshape(len(ids), -1, 1), keys,
        codes=model.codes, temperature=temperature, top_k=top_k, top_p=top_p,
    ).reshape(ids.shape)  # fmt: skip
    return decoding.row_by_row(start[..., None], made, model.codes) if trace else made


def cached(model, params, words, label):
    """-> place, carry for `decoding.autoregress`: what is before a code is in a cache of keys and values."""
    first, memory = model.apply({"params": params}, condition_of(model, label, len(words)), method="begin")

    def place(memory, n, before):
        # At n = 0 there is no code to read: what it writes is written anew at n = 1, but for what the shift has seen.
        logits, new = model.apply({"params": params}, memory, before[:, 0], jnp.maximum(n, 1), method="step")
        kept = {name: jnp.where(n == 0, memory[name], x) for name, x in new.items() if name != "pairs"}
        return {**new, **kept}, jnp.where(n == 0, first, logits)

    return place, memory


def slide(model, params, words, label):
    """-> place, carry for `decoding.autoregress`: a code is made within its window of the grid so far."""

    def place(words, n, before):
        words = words.at[:, jnp.maximum(n - 1, 0)].set(before[:, 0])  # of n = 0: no window sees it before n = 1
        return words, window_logits(model, params, words, label, n)

    return place, words


def window_logits(model, params, words, label, n):
    """words [B,h*w] int32 -> logits [B,V] of the code at place n, given those before it in its window."""
    corner, local = sliding.around(n, model.latent, model.context)
    seen = sliding.crop(words.reshape(-1, *model.latent), corner, model.context)[:, :-1]
    condition = condition_of(model, label, len(words), corner)
    logits = model.apply({"params": params}, condition, seen, skip=model.conditions - 1)
    return jax.lax.dynamic_index_in_dim(logits, local, axis=1, keepdims=False)


def single(ids):
    """[B,h,w,1] -> [B,h,w]: this generator models one code a token."""
    if ids.shape[-1] != 1:
        raise InputError(f"the gpt generator needs one code a token, not {ids.shape[-1]}")
    return ids[..., 0]
