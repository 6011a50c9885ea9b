"""Seconds to sample one image's tokens, by attention and order, beside what they cost by count.

The weights are untrained: speed does not depend on them. Token passes are tokens that go through
one layer, for an image: "joint" runs everything in each of the T steps, "prefix" the ring once a
block, and with it all "masked" globals; of "ordered" ones the block's own.
"""

import argparse
import itertools
from typing import Any, get_args

import jax
import jax.numpy as jnp

from evqgan.benchmark import timing
from evqgan.benchmark.step import DTYPES
from evqgan.core.cli import Flag, choice, whole
from evqgan.core.errors import InputError
from evqgan.generators import Request, multigrained
from evqgan.generators.blocks import ORDERS, Order, decoding_order, ring_and_target
from evqgan.generators.multigrained_network import GLOBAL_TOKENS, AttentionMask, GlobalTokens

Case = tuple[AttentionMask, GlobalTokens, Order]
TWICE = "may come twice (both)"
ROWS: tuple[Case, ...] = (  # attention, global tokens, order
    ("joint", "masked", "raster"),
    ("prefix", "masked", "raster"),
    ("prefix", "ordered", "raster"),
    ("prefix", "ordered", "wavefront"),
)
FULL = {"layers": 24, "width": 768, "dtype": "bfloat16"}  # the model of configs/
SMALL = {"layers": 2, "width": 384, "dtype": "float32"}  # ours: some minutes on two CPU cores
HEAD = 128  # of the model of configs/: 6 heads of 128


