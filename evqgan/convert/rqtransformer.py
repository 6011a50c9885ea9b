"""Tables of weight names: the RQ-Transformer of kakaobrain/rq-vae-transformer -> ours."""

from typing import Any

import numpy as np

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights
from evqgan.convert.taming import numbers
from evqgan.core.errors import InputError

OFFSETS = "tok_emb.offsets"  # where a depth's words begin in the table of all: computed, no weight
IGNORED = (rf"^{OFFSETS}$",)


def _dense(theirs, ours):
    return Row(f"{theirs}.weight", f"params/{ours}/kernel", "dense"), Row(
        f"{theirs}.bias", f"params/{ours}/bias"
    )


def _norm(theirs, ours, index=""):
    return (
        Row(f"{theirs}.weight", f"params/{ours}/scale{index}"),
        Row(f"{theirs}.bias", f"params/{ours}/bias{index}"),
    )


def _stack(name):
    """Body or head."""
    block = f"{name}_transformer.blocks.{{i}}"
    rows = [
        *_norm(f"{block}.ln1", f"{name}/norm1", "[{i}]"),
        *_norm(f"{block}.ln2", f"{name}/norm2", "[{i}]"),
    ]
    for theirs, ours, kernel, bias, layout, bias_layout in (
        ("attn.query", "attention/query", "", "", "to_heads", "head_bias"),
        ("attn.key", "attention/key_value", ",:,0", ",0", "to_heads", "head_bias"),
        ("attn.value", "attention/key_value", ",:,1", ",1", "to_heads", "head_bias"),
        ("attn.proj", "attention/out", "", "", "from_heads", "same"),
        ("mlp.0", "mlp/hidden", "", "", "dense", "same"),
        ("mlp.2", "mlp/out", "", "", "dense", "same"),
    ):
        rows.append(
            Row(f"{block}.{theirs}.weight", f"params/{name}/{ours}/kernel[{{i}}{kernel}]", layout)
        )
        rows.append(
            Row(f"{block}.{theirs}.bias", f"params/{name}/{ours}/bias[{{i}}{bias}]", bias_layout)
        )
    return tuple(rows)


def table(shared_classifier: bool = True) -> list[Row]:
    """rqvae/models/rqtransformer -> generators/rqtransformer.py; shared_classifier: the Model's."""
    return (
        Row("cond_emb.weight", "params/condition"),
        Row("pos_emb_cond", "params/condition_position", "row"),
        Row("pos_emb_hw", "params/place_positions", "row"),
        Row("pos_emb_d", "params/depth_positions", "row"),
        Row("tok_emb.weight", "params/words"),
        *_dense("input_mlp", "body_input"),
        *_dense("head_mlp", "head_input"),
        *_stack("body"),
        *_stack("head"),
        *_norm("classifier.layer_norm", "classifier/norm"),
        Row(
            "classifier.linear.weight",
            "params/classifier/kernel",
            "dense" if shared_classifier else "same",
        ),
        Row("classifier.linear.bias", "params/classifier/bias"),
    )


def to_ours(theirs: Weights, like: Tree, model: Any) -> Tree:
    """{name: array} of RQTransformer -> {"params"} as `like`, of `model`; InputError as in `mapping.to_ours`."""
    if OFFSETS in theirs and not np.array_equal(theirs[OFFSETS], offsets(model)):
        raise InputError(
            f"expected {model.codes} codes at each of {model.depth} depths, got tables at {theirs[OFFSETS]}"
        )
    return mapping.to_ours(table(model.shared_classifier), theirs, like, IGNORED)


def to_theirs(tree: Tree, model: Any) -> Weights:
    """The inverse of `to_ours`."""
    theirs = mapping.to_theirs(table(model.shared_classifier), tree)
    return (
        theirs
        if model.shared_words or "tok_emb.weight" not in theirs
        else {**theirs, OFFSETS: offsets(model)}
    )


def offsets(model: Any) -> np.ndarray:
    """Where the words of each depth begin, int64 [D]."""
    return np.arange(model.depth, dtype=np.int64) * model.codes


def generator_config(theirs: Weights, heads: int = 0, head_heads: int = 0) -> dict[str, Any]:
    """config.generator of ours for {name: array} of RQTransformer; InputError for what is not built here.

    heads, head_heads: of body and head; 0 = of width 64, as published. Codes, grid and depth come from the tokenizer.
    What the weights cannot tell is as published: the exact GELU, sums of vectors up to a depth, dropout.
    """
    for name in ("cond_emb.weight", "pos_emb_cond", "classifier.linear.weight"):
        if name not in theirs:
            raise InputError(f"these are not the weights of an RQ-Transformer: {name} is missing")
    conditions, width = theirs["pos_emb_cond"].shape[1:]
    if conditions > 1:
        raise InputError(
            f"expected an RQ-Transformer of classes or without condition, got one of {conditions} tokens of text, "
            "which is not built here"
        )
    classes, classifier = len(theirs["cond_emb.weight"]), theirs["classifier.linear.weight"]
    layers = [
        1 + max(numbers(theirs, rf"{name}_transformer\.blocks\.(\d+)\."), default=-1)
        for name in ("body", "head")
    ]

    def biased(layer):
        found = tuple(
            f"{name}_transformer.blocks.0.{layer}.bias" in theirs for name in ("body", "head")
        )
        return found[0] if found[0] == found[1] else found

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
