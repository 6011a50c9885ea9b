"""A frozen network inside another module: its weights are loaded or drawn, and never trained."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def inside(
    module: nn.Module, network: nn.Module, shape: Sequence[int], name: str = "network"
) -> Callable[[jax.Array], Any]:
    """Return `network` as a function of its input, its weights held by `module` and constant.

    They are the variable `name` in the collection "frozen" of `module`, drawn from its rng "params"
    where they are not given, and get no gradient.

    network: made with parent=None.
    shape: (H, W, C) of the smallest input that it takes: weights do not depend on it.
    """

    def init() -> Any:
        return network.init(module.make_rng("params"), jnp.zeros((1, *shape)))

    weights = jax.lax.stop_gradient(module.variable("frozen", name, init).value)
    return lambda x: network.apply(weights, x)
