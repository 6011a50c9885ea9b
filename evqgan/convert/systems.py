"""Whole models: how public checkpoints of the compared systems become ours, and the way back.

A file holds a tokenizer, a generator, or both. What its weights do not tell (such as the number of
heads) is as published unless it is given, and is said.
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
    maskgit_torch,
    names,
    rqtransformer,
    rqvae,
    taming,
    torch_containers,
    torch_files,
    vim,
    vitvqgan,
)
from evqgan.convert.mapping import Path, Table, Tree, Weights
from evqgan.core import files, weights
from evqgan.core.errors import InputError, of_system

SIZE = 256  # of the images of all published models whose weights do not tell it
LICENCES = {  # of code; of weights, where another
    "taming": "MIT (CompVis/taming-transformers)",
    "maskgit": "Apache-2.0 (google-research/maskgit)",
    "rqvae": "code Apache-2.0, published weights CC-BY-NC-SA 4.0 (kakaobrain/rq-vae-transformer)",
    "vitvqgan": "MIT (thuanz123/enhancing-transformers)",
}


class Given(NamedTuple):
    """What is known of a file beyond its weights: all but `keys` is what the command line says.

    0 or "": it says nothing. keys: the config.tokenizer, complete, that the weights have to fit;
    None: not known.
    """

    size: int = 0
    heads: int = 0
    classes: int = 0
    condition: str = ""
    weights: str = ""
    keys: dict[str, Any] | None = None


Split = Callable[[Weights], tuple[Weights | None, Weights | None]]  # of tokenizer, of generator
Join = Callable[[Any, Weights], Weights]  # the inverse; a tokenizer's may be None


class System(NamedTuple):
    """How the files of a system become ours, and back. Weights of theirs are {name: array}."""

    whole: bool  # whether the file of a generator holds its tokenizer, too
    read: Callable[[Path, str], Weights]  # (path, which)
    write: Callable[[Path, Weights], None]
    split: Split
    join: Join
    tokenizer: Callable[[Weights, Given], Any]  # returns config.tokenizer
    tokenizer_to_ours: Callable[[Weights, Tree, Any], Tree]  # (theirs, like, config.tokenizer)
    tokenizer_to_theirs: Callable[[Tree, Any], Weights]  # (tree, config.tokenizer)
    generators: str  # the module in evqgan/generators that its generators become
    # (theirs, the tokenizer, given); returns config.generator, and the tokens of the grid or 0.
    generator: Callable[[Weights, Any, Given], tuple[Any, int]]
    generator_to_ours: Callable[[Weights, Tree, Any], Tree]  # (theirs, like {"params"}, the Model)
    generator_to_theirs: Callable[[Tree, Any], Weights]  # ({"params"}, the Model)


def read_msgpack(path: Path, which: str = "") -> Weights:
    """Return the arrays of a flax checkpoint: {"/"-separated path, without "params": array}.

    which: "raw" or "ema", of a file that holds both.

    Raises InputError if it is none.
    """
    # msgpack and flax raise many kinds; all mean that this file is of another kind.
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
        raise InputError(f"cannot read {path}: {of_system(error)}") from error
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        wish = "expected a flax checkpoint (msgpack)"
        raise InputError(f"cannot use {path}: {wish}: {reason}") from error


def read_maskgit(path: Path, which: str = "") -> Weights:
    """Return the arrays of a flax checkpoint, or of PyTorch's form of it (`maskgit_torch`).

    which: "raw" or "ema", of a file that holds both.

    Raises InputError if it is neither.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(torch_containers.LEGACY))
    except OSError as error:
        raise InputError(f"cannot read {path}: {of_system(error)}") from error
    if head.startswith(torch_containers.ZIP) or head == torch_containers.LEGACY:
        theirs = torch_files.read(path, which)
        try:
            return maskgit_torch.to_original(theirs)
        except InputError as error:
            wish = "expected a flax checkpoint (msgpack), or that of maskgit-torch"
            raise InputError(f"cannot use {path}: {wish}: {error}") from error
    return read_msgpack(path, which)


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def write_msgpack(path: Path, theirs: Weights) -> None:
    """Write a flax checkpoint: the inverse of `read_msgpack`."""
    arrays = {f"params/{name}": np.asarray(x) for name, x in theirs.items()}
    tree = flax.traverse_util.unflatten_dict(arrays, sep="/")
    with files.atomic(path) as file:
        file.write(flax.serialization.msgpack_serialize(tree))


