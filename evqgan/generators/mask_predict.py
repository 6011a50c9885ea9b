"""Mask-predict decoding: all masked tokens at once, in a few steps (MaskGIT, Sec. 3.3).

A token that is not known yet holds the id `codes` (= V, [MASK]). Nothing here knows a model: the
loop is a pure function of a logits function.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import PositiveShare, Range, Share
from evqgan.generators import Decoded, KeepHistory, kept
from evqgan.generators.guidance import GUIDANCE_SCHEDULES, GuidanceSchedule, guided
from evqgan.generators.halton import halton_rank
from evqgan.generators.mask_schedule import Schedule, lowest, number_masked
from evqgan.generators.remasking import (
    RemaskSchedule,
    remask_chance,
    remask_noise,
    with_remasked,
)
from evqgan.generators.sampling import draw

Choice = Literal["confidence", "halton"]
# Tokens [B,N] -> logits [B,N,V]; with guidance a pair of them, with the class and without it.
ToLogits = Callable[[jax.Array], Any]
# A step -> Gumbel noise for its codes [B,N,V] and for its choice of tokens [B,N].
Noise = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class MaskPredict:
    """The settings of mask-predict decoding; InputError for a value that a field cannot have.

    Temperatures, top_k and top_p are not part of the confidence, as in MaskGIT.
    """

    # T, of each block; in `maskgit` of the whole image. 8 in the paper (Sec. 4.2), in MaskGIT's 8
    # for 16x16 tokens and 12 for 32x32. The upper limit, a step for each of 64x64 tokens, is ours
    steps: Annotated[int, Range(1, 4096)] = 8
    temperature: float = 1.0  # of drawing codes; 0 takes the likeliest
    # the temperature of the last step, reached linearly; None: the same in all steps
    final_temperature: float | None = None
    # which tokens of a step stay: those it is surest of, or the next ones of `halton_rank`
    choice: Choice = "confidence"
    # how much noise is in the confidence at first; it falls to 0
    choice_temperature: float = 4.5
    schedule: Schedule = "cosine"  # of how many tokens stay masked, see `mask_schedule.gamma`
    top_k: int = 0  # see `sampling.restrict`
    top_p: PositiveShare = 1.0
    guidance: float = 0.0  # largest scale of `guidance.guided`; needs generator.class_dropout
    guidance_schedule: GuidanceSchedule = "linear"  # how the scale grows
    remask: Share = 0.0  # how many tokens of earlier steps are masked again, see `remask_chance`
    remask_schedule: RemaskSchedule = "rescale"  # how that changes over the steps

    def __post_init__(self) -> None:
        build.check_fields(self, "config.sample")

    @property
    def last_temperature(self) -> float:
        """The temperature of the last step."""
        return self.temperature if self.final_temperature is None else self.final_temperature

    def check(self, model: Any) -> None:
        """Raise InputError for guidance of a model that was trained without class dropout."""
        if self.guidance and not model.class_dropout:
            raise InputError(
                f"the sampler's guidance is {self.guidance}, but the generator was trained without "
                "generator.class_dropout: guidance needs a model that knows images without a class"
            )

    def guide(self, logits: Any, step: jax.Array) -> jax.Array:
        """Return the logits [B,N,V] of a step as float32, with guidance if there is any.

        logits: with guidance a pair, with the class and without it.
        """
        if not self.guidance:
            return logits.astype(jnp.float32)
        scale = self.guidance * GUIDANCE_SCHEDULES[self.guidance_schedule]((step + 1) / self.steps)
        logits, without = (x.astype(jnp.float32) for x in logits)
        return guided(logits, without, scale)

    def draw(self, logits: jax.Array, noise: jax.Array, step: jax.Array) -> jax.Array:
        """Return the codes [B,N] that a step draws from logits [B,N,V] by Gumbel noise [B,N,V]."""
        change = (self.last_temperature - self.temperature) * step / max(self.steps - 1, 1)
        return draw(logits, noise, self.temperature + change, self.top_k, self.top_p)

    def confidence(
        self,
        logits: jax.Array,
        tokens: jax.Array,
        noise: jax.Array,
        step: jax.Array,
    ) -> jax.Array:
        """Return how sure a step is of its tokens [B,N], float32 [B,N].

        It is log p(token) + choice_temperature * (1 - (step + 1) / steps) * noise.
        noise: Gumbel noise [B,N].
        """
        log_p = log_probability(logits, tokens)
        return log_p + self.choice_temperature * (1 - (step + 1) / self.steps) * noise


def log_probability(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Return log p [B,N] of tokens [B,N] by logits [B,N,V]."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]


def image_noise(keys: jax.Array, number: int, codes: int) -> Noise:
    """Return the noise of `number` tokens an image.

    keys: a random key [B] for each image, whose noise depends on nothing else.
    """

    def noise(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, step)))(keys)

        def drawn(pair: jax.Array) -> tuple[jax.Array, jax.Array]:
            of_codes = jax.random.gumbel(pair[0], (number, codes), jnp.float32)
            return of_codes, jax.random.gumbel(pair[1], (number,), jnp.float32)

        return jax.vmap(drawn)(pairs)

    return noise


def mask_predict(
    tokens_to_logits: ToLogits,
    tokens: jax.Array,
    keys: jax.Array,
    settings: MaskPredict,
    *,
    codes: int,
    grid: tuple[int, int] | None = None,
    first: int = 0,
    noise: Noise | None = None,
    keep_history: KeepHistory = False,
) -> Decoded:
    """Fill the masked tokens in `settings.steps` parallel steps.

    MaskGIT, Sec. 3.3 (the paper's in-block decoding): every step samples all masked tokens, and
    masks those again that it is least sure of, or that come last in the Halton order. With
    `settings.remask` it also masks some that earlier steps have made. Known tokens never change.

    tokens: int32 [B,N], masked ones = codes.
    keys: a random key [B] for each image.
    grid: (h, w) of the N = h*w tokens in raster order, for the Halton order; None: one row.
    first: the step to begin with; MaskGIT's code edits from step 2 of 12, as part is known.
    noise: takes the place of what is drawn from the keys by `image_noise`.
    keep_history: also return the tokens after each step [steps - first,B,N], see `KeepHistory`.
    """
    number = tokens.shape[1]
    noise = image_noise(keys, number, codes) if noise is None else noise
    noise_again = remask_noise(keys, number)
    was_masked = tokens == codes
    masked_at_start = jnp.sum(was_masked, axis=-1)
    keeps_probability = settings.remask > 0 and settings.remask_schedule == "conf"
    start = tokens, jnp.zeros(tokens.shape) if keeps_probability else None

    def step(state: tuple, t: jax.Array) -> tuple[tuple, jax.Array | None]:
        tokens, probability = state
        logits = settings.guide(tokens_to_logits(tokens), t)
        code_noise, choice_noise = noise(t)
        is_masked = tokens == codes
        sampled = jnp.where(is_masked, settings.draw(logits, code_noise, t), tokens)
        if settings.choice == "halton":
            rank = halton_rank(*(grid or (1, number)))
            confidence = jnp.broadcast_to(-jnp.float32(rank), tokens.shape)
        else:
            confidence = settings.confidence(logits, sampled, choice_noise, t)
        confidence = jnp.where(is_masked, confidence, jnp.inf)
        masked_now = jnp.sum(is_masked, axis=-1)
        count = number_masked(t, settings.steps, masked_at_start, masked_now, settings.schedule)
        if settings.remask:
            given = settings.remask_schedule, settings.remask, was_masked & ~is_masked, count
            chance = remask_chance(*given, probability)
            confidence = with_remasked(confidence, chance, noise_again(t))
        if keeps_probability:
            now = jnp.exp(log_probability(logits, sampled))
            probability = jnp.where(is_masked, now, probability)
        tokens = jnp.where(lowest(confidence, count), codes, sampled)
        return (tokens, probability), kept(tokens, keep_history)

    (tokens, _), history = jax.lax.scan(step, start, jnp.arange(first, settings.steps))
    return Decoded(tokens, history)
