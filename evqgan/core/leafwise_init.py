"""Draw first values leaf by leaf: equal layers share one small program instead of a large one.

One jit of a large model's initialization compiles for minutes; this gives the same numbers without
it. A traced initialization is a graph of keys, of random bits made with them, and of arithmetic on
these. Keys are computed at once. Each leaf of the result is a program of its own, and leaves that
differ in their keys alone share one. On a single device the bits, whose cipher is most of what a
draw takes to compile, come from one program for all.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

# Random numbers that one call of the program of bits makes: for small arrays, and for large ones.
CHUNKS = (2**12, 2**20)


class Drawing:
    """A traced initialization. `shapes`: the tree that it returns, of jax.ShapeDtypeStruct."""

    def __init__(self, function: Callable[[], Any]) -> None:
        """Trace `function`, which takes nothing and returns a tree of arrays."""
        self._traced, self.shapes = jax.make_jaxpr(function, return_shape=True)()

    def __call__(self, shardings: Any = None) -> Any:
        """Return the tree as `jax.jit(function, out_shardings=shardings)` would.

        What the result does not depend on, such as the forward pass in which layers are made, is
        neither compiled nor run.
        shardings: a tree like the result's; each device then draws its own parts alone. None: all
          is on the default device.
        """
        jaxpr, consts = self._traced.jaxpr, self._traced.consts
        alive, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        graph = jax.make_jaxpr(lambda: _evaluate(alive, consts, ()))()
        tree: Any = jax.tree.structure(self.shapes)
        where = [None] * tree.num_leaves if shardings is None else tree.flatten_up_to(shardings)
        config: Any = jax.config
        bits_first = config.jax_threefry_partitionable  # what `bits` is about
        bits_first &= all(x is None or len(x.device_set) == 1 for x in where)
        leaves = _Graph(graph, bits_first).leaves(where)
        return jax.tree.unflatten(tree, leaves)


class _Graph:
    """The equations of an initialization, none of them in a function of its own."""

    def __init__(self, graph: core.ClosedJaxpr, bits_first: bool) -> None:
        """Take the graph.

        bits_first: whether bits are drawn before a leaf's program runs, and not by it.
        """
        self.results = graph.jaxpr.outvars
        self.made = {v: eqn for eqn in graph.jaxpr.eqns for v in eqn.outvars}
        self.known = dict(zip(graph.jaxpr.constvars, graph.consts, strict=True))  # and keys
        self.bits_first = bits_first
        self.programs: dict[Any, Any] = {}  # by signature and sharding
        self.latest: tuple[Any, Any] = (None, None)  # the last bits drawn: two leaves may have them

    def leaves(self, shardings: Sequence[Any]) -> list[jax.Array]:
        """Return the results, each by the program of all leaves like it."""
        leaves = [self._leaf(v, *self._dependencies(v)) for v in self.results]
        names = [(x.signature(), where) for x, where in zip(leaves, shardings, strict=True)]
        distinct = dict(zip(names, leaves, strict=True))
        lowered = [
            jax.jit(x, out_shardings=where).lower(*x.avals) for (_, where), x in distinct.items()
        ]
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA does not hold Python's lock
            compiled = pool.map(lambda x: x.compile(), lowered)
            self.programs = dict(zip(distinct, compiled, strict=True))
        found: dict[int, jax.Array] = {}
        first: dict[Any, int] = {}  # leaves of the same bits follow each other
        for i in sorted(range(len(leaves)), key=lambda i: first.setdefault(leaves[i].source, i)):
            found[i] = self.programs[names[i]](*[self._input(v) for v in leaves[i].inputs])
        return [found[i] for i in range(len(leaves))]

    def _leaf(self, result: Any, inputs: list[core.Var], equations: list[core.JaxprEqn]) -> "_Leaf":
        """Return the leaf that equations compute of inputs."""
        impls = [jax.random.key_impl(self._value(v)) if _is_key(v) else None for v in inputs]
        return _Leaf(inputs, impls, equations, result)

    def _dependencies(self, result: Any) -> tuple[list[core.Var], list[core.JaxprEqn]]:
        """Return the inputs of the program that computes a variable, and its equations in order.

        Inputs are keys, constants and, with `bits_first`, random bits.
        """
        inputs: dict[core.Var, None] = {}
        equations: dict[int, core.JaxprEqn] = {}

        def visit(v: Any) -> None:
            if isinstance(v, core.Literal):
                return
            eqn = self.made.get(v)
            if eqn is None or _is_key(v) or (self.bits_first and _is_plain_bits(eqn)):
                inputs[v] = None
            elif id(eqn) not in equations:
                for x in eqn.invars:
                    visit(x)
                equations[id(eqn)] = eqn

        visit(result)
        return list(inputs), list(equations.values())

    def _input(self, v: core.Var) -> Any:
        """Return the value of a program's input as NumPy, which several processes need."""
        if _is_key(v):
            return np.asarray(jax.random.key_data(self._value(v)))
        if v in self.known:
            return np.asarray(self.known[v])
        if self.latest[0] is not v:
            key, shape = self.made[v].invars[0], self.made[v].params["shape"]
            self.latest = v, bits(self._value(key), shape)
        return self.latest[1]

    def _value(self, v: Any) -> Any:
        """Return the value of a key, or of what it is made of."""
        if isinstance(v, core.Literal):
            return v.val
        if v not in self.known:
            eqn = self.made[v]
            found = _apply(eqn, [self._value(x) for x in eqn.invars])
            self.known.update(zip(eqn.outvars, found, strict=True))
        return self.known[v]


