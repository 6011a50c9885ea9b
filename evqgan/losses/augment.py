"""Augmentation of what a critic sees: DiffAugment (Zhao et al., 2020), as in projected-gan.

And a blur. Every function is differentiable in the image. The single changes take their random
draws as arguments, one an image.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

SHIFT = 0.125  # largest translation, as a part of the side; DiffAugment's code
# Side of the square cut out, as a part of the image's; projected-gan (DiffAugment: 0.5).
CUTOUT = 0.2
Augmentation = Literal["color", "translation", "cutout"]
POLICY = get_args(Augmentation)


def wide(draw: jax.Array) -> jax.Array:
    """Return [B] as [B,1,1,1]."""
    return draw.reshape(-1, 1, 1, 1)


def brightness(image: jax.Array, u: jax.Array) -> jax.Array:
    """Return image [B,H,W,c] plus u - 0.5, with u [B] in [0, 1)."""
    return image + (wide(u) - 0.5)


def saturation(image: jax.Array, u: jax.Array) -> jax.Array:
    """Return image [B,H,W,c], each pixel's distance to its own grey times 2u, u [B] in [0, 1)."""
    grey = jnp.mean(image, -1, keepdims=True)
    return (image - grey) * (2 * wide(u)) + grey


def contrast(image: jax.Array, u: jax.Array) -> jax.Array:
    """Return image [B,H,W,c], the distance to its mean times u + 0.5, u [B] in [0, 1)."""
    mean = jnp.mean(image, (1, 2, 3), keepdims=True)
    return (image - mean) * (wide(u) + 0.5) + mean


def largest_shift(side: int) -> int:
    """Return the largest translation of an image with `side` pixels."""
    return int(side * SHIFT + 0.5)


def translation(image: jax.Array, up: jax.Array, left: jax.Array) -> jax.Array:
    """Return image [B,H,W,c] moved; zeros come in.

    up, left: int32 [B], at most `largest_shift` of the side either way.
    """
    shifts = [largest_shift(side) for side in image.shape[1:3]]
    padded = jnp.pad(image, ((0, 0), *((shift, shift) for shift in shifts), (0, 0)))

    def cut(one: jax.Array, up: jax.Array, left: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(one, (up + shifts[0], left + shifts[1], 0), image.shape[1:])

    return jax.vmap(cut)(padded, up, left)


def cutout_size(side: int) -> int:
    """Return the side of the rectangle that is cut out along a side of the image."""
    return int(side * CUTOUT + 0.5)


def cutout(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Return image [B,H,W,c], zero in the rectangle around a pixel, as far as it is inside.

    row, column: of this pixel, int32 [B].
    """

    def inside(side: int, center: jax.Array) -> jax.Array:  # [B,side]
        size = cutout_size(side)
        start = center.reshape(-1, 1) - size // 2
        at = jnp.arange(side).reshape(1, -1)
        return (at >= start) & (at < start + size)

    hole = (
        inside(image.shape[1], row)[:, :, None, None]
        & inside(image.shape[2], column)[:, None, :, None]
    )
    return jnp.where(hole, 0, image)


def augment(
    rng: jax.Array, image: jax.Array, policy: tuple[Augmentation, ...] = POLICY
) -> jax.Array:
    """Return image [B,H,W,3] float in [-1, 1], each one augmented by its own draws from `rng`.

    Shape and dtype stay; the values may leave [-1, 1].
    policy: any of "color" (brightness, saturation, contrast), "translation" and "cutout", done in
      the order given; () changes nothing.
    """
    count, sides = len(image), image.shape[1:3]
    for i, name in enumerate(policy):
        keys = jax.random.split(jax.random.fold_in(rng, i), 3)
        if name == "color":
            for key, change in zip(keys, (brightness, saturation, contrast), strict=True):
                image = change(image, jax.random.uniform(key, (count,), image.dtype))
        elif name == "translation":
            most = [largest_shift(side) for side in sides]
            draws = [
                jax.random.randint(key, (count,), -m, m + 1)
                for key, m in zip(keys, most, strict=False)
            ]
            image = translation(image, *draws)
        else:
            # As the original: an even rectangle may be centred one pixel further, so that all
            # borders are alike.
            ends = [side + 1 - cutout_size(side) % 2 for side in sides]
            draws = [
                jax.random.randint(key, (count,), 0, end)
                for key, end in zip(keys, ends, strict=False)
            ]
            image = cutout(image, *draws)
    return image


def blur(image: jax.Array, sigma: jax.Array | float, largest: float) -> jax.Array:
    """Return image [B,H,W,c] blurred with weights 2^-(distance/sigma)^2; zeros are outside.

    sigma: a scalar, possibly traced, at most `largest`. Pixels count up to floor(3 sigma) away, so
      that nothing changes below 1/3.
    Source: projected-gan, `ProjectedGANLoss.run_D`; its published configurations do not use it.
    """
    most = int(3 * largest)
    at = jnp.arange(-most, most + 1)
    weights = jnp.exp2(-jnp.square(at / jnp.maximum(sigma, 1e-6)))
    weights = jnp.where(jnp.abs(at) <= jnp.floor(3 * sigma), weights, 0)
    weights = (weights / jnp.sum(weights)).astype(image.dtype)
    height, width = image.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (most, most), (0, 0), (0, 0)))
    zero = jnp.zeros((), image.dtype)
    image = sum((weights[i] * padded[:, i : i + height] for i in range(2 * most + 1)), zero)
    padded = jnp.pad(image, ((0, 0), (0, 0), (most, most), (0, 0)))
    return sum((weights[i] * padded[:, :, i : i + width] for i in range(2 * most + 1)), zero)
