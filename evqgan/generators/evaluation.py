"""Evaluation of generators that predict masked tokens: by the share of tokens that is masked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

SHARES = (0.25, 0.5, 0.75, 1.0)  # of masked tokens


def by_share(
    rng: jax.Array,
    predict: Callable[[jax.Array, float], tuple[jax.Array, jax.Array, jax.Array]],
) -> dict[str, jax.Array]:
    """Return {"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}, by the masked share.

    Each is an image's sum over masked tokens, and their number.

    predict: (rng, share) -> negative log-likelihoods, whether the likeliest code is right, and
      whether the token is masked, each [B,...].
    """
    result = {}
    for i, share in enumerate(SHARES):
        nll, right, is_masked = predict(jax.random.fold_in(rng, i), share)
        axes = tuple(range(1, is_masked.ndim))
        for name, value in (("cross_entropy", nll), ("accuracy", right)):
            sums = jnp.sum(value * is_masked, axes), jnp.sum(is_masked, axes)
            result[f"{name}@{share:.2f}"] = jnp.stack(sums, axis=-1)
    return result
