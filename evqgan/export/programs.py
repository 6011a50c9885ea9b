"""Programs of an exported model, which run with JAX alone: serializations by `jax.export`.

Each takes the arrays of model.safetensors by their names, as `safetensors.numpy.load_file` returns
them, so that a program is small and there is one file of weights. b, the images of a batch, is any
number from 1.

    reconstruct.jax   weights, images uint8 [b,H,W,3] -> {"images" alike, "ids" int32 [b,h,w,D]}
    decode.jax        weights, ids int32 [b,h,w,D] -> {"images" uint8 [b,H,W,3]}
    sample.jax        weights, labels int32 [b], seed uint32 [] -> {"images", "ids"}, of a generator

They compute in float32, and sample.jax by the settings of config.sample. What they return is what
`evqgan.load(FOLDER, dtype="float32")` returns for the same batch, of sample.jax that of
`generate(b, labels, seed)`, up to rounding. Without classes only the number of labels counts.
"""

import contextlib
import importlib.util
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from evqgan import models
from evqgan.core import exported, exported_weights
from evqgan.core.errors import InputError, first_line
from evqgan.generators.requests import first_word, request_of
from evqgan.inference.model import Model, load

PLATFORMS = ("cpu", "cuda", "tpu")  # each program is lowered for all of them
LEAVE_OUT = "leave the programs out by --noprograms"
TITLE = "## With JAX alone"


def write(folder: pathlib.Path, dest: pathlib.Path) -> str:
    """Write the programs of the exported model in `folder` into `dest`; return what a card says.

    Raises InputError, one line, for a model that JAX cannot export, naming the program and why.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        install = "python -m pip install flatbuffers"
        raise InputError(f"jax.export needs flatbuffers ({install}), or {LEAVE_OUT}")
    loaded = load(folder, dtype="float32")
    model = loaded.generator or models.of_stage1(loaded.config)
    settings = loaded.settings() if loaded.generator else None
    arrays = exported_weights.read(folder)
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    with without_places():
        for name, function, given in functions(model, settings):
            (dest / name).write_bytes(serialized(name, function, weights, *given))
    return section(loaded)


@contextlib.contextmanager
def without_places() -> Iterator[None]:
    """Keep the paths of source files on this machine out of what JAX traces in the body."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def serialized(name: str, function: Callable, *given: Any) -> bytes:
    """Return a function, traced for arguments of these shapes, as a program for all PLATFORMS."""
    try:
        made = export.export(jax.jit(function), platforms=PLATFORMS)(*given)
        return bytes(made.serialize())
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(f"{name} cannot be exported: {reason}; {LEAVE_OUT}") from error


def functions(
    model: models.ImageTokenizer | models.TokenGenerator, settings: Any = None
) -> Iterator[tuple[str, Callable, tuple[Any, ...]]]:
    """Yield (file, function, the shapes of its arguments beside the weights) of each program.

    settings: of a generator's sampler.
    """
    generator = model if isinstance(model, models.TokenGenerator) else None
    tokenizer = model.tokenizer if isinstance(model, models.TokenGenerator) else model
    (b,) = export.symbolic_shape("b")
    grid, depth = tokenizer.grid, tokenizer.network.quantizer.depth
    like = model.shapes()

    def state_of(arrays: dict[str, jax.Array]) -> tuple[Any, dict]:
        state = exported_weights.arranged(arrays, like)
        parts = {"params": state["ema"], "codebook": state.get("codebook")}
        return state["ema"], state["tokenizer"] if generator else parts

    def reconstruct(arrays: dict[str, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
        _, weights = state_of(arrays)
        ids = tokenizer.encode(weights, images)
        return {"images": tokenizer.decode(weights, ids), "ids": ids}

    def decode(arrays: dict[str, jax.Array], ids: jax.Array) -> dict[str, jax.Array]:
        _, weights = state_of(arrays)
        return {"images": tokenizer.decode(weights, ids)}

    ids = jax.ShapeDtypeStruct((b, *grid, depth), np.int32)
    images = jax.ShapeDtypeStruct((b, *tokenizer.shape, 3), np.uint8)
    yield exported.RECONSTRUCT, reconstruct, (images,)
    yield exported.DECODE, decode, (ids,)
    if generator is None:
        return

    def sample(
        arrays: dict[str, jax.Array], labels: jax.Array, seed: jax.Array
    ) -> dict[str, jax.Array]:
        params, weights = state_of(arrays)
        number = labels.shape[0]
        blank = jnp.zeros((number, *grid, depth), jnp.int32)
        mask = jnp.ones((number, *grid), bool)
        seeds = jnp.broadcast_to(first_word(seed), (number,))
        numbers = jnp.arange(number, dtype=jnp.uint32)
        request = request_of(blank, mask, labels, seeds, numbers)
        made = generator.sample(params, weights, request, settings).tokens
        return {"images": tokenizer.decode(weights, made), "ids": made}

    labels = jax.ShapeDtypeStruct((b,), np.int32)
    yield exported.SAMPLE, sample, (labels, jax.ShapeDtypeStruct((), np.uint32))


def section(model: Model) -> str:
    """Return what the card says of the programs: a Python program that runs them, and by what."""
    height, width = model.size
    ids = f"int32 {[4, *model.grid, model.depth]}"
    pixels = f"uint8 [4, {height}, {width}, 3]"
    calls = [f"images = np.zeros((4, {height}, {width}, 3), np.uint8)"]
    if model.generator:
        labels = f" % {model.classes}" if model.classes else ""
        what = f"classes, by number ({model.classes})" if model.classes else "4 images"
        calls = [
            f"labels = np.arange(4, dtype=np.int32){labels}  # {what}",
            f'images = program("sample").call(weights, labels, np.uint32(0))["images"]  # {pixels}',
        ]
    python = "\n".join(
        [
            "import pathlib",
            "",
            "import jax",
            "import numpy as np",
            "import safetensors.numpy",
            "from jax import export",
            "",
            "def program(name):",
            '    return export.deserialize(pathlib.Path(f"{name}.jax").read_bytes())',
            "",
            f'weights = jax.device_put(safetensors.numpy.load_file("{exported.WEIGHTS}"))',
            *calls,
            'made = program("reconstruct").call(weights, images)',
            f'ids = made["ids"]  # {ids}; made["images"] is {pixels}',
            'again = program("decode").call(weights, ids)["images"]',
        ]
    )
    number = jax.config.jax_export_calling_convention_version  # type: ignore[attr-defined]
    return (
        f"{TITLE}\n\n`pip install jax flatbuffers safetensors`; then, in this folder and without "
        f"evqgan:\n\n```python\n{python}\n```\n\nA batch has any number of images. The programs "
        f"compute in float32, on the platforms {', '.join(PLATFORMS)}. They were written by jax "
        f"{jax.__version__} (calling convention {number}). JAX promises that its releases of the "
        "following six months read them; from 0.11.1 on it refuses older ones. "
        "`python -m evqgan.export FOLDER DEST` copies this folder with programs that are written "
        "anew.\n"
    )


def with_section(card: str, text: str) -> str:
    """Return a card with `text` as its part on programs, in the place of one or before numbers."""
    card = re.sub(rf"^{TITLE}\n.*?(?=^## |\Z)", "", card, flags=re.MULTILINE | re.DOTALL)
    before, title, after = card.partition("## Numbers\n")
    return f"{before}{text}\n{title}{after}" if title else f"{card.rstrip()}\n\n{text}"
