"""The adversarial part of stage 1 as pure functions of logits and gradients. All of it is float32.

`critic_loss` and `generator_loss` by name; `r1` and `lecam` may be added to the critic's; `adaptive_weight` and `ramp`
are the two factors of the generator's.
"""

import jax
import jax.numpy as jnp

from evqgan.core.build import nearest
from evqgan.core.errors import InputError

# name: critic's loss of a real logit, critic's loss of a fake one, generator's loss of a fake one. The originals'
# functions of these names, except that the one called "vanilla" in enhancing-transformers is "non_saturating" here.
LOSSES = {
    # taming-transformers, MaskGIT, Projected GAN, enhancing-transformers
    "hinge": (lambda real: jax.nn.relu(1 - real), lambda fake: jax.nn.relu(1 + fake), lambda fake: -fake),
    # taming-transformers: binary cross-entropy for the critic, the generator as with hinge
    "vanilla": (lambda real: jax.nn.softplus(-real), jax.nn.softplus, lambda fake: -fake),
    # MaskGIT, enhancing-transformers: binary cross-entropy for both (Goodfellow et al., 2014)
    "non_saturating": (lambda real: jax.nn.softplus(-real), jax.nn.softplus, lambda fake: jax.nn.softplus(-fake)),
    # enhancing-transformers: real to 1, fake to -1, the generator to the middle (Mao et al., 2017, Eq. 8)
    "least_square": (lambda real: (1 - real) ** 2, lambda fake: (1 + fake) ** 2, lambda fake: fake**2),
}


def critic_loss(name, real, fake, factor=0.5):
    """Logits of real and fake images, any shape and dtype -> float32 scalar: the critic's loss. Names: `LOSSES`.

    factor: before the sum of the two means. 0.5 in taming-transformers and enhancing-transformers, 1 in MaskGIT and
    Projected GAN. InputError for an unknown name.
    """
    of_real, of_fake, _ = _named(name)
    return factor * (jnp.mean(of_real(_float32(real))) + jnp.mean(of_fake(_float32(fake))))


def generator_loss(name, fake):
    """Logits of fake images, any shape and dtype -> float32 scalar: the generator's loss. Names: `LOSSES`.

    InputError for an unknown name.
    """
    return jnp.mean(_named(name)[2](_float32(fake)))


def r1(critic_of_image, real):
    """critic_of_image: image -> logits [B,...]; real [B,H,W,3] -> float32 scalar, a penalty for the critic's loss.

    The squared length of each real image's gradient of its summed logits, mean over the batch (Mescheder et al.,
    2018). The weight is the caller's: 10 in MaskGIT; gamma / 2 = 5, times 16 and in every 16th step only, in
    enhancing-transformers. A critic with batch norm must judge by its running statistics here, or the images of a
    batch mix in each other's gradients.
    """
    gradient = jax.grad(lambda image: jnp.sum(_float32(critic_of_image(image))))(real)
    return jnp.mean(jnp.sum(_float32(gradient) ** 2, axis=tuple(range(1, real.ndim))))


def lecam(real, fake, averages):
    """Logits of any shape, averages of `update_ema` -> float32 scalar, a penalty for the critic's loss.

    mean relu(real - average of fake)^2 + mean relu(average of real - fake)^2 (Tseng et al., 2021), of each
    logit, so that no logit is drawn over the other side's average. No gradient flows into the averages.
    Differs from the paper: its formula has no relu; the authors' code (google/lecam-gan) has, and so have we.
    Weight: 0.001 in MaskBit, which averages each batch's logits first.
    """
    known = jax.lax.stop_gradient(averages)
    over = jax.nn.relu(_float32(real) - known["fake"])
    under = jax.nn.relu(known["real"] - _float32(fake))
    return jnp.mean(over**2) + jnp.mean(under**2)


def averages():
    """-> {"real": 0, "fake": 0} float32: what LeCAM remembers before the first step (MaskBit)."""
    return {"real": jnp.float32(0), "fake": jnp.float32(0)}


def update_ema(averages, real, fake, decay=0.999):
    """Averages, logits of this step -> exponential moving averages of D(real) and D(fake), float32 scalars.

    To be called after `lecam`, which sees the averages of the steps before. Order and decay: MaskBit
    (google/lecam-gan: update first, 0.99).
    """
    means = {"real": jnp.mean(_float32(real)), "fake": jnp.mean(_float32(fake))}
    return {key: decay * averages[key] + (1 - decay) * jax.lax.stop_gradient(means[key]) for key in means}


def adaptive_weight(norm_reconstruction, norm_adversarial, epsilon=1e-4, limit=1e4):
    """Norms of the two losses' gradients in the last layer -> lambda, float32 scalar in [0, limit], a constant.

    norm_reconstruction / (norm_adversarial + epsilon) (VQGAN, Eq. 7; epsilon and limit: taming-transformers, where
    1e-4 stands for the paper's 1e-6). The fixed factor before it (0.8 in VQGAN) is the caller's.
    Differs from the original: a norm that is not finite makes NaN, so that the caller sees it and skips the step;
    clipping would make an infinite one 1e4 or 0.
    """
    reconstruction, adversarial = _float32(norm_reconstruction), _float32(norm_adversarial)
    weight = jnp.clip(reconstruction / (adversarial + epsilon), 0, limit)
    finite = jnp.isfinite(reconstruction) & jnp.isfinite(adversarial)
    return jax.lax.stop_gradient(jnp.where(finite, weight, jnp.nan))


def ramp(step, start, length=0):
    """int step -> float32 factor of the adversarial loss: 0 before step `start`, 1 from `start` + `length` on.

    Linear in between; step `start` is the first that is not 0. length 0: all at once (taming-transformers). The ramp
    is ours: a sudden critic spoils a tokenizer that is already good.
    """
    if length < 0:
        raise InputError(f"the adversarial ramp's length must not be negative, got {length}: 0 means at once")
    return jnp.clip(_float32(step - start + 1) / (length + 1), 0, 1)


def _named(name):
    if name not in LOSSES:
        raise InputError(f"no adversarial loss is called {name!r}: {nearest(name, LOSSES)}")
    return LOSSES[name]


def _float32(x):
    return jnp.asarray(x, jnp.float32)
