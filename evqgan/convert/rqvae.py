"""Tables of weight names: the RQ-VAE of kakaobrain/rq-vae-transformer <-> ours."""

import math
from typing import Any

import numpy as np

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights, numbers
from evqgan.convert.taming import CODERS, coders_config, shape_of
from evqgan.core.errors import InputError

CODES, USAGE, TOTAL = "weight", "cluster_size_ema", "embed_ema"

# rqvae/models/rqvae -> tokenizers/cnn.py, tokenizers/quantizers/rqvae.py
TOKENIZER = (
    *CODERS,
    Row(f"quantizer.codebooks.{{i}}.{CODES}", "codebook/quantizer/codes[{i}]"),
    Row(f"quantizer.codebooks.{{i}}.{USAGE}", "codebook/quantizer/usage[{i}]"),
    Row(f"quantizer.codebooks.{{i}}.{TOTAL}", "codebook/quantizer/total[{i}]"),
)


def tokenizer_to_ours(theirs: Weights, like: Tree, config: Any) -> Tree:
    """Return the weights of RQVAE as {"params", "codebook"} of a Tokenizer.

    Theirs have one code more, of zeros (a padding), and name a shared codebook once for each depth.

    theirs: {name: array}.
    like: the tree that is wanted, as in `mapping.to_ours`.
    config: of the Tokenizer, as `tokenizer_config` makes it.

    Raises InputError if theirs are otherwise, or as `mapping.to_ours`.
    """
    depth, shared = _depth_and_shared(config)
    theirs = dict(theirs)
    for d in range(depth):
        name = _name(d, CODES)
        shape_of(theirs, name)
        codes = np.asarray(theirs[name])
        if np.any(codes[-1]):
            wish = f"the last row of {name} to be zeros, a padding"
            raise InputError(f"expected {wish}, got other numbers")
        theirs[name] = codes[:-1]
    if shared:
        for d in range(1, depth):
            for part in (CODES, USAGE, TOTAL):
                name, first = _name(d, part), _name(0, part)
                array = theirs.pop(name, None)
                if array is None or not np.array_equal(array, theirs[first]):
                    wish = f"{name} to equal {first}"
                    raise InputError(f"expected {wish}: one codebook for all depths")
    return mapping.to_ours(TOKENIZER, theirs, like)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """Return the names and arrays of theirs: the inverse of `tokenizer_to_ours`."""
    depth, shared = _depth_and_shared(config)
    theirs = mapping.to_theirs(TOKENIZER, tree)
    for d in range(depth):
        if shared and d:
            theirs |= {_name(d, part): theirs[_name(0, part)] for part in (CODES, USAGE, TOTAL)}
        else:
            theirs[_name(d, CODES)] = np.pad(theirs[_name(d, CODES)], ((0, 1), (0, 0)))
    return theirs


def tokenizer_config(theirs: Weights) -> dict[str, Any]:
    """Return config.tokenizer of ours for {name: array} of RQVAE.

    What the weights cannot tell is as published: the decay of the moving averages, the restart of
    unused codes.

    Raises InputError if they are not of an RQVAE.
    """
    config = coders_config(theirs)
    depth = 1 + max(numbers(theirs, r"quantizer\.codebooks\.(\d+)\."), default=0)
    rows, width = shape_of(theirs, _name(0, CODES))
    for d in range(1, depth):
        if shape_of(theirs, _name(d, CODES)) != (rows, width):
            got = f"{rows - 1} codes and another number at depth {d}"
            raise InputError(f"expected codebooks of one size, got {got}")
    shared = all(
        np.array_equal(theirs[_name(d, CODES)], theirs[_name(0, CODES)]) for d in range(depth)
    )
    quantizer = {
        "name": "rqvae",
        "codes": rows - 1,
        "width": width,
        "depth": depth,
        "shared": shared,
        "decay": 0.99,
        "revive": 1.0,
    }
    patch = math.isqrt(width // shape_of(theirs, "quant_conv.weight")[0])
    return {**config, "quantizer": quantizer, "patch": patch}


def _depth_and_shared(config: Any) -> tuple[int, bool]:
    """Return how many codes a token has, and whether one codebook serves them all."""
    quantizer = config["quantizer"]
    return quantizer.get("depth", 1), quantizer.get("shared", True)


def _name(depth: int, part: str) -> str:
    return f"quantizer.codebooks.{depth}.{part}"
