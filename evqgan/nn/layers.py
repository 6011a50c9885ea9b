"""A stack of equal layers: in a loop over their stacked parameters, or one after the other."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.core.mesh import spread


def scan_layers(
    layer_step: Callable,
    layer: nn.Module,
    x: Any,
    layers: int,
    remat: bool = False,
    per_layer: Any = None,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Apply `layers` layers of one kind in a scan, and return x and what they gave beside it.

    Parameters are stacked, [layers,...], or come from `separate`: then there is no scan.

    layer_step: (layer, x, a slice of per_layer) -> x, y.
    remat: keep only the layers' inputs for the backward pass.
    per_layer: a tree of arrays [layers,...]; the y are stacked alike.
    unroll: how many layers the compiler sees in a turn of the loop: compile time grows with it; 0 =
      all, no loop.
    """

    def spread_step(layer: nn.Module, x: Any, part: Any) -> tuple[Any, Any]:
        x, y = layer_step(layer, spread(x), part)
        return spread(x), y

    given = layer.variables.get("params", {})
    if name_of(0) in given:
        return one_by_one(
            spread_step, layer, [given[name_of(i)] for i in range(layers)], x, per_layer
        )
    # A loop of single layers already keeps XLA from merging the recomputation.
    step = nn.remat(spread_step, prevent_cse=unroll != 1) if remat else spread_step
    rngs: dict[Any, bool] = {"params": True, "dropout": True}
    scan = nn.scan(
        step,
        variable_axes={"params": 0},
        split_rngs=rngs,
        length=layers,
        unroll=unroll or layers,
    )
    return scan(layer, x, per_layer)


def one_by_one(
    layer_step: Callable, layer: nn.Module, params: list[dict], x: Any, per_layer: Any
) -> tuple[Any, Any]:
    """Apply layers with the parameters of each, and return what `scan_layers` does."""
    beside = []
    for i, own in enumerate(params):
        of_layer = jax.tree.map(lambda stack, i=i: stack[i], per_layer)
        x, y = layer_step(layer.clone(parent=None).bind({"params": own}), x, of_layer)
        beside.append(y)
    return x, jax.tree.map(lambda *ys: jnp.stack(ys), *beside)


def separate(stacked: dict) -> dict:
    """Return the parameters of layers, stacked [layers,...], as a tree for each, for `scan_layers`.

    For programs that apply the same layers many times, such as samplers: a loop over layers copies
    the parameters of each out of the stack whenever it comes to it. This copies them once, and
    such a program compiles longer, as it holds every layer.
    """
    layers = len(jax.tree.leaves(stacked)[0])
    return {name_of(i): jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(layers)}


def name_of(layer: int) -> str:
    """Return the name of a layer's own parameters among those that `separate` returns."""
    return str(layer)
