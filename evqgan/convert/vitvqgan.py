"""Tables of weight names: the ViT-VQGAN of thuanz123/enhancing-transformers (`ViTVQ`) <-> ours.

Their linear layer of queries, keys and values together is three weights here, see `together`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.convert import mapping, together
from evqgan.convert.mapping import Row, Tree, Weights, counted, layer, norm
from evqgan.core.errors import InputError
from evqgan.tokenizers.vit import pair

QKV = "to_qkv"  # their layer of queries, keys and values
IGNORED = (r"^loss\.",)  # the perceptual network and the discriminator
HEAD_DIM = 64  # of all their configurations


def _coder(name: str, positions: str) -> tuple[Row, ...]:
    """Return the rows that encoder and decoder have in common.

    positions: the name of the position embedding.
    """
    ours, attention = f"params/{name}", f"params/{name}/blocks/attention"
    first, second = (f"{name}.transformer.layers.{{i}}.{k}" for k in (0, 1))
    return (
        Row(f"{name}.{positions}", f"{ours}/positions", "row"),
        *norm(f"{first}.norm", f"{ours}/blocks/norm1", "[{i}]"),
        Row(f"{first}.fn.to_q.weight", f"{attention}/query/kernel[{{i}}]", "to_heads"),
        Row(f"{first}.fn.to_k.weight", f"{attention}/key_value/kernel[{{i}},:,0]", "to_heads"),
        Row(f"{first}.fn.to_v.weight", f"{attention}/key_value/kernel[{{i}},:,1]", "to_heads"),
        *layer(f"{first}.fn.to_out", f"{attention}/out", "from_heads", "[{i}]"),
        *norm(f"{second}.norm", f"{ours}/blocks/norm2", "[{i}]"),
        *layer(f"{second}.fn.net.0", f"{ours}/blocks/mlp/hidden", index="[{i}]"),
        *layer(f"{second}.fn.net.2", f"{ours}/blocks/mlp/out", index="[{i}]"),
        *norm(f"{name}.transformer.norm", f"{ours}/norm"),
    )


# modules/stage1/layers.py and vitvqgan.py -> tokenizers/vit.py and tokenizer.py
TOKENIZER = (
    *layer("encoder.to_patch_embedding.0", "params/encoder/embed", "conv"),
    *_coder("encoder", "en_pos_embedding"),
    *layer("pre_quant", "params/to_codes"),
    Row("quantizer.embedding.weight", "params/quantizer/codebook[0]"),
    *layer("post_quant", "params/decoder/from_codes"),
    *_coder("decoder", "de_pos_embedding"),
    *layer("decoder.to_pixel.1", "params/decoder/to_rgb", "conv"),
)


def to_ours(theirs: Weights, like: Tree) -> Tree:
    """Return {"params": of a Tokenizer} from {their name: array}.

    like: the tree that is wanted, as in `mapping.to_ours`, which also says what is raised.
    """
    return mapping.to_ours(TOKENIZER, together.split(theirs, QKV), like, IGNORED)


def to_theirs(tree: Tree) -> Weights:
    """Return {their name: array} of {"params": of a Tokenizer}: the inverse of `to_ours`."""
    return together.fuse(mapping.to_theirs(TOKENIZER, tree), QKV)


def tokenizer_config(
    theirs: Weights,
    size: int | Sequence[int] | None = None,
    head_dim: int | Sequence[int] = HEAD_DIM,
    depth: int = 1,
) -> dict[str, Any]:
    """Return the config.tokenizer whose weights these are, from names and shapes alone.

    Three things are not told by shapes. Other options of their quantizer are taken as their code
    has them by itself.

    theirs: {their name: array}.
    size: (height, width) of images that are not square.
    head_dim: one number or the encoder's and the decoder's.
    depth: their num_quantizers if they set use_residual.

    Raises InputError for names that are not those of a ViT-VQGAN, or a size or head_dim that does
    not fit.
    """
    shapes = {name: np.shape(array) for name, array in theirs.items()}
    try:
        codes, width = shapes["quantizer.embedding.weight"]
        patch = shapes["decoder.to_pixel.1.weight"][2:]
        heads = zip(("encoder", "decoder"), pair(head_dim), strict=True)
        coders = {name: _shape(shapes, name, of_coder) for name, of_coder in heads}
        tokens = {shapes[f"{part}coder.{part}_pos_embedding"][1] for part in ("en", "de")}
    except KeyError as error:
        what = f"{error.args[0]} is missing"
        raise InputError(f"these are not the weights of a ViT-VQGAN: {what}") from None
    side = math.isqrt(max(tokens))
    sides = (side * patch[0], side * patch[1]) if size is None else pair(size)
    if tokens != {sides[0] // patch[0] * (sides[1] // patch[1])}:
        counts = " and ".join(map(str, sorted(tokens)))
        what = f"{counts} tokens of {patch[0]}x{patch[1]} pixels"
        raise InputError(f"{what} are no image of {sides[0]}x{sides[1]}: give its size")
    for coder in coders.values():
        coder["size"], coder["patch"] = (x[0] if x[0] == x[1] else tuple(x) for x in (sides, patch))
    quantizer = {
        "name": "vitvqgan",
        "codes": codes,
        "width": width,
        "depth": depth,
        "commitment": 0.25,
        "l2_normalize": True,
        "detached_residual": depth > 1,
    }
    return {**coders, "quantizer": quantizer, "pixels": "unit"}


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, head_dim: int) -> dict[str, Any]:
    """Return the keys of an encoder or a decoder that its blocks tell."""
    layer = f"{name}.transformer.layers"
    layers = counted(shapes, rf"{name}\.transformer\.layers\.(\d+)\.")
    inner = shapes[f"{layer}.0.0.fn.to_qkv.weight"][0] // 3
    mlp_width, width = shapes[f"{layer}.0.1.fn.net.0.weight"]
    if f"{layer}.0.0.fn.to_out.weight" not in shapes:  # one head as wide as the tokens
        head_dim = inner
    if inner % head_dim:
        what = f"queries of {inner} channels are not heads of {head_dim}"
        raise InputError(f"{name}: {what}: its config tells their head_dim")
    return {
        "name": "vit",
        "width": width,
        "layers": layers,
        "heads": inner // head_dim,
        "head_dim": head_dim,
        "mlp_width": mlp_width,
    }