def write_safetensors(path: Path, theirs: Weights) -> None:
    """Write {name: array} as a file that `safetensors.torch.load_file` reads.

    Raises InputError unless its name ends in .safetensors.
    """
    if pathlib.Path(path).suffix != ".safetensors":
        wish = "a DEST that ends in .safetensors, which PyTorch can load"
        raise InputError(f"expected {wish}, got {path}")
    weights.save(path, theirs, {"format": "pt"})


def by_prefix(tokenizer: str, generator: str) -> tuple[Split, Join]:
    """Return `split` and `join` for files of a whole model, whose parts have these prefixes."""

    def split(theirs: Weights) -> tuple[Weights | None, Weights | None]:
        if not any(name.startswith(generator) for name in theirs):
            return theirs, None
        strange = [name for name in theirs if not name.startswith((tokenizer, generator))]
        if strange:
            wish = f"weights of {tokenizer}* and {generator}*"
            why = "what is conditioned on a second model is not built here"
            raise InputError(f"expected {wish}, got {strange[0]} too: {why}")
        first, second = (
            {name.removeprefix(p): x for name, x in theirs.items() if name.startswith(p)}
            for p in (tokenizer, generator)
        )
        return first or None, second

    def join(first: Weights, second: Weights) -> Weights:
        return {
            **{tokenizer + name: x for name, x in first.items()},
            **{generator + name: x for name, x in second.items()},
        }

    return split, join


def by_name(mark: str) -> tuple[Split, Join]:
    """Return `split` and `join` for systems whose tokenizer and generator have a file each.

    mark: a weight in the generator's.
    """
    return (
        lambda theirs: (None, theirs) if mark in theirs else (theirs, None),
        lambda first, second: second,
    )


def taming_generator(theirs: Weights, tokenizer: Any, given: Given) -> tuple[Any, int]:
    """Return `System.generator` of the GPT of taming-transformers.

    Here and in the three below InputError is raised for the codes of another tokenizer.
    """
    heads, condition = given.heads or 16, given.condition or "class"
    keys = gpt.generator_config(theirs, heads, given.classes, condition)
    same_codes(keys.pop("codes"), tokenizer)
    if not given.heads:
        tell("heads", 16)
    if not (given.classes or given.condition):
        tell("classes", 0)
    return keys, 0


def vim_generator(theirs: Weights, tokenizer: Any, given: Given) -> tuple[Any, int]:
    """Return `System.generator` of the GPT of enhancing-transformers."""
    keys = vim.generator_config(theirs, given.heads or 16)
    same_codes(keys.pop("codes"), tokenizer)
    if not given.heads:
        tell("heads", 16)
    return keys, theirs["pos_emb_code"].shape[1]


def rq_generator(theirs: Weights, tokenizer: Any, given: Given) -> tuple[Any, int]:
    """Return `System.generator` of the RQ-Transformer."""
    keys = rqtransformer.generator_config(theirs, given.heads)
    if not given.heads:
        tell("heads", keys["heads"])
    return keys, theirs["pos_emb_hw"].shape[1]


def maskgit_generator(theirs: Weights, tokenizer: Any, given: Given) -> tuple[Any, int]:
    """Return `System.generator` of MaskGIT's transformer, whose weights tell everything."""
    vocabulary, width = theirs["Embed_0/word_embeddings/embedding"].shape
    tokens = len(theirs["Embed_0/position_embeddings/embedding"])
    query = theirs["TransformerLayer_0/Attention_0/self_attention/query/kernel"]
    hidden = theirs["TransformerLayer_0/Mlp_0/intermediate_output/kernel"].shape[1]
    classes = vocabulary - tokenizer.quantizer.codes - 1
    if classes < 0:
        what = f"the tokenizer's {tokenizer.quantizer.codes} codes"
        raise InputError(f"a vocabulary of {vocabulary} has no room for {what}")
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
    """Raise InputError unless a generator's weights know as many `codes` as the tokenizer has."""
    there = tokenizer.quantizer.codes
    if codes != there:
        what = f"the generator knows {codes} codes, the tokenizer has {there}"
        raise InputError(f"{what}: give its own")


