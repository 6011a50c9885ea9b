"""RQ-Transformer: one transformer over the places of an image, one over the depths of a place (Lee et al., CVPR 2022).

Body, once an image:   class | place 1 | ... | place N-1        each the sum of its D codes' embeddings
Head, once a place:    what the body says of it | depth 1 | ... | depth D-1

Both are causal. The codes of a residual quantizer come depth by depth, so that the head reads partial sums of their
vectors: what is decoded of the place so far (RQ-VAE, Sec. 3.2). Code of the original: kakaobrain/rq-vae-transformer.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import PartialShare, Positive, Share
from evqgan.generators import Traits, decoding
from evqgan.nn.attention import rows
from evqgan.nn.causal import EPSILON, Block, in_dtype, through
from evqgan.nn.linear import Dense

TRAITS = Traits(told=("depth", "codebook_width"), codebook=True, soft_targets=True, fills="suffix")
normal_init = nn.initializers.normal(0.02)  # of tables and classifiers: the original


def pair_of(value):
    """An argument for body and head: both of a pair, or one value for both."""
    return value if isinstance(value, tuple) else (value, value)


class Model(nn.Module):
    """ids [B,h,w,D] int32, codebook [K,V,c] float32, label [B] int32 -> logits [B,h,w,D,V] float32.

    codes: V; latent: (h, w), the token grid; depth: D; codebook_width: c. K: D, or 1 where all depths share a codebook,
    which is frozen. classes: 0 for unconditional models. Defaults: the original's ImageNet 800M. layers and heads are
    the body's; the head's are head_layers and head_heads (0 = as many as the body's).
    codebook_input, codebook_head: whether the inputs of body and head are the codes' vectors in the codebook,
    projected, or else learned words; cumulate: whether the head reads sums of vectors up to a depth, not single ones.
    shared_words, shared_classifier: one table for all depths, not one each. activation, attention_bias, mlp_bias: one
    value, or a pair for body and head; the original's "v1" is "gelu", its "v2" "quick_gelu".
    dropout: of both residual branches; remat: keep only the layers' inputs for the backward pass.
    Differs from the original: linear layers begin as truncated normal 0.02, its own as PyTorch has them.
    """

    codes: Positive
    latent: tuple[Positive, Positive]
    depth: Positive = 1
    codebook_width: Positive = 256
    classes: int = 0
    layers: Positive = 24
    head_layers: Positive = 4
    width: Positive = 1536
    heads: Positive = 24
    head_heads: int = 0
    codebook_input: bool = True
    codebook_head: bool = True
    cumulate: bool = True
    shared_words: bool = True
    shared_classifier: bool = True
    activation: str | tuple[str, str] = "gelu"
    attention_bias: bool | tuple[bool, bool] = True
    mlp_bias: bool | tuple[bool, bool] = True
    dropout: PartialShare = 0.1
    attention_dropout: PartialShare = 0.0
    embedding_dropout: PartialShare = 0.0
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        for name, heads in (("heads", self.heads), ("head_heads", self.head_heads or self.heads)):
            if self.width % heads:
                raise InputError(f"generator.width = {self.width} is no multiple of generator.{name} = {heads}")

    @property
    def tokens(self):
        """The number of places of the grid."""
        return self.latent[0] * self.latent[1]

    def setup(self):
        def dense():
            return Dense(self.width, dtype=self.dtype, kernel_init=normal_init)

        def block(heads, activation, attention_bias, mlp_bias):
            return Block(
                heads, mlp_ratio=4.0, activation=activation, attention_bias=attention_bias, mlp_bias=mlp_bias,
                time_shift=False, forgetful=False, dropout=self.dropout, attention_dropout=self.attention_dropout,
                dtype=self.dtype,
            )  # fmt: skip

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
        self.body, self.head = map(block, (self.heads, self.head_heads or self.heads), *options)
        self.drop = nn.Dropout(self.embedding_dropout)
        self.classifier = Classifier(self.codes, 0 if self.shared_classifier else self.depth, self.dtype)

    def __call__(self, ids, codebook, label=None, deterministic=True):
        states = self.states(ids, codebook, label, deterministic)
        return jnp.stack([self.classifier(states[..., d, :], d) for d in range(self.depth)], axis=-2)

    def states(self, ids, codebook, label=None, deterministic=True):
        """The outputs of the head before the classifier, [B,h,w,D,c], given all codes; label as in `start`."""
        batch = len(ids)
        tokens = ids.reshape(batch, self.tokens, self.depth)
        depths = jnp.broadcast_to(jnp.arange(self.depth), tokens.shape)
        vectors = self.vectors(tokens, depths, codebook)

        x = jnp.sum(self.embed(self.body_input, tokens, depths, vectors), axis=2)
        x = (x + self.place_positions[None]).astype(self.dtype)
        x = jnp.concatenate([self.start(label, batch)[:, None], x[:, :-1]], axis=1)
        x = self.drop(x, deterministic=deterministic)
        x = self.through(self.body, self.layers, x, deterministic)

        sums = jnp.cumsum(vectors, axis=2) if self.cumulate else vectors
        y = self.embed(self.head_input, tokens, depths, sums)[:, :, :-1]
        y = jnp.concatenate([x[:, :, None], y], axis=2)
        y = (y + self.depth_positions[None, None]).astype(self.dtype)
        y = self.through(self.head, self.head_layers, y.reshape(-1, self.depth, self.width), deterministic)
        return y.reshape(*ids.shape, self.width)

    def start(self, label, batch):
        """The first input of the body [B,c]: the class of label [B] int32, not used by unconditional models."""
        if not self.classes:
            label = jnp.zeros(batch, jnp.int32)
        elif label is None:
            raise ValueError("a class-conditional model needs labels")
        return (self.condition[label] + self.condition_position).astype(self.dtype)

    def vectors(self, tokens, depths, codebook):
        """The vectors of `codebook` [K,V,c] for tokens [...] at depths [...] -> [...,c] float32."""
        return jax.lax.stop_gradient(codebook)[depths % len(codebook), tokens]

    def embed(self, project, tokens, depths, vectors):
        """tokens [...] at depths [...], `vectors` [...,c] of theirs -> [...,width]: projected, or learned words."""
        if project:
            return project(vectors)
        row = tokens if self.shared_words else tokens + self.codes * depths
        return self.words[row].astype(self.dtype)

    def through(self, block, layers, x, deterministic):
        """x [B,S,c] through all layers of body or head -> [B,S,c]."""
        return through(block, x.astype(self.dtype), layers, deterministic=deterministic, remat=self.remat)[0]

    def blank(self, batch, layers, heads, number):
        """An empty cache for `number` tokens, [layers,B,number,2,heads,d]."""
        return jnp.zeros((layers, batch, number, 2, heads, self.width // heads), self.dtype)

    def step(self, block, x, cache, n):
        """One token more, x [B,c] in place n, on the cache [layers,B,S,2,heads,d] -> x [B,c], cache."""
        x = x[:, None].astype(self.dtype)
        x, new = through(block, x, len(cache), memory={"pairs": cache}, slot=n, keep=True)
        return x[:, 0], jax.lax.dynamic_update_slice_in_dim(cache, new["pairs"], n, axis=2)

    def place(self, cache, n, before, codebook, label):
        """`decoding.autoregress`'s place: the body's cache [layers,B,N,2,heads,d] -> cache, the state of `at_depth`."""
        batch = len(before)
        depths = jnp.broadcast_to(jnp.arange(self.depth), before.shape)
        x = jnp.sum(self.embed(self.body_input, before, depths, self.vectors(before, depths, codebook)), axis=1)
        x = (x + self.place_positions[jnp.maximum(n - 1, 0)][None]).astype(self.dtype)
        x, cache = self.step(self.body, jnp.where(n == 0, self.start(label, batch), x), cache, n)
        head = self.blank(batch, self.head_layers, self.head_heads or self.heads, self.depth)
        return cache, (x, head, jnp.zeros((batch, codebook.shape[-1]), codebook.dtype))

    def at_depth(self, state, d, before, codebook):
        """`decoding.autoregress`'s depth; state: what the body said, the head's cache, the sum of vectors so far."""
        x, cache, total = state
        last = jnp.full_like(before, jnp.maximum(d - 1, 0))
        vector = jnp.where(d == 0, 0, self.vectors(before, last, codebook))
        total = total + vector if self.cumulate else vector
        y = jnp.where(d == 0, x, self.embed(self.head_input, before, last, total))
        y = (y + self.depth_positions[d][None]).astype(self.dtype)
        y, cache = self.step(self.head, y, cache, d)
        return (x, cache, total), self.classifier(y, d)


class Classifier(nn.Module):
    """state [...,c] at depth d (int or int32 scalar) -> logits [...,codes] float32; depth: 0 = the same at all."""

    codes: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, state, d):
        each = (self.depth,) if self.depth else ()
        kernel = self.param("kernel", normal_init, (*each, state.shape[-1], self.codes))
        bias = self.param("bias", nn.initializers.zeros, (*each, self.codes))
        if self.depth:
            kernel, bias = kernel[d], bias[d]
        x = rows(nn.LayerNorm(EPSILON, self.dtype, name="norm")(state))
        logits = jnp.einsum("nc,cv->nv", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
        return (logits + bias[None]).reshape(*state.shape[:-1], self.codes)


def init(model, rng, label):
    """The parameters of `model`. label [1] int32."""
    ids = jnp.zeros((1, *model.latent, model.depth), jnp.int32)
    codebook = jnp.zeros((1, model.codes, model.codebook_width), jnp.float32)
    return model.init(rng, ids, codebook, label)["params"]


def likelihood(model, params, ids, label, rng, codebook, soft=None, train=False):
    """-> negative log-likelihood and whether the likeliest code is right: each [D,B,h,w].

    One depth after the other, logits computed again in the backward pass: there is never more than [B,h,w,V] of them.
    """
    apply = functools.partial(model.apply, {"params": params}, rngs={"dropout": rng})
    states = apply(ids, codebook, label, not train, method="states")

    @functools.partial(jax.checkpoint, prevent_cse=False)  # the loop already keeps XLA from merging the recomputation
    def at_depth(inputs):
        d, state, target = inputs
        logits = apply(state, d, method=lambda model, *inputs: model.classifier(*inputs))
        right = jnp.argmax(logits, axis=-1) == target
        if soft is None:
            return optax.softmax_cross_entropy_with_integer_labels(logits, target), right
        chances = jax.lax.dynamic_index_in_dim(soft, d, axis=-2, keepdims=False)
        return optax.softmax_cross_entropy(logits, chances), right

    each = jnp.arange(model.depth), jnp.moveaxis(states, -2, 0), jnp.moveaxis(ids, -1, 0)
    return jax.lax.map(at_depth, each)


def loss(model, params, ids, label, rng, *, codebook, soft=None):
    """The negative log-likelihood of all codes (RQ-VAE, Sec. 3.2.1) -> scalar, {"accuracy", "loss_depth1", ...}.

    ids [B,h,w,D] int32, label [B] int32, codebook [K,V,c] float32. soft [B,h,w,D,V] float32: the chances of the codes,
    targets instead of `ids` themselves (Sec. 3.2.3).
    """
    nll, right = likelihood(model, params, ids, label, rng, codebook, soft, train=True)
    depths = {f"loss_depth{d + 1}": jnp.mean(nll[d]) for d in range(model.depth)}
    return jnp.mean(nll), {"accuracy": jnp.mean(right), **depths}


def evaluate(model, params, ids, label, rng, *, codebook):
    """{"cross_entropy@depth1": [B,2], "accuracy@depth1": [B,2], ...}: an image's sum over places, and their number.

    Of the codes themselves, never of soft targets.
    """
    nll, right = likelihood(model, params, ids, label, rng, codebook)
    result = {}
    for name, value in (("cross_entropy", nll), ("accuracy", right)):
        sums = jnp.sum(value, axis=(2, 3), dtype=jnp.float32)
        pairs = jnp.stack([sums, jnp.full_like(sums, model.tokens)], axis=-1)
        result |= {f"{name}@depth{d + 1}": pairs[d] for d in range(model.depth)}
    return result


def cached(model, params, label, codebook, batch):
    """-> place, depth and carry for `decoding.autoregress`: every token goes once through its transformer."""
    apply = functools.partial(model.apply, {"params": params})

    def place(cache, n, before):
        return apply(cache, n, before, codebook, label, method="place")

    def depth(state, d, before):
        return apply(state, d, before, codebook, method="at_depth")

    return place, depth, apply(batch, model.layers, model.heads, model.tokens, method="blank")


def sample(
    model, params, ids, mask, label, keys, *, codebook, temperature: float = 1.0,
    top_k: int | tuple[int, ...] = 0, top_p: Share | tuple[Share, ...] = 1.0, trace: bool = False,
):  # fmt: skip
    """Generates ids [B,h,w,D] int32 where mask [B,h,w] is True, all D codes of a place -> [B,h,w,D] int32.

    Known places stay; they come first (TRAITS.fills). label [B] int32 (ignored by unconditional models); keys [B]:
    one random key an image; codebook [K,V,c] float32; the others are arguments of `decoding.draw`, top_k and top_p also
    as tuples, one for each depth. trace=True: -> [h,B,h,w,D], the grids after each row, V where not yet known.
    """
    place, depth, carry = cached(model, in_dtype(params, model.dtype), label, codebook, len(ids))
    if isinstance(top_k, tuple) or isinstance(top_p, tuple):
        depth, top_k, top_p = restricted(depth, model.depth, temperature, top_k, top_p), 0, 1.0
    known = jnp.where(mask[..., None], model.codes, ids)
    tokens = known.reshape(len(ids), -1, model.depth)
    made = decoding.autoregress(
        place, depth, carry, tokens, keys, codes=model.codes, temperature=temperature, top_k=top_k, top_p=top_p
    ).reshape(ids.shape)
    return decoding.row_by_row(known, made, model.codes) if trace else made


def restricted(depth, number, temperature, *tops):
    """`depth` of `decoding.autoregress`, -inf for codes that top_k and top_p leave out; they: a value or `number`."""
    tops = [top if isinstance(top, tuple) else (top,) * number for top in tops]
    if any(len(top) != number for top in tops):
        raise InputError(f"the sampler's top_k and top_p are one number or {number}, one a depth, not {tops}")
    for k, p in zip(*tops, strict=True):
        decoding.check_drawing((temperature,), k, p)
    choices = [functools.partial(decoding.restrict, top_k=k, top_p=p) for k, p in zip(*tops, strict=True)]

    def allowed(state, d, before):
        state, logits = depth(state, d, before)
        drawn = jax.lax.switch(d, choices, logits / jnp.maximum(temperature, 1e-6))  # as in `decoding.draw`
        return state, jnp.where(drawn > -jnp.inf, logits, -jnp.inf)

    return allowed
