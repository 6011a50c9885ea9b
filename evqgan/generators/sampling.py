"""Drawing codes from logits: temperature, top-k and nucleus sampling."""

import jax
import jax.numpy as jnp


def restrict(logits: jax.Array, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """Return logits [...,V] with -inf where a code may not be sampled.

    top_k: allow only the k likeliest codes, and those as likely as the k-th; 0 = all.
    top_p: allow only the likeliest codes that together reach this probability, always at least one
      (nucleus sampling, Holtzman et al., ICLR 2020); 1 = all.
    """
    if not top_k and top_p >= 1:
        return logits
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    least = jnp.full(logits.shape[:-1], -jnp.inf)
    if top_k:
        least = ranked[..., min(top_k, logits.shape[-1]) - 1]
    if top_p < 1:
        ranked = jnp.where(ranked < least[..., None], -jnp.inf, ranked)
        share = jax.nn.softmax(ranked, axis=-1)
        reached = jnp.cumsum(share, axis=-1) - share  # by the likelier codes
        last = jnp.sum(reached <= top_p, axis=-1, keepdims=True) - 1
        least = jnp.maximum(least, jnp.take_along_axis(ranked, last, axis=-1)[..., 0])
    return jnp.where(logits < least[..., None], -jnp.inf, logits)


def draw(
    logits: jax.Array,
    noise: jax.Array,
    temperature: float | jax.Array = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """Return a code drawn from each of logits [...,V], int32 [...].

    noise: Gumbel noise [...,V].
    temperature: divides the logits; 0 takes the likeliest code.
    top_k, top_p: see `restrict`.
    """
    allowed = restrict(logits / jnp.maximum(temperature, 1e-6), top_k, top_p) > -jnp.inf
    scores = logits + temperature * noise  # Gumbel-max of logits / temperature
    return first_largest(jnp.where(allowed, scores, -jnp.inf))


def first_largest(scores: jax.Array) -> jax.Array:
    """Return jnp.argmax of scores [...,V], int32 [...]; where scores are nan, V - 1.

    As two reductions, each of one array: a CPU takes a fifth of argmax's time, which reduces pairs.
    """
    number = scores.shape[-1]
    is_largest = scores == jnp.max(scores, axis=-1, keepdims=True)
    at = jnp.where(is_largest, jnp.arange(number, dtype=jnp.int32), number - 1)
    return jnp.min(at, axis=-1)