FLAGS = (
    Flag("layers", whole(1), (), "depth (24, the configs'; on a CPU 2)"),
    Flag("width", whole(1), (), "a multiple of 128 (768, the configs'; on a CPU 384)"),
    Flag("latent", whole(1), (), "side of the token grid (64)", 64),
    Flag("window", whole(1), (), "W_s (8)", 8),
    Flag("extend", whole(0), (), "E_s (2)", 2),
    Flag("steps", whole(1), (), "T (8)", 8),
    Flag("batch", whole(1), (), "images at a time (1)", 1),
    Flag("rounds", whole(1), (), "timed calls of a program, in turn (3)", 3),
    Flag("dtype", choice(*DTYPES), (), "of the heavy products (as suits the device)"),
    Flag("attention", choice(*get_args(AttentionMask)), (), TWICE, repeated=True),
    Flag("global_tokens", choice(*GLOBAL_TOKENS), (), TWICE, repeated=True),
    Flag("order", choice(*ORDERS), (), TWICE, repeated=True),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each attention, kind of global tokens, and order."""
    fill(given)
    chosen = cases(given)
    programs, passes = [], []
    for attention, tokens, order in chosen:
        model = build(given, attention, tokens)
        counted, flops = work(model, given.steps, order)
        name = f"{attention}, {tokens}, {order}"
        print(f"compiling {name}", flush=True)
        programs.append(program(name, model, given.batch, given.steps, order, flops))
        passes.append(counted)
    timed = timing.rows_of(programs, given.rounds, float("inf"))
    found = zip(chosen, passes, programs, timed, strict=True)
    rows = [row_of(given, *of_one) for of_one in found]
    for row in rows:
        row["speedup"] = rows[0]["seconds_per_image"] / row["seconds_per_image"]
    model_text = f"{given.layers} layers of width {given.width}, {given.dtype}, untrained"
    return f"sampling, {model_text}; timed in turn; speedup over the first", rows


def fill(given: Any) -> None:
    """Set the size of a model that was not given: the configs', on a CPU a small one.

    Raises InputError for a width that is no multiple of HEAD.
    """
    for name, default in (SMALL if jax.default_backend() == "cpu" else FULL).items():
        if name in given and getattr(given, name) is None:
            setattr(given, name, default)
    if given.width % HEAD:
        raise InputError(f"expected --width as a multiple of {HEAD}, got {given.width}")


def row_of(
    given: argparse.Namespace,
    case: tuple[str, str, str],
    passes: int,
    compiled: timing.Program,
    timed: dict[str, Any],
) -> dict[str, Any]:
    """Return the row of a case, but for the speedup.

    passes: tokens that pass a layer for an image.
    timed: what `timing.rows_of` says of the program.
    """
    attention, tokens, order = case
    return {
        "system": "ours",
        "latent": given.latent,
        "window": given.window,
        "batch": given.batch,
        "seconds_per_image": timed["seconds"] / given.batch,
        "attention": attention,
        "global_tokens": tokens,
        "order": order,
        "extend": given.extend,
        "steps": given.steps,
        "token_passes": passes,
        "gflops": compiled.flops / given.batch / 1e9,
    }


def cases(given: argparse.Namespace) -> list[Case]:
    """Return (attention, global tokens, order) of each row: those of ROWS, or all asked for."""
    wanted = given.attention, given.global_tokens, given.order
    if not any(wanted):
        return list(ROWS)
    known: list[list[Any]] = [sorted({row[i] for row in ROWS}) for i in range(3)]
    chosen = [some or every for some, every in zip(wanted, known, strict=True)]
    return list(itertools.product(*chosen))


def build(
    given: argparse.Namespace, attention: AttentionMask, tokens: GlobalTokens
) -> multigrained.Model:
    """Return the model of a row."""
    return multigrained.Model(
        codes=1024,
        latent=(given.latent, given.latent),
        window=given.window,
        extend=given.extend,
        attention=attention,
        global_tokens=tokens,
        layers=given.layers,
        width=given.width,
        heads=given.width // HEAD,
        unroll=0,
        dtype=given.dtype,
    )


def program(
    name: str, model: multigrained.Model, batch: int, steps: int, order: Order, flops: float
) -> timing.Program:
    """Return the program that samples a batch. flops: of one image."""
    settings = multigrained.Settings(steps=steps, order=order)
    label = jnp.zeros((batch,), jnp.int32)
    params = jax.jit(lambda: multigrained.init(model, jax.random.key(0), label[:1]))()
    ids = jnp.zeros((batch, *model.latent, 1), jnp.int32)
    mask, keys = jnp.ones(ids.shape[:-1], bool), jax.random.split(jax.random.key(1), batch)

    def sample(params: dict, ids: jax.Array, keys: jax.Array) -> jax.Array:
        request = Request(ids, mask, label, keys)
        return multigrained.sample(model, params, request, settings).tokens

    lowered = jax.jit(sample).lower(params, ids, keys)
    compiled, seconds = timing.compile_timed(lowered)
    return timing.Program(name, lambda: compiled(params, ids, keys), batch, batch * flops, seconds)


def work(model: multigrained.Model, steps: int, order: Order) -> tuple[int, float]:
    """Return tokens that pass a layer for one image, and FLOPs of one image.

    The steps of a wavefront all have room for as many blocks as the widest; what fills a narrow one
    up counts, as it runs.
    """
    block_steps, blocks = decoding_order(*model.layout, order).shape
    shared, ring, target = segments(model)
    if model.attention == "joint":
        passes = blocks * steps * (shared + ring + target)
        return block_steps * passes, block_steps * steps * joint_flops(model, blocks)
    passes = blocks * (ring + steps * target)
    each = ring_flops(model, blocks) + steps * continued_flops(model, blocks)
    if model.global_tokens == "masked":
        of_globals = globals_flops(model, shared, shared)
        return block_steps * (shared + passes), block_steps * (of_globals + each)
    begin = globals_flops(model, shared, shared)
    complete = globals_flops(model, blocks, shared + blocks)
    return shared + block_steps * (blocks + passes), begin + block_steps * (complete + each)


def segments(model: multigrained.Model) -> tuple[int, int, int]:
    """Return the tokens of a sequence: globals, ring, target."""
    ring, target = ring_and_target(*model.layout)
    return model.blocks, ring.shape[1], target.shape[1] + (model.own == "partial")


def joint_flops(model: multigrained.Model, blocks: int) -> float:
    """Return FLOPs of `Model.__call__` with "joint" attention for some blocks of one image."""
    shared, ring, target = segments(model)
    whole = shared + ring + target
    embedded = shared * summary_flops(model) + blocks * (ring + target) * local_flops(model)
    each = stack_flops(model, whole, whole * whole) + predict_flops(model)
    return embedded + blocks * each


def globals_flops(model: multigrained.Model, made: int, seen: int) -> float:
    """Return FLOPs of the KV cache of `made` global tokens, each of which meets `seen` ones."""
    return made * summary_flops(model) + stack_flops(model, made, made * seen)


def ring_flops(model: multigrained.Model, blocks: int) -> float:
    """Return FLOPs of the KV cache of the rings of some blocks of one image, given its globals."""
    shared, ring, _ = segments(model)
    each = stack_flops(model, ring, ring * (shared + ring))
    return blocks * (ring * local_flops(model) + each)


def continued_flops(model: multigrained.Model, blocks: int) -> float:
    """Return FLOPs of `Model.continued` for some blocks of one image: a step of their targets."""
    shared, ring, target = segments(model)
    pairs = target * (shared + ring + target)
    each = stack_flops(model, target, pairs) + predict_flops(model)
    return blocks * (target * local_flops(model) + each)


def stack_flops(model: multigrained.Model, tokens: int, pairs: int) -> float:
    """Return FLOPs of the transformer for `tokens`; `pairs` of query and key meet in each layer."""
    dense = 2 * tokens * (4 + 2 * model.mlp_ratio) * model.width**2
    return model.layers * (dense + 4 * pairs * model.width)


def summary_flops(model: multigrained.Model) -> int:
    """Return FLOPs of one global token."""
    return 2 * model.window**2 * model.code_width * model.width


def local_flops(model: multigrained.Model) -> int:
    """Return FLOPs of one local token's embedding."""
    return 2 * model.code_width * model.width


def predict_flops(model: multigrained.Model) -> int:
    """Return FLOPs of the logits of one block."""
    return 2 * model.window**2 * model.width * model.codes
