"""MaskGIT's second stage: a bidirectional transformer over the whole image (Chang et al., CVPR 2022).

One sequence an image:   class | tokens of the grid in raster order

One vocabulary for all of it: the codes 0 to V - 1, then the classes, then [MASK]; word embeddings and output weights
are one table. Elsewhere [MASK] is the id V (`decoding`): `sequence` translates. Code of the original:
google-research/maskgit.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive, Share
from evqgan.generators import Traits, decoding
from evqgan.nn.attention import attend, kernel_init, repeat, rows, tanh_gelu
from evqgan.nn.linear import Dense, DenseGeneral

TRAITS = Traits()
EPSILON = 1e-12  # of the layer norms: MaskGIT, after BERT


class Model(nn.Module):
    """sequence [B,S] int32 of the vocabulary -> logits [B,S,vocabulary] float32.

    codes: V; latent: (h, w), the token grid; classes: 0 for unconditional models, whose sequences have no class
    (ours: MaskGIT has none). -1 reads the last row, [MASK], as in MaskGIT's sampler. S may be shorter than the table of
    positions. Defaults: MaskGIT's configuration for ImageNet, 172,457,193 parameters with 1024 codes at 16 x 16.
    class_dropout: the share of training images whose class is hidden by [MASK], for guidance (ours; MaskGIT: none).
    Differs from MaskGIT: dropout draws anew for each image where it drops the same attention weights in all images.
    """

    codes: Positive
    latent: tuple[Positive, Positive]
    classes: int = 0
    layers: Positive = 24
    width: Positive = 768
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    dropout: PartialShare = 0.1
    class_dropout: PartialShare = 0.0
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(f"generator.width = {self.width} is no multiple of generator.heads = {self.heads}")
        if not 0 <= self.class_dropout < 1 or (self.class_dropout and not self.classes):
            raise InputError(
                f"generator.class_dropout is a share in [0, 1), and 0 without classes, not {self.class_dropout}"
            )

    @property
    def tokens(self):
        """The number of tokens of the grid."""
        return self.latent[0] * self.latent[1]

    @property
    def vocabulary(self):
        """The number of words: codes, classes, [MASK]."""
        return self.codes + self.classes + 1

    @nn.compact
    def __call__(self, sequence, deterministic=True):
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        words = self.param("words", kernel_init, (self.vocabulary, self.width))
        positions = self.param("positions", kernel_init, (self.tokens + bool(self.classes), self.width))

        x = jnp.take(words, sequence, axis=0) + positions[None, : sequence.shape[1]]
        x = nn.Dropout(self.dropout, deterministic=deterministic)(norm(name="embedding_norm")(x))
        block = Block(self.heads, self.mlp_ratio, self.dropout, self.dtype, name="blocks")
        x, _ = repeat(lambda block, x, _: (block(x, deterministic), None), block, x, self.layers, self.remat)

        x = tanh_gelu(Dense(self.width, dtype=self.dtype, kernel_init=kernel_init, name="head")(rows(x)))
        x = norm(name="head_norm")(x)
        logits = jnp.einsum("nc,vc->nv", x, words.astype(x.dtype), preferred_element_type=jnp.float32)
        bias = self.param("logits_bias", nn.initializers.zeros, (self.vocabulary,))
        return (logits + bias[None]).reshape(*sequence.shape, self.vocabulary)


class Block(nn.Module):
    """x [B,S,c] -> [B,S,c]: BERT's post-norm transformer block, every layer norm after a residual sum; tanh GELU."""

    heads: int
    mlp_ratio: float
    dropout: float  # of the attention weights and of both residual branches
    dtype: Any

    @nn.compact
    def __call__(self, x, deterministic=True):
        dense = functools.partial(DenseGeneral, dtype=self.dtype, kernel_init=kernel_init)
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        width = x.shape[-1]
        head = self.heads, width // self.heads

        def heads(name):
            return dense(head, name=name)(rows(x)).reshape(*x.shape[:-1], *head)

        y = attend(heads("query"), heads("key"), heads("value"), drop=drop).reshape(-1, *head)
        y = dense(width, axis=(-2, -1), name="out")(y).reshape(x.shape)
        x = norm(name="attention_norm")(x + drop(y))
        y = tanh_gelu(dense(round(width * self.mlp_ratio), name="mlp_hidden")(rows(x)))
        y = dense(width, name="mlp_out")(y).reshape(x.shape)
        return norm(name="mlp_norm")(x + drop(y))


