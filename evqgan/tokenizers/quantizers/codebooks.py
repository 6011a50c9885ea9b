"""What quantizers share: distances, statistics of use, gradients straight through."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def squared_distances(x: jax.Array, codebook: jax.Array) -> jax.Array:
    """Return |x - e|^2 [n,V] float32 of x [n,c], codebook [V,c] float32, with gradients to both."""
    products = jnp.einsum("nc,vc->nv", x, codebook, precision="highest")
    of_x, of_codes = jnp.sum(jnp.square(x), axis=-1), jnp.sum(jnp.square(codebook), axis=-1)
    return of_x[:, None] - 2 * products + of_codes[None]


def nearest(x: jax.Array, codebook: jax.Array) -> jax.Array:
    """Return the ids int32 [n] of the codes [V,c] nearest to x [n,c]; of equal ones the first.

    Both are float32. |x|^2 is the same for all codes and left out. Full float32: reduced precision
    would choose other codes.
    """
    products = jnp.einsum("nc,vc->nv", x, codebook, precision="highest")
    distances = jnp.sum(jnp.square(codebook), axis=-1)[None] - 2 * products
    return jnp.argmin(distances, axis=-1).astype(jnp.int32)


def soft_codes(
    z: jax.Array,
    codebook: jax.Array,
    depth: int,
    temperature: float,
    rng: jax.Array | None,
    normalized: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[jax.Array, jax.Array]:
    """Return ids [B,h,w,D] int32, and the probabilities of all codes [B,h,w,D,V] float32.

    The probabilities at a depth are softmax(-|x - e|^2 / temperature), and the id is drawn from
    them. The next depth quantizes the residual that this code leaves (RQ-VAE, Sec. 3.2.3).
    z: [B,h,w,c].
    codebook: [K,V,c], one table for all depths or one for each.
    rng: None takes the nearest code instead of a drawn one.
    normalized: the function that turns the residual [N,c] into the x of the formula.
    """
    rest, chosen, probabilities = z.astype(jnp.float32), [], []
    for d in range(depth):
        book, x = codebook[d % len(codebook)], normalized(rest.reshape(-1, z.shape[-1]))
        scores = -squared_distances(x, book) / temperature
        ids = (
            nearest(x, book)
            if rng is None
            else jax.random.categorical(jax.random.fold_in(rng, d), scores)
        )
        rest = rest - book[ids].reshape(rest.shape)
        chosen.append(ids.reshape(z.shape[:-1]).astype(jnp.int32))
        probabilities.append(jax.nn.softmax(scores).reshape(*z.shape[:-1], len(book)))
    return jnp.stack(chosen, axis=-1), jnp.stack(probabilities, axis=-2)


def updates_codebook(quantizer: nn.Module, train: bool) -> bool:
    """Return whether this call of a quantizer changes its collection `codebook`."""
    return train and quantizer.is_mutable_collection("codebook") and not quantizer.is_initializing()


def after_update(
    quantizer: nn.Module, book: Any, z: jax.Array, quantized: tuple, train: bool
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Update a codebook by a quantized batch, and return z_q, ids and aux of that batch.

    In training aux["revived"], the number of codes revived by the update, is added.
    book: an `ema.Averages` or a `revival.Parameter`, with `update(x, hits)`.
    z: [B,h,w,c], what was quantized.
    quantized: z_q, ids and aux, as `vq.Quantizer` returned them.
    """
    z_q, ids, aux = quantized
    if train:
        aux["revived"] = jnp.zeros((), jnp.float32)
    if updates_codebook(quantizer, train):
        x = jax.lax.stop_gradient(quantizer.normalized(z.astype(jnp.float32)))
        hits = jax.nn.one_hot(ids.reshape(-1), quantizer.codes)
        aux["revived"] = book.update(x.reshape(1, -1, quantizer.width), hits[None])
    return z_q, ids, aux


def by_table(x: jax.Array, hits: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Return the vectors of each table [K,n,c], and the codes that they chose, one-hot [K,n,V].

    x, hits: as of `ema.Averages.update`.
    shape: of the codebook, [K,V,c].
    """
    tables, codes, width = shape
    return x.reshape(tables, -1, width), hits.reshape(tables, -1, codes)


def moving_average(before: jax.Array, sums: jax.Array, decay: float, weight: float) -> jax.Array:
    """Return a moving average after a batch; weight: of each vector in its sums."""
    return decay * before + (1 - decay) * weight * sums


def embed_sum(codebook: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the sums [...,c] over depths of the codes [K,V,c] of ids [...,D]."""
    depths = range(ids.shape[-1])
    vectors = (codebook[d % len(codebook)][ids[..., d]] for d in depths)
    return sum(vectors, jnp.zeros((), jnp.float32))


def codebook_statistics(counts: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Return the share of codes used, and perplexity, means over D.

    counts: how often each code occurred, [D,V].
    Perplexity is the exponential of the entropy (VQ-VAE): V if all codes are equally frequent, 1 if
    one code is all.
    """
    counts = jnp.asarray(counts, jnp.float32)
    share = counts / jnp.maximum(counts.sum(axis=-1, keepdims=True), 1)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)), axis=-1)
    return jnp.mean(counts > 0), jnp.mean(jnp.exp(entropy))


def straight_through(quantized: jax.Array, z: jax.Array) -> jax.Array:
    """Return the values of `quantized`, bit for bit, with the gradient of z."""
    return jax.lax.stop_gradient(quantized) + (z - jax.lax.stop_gradient(z))


def l2_normalize(x: jax.Array) -> jax.Array:
    """Return x [...,c] divided by its length."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def uniform_init(rng: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Return codes [...,V,c] within +-1/V (VQ-VAE; VQGAN)."""
    return jax.random.uniform(rng, shape, dtype, -1 / shape[-2], 1 / shape[-2])


def entropy_loss(affinity: jax.Array, temperature: float, target: str) -> jax.Array:
    """Return the mean entropy of the choices minus the entropy of the mean choice.

    A choice is the distribution softmax(affinity / temperature) over the codes. The loss is low if
    each choice is sure while all codes are equally frequent.
    affinity: [...,V] float32, larger for likelier codes.
    target: "softmax", or "argmax": the likeliest code with the gradient of that softmax (MaskGIT's
      code).
    Differs from MaskGIT's code: the mean is over the global batch, not over one device's part; and
    no constant is added to the logits, which changes nothing.
    """
    scores = affinity.reshape(-1, affinity.shape[-1]) / temperature
    choices, logarithms = jax.nn.softmax(scores), jax.nn.log_softmax(scores)
    if target == "argmax":
        hard = jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1])
        choices = choices + jax.lax.stop_gradient(hard - choices)
    mean = jnp.mean(choices, axis=0)
    of_mean = -jnp.sum(mean * jnp.log(mean + 1e-5))  # 1e-5: MaskGIT
    return -jnp.mean(jnp.sum(choices * logarithms, axis=-1)) - of_mean
