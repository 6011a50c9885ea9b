"""Tables of weight names: the tokenizers of CompVis/taming-transformers <-> ours."""

from typing import Any

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights, layer, norm, numbers
from evqgan.core.errors import InputError

TOKENIZER_IGNORED = (r"^loss\.",)  # the discriminator and LPIPS


def _block(theirs: str, ours: str) -> tuple[Row, ...]:
    """Return the rows of a residual block."""
    return (
        *norm(f"{theirs}.norm1", f"{ours}/norm1"),
        *layer(f"{theirs}.conv1", f"{ours}/conv1", "conv"),
        *norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *layer(f"{theirs}.conv2", f"{ours}/conv2", "conv"),
        *layer(f"{theirs}.nin_shortcut", f"{ours}/shortcut", "conv1x1"),
    )


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """Return the rows of non-local attention: query, key and value of one head."""
    rows = [*norm(f"{theirs}.norm", f"{ours}/norm")]
    for name, path, kernel, bias in (
        ("q", "query", ":,0", "0"),
        ("k", "key_value", ":,0,0", "0,0"),
        ("v", "key_value", ":,1,0", "1,0"),
        ("proj_out", "out", "0", ""),
    ):
        at, part = f"{ours}/attention/{path}", f"[{bias}]" if bias else ""
        rows.append(Row(f"{theirs}.{name}.weight", f"{at}/kernel[{kernel}]", "conv1x1"))
        rows.append(Row(f"{theirs}.{name}.bias", f"{at}/bias{part}"))
    return tuple(rows)


def _coder(coder: str, way: str, resampling: str) -> tuple[Row, ...]:
    """Return the rows that encoder and decoder have in common.

    way: "down" or "up".
    resampling: their name of the layer between two levels.
    """
    ours = f"params/{coder}"
    return (
        *layer(f"{coder}.conv_in", f"{ours}/conv_in", "conv"),
        *_block(f"{coder}.{way}.{{i}}.block.{{j}}", f"{ours}/{way}{{i}}_block{{j}}"),
        *_attention(f"{coder}.{way}.{{i}}.attn.{{j}}", f"{ours}/{way}{{i}}_attention{{j}}"),
        *layer(f"{coder}.{way}.{{i}}.{resampling}.conv", f"{ours}/{way}{{i}}_conv", "conv"),
        *_block(f"{coder}.mid.block_1", f"{ours}/middle_block0"),
        *_attention(f"{coder}.mid.attn_1", f"{ours}/middle_attention0"),
        *_block(f"{coder}.mid.block_2", f"{ours}/middle_block1"),
        *norm(f"{coder}.norm_out", f"{ours}/norm_out"),
    )


# modules/diffusionmodules/model.py -> tokenizers/cnn.py; RQ-VAE has the same names
CODERS = (
    *_coder("encoder", "down", "downsample"),
    *layer("encoder.conv_out", "params/encoder/conv_out", "conv"),
    *layer("quant_conv", "params/to_codes", "conv1x1"),
    *layer("post_quant_conv", "params/decoder/from_codes", "conv1x1"),
    *_coder("decoder", "up", "upsample"),
    *layer("decoder.conv_out", "params/decoder/to_rgb", "conv"),
)

# modules/vqvae/quantize.py -> tokenizers/quantizers/vqgan.py, gumbel.py
QUANTIZERS = {
    "vq": (Row("quantize.embedding.weight", "params/quantizer/codebook[0]"),),
    "gumbel": (
        *layer("quantize.proj", "params/quantizer/logits", "conv1x1"),
        Row("quantize.embed.weight", "params/quantizer/codebook"),
    ),
}


def tokenizer_table(config: Any) -> tuple[Row, ...]:
    """Return the table from VQModel or GumbelVQ (models/vqgan.py) to a Tokenizer.

    config: of the Tokenizer, as `tokenizer_config` makes it.
    """
    return (*CODERS, *QUANTIZERS["gumbel" if config["quantizer"]["name"] == "gumbel" else "vq"])


def tokenizer_to_ours(theirs: Weights, like: Tree, config: Any) -> Tree:
    """Return the weights of VQModel or GumbelVQ as {"params", "codebook"} of a Tokenizer.

    theirs: {name: array}.
    like: the tree that is wanted, as in `mapping.to_ours`.
    config: of the Tokenizer, as `tokenizer_config` makes it.

    Raises InputError as `mapping.to_ours`.
    """
    return mapping.to_ours(tokenizer_table(config), theirs, like, TOKENIZER_IGNORED)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """Return theirs without discriminator and LPIPS: the inverse of `tokenizer_to_ours`."""
    return mapping.to_theirs(tokenizer_table(config), tree)


def tokenizer_config(theirs: Weights) -> dict[str, Any]:
    """Return config.tokenizer of ours for {name: array} of VQModel or GumbelVQ.

    What the weights cannot tell is as published: the swapped commitment weight of VQGAN's code, the
    Gumbel quantizer's temperature and weight of the KL term.

    Raises InputError if they are of none of them.
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
    """Return `encoder` and `decoder` of config.tokenizer.

    theirs: {name: array} of VQGAN or RQ-VAE, whose names and shapes tell them.
    """
    width, channels, *_ = shape_of(theirs, "encoder.conv_in.weight")
    colours, *_ = shape_of(theirs, "decoder.conv_out.weight")
    if {channels, colours} != {3}:
        wish = "a tokenizer of images with 3 channels"
        raise InputError(f"expected {wish}, got one from {channels} to {colours}")

    def coder(name: str, way: str, resampling: str) -> dict[str, Any]:
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


def shape_of(theirs: Weights, name: str) -> tuple[int, ...]:
    """Return the shape of a weight; InputError if it is missing."""
    if name not in theirs:
        raise InputError(f"these are no weights of such a tokenizer: {name} is missing")
    return theirs[name].shape