def sequence(model, tokens, label=None):
    """tokens [B,h*w] int32 ([MASK] = V), label [B] int32 (`classes` = none) -> the input of `Model`, [B,S] int32.

    The class is the word V + label. Not used without classes.
    """
    last = model.vocabulary - 1
    tokens = jnp.where(tokens == model.codes, last, tokens)
    if not model.classes:
        return tokens
    if label is None:
        raise ValueError("a class-conditional model needs labels")
    return jnp.concatenate([(model.codes + label)[:, None].astype(tokens.dtype), tokens], axis=1)


def init(model, rng, label):
    """The parameters of `model`. label [1] int32."""
    tokens = jnp.zeros((1, model.tokens), jnp.int32)
    return model.init(rng, sequence(model, tokens, label))["params"]


def cross_entropy(logits, target, is_masked, label_smoothing=0.0):
    """The negative log-likelihood of the masked tokens -> scalar: the mean over images of each one's mean (MaskGIT).

    logits [B,S,vocabulary], target [B,S] int32, is_masked bool [B,S]. The whole vocabulary competes, classes and
    [MASK] too, and gets its part of the smoothing.
    """
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, logits.shape[-1]), label_smoothing)
    nll = optax.softmax_cross_entropy(logits, one_hot)
    return jnp.mean(jnp.sum(nll * is_masked, axis=1) / jnp.sum(is_masked, axis=1))


def predict(model, params, ids, label, rng, schedule="cosine", share=None, train=False):
    """-> logits of the grid [B,h*w,vocabulary], target and token is masked [B,h*w], of images with random masks.

    Exactly ceil(share * h * w) tokens of an image are masked; share: None draws it as gamma(r) of `schedule`, r uniform
    (MaskGIT, Sec. 3.1 and 3.3).
    """
    target = single(ids).reshape(len(ids), -1)
    rng_share, rng_mask, rng_class, rng_dropout = jax.random.split(rng, 4)
    ratio = jax.random.uniform(rng_share, (len(ids),))
    shares = decoding.gamma(schedule, ratio, model.tokens) if share is None else jnp.full_like(ratio, share)
    count = jnp.ceil(shares * model.tokens).astype(jnp.int32)
    is_masked = decoding.lowest(jax.random.uniform(rng_mask, target.shape), count)
    if train and model.class_dropout:
        label = jnp.where(jax.random.bernoulli(rng_class, model.class_dropout, label.shape), model.classes, label)
    words = sequence(model, jnp.where(is_masked, model.codes, target), label)
    logits = model.apply({"params": params}, words, deterministic=not train, rngs={"dropout": rng_dropout})
    return logits[:, -model.tokens :], target, is_masked


def loss(
    model, params, ids, label, rng, *, schedule: decoding.Schedule = "cosine", label_smoothing: PartialShare = 0.1
):
    """The negative log-likelihood of the masked tokens (MaskGIT, Eq. 1) -> scalar, {"accuracy", "masked"}.

    ids [B,h,w,1] int32, label [B] int32. schedule: of the share that is masked, see `decoding.gamma`. label_smoothing:
    MaskGIT's configuration. Its min_masking_rate (0.5) is left out: how it was used is not published.
    """
    logits, target, is_masked = predict(model, params, ids, label, rng, schedule, train=True)
    right = (jnp.argmax(logits, axis=-1) == target) & is_masked
    metrics = {"accuracy": jnp.sum(right) / jnp.sum(is_masked), "masked": jnp.mean(is_masked)}
    return cross_entropy(logits, target, is_masked, label_smoothing), metrics