def tell(name: str, value: int) -> None:
    """Print what is assumed, as it is in the published models."""
    print(f"{name}: {value} is assumed, as published: the file does not say, --{name}= does")


def table_to_ours(table: Table, ignored: Sequence[str] = ()) -> Callable[..., Tree]:
    """Return `generator_to_ours` of a table that is the same for all models."""
    return lambda theirs, like, model: mapping.to_ours(table, theirs, like, ignored)


def table_to_theirs(table: Table) -> Callable[..., Weights]:
    """Return `generator_to_theirs` of a table that is the same for all models."""
    return lambda tree, model: mapping.to_theirs(table, tree)


def taming_to_theirs(tree: Tree, model: Any) -> Weights:
    """Return the names and arrays of taming-transformers' GPT, its buffers included."""
    positions = model.positions or model.tokens + model.conditions - 1
    buffers = gpt.masks(model.layers, positions, model.unmasked)
    return {**mapping.to_theirs(gpt.TABLE, tree), **buffers}


def vitvqgan_tokenizer(theirs: Weights, given: Given) -> dict[str, Any]:
    """Return `System.tokenizer` of a ViT-VQGAN; a config tells what no shape of its weights does.

    Without one its images may be given by one side.
    """
    if given.keys is None:
        return vitvqgan.tokenizer_config(theirs, given.size or None)
    coders = [given.keys[name] for name in ("encoder", "decoder")]
    heads = [coder.get("head_dim", vitvqgan.HEAD_DIM) for coder in coders]
    depth = given.keys["quantizer"]["depth"]
    return vitvqgan.tokenizer_config(theirs, coders[0].get("size"), heads, depth)


TAMING = by_prefix("first_stage_model.", "transformer.")
MASKGIT = by_name("Embed_0/word_embeddings/embedding")
RQVAE = by_name("cond_emb.weight")
VITVQGAN = by_prefix("stage1_model.", "transformer.")
SYSTEMS = {
    "taming": System(
        whole=True,
        read=torch_files.read,
        write=write_safetensors,
        split=TAMING[0],
        join=TAMING[1],
        tokenizer=lambda theirs, given: taming.tokenizer_config(theirs),
        tokenizer_to_ours=taming.tokenizer_to_ours,
        tokenizer_to_theirs=taming.tokenizer_to_theirs,
        generators="gpt",
        generator=taming_generator,
        generator_to_ours=table_to_ours(gpt.TABLE, gpt.IGNORED),
        generator_to_theirs=taming_to_theirs,
    ),
    "maskgit": System(
        whole=False,
        read=read_maskgit,
        write=write_msgpack,
        split=MASKGIT[0],
        join=MASKGIT[1],
        tokenizer=lambda theirs, given: maskgit.tokenizer_config(theirs),
        tokenizer_to_ours=maskgit.tokenizer_to_ours,
        tokenizer_to_theirs=maskgit.tokenizer_to_theirs,
        generators="maskgit",
        generator=maskgit_generator,
        generator_to_ours=table_to_ours(maskgit.TRANSFORMER),
        generator_to_theirs=table_to_theirs(maskgit.TRANSFORMER),
    ),
    "rqvae": System(
        whole=False,
        read=torch_files.read,
        write=write_safetensors,
        split=RQVAE[0],
        join=RQVAE[1],
        tokenizer=lambda theirs, given: rqvae.tokenizer_config(theirs),
        tokenizer_to_ours=rqvae.tokenizer_to_ours,
        tokenizer_to_theirs=rqvae.tokenizer_to_theirs,
        generators="rqtransformer",
        generator=rq_generator,
        generator_to_ours=rqtransformer.to_ours,
        generator_to_theirs=rqtransformer.to_theirs,
    ),
    "vitvqgan": System(
        whole=True,
        read=torch_files.read,
        write=write_safetensors,
        split=VITVQGAN[0],
        join=VITVQGAN[1],
        tokenizer=vitvqgan_tokenizer,
        tokenizer_to_ours=lambda theirs, like, config: vitvqgan.to_ours(theirs, like),
        tokenizer_to_theirs=lambda tree, config: vitvqgan.to_theirs(tree),
        generators="gpt",
        generator=vim_generator,
        generator_to_ours=table_to_ours(vim.TABLE),
        generator_to_theirs=table_to_theirs(vim.TABLE),
    ),
}
