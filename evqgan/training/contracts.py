"""What training needs of a quantizer and a generator, checked before anything is compiled.

The contracts stand in `tokenizers.quantizers.Quantizer` and `generators.Generator`. A module that
breaks one would often train all the same, and measure or sample something else. All checks are of
shapes and dtypes, by `jax.eval_shape`: nothing is computed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan import models
from evqgan.core import build
from evqgan.core.errors import ContractError
from evqgan.evals import generation
from evqgan.tokenizers import quantizers
from evqgan.training.skipping import Metrics

BATCH = 2  # ours: examples of a traced batch
MOST = np.iinfo(np.int32).max  # ids are int32


def joined(source: str, *parts: Metrics) -> Metrics:
    """Return metrics in one dict; ContractError for a name that two of them have.

    source: the file whose metrics are among them, beside those of training itself.
    """
    found: Metrics = {}
    for part in parts:
        for name, value in part.items():
            if name in found:
                raise ContractError(
                    f"{source} returns a metric named {name!r}, which is the name of one that "
                    "training logs itself: give it another name"
                )
            found[name] = value
    return found


def file_of(module: Any) -> str:
    """Return the path of the file that defines an object's class, as messages show it."""
    return type(module).__module__.replace(".", "/") + ".py"


def check_quantizer(tokenizer: models.ImageTokenizer) -> None:
    """Raise ContractError unless a tokenizer's quantizer is as `quantizers.Quantizer` says."""
    quantizer: Any = tokenizer.network.quantizer
    source, protocol = file_of(quantizer), quantizers.Quantizer
    missing = [name for name in build.contract(protocol) if not hasattr(quantizer, name)]
    if not missing and quantizer.soft_targets and not hasattr(quantizer, "soft_codes"):
        missing = ["soft_codes (as soft_targets is True)"]
    if missing:
        raise ContractError(f"{source}: its Quantizer lacks {', '.join(missing)}")
    for name in ("codes", "width", "depth"):
        value = getattr(quantizer, name)
        if not isinstance(value, int | np.integer) or not 1 <= value <= MOST:
            raise ContractError(
                f"{source}: expected {name} to be a whole number from 1 to {MOST:,}, got "
                f"{value!r}: change the keys of config.tokenizer.quantizer"
            )
    vectors = (BATCH, *tokenizer.grid, quantizer.width)
    jax.eval_shape(lambda: _check_calls(quantizer, vectors, source))


def _check_calls(quantizer: Any, vectors: tuple[int, ...], source: str) -> None:
    """Raise ContractError unless a quantizer returns what `quantizers.Quantizer` says.

    To be traced. vectors: the shape [B,h,w,c] of what it is given. source: its file.
    """
    rngs = dict.fromkeys(("params", "codebook"), jax.random.key(0))
    out, variables = quantizer.init_with_output(rngs, jnp.zeros(vectors), train=True)
    if not isinstance(out, tuple) or len(out) != 3 or not isinstance(out[2], Mapping):
        raise ContractError(f"{source}: expected a call of its Quantizer to return (z_q, ids, aux)")
    z_q, ids, aux = out
    expect(f"{source}: z_q", z_q, vectors, "float32")
    expect(f"{source}: ids", ids, (*vectors[:-1], quantizer.depth), "int32")
    if "quantizer_loss" not in aux:
        raise ContractError(f"{source}: aux lacks 'quantizer_loss', which is added to the loss")
    for name, value in aux.items():
        expect(f"{source}: {name!r} of aux", value, ())
    embedded = quantizer.apply(variables, ids, method="embed")
    expect(f"{source}: what embed returns", embedded, vectors, "float32")
    book = quantizer.apply(variables, method="codebook")
    tables = quantizer.depth if book.shape[:1] == (quantizer.depth,) else 1
    shape = (tables, quantizer.codes, quantizer.width)
    expect(f"{source}: what codebook returns", book, shape, "float32")


def loss_and_metrics(made: Any, source: str) -> tuple[jax.Array, Metrics]:
    """Return what the `loss` of a generator returned, if that is as `Generator` says.

    made: traced arrays. source: the generator's file. Raises ContractError.
    """
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], Mapping):
        raise ContractError(f"{source}: expected `loss` to return (loss, metrics)")
    expect(f"{source}: the loss", made[0], (), "float32")
    for name, value in made[1].items():
        expect(f"{source}: the metric {name!r}", value, ())
    return made


def check_evaluate(model: models.TokenGenerator, state: dict) -> None:
    """Raise ContractError unless the `evaluate` of a generator returns what `Generator` says.

    state: abstract, with {"ema", "tokenizer"}.
    """
    tokenizer = model.tokenizer
    shape = (BATCH, *tokenizer.grid, tokenizer.network.quantizer.depth)
    integers = {"ids": shape, "label": (BATCH,)}
    batch = {name: jax.ShapeDtypeStruct(x, jnp.int32) for name, x in integers.items()}
    predict = partial(model.predict, rng=jax.random.key(0))
    sums = jax.eval_shape(predict, state, batch)["sums"]
    generation.check_sums(sums, BATCH, model.name)


def expect(what: str, value: Any, shape: tuple[int, ...], dtype: str = "") -> None:
    """Raise ContractError unless `value`, maybe abstract, is an array of this shape and dtype.

    what: what it is, in words. dtype: "" is any.
    """
    found: Any = jax.eval_shape(jnp.asarray, value) if isinstance(value, int | float) else value
    if not hasattr(found, "shape"):
        raise ContractError(
            f"{what}: expected {_in_words(shape, dtype)}, got {type(value).__name__}"
        )
    if found.shape != shape or dtype not in ("", str(found.dtype)):
        got = _in_words(found.shape, str(found.dtype))
        raise ContractError(f"{what}: expected {_in_words(shape, dtype)}, got {got}")


def _in_words(shape: tuple[int, ...], dtype: str) -> str:
    sides = ",".join(map(str, shape))
    kind = f"an array [{sides}]" if shape else "a scalar"
    return kind + (f" of {dtype}" if dtype else "")
