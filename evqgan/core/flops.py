"""Floating-point operations of a function, counted in its jaxpr.

A product of n terms is 2 n operations; only matrix products and convolutions count, as in most
published figures. What no result depends on does not count, as a compiler leaves it out: a gradient
for one layer's weights alone is traced as one for all. XLA's own count takes the body of a loop
once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

# cuDNN's attention, as JAX has it, and its products with queries, keys and values: forward of
# queries and keys, and of weights and values; backward the two sides of each.
FUSED = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 4}


def count(function: Callable, *given: Any) -> float:
    """Return the FLOPs of one call of `function`; arguments may be shapes."""
    return of_jaxpr(jax.make_jaxpr(function)(*given).jaxpr)


def of_jaxpr(jaxpr: Any) -> float:
    """Return the FLOPs of a jaxpr. Raises ValueError for products in a loop of unknown length."""
    live, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return of_equations(live)


def of_equations(jaxpr: Any) -> float:
    """Return the FLOPs of all equations of a jaxpr."""
    return sum(of_equation(equation) for equation in jaxpr.eqns)


def of_equation(equation: Any) -> float:
    """Return the FLOPs of one equation, and of what is within it."""
    name, keys = equation.primitive.name, equation.params
    if name == "dot_general":
        return of_product(equation)
    if name == "conv_general_dilated":
        return of_convolution(equation)
    if name in FUSED:
        return of_fused_attention(equation)
    if name == "cond":  # the most expensive branch
        return max(of_equations(branch.jaxpr) for branch in keys["branches"])
    within = sum(of_equations(jaxpr) for jaxpr in jaxprs_of(keys))
    if name == "while" and within:
        raise ValueError("cannot count the products of a loop of unknown length")
    return within * (keys["length"] if name == "scan" else 1)


def jaxprs_of(keys: dict[str, Any]) -> list[Any]:
    """Return the jaxprs among the parameters of an equation."""
    found = []
    for value in keys.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, core.ClosedJaxpr):
                found.append(entry.jaxpr)
            elif isinstance(entry, core.Jaxpr):
                found.append(entry)
    return found


def of_product(equation: Any) -> float:
    """Return the FLOPs of a `dot_general`."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2 * terms * math.prod(equation.outvars[0].aval.shape)


def of_convolution(equation: Any) -> float:
    """Return the FLOPs of a convolution: each output is a sum over a kernel's inputs."""
    kernel = equation.invars[1].aval.shape
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    dilated = math.prod(equation.params["lhs_dilation"])  # zeros that are put in between
    each = math.prod(kernel) / out_channels / dilated
    return 2 * each * math.prod(equation.outvars[0].aval.shape)


def of_fused_attention(equation: Any) -> float:
    """Return the FLOPs of an attention in one operation, as if nothing in it were done twice."""
    query, keys = (equation.invars[i].aval.shape for i in (0, 1))
    length = keys[1 if equation.params["layout"] == 0 else 2]  # [B,S,heads,d] or [B,heads,S,d]
    return FUSED[equation.primitive.name] * 2 * math.prod(query) * length
