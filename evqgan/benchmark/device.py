"""What an accelerator makes of the full-size models: training steps, reconstruction, sampling.

Weights are untrained and images generated: speed does not depend on them. All is in bfloat16, on a
CPU in float32. The programs of a part are timed in turn. MFU is the share of the FLOPs that a
matrix product of 8,192 reaches on this device, and counts nothing that is computed twice. The
parts, each a few minutes:

checks          fused attention and codes beside float64, training in bfloat16 beside float32
stage1, stage2  a training step of imagenet_stage1 (all losses) and of imagenet_stage2 (stored ids)
reconstruction  imagenet_stage1 beside VQGAN at f = 16 and 8
sampling        imagenet_stage2 beside a GPT of its size with a cache, and MaskGIT
resolution      imagenet_stage2 from 256 to 2,048 pixels
"""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evqgan import models
from evqgan.benchmark import checks, generator_step, step, timing
from evqgan.benchmark.timing import Program
from evqgan.core import flops
from evqgan.core.cli import SWITCH, TEXT, Flag, whole
from evqgan.core.config_files import SHIPPED, read_file
from evqgan.core.errors import InputError
from evqgan.data import generated
from evqgan.generators import Request
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.training.step_flops import without_remat

IMAGES_A_STEP = {"stage1": 64, "stage2": 64}  # below 40 GiB
AT_ONCE = (1, 64)  # images of reconstruction and sampling
GRIDS = (16, 32, 64, 128)  # sides of token grids: 256 to 2,048 pixels at f = 16
COMPARED = {
    16: ("imagenet_stage1", "baselines/vqgan_imagenet_stage1:1024"),
    8: ("imagenet_stage1:f8", "baselines/vqgan_imagenet_stage1:gumbel"),
}
RIVALS: dict[str, dict[str, Any]] = {
    "GPT of its size": {
        "name": "gpt",
        "layers": 24,
        "width": 768,
        "heads": 6,
        "tables": "separate",
    },
    "MaskGIT": {"name": "maskgit"},
}
SIDE, SMALL_SIDE = 8192, 256  # of the matrices whose product MFU is a share of
# (whether models are small, timed calls, FLOPs a second of a matrix product) -> rows, as found
Part = Callable[[bool, int, float], Iterator[dict[str, Any]]]

FLAGS = (
    Flag("part", TEXT, (), "one of those above; may come several times (all)", repeated=True),
    Flag("rounds", whole(1), (), "timed calls of a program (5)", 5),
    Flag("small", SWITCH, (), "models of a few narrow layers: shows that it runs, no more"),
)


