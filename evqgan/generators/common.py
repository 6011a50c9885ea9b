"""What several generators do alike: checks of their fields, class dropout, evaluation by share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError

SHARES = (0.25, 0.5, 0.75, 1.0)  # of masked tokens, in evaluation


def check_heads(width: int, heads: int, name: str = "heads") -> None:
    """Raise InputError if the width cannot be split among the heads. name: the key's."""
    if width % heads:
        given = f"generator.width = {width}"
        raise InputError(f"{given} is no multiple of generator.{name} = {heads}")


def check_class_dropout(class_dropout: float, classes: int) -> None:
    """Raise InputError for a class dropout that is no share, or of a model without classes."""
    if not 0 <= class_dropout < 1 or (class_dropout and not classes):
        expected = "a share in [0, 1), and 0 without classes"
        raise InputError(f"generator.class_dropout is {expected}, not {class_dropout}")


def drop_class(rng: jax.Array, label: jax.Array, classes: int, share: float) -> jax.Array:
    """Return labels int32 [B], of which a share is `classes`, no class (for guidance)."""
    if not share:
        return label
    return jnp.where(jax.random.bernoulli(rng, share, label.shape), classes, label)


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
