"""Tables of weight names: CompVis/taming-transformers -> ours."""

import re
from typing import Any

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights
from evqgan.core.errors import InputError

TOKENIZER_IGNORED = (r"^loss\.",)  # the critic and LPIPS


def _layer(theirs, ours, layout="conv"):
    return Row(f"{theirs}.weight", f"params/{ours}/kernel", layout), Row(
        f"{theirs}.bias", f"params/{ours}/bias"
    )


def _norm(theirs, ours):
    return Row(f"{theirs}.weight", f"params/{ours}/scale"), Row(
        f"{theirs}.bias", f"params/{ours}/bias"
    )


def _block(theirs, ours):
    """A residual block."""
    return (
        *_norm(f"{theirs}.norm1", f"{ours}/norm1"),
        *_layer(f"{theirs}.conv1", f"{ours}/conv1"),
        *_norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *_layer(f"{theirs}.conv2", f"{ours}/conv2"),
        *_layer(f"{theirs}.nin_shortcut", f"{ours}/shortcut", "conv1x1"),
    )


def _attention(theirs, ours):
    """Non-local attention: query, key and value of one head."""
    rows = [*_norm(f"{theirs}.norm", f"{ours}/norm")]
    for name, path, kernel, bias in (
        ("q", "query", ":,0", "0"),
        ("k", "key_value", ":,0,0", "0,0"),
        ("v", "key_value", ":,1,0", "1,0"),
        ("proj_out", "out", "0", ""),
    ):
        weight, shift = (row.ours for row in _layer(f"{theirs}.{name}", f"{ours}/attention/{path}"))
        rows.append(Row(f"{theirs}.{name}.weight", f"{weight}[{kernel}]", "conv1x1"))
        rows.append(Row(f"{theirs}.{name}.bias", f"{shift}[{bias}]" if bias else shift))
    return tuple(rows)


def _coder(coder, way, resampling):
    """What encoder and decoder have in common; way: "down" or "up"."""
    return (
        *_layer(f"{coder}.conv_in", f"{coder}/conv_in"),
        *_block(f"{coder}.{way}.{{i}}.block.{{j}}", f"{coder}/{way}{{i}}_block{{j}}"),
        *_attention(f"{coder}.{way}.{{i}}.attn.{{j}}", f"{coder}/{way}{{i}}_attention{{j}}"),
        *_layer(f"{coder}.{way}.{{i}}.{resampling}.conv", f"{coder}/{way}{{i}}_conv"),
        *_block(f"{coder}.mid.block_1", f"{coder}/middle_block0"),
        *_attention(f"{coder}.mid.attn_1", f"{coder}/middle_attention0"),
        *_block(f"{coder}.mid.block_2", f"{coder}/middle_block1"),
        *_norm(f"{coder}.norm_out", f"{coder}/norm_out"),
    )


# modules/diffusionmodules/model.py -> tokenizers/cnn.py; RQ-VAE has the same names
CODERS = (
    *_coder("encoder", "down", "downsample"),
    *_layer("encoder.conv_out", "encoder/conv_out"),
    *_layer("quant_conv", "to_codes", "conv1x1"),
    *_layer("post_quant_conv", "decoder/from_codes", "conv1x1"),
    *_coder("decoder", "up", "upsample"),
    *_layer("decoder.conv_out", "decoder/to_rgb"),
)

# modules/vqvae/quantize.py -> tokenizers/quantizers/vqgan.py, gumbel.py
QUANTIZERS = {
    "vq": (Row("quantize.embedding.weight", "params/quantizer/codebook[0]"),),
    "gumbel": (
        *_layer("quantize.proj", "quantizer/logits", "conv1x1"),
        Row("quantize.embed.weight", "params/quantizer/codebook"),
    ),
}


def tokenizer_table(config: Any) -> list[Row]:
    """The table of VQModel and GumbelVQ (models/vqgan.py) -> the Tokenizer of `config` (as from `tokenizer_config`)."""
    return (*CODERS, *QUANTIZERS["gumbel" if config["quantizer"]["name"] == "gumbel" else "vq"])


def tokenizer_to_ours(theirs: Weights, like: Tree, config: Any) -> Tree:
    """{name: array} of VQModel or GumbelVQ -> {"params", "codebook"} as `like`; InputError as in `mapping.to_ours`."""
    return mapping.to_ours(tokenizer_table(config), theirs, like, TOKENIZER_IGNORED)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """The inverse of `tokenizer_to_ours`, without the critic and LPIPS."""
    return mapping.to_theirs(tokenizer_table(config), tree)


def tokenizer_config(theirs: Weights) -> dict[str, Any]:
    """config.tokenizer of ours for {name: array} of VQModel or GumbelVQ; InputError if it is of none of them.

    What the weights cannot tell is as published: the swapped commitment weight of VQGAN's code, the Gumbel quantizer's
    temperature and weight of the KL term.
    """
    config = coders_config(theirs)
    if "quantize.embed.weight" in theirs:
        codes, width = theirs["quantize.embed.weight"].shape
        quantizer = {"name": "gumbel", "codes": codes, "width": width}
    else:
        codes, width = shape_of(theirs, "quantize.embedding.weight")
        quantizer = {"name": "vqgan", "codes": codes, "width": width}
    return {**config, "quantizer": quantizer}


def coders_config(theirs: Weights) -> dict[str, Any]:
    """`encoder` and `decoder` of config.tokenizer, from the names and shapes of VQGAN's or RQ-VAE's."""
    width, channels, *_ = shape_of(theirs, "encoder.conv_in.weight")
    colours, *_ = shape_of(theirs, "decoder.conv_out.weight")
    if {channels, colours} != {3}:
        raise InputError(
            f"expected a tokenizer of images with 3 channels, got one from {channels} to {colours}"
        )

    def coder(name, way, resampling):
        levels = 1 + max(numbers(theirs, rf"{name}\.{way}\.(\d+)\.block\."), default=-1)
        widths = [
            shape_of(theirs, f"{name}.{way}.{i}.block.0.conv1.weight")[0] for i in range(levels)
        ]
        attended = numbers(theirs, rf"{name}\.{way}\.(\d+)\.attn\.")
        return {
            "name": "cnn",
            "width": width,
            "multipliers": tuple(w // width for w in widths),
            "blocks": len(numbers(theirs, rf"{name}\.{way}\.0\.block\.(\d+)\.")),
            "attention": tuple(2**i for i in sorted(attended)),
            "z_width": shape_of(theirs, "encoder.conv_out.weight")[0],
            way: resampling
            if levels > 1 and not numbers(theirs, rf"{name}\.{way}\.(\d+)\.\w+sample\.")
            else "conv",
        }

    return {
        "encoder": coder("encoder", "down", "pool"),
        "decoder": coder("decoder", "up", "nearest"),
    }


def numbers(theirs: Weights, pattern: str) -> set[int]:
    """The different numbers that the group of `pattern` is in the names' beginnings."""
    return {int(match[1]) for match in map(re.compile(pattern).match, theirs) if match}


def shape_of(theirs: Weights, name: str) -> tuple[int, ...]:
    """The shape of a weight that there must be; else InputError."""
    if name not in theirs:
        raise InputError(f"these are no weights of such a tokenizer: {name} is missing")
    return theirs[name].shape
