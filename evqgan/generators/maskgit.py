"""MaskGIT's second stage: a bidirectional transformer over an image (Chang et al., CVPR 2022).

One sequence an image:   class | tokens of the grid in raster order

One vocabulary for all of it: the codes 0 to V - 1, then the classes, then [MASK]; word embeddings
and output weights are one table. Elsewhere [MASK] is the id V (`mask_predict`): `sequence`
translates. Code of the original: google-research/maskgit.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from evqgan.core.errors import InputError
from evqgan.core.kinds import Above0, PartialShare, Positive
from evqgan.generators import Decoded, KeepHistory, Request, Traits, check_heads, squeeze_depth
from evqgan.generators.guidance import check_class_dropout, drop_class
from evqgan.generators.mask_predict import MaskPredict, ToLogits, mask_predict
from evqgan.generators.mask_schedule import Schedule, gamma, lowest
from evqgan.generators.masked_shares import by_share
from evqgan.nn.attention import attend, flatten_tokens, kernel_init, tanh_gelu
from evqgan.nn.dropout import Dropout
from evqgan.nn.layers import scan_layers
from evqgan.nn.linear import Dense, DenseGeneral, in_dtype

TRAITS = Traits()
EPSILON = 1e-12  # of the layer norms: MaskGIT, after BERT


@dataclasses.dataclass(frozen=True)
class Settings(MaskPredict):
    """The keys of config.sample."""

    first: int = 0  # the step to begin with; MaskGIT's code edits from step 2 of 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first >= self.steps:
            expected = f"less than config.sample.steps = {self.steps}"
            raise InputError(f"config.sample.first expects {expected}, got {self.first}")


class Model(nn.Module):
    """Logits [B,S,vocabulary] float32 of a sequence [B,S] int32 of the vocabulary.

    -1 reads the last row, [MASK], as in MaskGIT's sampler. S may be shorter than the table of
    positions. Defaults: MaskGIT's configuration for ImageNet, 172,457,193 parameters with 1024
    codes at 16 x 16. Differs from MaskGIT: dropout draws for each image where it drops the
    same attention weights in all images.
    """

    codes: Positive  # V
    latent: tuple[Positive, Positive]  # (h, w), the token grid
    # 0 for unconditional models, whose sequences have no class (ours: MaskGIT has none)
    classes: int = 0
    layers: Positive = 24
    width: Positive = 768
    heads: Positive = 16
    mlp_ratio: Above0 = 4.0
    dropout: PartialShare = 0.1
    # The share of training images whose class is hidden by [MASK], for guidance (ours)
    class_dropout: PartialShare = 0.0
    remat: bool = False
    unroll: int = 1  # how many layers the compiler sees in a turn of training's loop; 0 = all
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)
        check_class_dropout(self.class_dropout, self.classes)

    @property
    def tokens(self) -> int:
        """The number of tokens of the grid."""
        return self.latent[0] * self.latent[1]

    @property
    def vocabulary(self) -> int:
        """The number of words: codes, classes, [MASK]."""
        return self.codes + self.classes + 1

    @nn.compact
    def __call__(self, sequence: jax.Array, deterministic: bool = True) -> jax.Array:
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        words = self.param("words", kernel_init, (self.vocabulary, self.width))
        number = self.tokens + bool(self.classes)
        positions = self.param("positions", kernel_init, (number, self.width))

        x = jnp.take(words, sequence, axis=0) + positions[None, : sequence.shape[1]]
        x = Dropout(self.dropout, deterministic=deterministic)(norm(name="embedding_norm")(x))
        block = Block(self.heads, self.mlp_ratio, self.dropout, self.dtype, name="blocks")

        def layer_step(block: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(x, deterministic), None

        unroll = 1 if deterministic else self.unroll
        x, _ = scan_layers(layer_step, block, x, self.layers, self.remat, unroll=unroll)
        head = Dense(self.width, dtype=self.dtype, kernel_init=kernel_init, name="head")
        x = norm(name="head_norm")(tanh_gelu(head(flatten_tokens(x))))
        words = words.astype(x.dtype)
        logits = jnp.einsum("nc,vc->nv", x, words, preferred_element_type=jnp.float32)
        bias = self.param("logits_bias", nn.initializers.zeros, (self.vocabulary,))
        return (logits + bias[None]).reshape(*sequence.shape, self.vocabulary)


class Block(nn.Module):
    """BERT's post-norm transformer block, [B,S,c] -> [B,S,c].

    Every layer norm is after a residual sum; tanh GELU.
    """

    heads: int
    mlp_ratio: float
    dropout: float  # of the attention weights and of both residual branches
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        dense = functools.partial(DenseGeneral, dtype=self.dtype, kernel_init=kernel_init)
        norm = functools.partial(nn.LayerNorm, EPSILON, self.dtype)
        drop = Dropout(self.dropout, deterministic=deterministic)
        width = x.shape[-1]
        head = self.heads, width // self.heads

        def heads(name: str) -> jax.Array:
            return dense(head, name=name)(flatten_tokens(x)).reshape(*x.shape[:-1], *head)

        of_weights = None if deterministic or not self.dropout else drop
        y = attend(heads("query"), heads("key"), heads("value"), drop=of_weights)
        y = y.reshape(-1, *head)
        y = dense(width, axis=(-2, -1), name="out")(y).reshape(x.shape)
        x = norm(name="attention_norm")(x + drop(y))
        hidden = dense(round(width * self.mlp_ratio), name="mlp_hidden")
        y = tanh_gelu(hidden(flatten_tokens(x)))
        y = dense(width, name="mlp_out")(y).reshape(x.shape)
        return norm(name="mlp_norm")(x + drop(y))


def sequence(model: Model, tokens: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """Return the input of `Model` [B,S] int32: the class, as the word V + label, and the tokens.

    tokens: int32 [B,h*w], [MASK] = V.
    label: int32 [B], `classes` = none; not used without classes.
    """
    last = model.vocabulary - 1
    tokens = jnp.where(tokens == model.codes, last, tokens)
    if not model.classes:
        return tokens
    if label is None:
        raise ValueError("a class-conditional model needs labels")
    return jnp.concatenate([(model.codes + label)[:, None].astype(tokens.dtype), tokens], axis=1)


def init(model: Model, rng: jax.Array, label: jax.Array) -> dict:
    """Return the parameters of an untrained `model`. label: int32 [1]."""
    tokens = jnp.zeros((1, model.tokens), jnp.int32)
    return model.init(rng, sequence(model, tokens, label))["params"]


def cross_entropy(
    logits: jax.Array, target: jax.Array, is_masked: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Return the mean over images of the mean negative log-likelihood of masked tokens (MaskGIT).

    The whole vocabulary competes, classes and [MASK] too, and gets its part of the smoothing.

    logits: [B,S,vocabulary]; target: int32 [B,S]; is_masked: bool [B,S].
    """
    one_hot = optax.smooth_labels(jax.nn.one_hot(target, logits.shape[-1]), label_smoothing)
    nll = optax.softmax_cross_entropy(logits, one_hot)
    return jnp.mean(jnp.sum(nll * is_masked, axis=1) / jnp.sum(is_masked, axis=1))


