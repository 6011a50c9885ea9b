"""Autoregressive decoding: one code after the other, in raster order and by depth.

A code that is not known yet holds the id `codes` (= V). Nothing here knows a model: the loop is a
pure function of functions that give the logits of the next code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.core.kinds import PositiveShare
from evqgan.generators.sampling import draw

# (carry, n, the codes [B,D] at position n - 1, at first zeros) -> carry, state; called once a
# position. The carry is what a model keeps from position to position, such as a KV cache.
NextPosition = Callable[[Any, jax.Array, jax.Array], tuple[Any, Any]]
# (state, d, the code [B] at depth d - 1, at first zeros) -> state, logits [B,V]; called once a
# depth. Both are traced once, and carry and state keep shapes and dtypes.
NextDepth = Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Autoregressive:
    """The settings of autoregressive decoding; InputError for a value that a field cannot have.

    taming-transformers' sample_fast.py takes 1.0, 250 and 1.0.
    """

    temperature: float = 1.0  # of drawing codes; 0 takes the likeliest
    top_k: int = 0  # see `sampling.restrict`
    top_p: PositiveShare = 1.0

    def __post_init__(self) -> None:
        build.check_fields(self, "config.sample")

    def draw(self, logits: jax.Array, noise: jax.Array) -> jax.Array:
        """Return codes [B] drawn from logits [B,V] by Gumbel noise [B,V]."""
        return draw(logits, noise, self.temperature, self.top_k, self.top_p)


def autoregress(
    next_position: NextPosition,
    next_depth: NextDepth,
    carry: Any,
    ids: jax.Array,
    keys: jax.Array,
    settings: Sequence[Autoregressive],
    *,
    codes: int,
) -> jax.Array:
    """Fill the unknown codes one after the other, and return int32 [B,N,D].

    Positions come in order, at each one its depths in order (VQGAN, Sec. 3.2; RQ-VAE, Sec. 3.2).
    Known codes stay.

    carry: that of the first position.
    ids: int32 [B,N,D], unknown = codes.
    keys: a random key [B] for each image.
    settings: those of each depth.
    """

    def noise(n: jax.Array, d: jax.Array) -> jax.Array:
        at = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, n), d))(keys)
        return jax.vmap(lambda key: jax.random.gumbel(key, (codes,), jnp.float32))(at)

    def drawn(logits: jax.Array, noise: jax.Array, d: jax.Array) -> jax.Array:
        if len(set(settings)) == 1:
            return settings[0].draw(logits, noise)
        return jax.lax.switch(d, [one.draw for one in settings], logits, noise)

    def position_step(loop: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        carry, before = loop
        n, given = inputs
        carry, state = next_position(carry, n, before)

        def depth_step(loop: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
            state, before = loop
            d, given = inputs
            state, logits = next_depth(state, d, before)
            code = drawn(logits.astype(jnp.float32), noise(n, d), d)
            code = jnp.where(given == codes, code, given)
            return (state, code), code

        depths = jnp.arange(ids.shape[2]), given.T
        _, made = jax.lax.scan(depth_step, (state, jnp.zeros_like(before[:, 0])), depths)
        return (carry, made.T), made.T

    positions = jnp.arange(ids.shape[1]), jnp.swapaxes(ids, 0, 1)
    _, made = jax.lax.scan(position_step, (carry, jnp.zeros_like(ids[:, 0])), positions)
    return jnp.swapaxes(made, 0, 1)


def row_history(known: jax.Array, made: jax.Array, codes: int) -> jax.Array:
    """Return the grids after each row was made, [h,B,h,w,D].

    known: ids [B,h,w,D] before anything was made, unknown = codes.
    made: ids [B,h,w,D] in the end.
    """
    row = jnp.arange(known.shape[1])
    done = row[None] <= row[:, None]  # [step,h]
    return jnp.where(done[:, None, :, None, None], made[None], known[None])


def check_suffix(mask: np.ndarray, name: str) -> None:
    """Raise InputError if a known token comes after an unknown one in raster order.

    mask: bool [B,h,w], True where tokens are to be made.
    name: of the generator.
    """
    flat = np.asarray(mask).reshape(len(mask), -1)
    if (flat[:, :-1] & ~flat[:, 1:]).any():
        raise InputError(
            f"the {name} generator makes tokens in raster order, each from those before it alone: "
            "it completes an image from some token on to the lower right corner, and this mask "
            "leaves known tokens after unknown ones. Hide all that follows (such as the lower "
            "part, with --outpaint=0,0,0,N), or take a maskgit or multigrained generator"
        )
