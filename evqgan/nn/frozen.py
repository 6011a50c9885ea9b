"""A frozen network inside another module: its weights are drawn or filled in, and never trained."""

import functools
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

    network: made with parent=None, or linen would make it a part of `module`, and train it.
    shape: (H, W, C) of an input that it takes; where the weights do not depend on it, the smallest.
    """

    def init() -> Any:
        return network.init(module.make_rng("params"), jnp.zeros((1, *shape)))

    weights = jax.lax.stop_gradient(module.variable("frozen", name, init).value)
    return lambda x: applied(network, weights, x)


@functools.partial(jax.jit, static_argnums=0)
def applied(network: nn.Module, weights: Any, x: jax.Array) -> Any:
    """Return what `network` makes of x.

    It is jitted so that a program which calls it several times with one shape traces it once.
    """
    return network.apply(weights, x)
