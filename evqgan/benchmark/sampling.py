"""Seconds to sample one image's tokens, by attention and order, beside what they cost by count.

The weights are untrained: speed does not depend on them. Token passes are tokens that go through one layer, for an
image: "joint" runs everything in each of the T steps, "prefix" the globals and the ring once a block.
"""

import time

import jax
import jax.numpy as jnp

from evqgan.core.errors import InputError
from evqgan.generators import multigrained
from evqgan.generators.blocks import fronts

ROWS = (("joint", "raster"), ("prefix", "raster"), ("prefix", "wavefront"))
RUNS = 2  # ours: the better one counts
FULL = {"layers": 24, "width": 768, "dtype": "bfloat16"}  # the model of configs/
SMALL = {"layers": 2, "width": 384, "dtype": "float32"}  # ours: some minutes on two CPU cores
HEAD = 48  # of the model of configs/: 16 heads of 48


def arguments(parser):
    """The flags."""
    small = jax.default_backend() == "cpu"
    default = SMALL if small else FULL
    parser.add_argument("--layers", type=int, default=default["layers"], help="depth (24 is the configs')")
    parser.add_argument("--width", type=int, default=default["width"], help="a multiple of 48 (768 is the configs')")
    parser.add_argument("--latent", type=int, default=64, help="side of the token grid")
    parser.add_argument("--window", type=int, default=8, help="W_s")
    parser.add_argument("--extend", type=int, default=2, help="E_s")
    parser.add_argument("--steps", type=int, default=8, help="T")
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--dtype", default=default["dtype"], help="of the heavy products: bfloat16 or float32")
    parser.add_argument("--attention", action="append", help="joint or prefix; may come twice (default: both)")
    parser.add_argument("--order", action="append", help="raster or wavefront; may come twice (default: both)")


def run(given, rest):
    """-> title, rows."""
    if rest:
        raise InputError(f"there is no flag {rest[0]}; see --help")
    for name in ("layers", "width", "latent", "window", "steps", "batch"):
        if getattr(given, name) < 1:
            raise InputError(f"expected --{name} of at least 1, got {getattr(given, name)}")
    if given.dtype not in ("bfloat16", "float32"):
        raise InputError(f"expected --dtype=bfloat16 or float32, got {given.dtype!r}")
    rows = []
    for attention, order in cases(given.attention, given.order):
        model = build(given, attention)
        passes, flops = work(model, given.steps, order)
        seconds = timed(model, given.batch, given.steps, order)
        print(f"{attention}, {order}: {seconds:.3g} seconds an image", flush=True)
        rows.append({
            "system": "ours", "latent": given.latent, "window": given.window, "batch": given.batch,
            "seconds_per_image": seconds, "attention": attention, "order": order, "extend": given.extend,
            "steps": given.steps, "token_passes": passes, "gflops": flops / 1e9,
            "speedup": rows[0]["seconds_per_image"] / seconds if rows else 1.0,
        })  # fmt: skip
    title = f"sampling, {given.layers} layers of width {given.width}, {given.dtype}, untrained; speedup over the first"
    return title, rows


def cases(attentions, orders):
    """(attention, order) of each row: those of ROWS, or all that are asked for."""
    if not (attentions or orders):
        return ROWS
    return [(a, o) for a in attentions or ("joint", "prefix") for o in orders or ("raster", "wavefront")]


def build(given, attention):
    """The model of a row."""
    if given.width % HEAD:
        raise InputError(f"expected --width as a multiple of {HEAD}, got {given.width}")
    return multigrained.Model(
        codes=1024, latent=(given.latent, given.latent), window=given.window, extend=given.extend, attention=attention,
        layers=given.layers, width=given.width, heads=given.width // HEAD, dtype=given.dtype,
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
    passes = turns * (shared + rows * (ring + steps * target))
    return passes, turns * (context_flops(model, rows) + steps * continued_flops(model, rows))


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


def context_flops(model, rows, layers=None):
    """FLOPs of `Model.context` for `rows` blocks of one image: their globals and rings."""
    shared, ring, _ = groups(model)
    embedded = shared * summary_flops(model) + rows * ring * place_flops(model)
    pairs = shared * shared + rows * ring * (shared + ring)
    return embedded + stack_flops(model, shared + rows * ring, pairs, layers)


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
