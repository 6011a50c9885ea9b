"""Tables of weight names: taming-transformers' GPT <-> `evqgan.generators.gpt`.

Theirs is modules/transformer/mingpt.py.
"""

import re
from typing import Any

import numpy as np

from evqgan.convert import transformers
from evqgan.convert.mapping import Row, Weights, counted, norm
from evqgan.core.errors import InputError

MASK = r"blocks\.\d+\.attn\.mask"  # a buffer, which positions see each other: `masks` makes it
IGNORED = (rf"^{MASK}$",)


def block(hidden: str, out: str) -> tuple[Row, ...]:
    """Return the rows of all blocks; their MLP's layers are called mlp.`hidden` and mlp.`out`."""
    return transformers.block(
        "params/blocks",
        norms=("blocks.{i}.ln1", "blocks.{i}.ln2"),
        attention=[f"blocks.{{i}}.attn.{name}" for name in ("query", "key", "value", "proj")],
        mlp=[f"blocks.{{i}}.mlp.{name}" for name in (hidden, out)],
    )


TABLE = (
    Row("tok_emb.weight", "params/words"),
    Row("pos_emb", "params/positions", "row"),
    *block("0", "2"),
    *norm("ln_f", "params/norm"),
    Row("head.weight", "params/head/kernel", "dense"),
)


def generator_config(
    theirs: Weights, heads: int, classes: int = 0, condition: str = "class"
) -> dict[str, Any]:
    """Return what config.generator has to say for the weights `theirs`: {key: value}.

    heads, classes (words of the codes' table) and condition are not to be seen in the weights.
    `codes` is there to be compared with the tokenizer's.

    Raises InputError if some buffer is no mask that our model has.
    """
    codes, width = theirs["tok_emb.weight"].shape
    return {
        "name": "gpt",
        "codes": codes,
        "classes": classes,
        "condition": condition,
        "layers": layers_of(theirs),
        "width": width,
        "heads": heads,
        "mlp_ratio": theirs["blocks.0.mlp.0.weight"].shape[0] / width,
        "positions": theirs["pos_emb"].shape[1],
        "unmasked": unmasked_of(theirs),
    }


def layers_of(theirs: Weights) -> int:
    """Return the number of blocks; InputError if one of them is missing."""
    return counted(theirs, r"blocks\.(\d+)\.")


def unmasked_of(theirs: Weights) -> int:
    """Return how many tokens see each other by the buffers of `theirs`, 0 without buffers.

    Raises InputError for other masks.
    """
    found = {name: np.asarray(array) for name, array in theirs.items() if re.fullmatch(MASK, name)}
    if not found:
        return 0
    first = next(iter(found.values()))
    number = int((first[..., 0, :] != 0).sum()) if first.ndim else 0
    number = 0 if number == 1 else number  # a token always sees itself
    wanted = mask(theirs["pos_emb"].shape[1], number)
    for name, array in found.items():
        if array.shape != wanted.shape or ((array != 0) != (wanted != 0)).any():
            wish = "to be causal beside a first block that is seen whole"
            raise InputError(f"expected {name} {wish}, but it is not")
    return number


def mask(positions: int, unmasked: int) -> np.ndarray:
    """Return float32 [1,1,S,S], 1 where the position of a row sees that of a column."""
    allowed = np.tril(np.ones((positions, positions), np.float32))
    allowed[:unmasked, :unmasked] = 1
    return allowed[None, None]


def masks(layers: int, positions: int, unmasked: int) -> Weights:
    """Return the buffers of their state dict that are no weights of ours, for the way back.

    They are {name: float32 [1,1,S,S]}.
    """
    return {f"blocks.{i}.attn.mask": mask(positions, unmasked) for i in range(layers)}