@dataclasses.dataclass(frozen=True, eq=False)
class _Leaf:
    """A leaf as a function of keys, bits and constants."""

    inputs: list[core.Var]
    impls: list[Any]  # of the keys among them; None: it is no key
    equations: list[core.JaxprEqn]
    result: Any

    def __call__(self, *values: Any) -> jax.Array:
        """Return the value. values: of `inputs`, keys as their data."""
        env = {
            v: x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for v, impl, x in zip(self.inputs, self.impls, values, strict=True)
        }
        x = jnp.asarray(_read(_run(self.equations, env), self.result))
        # astype takes a weak type away; copy, as a result may be an input.
        return jnp.copy(x.astype(x.dtype))

    @property
    def source(self) -> core.Var | None:
        """The first input, None if there is none."""
        return self.inputs[0] if self.inputs else None

    @property
    def avals(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the inputs, of keys those of their data."""

        def one(v: Any, impl: Any) -> jax.ShapeDtypeStruct:
            if impl is None:
                return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
            words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))
            return jax.ShapeDtypeStruct((*v.aval.shape, *words.shape), words.dtype)

        return list(map(one, self.inputs, self.impls))

    def signature(self) -> str:
        """Return a text that leaves have in common if they differ in the values of inputs alone."""
        number: dict[Any, int] = {v: i for i, v in enumerate(self.inputs)}

        def name(v: Any) -> Any:
            return (v.val, v.aval) if isinstance(v, core.Literal) else number[v]

        lines: list[Any] = [
            [(v.aval, impl) for v, impl in zip(self.inputs, self.impls, strict=True)]
        ]
        for eqn in self.equations:
            lines.append((eqn.primitive, eqn.params, [name(v) for v in eqn.invars]))
            for v in eqn.outvars:
                number[v] = len(number)
                lines.append(v.aval)
        return str([*lines, name(self.result)])


def bits(key: jax.Array, shape: Sequence[int]) -> np.ndarray:
    """Return `jax.random.bits` of one key or several, uint32 [*key.shape,*shape].

    One program makes them for all shapes: number i of an array is what the cipher makes of i, as
    `jax.random.fold_in` does.
    """
    size = math.prod(shape)
    chunk = next((n for n in CHUNKS if n >= size), CHUNKS[-1])
    found = np.empty((key.size, size), np.uint32)
    for one, row in zip(key.reshape(-1), found, strict=True):
        for first in range(0, size, chunk):
            part = np.asarray(_bits_from(one, np.uint32(first), chunk))
            row[first : first + chunk] = part[: size - first]
    return found.reshape((*key.shape, *shape))


@partial(jax.jit, static_argnums=2)
def _bits_from(key: jax.Array, first: jax.Array, number: int) -> jax.Array:
    counters = first + jnp.arange(number, dtype=jnp.uint32)
    words = jax.random.key_data(jax.vmap(partial(jax.random.fold_in, key))(counters))
    return words[:, 0] ^ words[:, 1]


def _is_key(v: Any) -> bool:
    return jax.dtypes.issubdtype(v.aval.dtype, jax.dtypes.prng_key)


def _is_plain_bits(eqn: core.JaxprEqn) -> bool:
    """Return whether an equation is one of those that `bits` computes."""
    key: Any = eqn.invars[0]
    return (
        eqn.primitive.name == "random_bits"
        and eqn.params["bit_width"] == 32
        and math.prod(eqn.params["shape"]) < 2**32
        and "fry" in str(key.aval.dtype)  # threefry2x32
    )


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    _run(jaxpr.eqns, env)
    return [_read(env, v) for v in jaxpr.outvars]


def _run(equations: Sequence[core.JaxprEqn], env: dict) -> dict:
    """Add what equations compute to `env`, and return it."""
    for eqn in equations:
        found = _apply(eqn, [_read(env, v) for v in eqn.invars])
        env.update(zip(eqn.outvars, found, strict=True))
    return env


def _read(env: dict, v: Any) -> Any:
    return v.val if isinstance(v, core.Literal) else env[v]


def _apply(eqn: core.JaxprEqn, inputs: list[Any]) -> list[Any]:
    """Return the outputs of an equation.

    Functions are taken apart. A scan that carries nothing, as over the keys of equal layers, is
    done for all of them at once. What only copies is left out.
    """
    name = eqn.primitive.name
    inner: Any = eqn.params.get("jaxpr")
    if name in ("jit", "pjit", "closed_call"):
        return _evaluate(inner.jaxpr, inner.consts, inputs)
    if name == "copy":
        return inputs
    if name == "scan" and not (parts := _scan_parts(eqn)).carried:
        consts, slices = inputs[: parts.constant], inputs[parts.constant :]

        def one(*slices: Any) -> list[Any]:
            return _evaluate(inner.jaxpr, inner.consts, (*consts, *slices))

        return jax.vmap(one)(*slices) if slices else _bind(eqn, inputs)
    return _bind(eqn, inputs)


class _ScanParts(NamedTuple):
    constant: int  # inputs
    carried: int


def _scan_parts(eqn: core.JaxprEqn) -> _ScanParts:
    """Return how many inputs of a scan are constant, and how many are carried."""
    if "ft_in" in eqn.params:  # from jax 0.12 on
        consts, carried, _ = eqn.params["ft_in"].unpack()
        return _ScanParts(len(consts.vals), len(carried.vals))
    return _ScanParts(eqn.params["num_consts"], eqn.params["num_carry"])


def _bind(eqn: core.JaxprEqn, inputs: list[Any]) -> list[Any]:
    found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return found if eqn.primitive.multiple_results else [found]
