"""Random weights large enough to see effects. Nothing has to compile for them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def drawn(shapes: Any, spread: float = 0.3) -> Any:
    """Return float arrays of the tree `shapes`: normal with that deviation, scales around 1."""
    rng = np.random.default_rng(0)

    def leaf(path: Any, x: Any) -> jax.Array:
        is_scale = path[-1].key == "scale"
        return jnp.asarray(is_scale + spread * rng.standard_normal(x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)