def evaluate(model, params, ids, label, rng):
    """{"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}: an image's sum over masked tokens, and their number.

    By the share of tokens masked; 1.00 is the first step of sampling. Unsmoothed, and among the codes alone, as in
    sampling.
    """
    result = {}
    for i, share in enumerate((0.25, 0.5, 0.75, 1.0)):
        key = jax.random.fold_in(rng, i)
        logits, target, is_masked = predict(model, params, ids, label, key, share=share)
        logits = logits[..., : model.codes]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
        for name, value in (("cross_entropy", nll), ("accuracy", jnp.argmax(logits, axis=-1) == target)):
            result[f"{name}@{share:.2f}"] = jnp.stack([jnp.sum(value * is_masked, 1), jnp.sum(is_masked, 1)], axis=-1)
    return result


def codes_of(model, params, label, guided=False):
    """-> the function tokens [B,h*w] int32 ([MASK] = V) -> logits of the codes [B,h*w,V], for `decoding`.

    guided: it returns a pair, with the class and without.
    """

    def tokens_to_logits(tokens):
        words = sequence(model, tokens, label)
        if guided:
            words = jnp.concatenate([words, sequence(model, tokens, jnp.full_like(label, model.classes))])
        logits = model.apply({"params": params}, words)[:, -model.tokens :, : model.codes]
        return tuple(jnp.split(logits, 2)) if guided else logits

    return tokens_to_logits


def sample(
    model,
    params,
    ids,
    mask,
    label,
    keys,
    *,
    steps: Positive = 8,
    first: int = 0,
    temperature: float = 1.0,
    final_temperature: float | None = None,
    choice_temperature: float = 4.5,
    schedule: decoding.Schedule = "cosine",
    top_k: int = 0,
    top_p: Share = 1.0,
    guidance: float = 0.0,
    guidance_schedule: Literal[*decoding.GUIDANCE] = "linear",
    trace: bool = False,
):
    """Generates ids [B,h,w,1] int32 where mask [B,h,w] is True; known tokens stay -> [B,h,w,1] int32.

    label [B] int32 (ignored by unconditional models); keys [B]: one random key an image; the others are arguments of
    `decoding.mask_predict`. steps: T, 8 at 16 x 16 and 12 at 32 x 32 in MaskGIT's paper. first: the step to begin with,
    2 of 12 for edits in MaskGIT's code, as part of the image is known. guidance needs a model trained with
    class_dropout. trace=True: -> [steps-first,B,h,w,1], the grids after each step, V where not yet known. All True is
    generation; a box, inpainting or class-conditional editing; a border, outpainting (MaskGIT, Sec. 4.3).
    """
    if guidance and not model.class_dropout:
        raise InputError(
            f"the sampler's guidance is {guidance}, but the generator was trained without generator.class_dropout: "
            "guidance needs a model that knows images without a class"
        )
    tokens = jnp.where(mask, model.codes, single(ids)).reshape(len(ids), -1)
    tokens = decoding.mask_predict(
        codes_of(model, params, label, guided=bool(guidance)), tokens, keys, codes=model.codes,
        steps=steps, first=first, temperature=temperature, final_temperature=final_temperature,
        choice_temperature=choice_temperature, schedule=schedule, top_k=top_k, top_p=top_p,
        guidance=guidance, guidance_schedule=guidance_schedule, trace=trace,
    )  # fmt: skip
    return tokens.reshape(*tokens.shape[:-1], *ids.shape[1:])


def single(ids):
    """[B,h,w,1] -> [B,h,w]: this generator models one code a token."""
    if ids.shape[-1] != 1:
        raise InputError(f"the maskgit generator needs a quantizer of depth 1, not {ids.shape[-1]}")
    return ids[..., 0]
