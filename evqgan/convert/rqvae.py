"""Tables of weight names: the RQ-VAE of kakaobrain/rq-vae-transformer -> ours."""

import math
from typing import Any

import numpy as np

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights
from evqgan.convert.taming import CODERS, coders_config, numbers, shape_of
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
    """{name: array} of RQVAE -> {"params", "codebook"} as `like`, of the Tokenizer of `config` (`tokenizer_config`).

    Theirs have one code more, of zeros (a padding), and name a shared codebook once for each depth. InputError if it is
    otherwise, or as in `mapping.to_ours`.
    """
    depth, shared = (
        config["quantizer"].get(key, default) for key, default in (("depth", 1), ("shared", True))
    )
    theirs = dict(theirs)
    for d in range(depth):
        name = _name(d, CODES)
        shape_of(theirs, name)
        codes = np.asarray(theirs[name])
        if np.any(codes[-1]):
            raise InputError(
                f"expected the last row of {name} to be zeros, a padding, got other numbers"
            )
        theirs[name] = codes[:-1]
    if shared:
        for d in range(1, depth):
            for part in (CODES, USAGE, TOTAL):
                array = theirs.pop(_name(d, part), None)
                if array is None or not np.array_equal(array, theirs[_name(0, part)]):
                    raise InputError(
                        f"expected {_name(d, part)} to equal {_name(0, part)}: one codebook for all depths"
                    )
    return mapping.to_ours(TOKENIZER, theirs, like)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """The inverse of `tokenizer_to_ours`."""
    depth, shared = (
        config["quantizer"].get(key, default) for key, default in (("depth", 1), ("shared", True))
    )
    theirs = mapping.to_theirs(TOKENIZER, tree)
    for d in range(depth):
        if shared and d:
            theirs |= {_name(d, part): theirs[_name(0, part)] for part in (CODES, USAGE, TOTAL)}
        else:
            theirs[_name(d, CODES)] = np.pad(theirs[_name(d, CODES)], ((0, 1), (0, 0)))
    return theirs


def tokenizer_config(theirs: Weights) -> dict[str, Any]:
    """config.tokenizer of ours for {name: array} of RQVAE; InputError if it is not.

    What the weights cannot tell is as published: the decay of the moving averages, the restart of unused codes.
    """
    config = coders_config(theirs)
    depth = 1 + max(numbers(theirs, r"quantizer\.codebooks\.(\d+)\."), default=0)
    rows, width = shape_of(theirs, _name(0, CODES))
    for d in range(1, depth):
        if shape_of(theirs, _name(d, CODES)) != (rows, width):
            raise InputError(
                f"expected codebooks of one size, got {rows - 1} codes and another number at depth {d}"
            )
    shared = all(
        np.array_equal(theirs[_name(d, CODES)], theirs[_name(0, CODES)]) for d in range(depth)
    )
    quantizer = {
        "name": "rqvae", "codes": rows - 1, "width": width, "depth": depth, "shared": shared, "decay": 0.99,
        "revive": 1.0,
    }  # fmt: skip
    patch = math.isqrt(width // shape_of(theirs, "quant_conv.weight")[0])
    return {**config, "quantizer": quantizer, "patch": patch}


def _name(depth, part):
    return f"quantizer.codebooks.{depth}.{part}"
