"""Seconds to sample one image's tokens, by attention and order, beside what they cost by count.

The weights are untrained: speed does not depend on them. Token passes are tokens that go through one layer, for an
image: "joint" runs everything in each of the T steps, "prefix" the ring once a block, and with it all "masked" globals;
of "ordered" ones the block's own.
"""

import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp

from evqgan.core.cli import TEXT, Flag, whole
from evqgan.core.errors import InputError
from evqgan.generators import multigrained
from evqgan.generators.blocks import fronts

ROWS = (  # attention, global tokens, order
    ("joint", "masked", "raster"),
    ("prefix", "masked", "raster"),
    ("prefix", "ordered", "raster"),
    ("prefix", "ordered", "wavefront"),
)
RUNS = 2  # ours: the better one counts
FULL = {"layers": 24, "width": 768, "dtype": "bfloat16"}  # the model of configs/
SMALL = {"layers": 2, "width": 384, "dtype": "float32"}  # ours: some minutes on two CPU cores
HEAD = 48  # of the model of configs/: 16 heads of 48


FLAGS = (
    Flag("layers", whole(), (), "depth (24, the configs'; on a CPU 2)"),
    Flag("width", whole(), (), "a multiple of 48 (768, the configs'; on a CPU 384)"),
    Flag("latent", whole(), (), "side of the token grid (64)", 64),
    Flag("window", whole(), (), "W_s (8)", 8),
    Flag("extend", whole(), (), "E_s (2)", 2),
    Flag("steps", whole(), (), "T (8)", 8),
    Flag("batch", whole(), (), "images at a time (1)", 1),
    Flag("dtype", TEXT, (), "of the heavy products: bfloat16 or float32 (as the device)"),
    Flag("attention", TEXT, (), "joint or prefix; may come twice (both)", repeated=True),
    Flag("global_tokens", TEXT, (), "masked or ordered; may come twice (both)", repeated=True),
    Flag("order", TEXT, (), "raster or wavefront; may come twice (both)", repeated=True),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows: one for each attention, kind of global tokens, and order."""
    for name, default in (SMALL if jax.default_backend() == "cpu" else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    for name in ("layers", "width", "latent", "window", "steps", "batch"):
        if getattr(given, name) < 1:
            raise InputError(f"expected --{name} of at least 1, got {getattr(given, name)}")
    if given.dtype not in ("bfloat16", "float32"):
        raise InputError(f"expected --dtype=bfloat16 or float32, got {given.dtype!r}")
    rows = []
    for attention, tokens, order in cases(given):
        model = build(given, attention, tokens)
        passes, flops = work(model, given.steps, order)
        seconds = timed(model, given.batch, given.steps, order)
        print(f"{attention}, {tokens}, {order}: {seconds:.3g} seconds an image", flush=True)
        rows.append({
            "system": "ours", "latent": given.latent, "window": given.window, "batch": given.batch,
            "seconds_per_image": seconds, "attention": attention, "global_tokens": tokens, "order": order,
            "extend": given.extend, "steps": given.steps, "token_passes": passes, "gflops": flops / 1e9,
            "speedup": rows[0]["seconds_per_image"] / seconds if rows else 1.0,
        })  # fmt: skip
    title = f"sampling, {given.layers} layers of width {given.width}, {given.dtype}, untrained; speedup over the first"
    return title, rows


def cases(given):
    """(attention, global tokens, order) of each row: those of ROWS, or all that are asked for."""
    wanted = given.attention, given.global_tokens, given.order
    if not any(wanted):
        return ROWS
    return list(itertools.product(*(some or sorted({row[i] for row in ROWS}) for i, some in enumerate(wanted))))


def build(given, attention, tokens):
    """The model of a row."""
    if given.width % HEAD:
        raise InputError(f"expected --width as a multiple of {HEAD}, got {given.width}")
    return multigrained.Model(
        codes=1024, latent=(given.latent, given.latent), window=given.window, extend=given.extend, attention=attention,
        global_tokens=tokens, layers=given.layers, width=given.width, heads=given.width // HEAD, dtype=given.dtype,
    )  # fmt: skip


def timed(model, batch, steps, order):
    """Seconds an image of the best of RUNS runs, without compiling."""
    label = jnp.zeros((batch,), jnp.int32)
    params = jax.jit(lambda: multigrained.init(model, jax.random.key(0), label[:1]))()
    ids = jnp.zeros((batch, *model.latent, 1), jnp.int32)
    keys = jax.random.split(jax.random.key(1), batch)

    def sample(params, ids, keys):
        mask = jnp.ones(ids.shape[:-1], bool)
        return multigrained.sample(model, params, ids, mask, label, keys, steps=steps, order=order)

    compiled, seconds = jax.jit(sample).lower(params, ids, keys).compile(), []
    for _ in range(RUNS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(params, ids, keys))
        seconds.append(time.perf_counter() - began)
    return min(seconds) / batch


def work(model, steps, order):
    """-> tokens that pass a layer for one image, FLOPs of one image.

    A wavefront's turns all have room for as many blocks as the widest; what fills a narrow one up counts, as it runs.
    """
    turns, rows = fronts(*model.latent, model.window, model.extend, order).shape
    shared, ring, target = groups(model)
    if model.attention == "joint":
        return turns * rows * steps * (shared + ring + target), turns * steps * joint_flops(model, rows)
    passes, each = (
        rows * (ring + steps * target),
        ring_flops(model, rows) + steps * continued_flops(model, rows),
    )
    if model.global_tokens == "masked":
        return turns * (shared + passes), turns * (globals_flops(model, shared, shared) + each)
    begin, complete = (
        globals_flops(model, shared, shared),
        globals_flops(model, rows, shared + rows),
    )
    return shared + turns * (rows + passes), begin + turns * (complete + each)


def groups(model):
    """Tokens of a sequence: globals, ring, target."""
    target = model.window**2
    ring = (model.window + 2 * model.extend) ** 2 - target
    return model.blocks, ring, target + (model.own == "partial")


def joint_flops(model, rows, layers=None):
    """FLOPs of `Model.__call__` with "joint" attention for `rows` target blocks of one image."""
    shared, ring, target = groups(model)
    whole = shared + ring + target
    embedded = shared * summary_flops(model) + rows * (ring + target) * place_flops(model)
    return embedded + rows * stack_flops(model, whole, whole * whole, layers) + rows * predict_flops(model)


def globals_flops(model, made, seen, layers=None):
    """FLOPs of the keys and values of `made` global tokens, each of which meets `seen` ones."""
    return made * summary_flops(model) + stack_flops(model, made, made * seen, layers)


def ring_flops(model, rows, layers=None):
    """FLOPs of the keys and values of the rings of `rows` blocks of one image, given its globals."""
    shared, ring, _ = groups(model)
    return rows * (ring * place_flops(model) + stack_flops(model, ring, ring * (shared + ring), layers))


def continued_flops(model, rows, layers=None):
    """FLOPs of `Model.continued` for `rows` blocks of one image: one step of their targets."""
    shared, ring, target = groups(model)
    pairs = target * (shared + ring + target)
    each = target * place_flops(model) + stack_flops(model, target, pairs, layers) + predict_flops(model)
    return rows * each


def stack_flops(model, tokens, pairs, layers=None):
    """Of the transformer: `tokens` pass it; `pairs` of query and key meet in each layer."""
    dense = 2 * tokens * (4 + 2 * model.mlp_ratio) * model.width**2
    return (model.layers if layers is None else layers) * (dense + 4 * pairs * model.width)


def summary_flops(model):
    """Of one global token."""
    return 2 * model.window**2 * model.code_width * model.width


def place_flops(model):
    """Of one local token's embedding."""
    return 2 * model.code_width * model.width


def predict_flops(model):
    """Of the logits of one block."""
    return 2 * model.window**2 * model.width * model.codes