def run(given: Any, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the title and the rows of the parts asked for."""
    for part in given.part or ():
        if part not in PARTS:
            raise InputError(f"there is no part {part!r}: expected one of {', '.join(PARTS)}")
    reached = timing.ceilings(SMALL_SIDE if given.small else SIDE, given.rounds)
    rows = []
    for part in given.part or PARTS:
        print(f"{part}: compiling", flush=True)
        for found in PARTS[part](given.small, given.rounds, reached["flops"]):
            rows.append({"part": part, **EMPTY, **found})
            print(described(rows[-1]), flush=True)
    product, copy = reached["flops"] / 1e12, reached["bytes"] / 1e9
    return f"matrix product {product:.0f} TFLOP/s, copy {copy:.0f} GB/s", rows


def conclude(rows: Sequence[dict[str, Any]]) -> None:
    """Raise InputError if a check among the rows is off."""
    off = [row["program"] for row in rows if row["bound"] is not None and checks.is_off(row)]
    if off:
        raise InputError(f"this device computes wrong: {', '.join(off)}; do not train on it")


def checked(small: bool, rounds: int, peak: float) -> Iterator[dict[str, Any]]:
    """Yield the rows of the checks, of which none is timed."""
    yield from checks.rows(small)


def timed(programs_of: Callable[[bool], Iterator[list[Program]]]) -> Part:
    """Return the part that times programs, those of one list in turn."""

    def rows(small: bool, rounds: int, peak: float) -> Iterator[dict[str, Any]]:
        for programs in programs_of(small):
            yield from timing.rows_of(programs, rounds, peak)

    return rows


def described(row: dict[str, Any]) -> str:
    """Return a line about a row, for whoever waits."""
    if row["error"] is not None:
        return f"  {row['program']}: error {row['error']:.2g}, bound {row['bound']:.2g}"
    return f"  {row['program']}, {row['images']}: {row['seconds']:.4g} s, MFU {row['mfu']:.1%}"


def stage1(small: bool) -> Iterator[list[Program]]:
    """Yield a tokenizer's training step."""
    batch = 2 if small else IMAGES_A_STEP["stage1"]
    asked = SimpleNamespace(config=file_of("imagenet_stage1", small), batch=batch)

    def prepared(dtype: str, counted: bool) -> tuple:
        config = step.configured(asked, [f"--config.dtype={dtype}"])
        return step.prepared(without_remat(config) if counted else config)

    yield [training("imagenet_stage1", batch, prepared)]


def stage2(small: bool) -> Iterator[list[Program]]:
    """Yield a generator's training step on stored ids."""
    batch = 2 if small else IMAGES_A_STEP["stage2"]

    def prepared(dtype: str, counted: bool) -> tuple:
        config = generator_config(small)
        config.dtype, config.batch_size = dtype, batch
        if counted:  # nothing is to be computed twice
            config.generator.update({"remat": False, "chunk": 0})
        return generator_step.prepared(config)

    yield [training("imagenet_stage2", batch, prepared)]


def reconstruction(small: bool) -> Iterator[list[Program]]:
    """Yield tokenizers that encode and decode, by f and images at once."""
    for names in COMPARED.values():
        for images in (1, 2) if small else AT_ONCE:
            yield [reconstructing(name, images, small) for name in names]


def sampling(small: bool) -> Iterator[list[Program]]:
    """Yield generators of 16 x 16 tokens, by images at once."""
    for images in (1, 2) if small else AT_ONCE:
        programs = [drawing("imagenet_stage2", generator_config(small), images)]
        for name, keys in RIVALS.items():
            config = generator_config(small)
            less = {"layers": 2, "width": 32, "heads": 2} if small else {}
            config.generator = ConfigDict({**keys, **less, "classes": config.generator.classes})
            programs.append(drawing(name, config, images))
        yield programs


def resolution(small: bool) -> Iterator[list[Program]]:
    """Yield our generator for one image of growing size, by the order of blocks."""
    for side in GRIDS[:2] if small else GRIDS:
        config = generator_config(small)
        config.dataset.size = side * 16
        config.generator.positions = "axes"
        orders = "raster", "wavefront"
        yield [drawing(f"{side} x {side}, {order}", config, 1, order=order) for order in orders]


def file_of(name: str, small: bool) -> str:
    """Return FILE:variant of a shipped config, or of its tiny variant."""
    file, _, variant = name.partition(":")
    return f"{SHIPPED / 'configs' / file}.py:{'tiny' if small else variant}"


def generator_config(small: bool) -> ConfigDict:
    """Return the config of imagenet_stage2 on a tokenizer that only says the grid and the codes."""
    config = read_file(file_of("imagenet_stage2", small))
    with config.unlocked():
        config.tokenizer = {"weights": "random", "model": generator_step.TOKENIZER}
        config.dataset = {"name": "generated", "size": config.dataset.size}
        config.dtype = "bfloat16"
    return config


def training(name: str, images: int, prepared: Any) -> Program:
    """Return the program of a training step.

    prepared: makes (shapes of the state, init, update, batch) of a dtype and of whether products
      are counted.
    """
    like, init, update, batch = prepared(dtype_here(), False)
    call, seconds = timing.compile_timed(update.lower(like, batch))
    wide_like, _, wide, wide_batch = prepared("float32", True)
    counted = flops.count(wide, wide_like, wide_batch)
    held = [init()]

    def take() -> Any:
        held[0], metrics = call(held[0], batch)
        return metrics

    return Program(name, take, images, counted, seconds)


def reconstructing(name: str, images: int, small: bool) -> Program:
    """Return the program of a tokenizer that reconstructs images."""
    config = read_file(file_of(name, small))
    tokenizer, wide = (models.of_stage1(in_dtype(config, d)) for d in (dtype_here(), "float32"))
    weights = untrained(tokenizer.init, np.random.default_rng(0))
    drawn = np.stack([generated.draw(i, 0, tokenizer.shape) for i in range(images)])
    image = jax.device_put(drawn)

    def reconstruct(model: models.ImageTokenizer, weights: dict, image: jax.Array) -> jax.Array:
        state = {"ema": weights["params"], "codebook": weights["codebook"]}
        return model.predict(state, {"image": image}, jax.random.key(0))["reconstruction"]

    lowered = jax.jit(lambda *given: reconstruct(tokenizer, *given)).lower(weights, image)
    call, seconds = timing.compile_timed(lowered)
    counted = flops.count(lambda *given: reconstruct(wide, *given), weights, image)
    return Program(name, lambda: call(weights, image), images, counted, seconds)


def drawing(name: str, config: ConfigDict, images: int, **settings: Any) -> Program:
    """Return the program of a generator that samples the tokens of images."""
    model, wide = (generator_of(in_dtype(config, d)) for d in (dtype_here(), "float32"))
    rng = np.random.default_rng(0)
    params, weights = untrained(model.init, rng), untrained(model.tokenizer.init, rng)
    keys = jax.random.split(jax.random.key(1), images)
    ids = jnp.zeros((images, *model.tokenizer.grid, 1), jnp.int32)

    def sample(made: models.TokenGenerator, params: dict, weights: dict, keys: jax.Array) -> Any:
        label = jnp.zeros(images, jnp.int32)
        request = Request(ids, jnp.ones(ids.shape[:-1], bool), label, keys)
        return made.sample(params, weights, request, made.settings(settings)).tokens

    given = params, weights, keys
    call, seconds = timing.compile_timed(jax.jit(lambda *g: sample(model, *g)).lower(*given))
    counted = flops.count(lambda *g: sample(wide, *g), *given)
    return Program(name, lambda: call(*given), images, counted, seconds)


def generator_of(config: ConfigDict) -> models.TokenGenerator:
    """Return the generator of a config on its untrained tokenizer."""
    network = tokenizers.make(config.tokenizer.model)
    tokenizer = models.ImageTokenizer(network, models.shape_of(config))
    return models.token_generator(config.generator, tokenizer, config.dtype)


def untrained(init: Callable, rng: np.random.Generator) -> Any:
    """Return small random weights of the shapes that init(key) has; it is not compiled."""

    def draw(x: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(rng.standard_normal(x.shape, np.float32) * 0.02)

    return jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


def dtype_here() -> str:
    """Return the dtype of heavy products on this device."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def in_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
    """Return a copy of a config with its heavy products in `dtype`."""
    copy = config.copy_and_resolve_references()
    copy.dtype = dtype
    return copy


KEYS = "program images compile_seconds seconds least most images_per_second tflop mfu peak_gib"
EMPTY = dict.fromkeys([*KEYS.split(), "error", "bound"])
PARTS: dict[str, Part] = {
    "checks": checked,
    "stage1": timed(stage1),
    "stage2": timed(stage2),
    "reconstruction": timed(reconstruction),
    "sampling": timed(sampling),
    "resolution": timed(resolution),
}
