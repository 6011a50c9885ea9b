"""Losses of single pixels that have a formula of their own."""

import jax
import jax.numpy as jnp

LOW = 0.1  # DALL-E
EDGE = 0.01  # ours: finite for all inputs, and well outside what images hold


def logit_laplace_loss(reconstruction: jax.Array, image: jax.Array) -> jax.Array:
    """Return the mean of |logit(p(image)) - logit(p(reconstruction))|, a float32 scalar.

    p maps [-1, 1] to [0.1, 0.9]. DALL-E (Ramesh et al., 2021, appendix A.3) gives pixels x in
    (0, 1) the density exp(-|logit(x) - mu| / b) / (2 b x (1 - x)); this is its negative logarithm
    without what no model can change.
    reconstruction, image: float32 [...], the image in [-1, 1].
    Differs from DALL-E: its decoder gives mu and b in six channels. Ours has three and is an
    image: b is 1, and mu the logit of p(reconstruction), clipped to [0.01, 0.99], beyond which
    the gradient is 0 and l2 alone brings it back.
    """
    return jnp.mean(jnp.abs(_logit(image) - _logit(reconstruction)))


def _logit(x: jax.Array) -> jax.Array:
    p = jnp.clip(LOW + (1 - 2 * LOW) * (x + 1) / 2, EDGE, 1 - EDGE)
    return jnp.log(p) - jnp.log1p(-p)