def predict(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    schedule: str = "cosine",
    share: float | jax.Array | None = None,
    train: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mask tokens at random and predict them (MaskGIT, Sec. 3.1 and 3.3).

    Returns logits [B,h*w,vocabulary], targets [B,h*w], and which tokens are masked [B,h*w]. Exactly
    ceil(share * h * w) tokens of an image are.

    share: None draws it for each image as gamma(r) of `schedule`, r uniform.
    train: with dropout, and class dropout.
    """
    target = squeeze_depth(ids, "maskgit").reshape(ids.shape[0], -1)
    rng_share, rng_mask, rng_class, rng_dropout = jax.random.split(rng, 4)
    ratio = jax.random.uniform(rng_share, (ids.shape[0],))
    drawn = gamma(schedule, ratio, model.tokens)
    shares = drawn if share is None else jnp.full_like(ratio, share)
    count = jnp.ceil(shares * model.tokens).astype(jnp.int32)
    is_masked = lowest(jax.random.uniform(rng_mask, target.shape), count)
    if train:
        label = drop_class(rng_class, label, model.classes, model.class_dropout)
    words = sequence(model, jnp.where(is_masked, model.codes, target), label)
    rngs = {"dropout": rng_dropout}
    logits: Any = model.apply({"params": params}, words, deterministic=not train, rngs=rngs)
    return logits[:, -model.tokens :], target, is_masked


def loss(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    schedule: Schedule = "cosine",
    label_smoothing: PartialShare = 0.1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative log-likelihood of the masked tokens (MaskGIT, Eq. 1), and metrics.

    schedule: of the share that is masked, see `mask_schedule.gamma`.
    label_smoothing: that of MaskGIT's configuration. Its min_masking_rate (0.5) is left out: how it
      was used is not published.
    """
    logits, target, is_masked = predict(model, params, ids, label, rng, schedule, train=True)
    right = (jnp.argmax(logits, axis=-1) == target) & is_masked
    metrics = {"accuracy": jnp.sum(right) / jnp.sum(is_masked), "masked": jnp.mean(is_masked)}
    return cross_entropy(logits, target, is_masked, label_smoothing), metrics


def evaluate(
    model: Model,
    params: dict,
    ids: jax.Array,
    label: jax.Array,
    rng: jax.Array,
) -> dict[str, jax.Array]:
    """Return cross-entropy and accuracy by the share of tokens masked; 1.00 begins sampling.

    {"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}: an image's sum over masked tokens,
    and their number. Unsmoothed, and among the codes alone, as in sampling.
    """

    def of_share(key: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits, target, is_masked = predict(model, params, ids, label, key, share=share)
        logits = logits[..., : model.codes]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
        return nll, jnp.argmax(logits, axis=-1) == target, is_masked

    return by_share(rng, of_share)


def tokens_to_logits(
    model: Model,
    params: dict,
    label: jax.Array | None,
    guided: bool = False,
) -> ToLogits:
    """Return the logits function of tokens [B,h*w], [MASK] = V: logits of the codes [B,h*w,V].

    guided: return a pair of logits, with the class and without it.
    """

    def run(tokens: jax.Array) -> Any:
        words = sequence(model, tokens, label)
        if guided:
            no_class = jnp.full(tokens.shape[0], model.classes)
            words = jnp.concatenate([words, sequence(model, tokens, no_class)])
        logits: Any = model.apply({"params": params}, words)
        logits = logits[:, -model.tokens :, : model.codes]
        return tuple(jnp.split(logits, 2)) if guided else logits

    return run


def sample(
    model: Model,
    params: dict,
    request: Request,
    settings: Settings,
    *,
    keep_history: KeepHistory = False,
) -> Decoded:
    """Return the request's ids [B,h,w,1], new where its mask is True.

    A mask that is all True is generation; a box, inpainting or class-conditional editing; a border,
    outpainting (MaskGIT, Sec. 4.3). InputError for guidance of a model without class dropout.

    keep_history: also return the grids after each step [steps - first,B,h,w,1].
    """
    settings.check(model)
    params = in_dtype(params, model.dtype)
    ids = jnp.where(request.mask, model.codes, squeeze_depth(request.ids, "maskgit"))
    made = mask_predict(
        tokens_to_logits(model, params, request.label, guided=bool(settings.guidance)),
        ids.reshape(ids.shape[0], -1),
        request.keys,
        settings,
        codes=model.codes,
        grid=model.latent,
        first=settings.first,
        keep_history=keep_history,
    )
    return jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *request.ids.shape[1:]), made)
