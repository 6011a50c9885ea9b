"""The adversarial part of stage 1 as pure functions of logits and gradients, all in float32.

`critic_loss` and `generator_loss` by name; `r1` and `lecam` may be added to the critic's;
lambda (paper, Eq. 1) is config.adversarial.weight * `ramp` * `adaptive_weight`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Loss = Literal["hinge", "vanilla", "non_saturating", "least_square"]


class Terms(NamedTuple):
    """Functions of a logit, which is high for a real image."""

    real: Callable[[jax.Array], jax.Array]  # the critic's loss of a real image
    fake: Callable[[jax.Array], jax.Array]  # the critic's loss of a fake one
    generator: Callable[[jax.Array], jax.Array]  # the generator's loss of a fake one


# The originals' functions of these names, except that the one called "vanilla" in
# enhancing-transformers is "non_saturating" here.
LOSSES: dict[Loss, Terms] = {
    # taming-transformers, MaskGIT, Projected GAN, enhancing-transformers
    "hinge": Terms(
        lambda real: jax.nn.relu(1 - real),
        lambda fake: jax.nn.relu(1 + fake),
        lambda fake: -fake,
    ),
    # taming-transformers: binary cross-entropy for the critic, the generator as with hinge
    "vanilla": Terms(lambda real: jax.nn.softplus(-real), jax.nn.softplus, lambda fake: -fake),
    # MaskGIT, enhancing-transformers: binary cross-entropy for both (Goodfellow et al., 2014)
    "non_saturating": Terms(
        lambda real: jax.nn.softplus(-real),
        jax.nn.softplus,
        lambda fake: jax.nn.softplus(-fake),
    ),
    # enhancing-transformers: real to 1, fake to -1, the generator to the middle (Mao et al., 2017,
    # Eq. 8)
    "least_square": Terms(
        lambda real: (1 - real) ** 2,
        lambda fake: (1 + fake) ** 2,
        lambda fake: fake**2,
    ),
}


def critic_loss(name: Loss, real: jax.Array, fake: jax.Array, factor: float = 0.5) -> jax.Array:
    """Return the critic's loss, a float32 scalar.

    name: one of `LOSSES`.
    real, fake: logits of real and fake images, of any shape and dtype.
    factor: before the sum of the two means. 0.5 in taming-transformers and enhancing-transformers,
      1 in MaskGIT and Projected GAN.
    """
    terms = LOSSES[name]
    return factor * (jnp.mean(terms.real(_float32(real))) + jnp.mean(terms.fake(_float32(fake))))


def generator_loss(name: Loss, fake: jax.Array) -> jax.Array:
    """Return the generator's loss, a float32 scalar.

    name: one of `LOSSES`.
    fake: logits of fake images, of any shape and dtype.
    """
    return jnp.mean(LOSSES[name].generator(_float32(fake)))


def r1(critic_of_image: Callable[[jax.Array], jax.Array], real: jax.Array) -> jax.Array:
    """Return a penalty for the critic's loss, a float32 scalar.

    It is the squared length of each real image's gradient of its summed logits, mean over the batch
    (Mescheder et al., 2018). The weight is the caller's: 10 in MaskGIT; gamma / 2 = 5, times 16 and
    in every 16th step only, in enhancing-transformers. Both are for images in [0, 1]. Ours are in
    [-1, 1], where gradients are half as large: a published weight is to be multiplied by 4.
    critic_of_image: image -> logits [B,...]. With batch norm it must judge by its running
      statistics here, or the images of a batch mix in each other's gradients.
    real: images [B,H,W,3].
    """
    gradient = jax.grad(lambda image: jnp.sum(_float32(critic_of_image(image))))(real)
    return jnp.mean(jnp.sum(_float32(gradient) ** 2, axis=tuple(range(1, real.ndim))))


def lecam(real: jax.Array, fake: jax.Array, averages: dict[str, jax.Array]) -> jax.Array:
    """Return a penalty for the critic's loss, a float32 scalar (Tseng et al., 2021).

    mean relu(real - average of fake)^2 + mean relu(average of real - fake)^2, of each logit, so
    that no logit is drawn over the other side's average. No gradient flows into the averages.
    real, fake: logits of any shape.
    averages: of `update_ema`.
    Differs from the paper: its formula has no relu; the authors' code (google/lecam-gan) has, and
    so have we. Weight: 0.001 in MaskBit, which averages each batch's logits first.
    """
    known = jax.lax.stop_gradient(averages)
    over = jax.nn.relu(_float32(real) - known["fake"])
    under = jax.nn.relu(known["real"] - _float32(fake))
    return jnp.mean(over**2) + jnp.mean(under**2)


def averages() -> dict[str, jax.Array]:
    """Return what LeCAM remembers before the first step: {"real": 0, "fake": 0} (MaskBit)."""
    return {"real": jnp.float32(0), "fake": jnp.float32(0)}


def update_ema(
    averages: dict[str, jax.Array], real: jax.Array, fake: jax.Array, decay: float = 0.999
) -> dict[str, jax.Array]:
    """Return the exponential moving averages of D(real) and D(fake) after this step's logits.

    To be called after `lecam`, which sees the averages of the steps before. Order and decay:
    MaskBit (google/lecam-gan: update first, 0.99).
    """
    means = {"real": jnp.mean(_float32(real)), "fake": jnp.mean(_float32(fake))}
    return {
        key: decay * averages[key] + (1 - decay) * jax.lax.stop_gradient(means[key])
        for key in means
    }


def adaptive_weight(
    norm_reconstruction: jax.Array,
    norm_adversarial: jax.Array,
    epsilon: float = 1e-4,
    limit: float = 1e4,
) -> jax.Array:
    """Return the adaptive weight, a float32 scalar in [0, limit] and a constant (VQGAN, Eq. 7).

    norm_reconstruction / (norm_adversarial + epsilon), of the two losses' gradients in the last
    layer. epsilon and limit: taming-transformers, where 1e-4 stands for the paper's 1e-6. The fixed
    factor before it (0.8 in VQGAN) is the caller's.
    Differs from the original: a norm that is not finite makes NaN, so that the caller sees it and
    skips the step; clipping would make an infinite one 1e4 or 0.
    """
    reconstruction, adversarial = _float32(norm_reconstruction), _float32(norm_adversarial)
    weight = jnp.clip(reconstruction / (adversarial + epsilon), 0, limit)
    finite = jnp.isfinite(reconstruction) & jnp.isfinite(adversarial)
    return jax.lax.stop_gradient(jnp.where(finite, weight, jnp.nan))


def ramp(step: jax.Array | int, start: int, length: int = 0) -> jax.Array:
    """Return the float32 factor of the adversarial loss at a step.

    It is 0 before step `start`, 1 from `start` + `length` on, and linear in between; step `start`
    is the first that is not 0. length 0: all at once (taming-transformers). The ramp is ours: a
    sudden critic spoils a tokenizer that is already good.
    """
    return jnp.clip(_float32(step - start + 1) / (length + 1), 0, 1)


def _float32(x: jax.Array | int) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
