"""Tables of weight names: the RQ-Transformer of kakaobrain/rq-vae-transformer <-> ours."""

from typing import Any

import numpy as np

from evqgan.convert import mapping, transformers
from evqgan.convert.mapping import Row, Tree, Weights, counted, layer, norm
from evqgan.core.errors import InputError

# Where a depth's words begin in the table of all: computed, no weight.
OFFSETS = "tok_emb.offsets"
IGNORED = (rf"^{OFFSETS}$",)


def _stack(name: str) -> tuple[Row, ...]:
    """Return the rows of body or head."""
    block = f"{name}_transformer.blocks.{{i}}"
    return transformers.block(
        f"params/{name}",
        norms=(f"{block}.ln1", f"{block}.ln2"),
        attention=[f"{block}.attn.{part}" for part in ("query", "key", "value", "proj")],
        mlp=(f"{block}.mlp.0", f"{block}.mlp.2"),
    )


def table(shared_classifier: bool = True) -> tuple[Row, ...]:
    """Return the rows from rqvae/models/rqtransformer to generators/rqtransformer.py.

    shared_classifier: the Model's.
    """
    classifier = "dense" if shared_classifier else "same"
    return (
        Row("cond_emb.weight", "params/condition"),
        Row("pos_emb_cond", "params/condition_position", "row"),
        Row("pos_emb_hw", "params/place_positions", "row"),
        Row("pos_emb_d", "params/depth_positions", "row"),
        Row("tok_emb.weight", "params/words"),
        *layer("input_mlp", "params/body_input"),
        *layer("head_mlp", "params/head_input"),
        *_stack("body"),
        *_stack("head"),
        *norm("classifier.layer_norm", "params/classifier/norm"),
        *layer("classifier.linear", "params/classifier", classifier),
    )


def to_ours(theirs: Weights, like: Tree, model: Any) -> Tree:
    """Return the weights of RQTransformer as {"params"} of a Model.

    theirs: {name: array}.
    like: the tree that is wanted, as in `mapping.to_ours`.
    model: the Model.

    Raises InputError as `mapping.to_ours`.
    """
    if OFFSETS in theirs and not np.array_equal(theirs[OFFSETS], offsets(model)):
        wish = f"{model.codes} codes at each of {model.depth} depths"
        raise InputError(f"expected {wish}, got tables at {theirs[OFFSETS]}")
    return mapping.to_ours(table(model.shared_classifier), theirs, like, IGNORED)


def to_theirs(tree: Tree, model: Any) -> Weights:
    """Return the names and arrays of theirs: the inverse of `to_ours`."""
    theirs = mapping.to_theirs(table(model.shared_classifier), tree)
    if model.shared_words or "tok_emb.weight" not in theirs:
        return theirs
    return {**theirs, OFFSETS: offsets(model)}


def offsets(model: Any) -> np.ndarray:
    """Return where the words of each depth begin, int64 [D]."""
    return np.arange(model.depth, dtype=np.int64) * model.codes


def generator_config(theirs: Weights, heads: int = 0, head_heads: int = 0) -> dict[str, Any]:
    """Return config.generator of ours for {name: array} of RQTransformer.

    Codes, grid and depth come from the tokenizer. What the weights cannot tell is as published: the
    exact GELU, sums of vectors up to a depth, dropout.

    heads, head_heads: of body and head; 0 = of width 64, as published.

    Raises InputError for what is not built here.
    """
    for name in ("cond_emb.weight", "pos_emb_cond", "classifier.linear.weight"):
        if name not in theirs:
            raise InputError(f"these are not the weights of an RQ-Transformer: {name} is missing")
    conditions, width = theirs["pos_emb_cond"].shape[1:]
    if conditions > 1:
        wish = "an RQ-Transformer of classes or without condition"
        got = f"one of {conditions} tokens of text, which is not built here"
        raise InputError(f"expected {wish}, got {got}")
    classes, classifier = len(theirs["cond_emb.weight"]), theirs["classifier.linear.weight"]
    layers = [counted(theirs, rf"{name}_transformer\.blocks\.(\d+)\.") for name in ("body", "head")]

    def biased(layer: str) -> bool | tuple[bool, bool]:
        body, head = (
            f"{name}_transformer.blocks.0.{layer}.bias" in theirs for name in ("body", "head")
        )
        return body if body == head else (body, head)

    return {
        "name": "rqtransformer",
        "classes": classes if classes > 1 else 0,
        "layers": layers[0],
        "head_layers": layers[1],
        "width": width,
        "heads": heads or width // 64,
        "head_heads": head_heads or heads or width // 64,
        "codebook_input": "input_mlp.weight" in theirs,
        "codebook_head": "head_mlp.weight" in theirs,
        "shared_words": OFFSETS not in theirs,
        "shared_classifier": classifier.ndim == 2,
        "attention_bias": biased("attn.query"),
        "mlp_bias": biased("mlp.0"),
    }
