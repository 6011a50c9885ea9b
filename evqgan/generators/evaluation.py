"""Evaluation of generators that predict masked tokens: by the share of tokens that is masked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

SHARES = (0.25, 0.5, 0.75, 1.0)  # of masked tokens


def by_share(
    rng: jax.Array,
    predict: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
) -> dict[str, jax.Array]:
    """Return {"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}, by the masked share.

    Each is an image's sum over masked tokens, and their number. It is a loop over the shares: the
    network is in the program once.

    predict: (rng, share) -> negative log-likelihoods, whether the likeliest code is right, and
      whether the token is masked, each [B,...].
    """

    def sums(given: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        i, share = given
        nll, right, is_masked = predict(jax.random.fold_in(rng, i), share)
        axes = tuple(range(1, is_masked.ndim))

        def of(value: jax.Array) -> jax.Array:
            both = jnp.sum(value * is_masked, axes), jnp.sum(is_masked, axes)
            return jnp.stack(both, axis=-1)

        return {"cross_entropy": of(nll), "accuracy": of(right)}

    found = jax.lax.map(sums, (jnp.arange(len(SHARES)), jnp.array(SHARES)))
    return {
        f"{name}@{share:.2f}": values[i]
        for i, share in enumerate(SHARES)
        for name, values in found.items()
    }
