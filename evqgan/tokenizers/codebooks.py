"""What quantizers share: distances to codes, statistics of their use, gradients past a choice, entropy of choices."""

import jax
import jax.numpy as jnp


def squared_distances(x, codebook):
    """x [n,c], codebook [V,c] float32 -> |x - e|^2 [n,V] float32, with gradients to both."""
    products = jnp.einsum("nc,vc->nv", x, codebook, precision="highest")
    ours, theirs = jnp.sum(jnp.square(x), axis=-1), jnp.sum(jnp.square(codebook), axis=-1)
    return ours[:, None] - 2 * products + theirs[None]


def nearest(x, codebook):
    """x [n,c], codebook [V,c] float32 -> int32 [n], the code with the smallest distance, of equal ones the first.

    |x|^2 is the same for all codes and left out. Full float32: reduced precision would choose other codes.
    """
    products = jnp.einsum("nc,vc->nv", x, codebook, precision="highest")
    return jnp.argmin(jnp.sum(jnp.square(codebook), axis=-1)[None] - 2 * products, axis=-1).astype(jnp.int32)


def codebook_statistics(counts):
    """counts [D,V], how often each code occurred -> share of codes used, perplexity: both means over D.

    Perplexity is the exponential of the entropy (VQ-VAE): V if all codes are equally frequent, 1 if one code is all.
    """
    counts = jnp.asarray(counts, jnp.float32)
    share = counts / jnp.maximum(counts.sum(axis=-1, keepdims=True), 1)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)), axis=-1)
    return jnp.mean(counts > 0), jnp.mean(jnp.exp(entropy))


def straight_through(quantized, z):
    """The values of `quantized`, bit for bit, with the gradient of z."""
    return jax.lax.stop_gradient(quantized) + (z - jax.lax.stop_gradient(z))


def unit(x):
    """x [...,c] with length 1."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def uniform_init(rng, shape, dtype=jnp.float32):
    """Codes within +-1/V (VQ-VAE; VQGAN)."""
    return jax.random.uniform(rng, shape, dtype, -1 / shape[-2], 1 / shape[-2])


def entropy_loss(affinity, temperature, target):
    """Entropy of each choice minus that of the mean choice: low if choices are sure, and all codes equally frequent.

    affinity [...,V] float32, larger for likelier codes -> scalar. Choices are softmax(affinity / temperature), or, with
    target "argmax" instead of "softmax", the likeliest code with the gradient of that softmax: MaskGIT's code.
    Differs from MaskGIT's code: the mean is over the global batch, not over one device's part; and no constant is added
    to the logits, which changes nothing.
    """
    scores = affinity.reshape(-1, affinity.shape[-1]) / temperature
    choices, logarithms = jax.nn.softmax(scores), jax.nn.log_softmax(scores)
    if target == "argmax":
        whole = jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1])
        choices = choices + jax.lax.stop_gradient(whole - choices)
    mean = jnp.mean(choices, axis=0)
    of_mean = -jnp.sum(mean * jnp.log(mean + 1e-5))  # 1e-5: MaskGIT
    return -jnp.mean(jnp.sum(choices * logarithms, axis=-1)) - of_mean
