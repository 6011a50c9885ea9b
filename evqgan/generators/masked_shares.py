"""Generators that predict masked tokens are evaluated at several shares of masked tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

SHARES = (0.25, 0.5, 0.75, 1.0)  # of masked tokens


def by_share(
    rng: jax.Array,
    predict: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
) -> dict[str, jax.Array]:
    """Return {"cross_entropy@0.25": [B,2], "accuracy@0.25": [B,2], ...}, by the masked share.

    Of each image the first number is the sum over its masked tokens, the second how many these are;
    whoever wants the mean divides. `lax.map` runs one share after the other, so that the network is
    compiled once, not once a share.

    predict: (rng, share) -> negative log-likelihoods, whether the likeliest code is the true one,
      and whether the token is masked, each [B,...].
    """

    def of_share(number_and_share: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        number, share = number_and_share
        nll, right, is_masked = predict(jax.random.fold_in(rng, number), share)
        axes = tuple(range(1, is_masked.ndim))

        def summed(value: jax.Array) -> jax.Array:
            sums = jnp.sum(value * is_masked, axes), jnp.sum(is_masked, axes)
            return jnp.stack(sums, axis=-1)

        return {"cross_entropy": summed(nll), "accuracy": summed(right)}

    found = jax.lax.map(of_share, (jnp.arange(len(SHARES)), jnp.array(SHARES)))
    return {
        f"{name}@{share:.2f}": values[i]
        for i, share in enumerate(SHARES)
        for name, values in found.items()
    }
