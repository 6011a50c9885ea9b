"""Keys, values and masks that come in pieces, side by side."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def joined(pieces: Sequence[tuple], rows: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Return keys and values [*rows,T,heads,d] of all pieces.

    pieces: (key, value, mask), see `attention.attend_pieces`. One that serves several rows is
      copied for each.
    """

    def side_by_side(sides: Sequence[jax.Array]) -> jax.Array:
        whole = [jnp.broadcast_to(side, (*rows, *side.shape[-3:])) for side in sides]
        return whole[0] if len(whole) == 1 else jnp.concatenate(whole, axis=-3)

    keys, values, _ = zip(*pieces, strict=True)
    return side_by_side(keys), side_by_side(values)


def joined_mask(pieces: Sequence[tuple]) -> jax.Array | None:
    """Return which keys of all pieces each query sees, bool [...,1 or heads,1 or S,T].

    None if every query sees all of them. S is 1 where all queries see the same.
    """
    if all(mask is None for *_, mask in pieces):
        return None
    one = np.ones((1,) * pieces[0][0].ndim, bool)
    masks = [jnp.asarray(one if mask is None else mask) for *_, mask in pieces]
    rows = np.broadcast_shapes(*(mask.shape[:-1] for mask in masks))
    keys = [key.shape[-3] for key, *_ in pieces]
    parts = [jnp.broadcast_to(m, (*rows, k)) for m, k in zip(masks, keys, strict=True)]
    return jnp.concatenate(parts, axis=-1)
