"""Whole models: public checkpoints of the compared systems -> workdirs that every mode accepts, and the way back.

A file holds a tokenizer, a generator, or both. What its weights do not tell (such as the number of heads) is as
published unless it is given, and is said.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.serialization
import flax.traverse_util
import numpy as np

from evqgan.convert import (
    gpt,
    mapping,
    maskgit,
    names,
    rqtransformer,
    rqvae,
    taming,
    torch_files,
    vim,
    vitvqgan,
)
from evqgan.convert.mapping import Path, Table, Tree, Weights
from evqgan.core import files, weights
from evqgan.core.errors import InputError

SIZE = 256  # of the images of all published models whose weights do not tell it
LICENCES = {  # of code; of weights, where another
    "taming": "MIT (CompVis/taming-transformers)",
    "maskgit": "Apache-2.0 (google-research/maskgit)",
    "rqvae": "code Apache-2.0, published weights CC-BY-NC-SA 4.0 (kakaobrain/rq-vae-transformer)",
    "vitvqgan": "MIT (thuanz123/enhancing-transformers)",
}


class Given(NamedTuple):
    """What the command line says of a file beyond its weights; 0, "" or None where it says nothing."""

    size: int = 0
    heads: int = 0
    classes: int = 0
    condition: str = ""
    weights: str = ""


class System(NamedTuple):
    """How the files of a system become ours, and back. Weights of theirs are {name: array}.

    split(theirs) -> those of a tokenizer or None, those of a generator or None; join(both) -> theirs.
    tokenizer(theirs, given) -> config.tokenizer; tokenizer_to_ours(theirs, like, config), tokenizer_to_theirs(tree,
    config) with that config. generator(theirs, tokenizer's model, given) -> config.generator, tokens of the grid or 0;
    generator_to_ours(theirs, like, model), generator_to_theirs(tree, model) with {"params"} and the Model.
    whole: whether the file of a generator holds its tokenizer, too.
    """

    read: Callable
    write: Callable
    split: Callable
    join: Callable
    tokenizer: Callable
    tokenizer_to_ours: Callable
    tokenizer_to_theirs: Callable
    generator: Callable
    generator_to_ours: Callable
    generator_to_theirs: Callable
    whole: bool


def read_msgpack(path: Path, which: str = "") -> Weights:
    """The arrays of a flax checkpoint {"/"-separated path, without "params": array}; InputError if it is none.

    which: "raw" or "ema", of a file that holds both.
    """
    try:
        tree = flax.serialization.msgpack_restore(pathlib.Path(path).read_bytes())
        tree, which = names.chosen(tree, which, _is_tree, ("params",), ("ema_params",))
        tree = names.one_of(tree.get("params", tree), None, which)
        found = flax.traverse_util.flatten_dict(tree, sep="/")
        if not found or not all(isinstance(value, np.ndarray) for value in found.values()):
            raise ValueError("it holds other things than arrays")
        return found
    except InputError as error:
        raise InputError(f"cannot use {path}: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        Exception
    ) as error:  # msgpack and flax raise many kinds; all mean that this file is of another kind
        reason = str(error)[:200] or type(error).__name__
        raise InputError(
            f"cannot use {path}: expected a flax checkpoint (msgpack): {reason}"
        ) from error


def _is_tree(value):
    return isinstance(value, dict) and bool(value)


def write_msgpack(path: Path, theirs: Weights) -> None:
    """The inverse of `read_msgpack`."""
    tree = flax.traverse_util.unflatten_dict(
        {f"params/{name}": np.asarray(x) for name, x in theirs.items()}, sep="/"
    )
    with files.atomic(path) as file:
        file.write(flax.serialization.msgpack_serialize(tree))


def write_safetensors(path: Path, theirs: Weights) -> None:
    """{name: array} as a .safetensors file, which `safetensors.torch.load_file` reads; InputError for another name."""
    if pathlib.Path(path).suffix != ".safetensors":
        raise InputError(
            f"expected a DEST that ends in .safetensors, which PyTorch can load, got {path}"
        )
    weights.save(path, theirs, {"format": "pt"})


def by_prefix(tokenizer: str, generator: str) -> Any:
    """`split` and `join` for files of a whole model, whose parts have these prefixes."""

    def split(theirs):
        if not any(name.startswith(generator) for name in theirs):
            return theirs, None
        strange = [name for name in theirs if not name.startswith((tokenizer, generator))]
        if strange:
            raise InputError(
                f"expected weights of {tokenizer}* and {generator}*, got {strange[0]} too: what is conditioned on a "
                "second model is not built here"
            )
        parts = [
            {name.removeprefix(p): x for name, x in theirs.items() if name.startswith(p)}
            for p in (tokenizer, generator)
        ]
        return parts[0] or None, parts[1]

    def join(first, second):
        return {
            **{tokenizer + name: x for name, x in first.items()},
            **{generator + name: x for name, x in second.items()},
        }

    return split, join


def by_name(mark: str) -> Any:
    """`split` and `join` for systems with a file each: that of the generator has a weight called `mark`."""
    return (
        lambda theirs: (None, theirs) if mark in theirs else (theirs, None),
        lambda first, second: second,
    )


def taming_generator(theirs: Weights, tokenizer: Any, given: Given) -> Any:
    """The GPT of taming-transformers: `System.generator`, as the three below. InputError for another's codes."""
    keys = gpt.generator_config(
        theirs, given.heads or 16, given.classes, given.condition or "class"
    )
    same_codes(keys.pop("codes"), tokenizer)
    say(given.heads, "heads", 16)
    say(given.classes or given.condition, "classes", 0)
    return keys, 0


def vim_generator(theirs: Weights, tokenizer: Any, given: Given) -> Any:
    """The GPT of enhancing-transformers."""
    keys = vim.generator_config(theirs, given.heads or 16)
    same_codes(keys.pop("codes"), tokenizer)
    say(given.heads, "heads", 16)
    return keys, theirs["pos_emb_code"].shape[1]


def rq_generator(theirs: Weights, tokenizer: Any, given: Given) -> Any:
    """The RQ-Transformer."""
    keys = rqtransformer.generator_config(theirs, given.heads)
    say(given.heads, "heads", keys["heads"])
    return keys, theirs["pos_emb_hw"].shape[1]


def maskgit_generator(theirs: Weights, tokenizer: Any, given: Given) -> Any:
    """MaskGIT's transformer, whose weights tell everything."""
    (vocabulary, width), tokens = (
        theirs["Embed_0/word_embeddings/embedding"].shape,
        len(theirs["Embed_0/position_embeddings/embedding"]),
    )
    query = theirs["TransformerLayer_0/Attention_0/self_attention/query/kernel"]
    hidden = theirs["TransformerLayer_0/Mlp_0/intermediate_output/kernel"].shape[1]
    classes = vocabulary - tokenizer.quantizer.codes - 1
    if classes < 0:
        raise InputError(
            f"a vocabulary of {vocabulary} has no room for the tokenizer's {tokenizer.quantizer.codes} codes"
        )
    layers = len({name.split("/")[0] for name in theirs if name.startswith("TransformerLayer_")})
    keys = {
        "name": "maskgit",
        "classes": classes,
        "layers": layers,
        "width": width,
        "heads": query.shape[1],
        "mlp_ratio": hidden / width,
    }
    return keys, tokens - bool(classes)


def same_codes(codes: int, tokenizer: Any) -> None:
    """InputError unless a generator's weights know as many `codes` as the tokenizer has."""
    if codes != tokenizer.quantizer.codes:
        raise InputError(
            f"the generator knows {codes} codes, the tokenizer has {tokenizer.quantizer.codes}: give its own"
        )


def say(given: Given, name: str, value: Any) -> None:
    """Prints what was taken for granted."""
    if not given:
        print(f"{name}: {value}, as published; the file does not tell, --{name}= says otherwise")


def plain_table(table: Table, ignored: Sequence[str] = ()) -> Any:
    """`generator_to_ours` and `generator_to_theirs` of a table that is the same for all models."""
    return (
        lambda theirs, like, model: mapping.to_ours(table, theirs, like, ignored),
        lambda tree, model: mapping.to_theirs(table, tree),
    )


def taming_back(tree: Tree, model: Any) -> Weights:
    """The GPT's names, its buffers included."""
    return {
        **mapping.to_theirs(gpt.TABLE, tree),
        **gpt.masks(
            model.layers, model.positions or model.tokens + model.conditions - 1, model.unmasked
        ),
    }


SYSTEMS = {
    "taming": System(
        torch_files.read, write_safetensors, *by_prefix("first_stage_model.", "transformer."),
        lambda theirs, given: taming.tokenizer_config(theirs), taming.tokenizer_to_ours, taming.tokenizer_to_theirs,
        taming_generator, plain_table(gpt.TABLE, gpt.IGNORED)[0], taming_back, whole=True,
    ),
    "maskgit": System(
        read_msgpack, write_msgpack, *by_name("Embed_0/word_embeddings/embedding"),
        lambda theirs, given: maskgit.tokenizer_config(theirs), maskgit.tokenizer_to_ours, maskgit.tokenizer_to_theirs,
        maskgit_generator, *plain_table(maskgit.TRANSFORMER), whole=False,
    ),
    "rqvae": System(
        torch_files.read, write_safetensors, *by_name("cond_emb.weight"),
        lambda theirs, given: rqvae.tokenizer_config(theirs), rqvae.tokenizer_to_ours, rqvae.tokenizer_to_theirs,
        rq_generator, rqtransformer.to_ours, rqtransformer.to_theirs, whole=False,
    ),
    "vitvqgan": System(
        torch_files.read, write_safetensors, *by_prefix("stage1_model.", "transformer."),
        lambda theirs, given: vitvqgan.tokenizer_config(theirs, (given.size,) * 2 if given.size else None),
        lambda theirs, like, config: vitvqgan.to_ours(theirs, like), lambda tree, config: vitvqgan.to_theirs(tree),
        vim_generator, *plain_table(vim.TABLE), whole=True,
    ),
}  # fmt: skip
