"""Tables of weight names: google-research/maskgit, flattened with "/" <-> ours."""

import re
from typing import Any

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights
from evqgan.core.errors import InputError


def _both(theirs: str, ours: str, *names: str, index: str = "") -> tuple[Row, ...]:
    return tuple(Row(f"{theirs}/{name}", f"params/{ours}/{name}{index}") for name in names)


def _layer(theirs: str, ours: str, *names: str) -> tuple[Row, ...]:
    return _both(f"TransformerLayer_{{i}}/{theirs}", f"blocks/{ours}", *names, index="[{i}]")


DENSE, NORM = ("kernel", "bias"), ("scale", "bias")

# nets/maskgit_transformer.py -> generators/maskgit.py
TRANSFORMER = (
    Row("Embed_0/word_embeddings/embedding", "params/words"),
    Row("Embed_0/position_embeddings/embedding", "params/positions"),
    *_both("Embed_0/embeddings_ln", "embedding_norm", *NORM),
    *_layer("Attention_0/self_attention/query", "query", *DENSE),
    *_layer("Attention_0/self_attention/key", "key", *DENSE),
    *_layer("Attention_0/self_attention/value", "value", *DENSE),
    *_layer("Attention_0/self_attention/out", "out", *DENSE),
    *_layer("Attention_0/attention_output_ln", "attention_norm", *NORM),
    *_layer("Mlp_0/intermediate_output", "mlp_hidden", *DENSE),
    *_layer("Mlp_0/layer_output", "mlp_out", *DENSE),
    *_layer("Mlp_0/layer_output_ln", "mlp_norm", *NORM),
    *_both("MlmLayer_0/mlm_dense", "head", *DENSE),
    *_both("MlmLayer_0/mlm_ln", "head_norm", *NORM),
    Row("MlmLayer_0/mlm_bias/bias", "params/logits_bias"),
)

# What the weights of a tokenizer do not tell of its quantizer, from configs/vqgan_config.py
QUANTIZERS = {
    "vq": {
        "name": "maskgit",
        "entropy": 0.1,
        "entropy_temperature": 0.01,
        "entropy_target": "softmax",
    },
    "gumbel": {
        "name": "gumbel",
        "logits": "distance",
        "hard": False,
        "final_temperature": 0.6,
        "kl_weight": 0.0,
    },
}


def tokenizer_table(config: Any) -> tuple[Row, ...]:
    """Return the table from VQVAE (nets/vqgan_tokenizer.py) to a Tokenizer.

    Their layers are numbered by kind, in the order of use.

    config: of the Tokenizer, as `tokenizer_config` makes it.
    """
    encoder, decoder = config["encoder"], config["decoder"]
    blocks, levels = encoder["blocks"], range(len(encoder["multipliers"]))
    norm = {"group": "GroupNorm", "layer": "LayerNorm"}[encoder["norm"]]

    def coder(name: str, order: list[tuple[str, int]], convs: list[str]) -> list[Row]:
        """Return the rows of an encoder or decoder.

        order: its stages and the numbers of their residual blocks, in the order of use.
        convs: its convolutions outside of blocks, likewise.
        """
        rows = [*_both(f"{name}/{norm}_0", f"{name}/norm_out", *NORM)]
        names = [f"{stage}_block{j}" for stage, number in order for j in range(number)]
        for i, block in enumerate(names):
            theirs, ours = f"{name}/ResBlock_{i}", f"{name}/{block}"
            for j in (0, 1):
                rows += _both(f"{theirs}/{norm}_{j}", f"{ours}/norm{j + 1}", *NORM)
                rows += _both(f"{theirs}/Conv_{j}", f"{ours}/conv{j + 1}", "kernel")
            shortcut = f"params/{ours}/shortcut/kernel"
            rows.append(Row(f"{theirs}/Conv_2/kernel", shortcut, "dense1x1"))
        for i, ours in enumerate(convs):
            rows += _both(f"{name}/Conv_{i}", f"{name}/{ours}", *DENSE)
        return rows

    down = ["conv_in", *(f"down{i}_conv" for i in levels[:-1] if encoder["down"] == "conv4")]
    up = ["conv_in", *(f"up{i}_conv" for i in levels[:0:-1]), "to_rgb"]
    down_order = [*((f"down{i}", blocks) for i in levels), ("middle", encoder["middle"])]
    up_order = [("middle", decoder["middle"]), *((f"up{i}", blocks) for i in levels[::-1])]
    codebook = "" if "gumbel" in config["quantizer"]["name"] else "[0]"
    return (
        *coder("encoder", down_order, down),
        Row(f"encoder/Conv_{len(down)}/kernel", "params/to_codes/kernel", "dense1x1"),
        Row(f"encoder/Conv_{len(down)}/bias", "params/to_codes/bias"),
        *coder("decoder", up_order, up),
        Row("quantizer/codebook", f"params/quantizer/codebook{codebook}"),
    )


def tokenizer_to_ours(theirs: Weights, like: Tree, config: Any) -> Tree:
    """Return {name: array} of VQVAE's params as {"params", "codebook"} of a Tokenizer.

    like: the tree that is wanted, as in `mapping.to_ours`, which also says what is raised.
    config: of the Tokenizer, as `tokenizer_config` makes it.
    """
    return mapping.to_ours(tokenizer_table(config), theirs, like)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """Return the names and arrays of theirs: the inverse of `tokenizer_to_ours`."""
    return mapping.to_theirs(tokenizer_table(config), tree)


def tokenizer_config(
    theirs: Weights, kind: str = "vq", activation: str = "swish"
) -> dict[str, Any]:
    """Return config.tokenizer of ours for {name: array} of VQVAE's params.

    What the weights cannot tell is as published, or said by `kind` and `activation`.

    Raises InputError if they are no such params.
    """
    for name in ("encoder/Conv_0/kernel", "decoder/Conv_0/kernel", "quantizer/codebook"):
        if name not in theirs:
            raise InputError(f"these are not the weights of MaskGIT's tokenizer: {name} is missing")
    if any("BatchNorm" in name for name in theirs):
        what = "a MaskGIT tokenizer with batch norm is not built"
        raise InputError(f"{what}: convert one with norm_type GN or LN")

    def count(pattern: str) -> int:
        return len({match[0] for match in map(re.compile(pattern).match, theirs) if match})

    def channels(layer: str) -> int:
        return theirs[f"encoder/{layer}/kernel"].shape[3]

    levels, convs = count(r"decoder/Conv_\d+/") - 1, count(r"encoder/Conv_\d+/")
    # There are as many in the middle as on each level.
    blocks, rest = divmod(count(r"encoder/ResBlock_\d+/"), levels + 1)
    if rest or not blocks:
        wish = f"as many residual blocks in the middle as on each of {levels} levels"
        raise InputError(f"expected {wish}, got others")
    width, book = channels("Conv_0"), theirs["quantizer/codebook"].shape
    widths = [channels(f"ResBlock_{i * blocks}/Conv_0") for i in range(levels)]
    coder = {
        "name": "cnn",
        "width": width,
        "multipliers": tuple(of_level // width for of_level in widths),
        "blocks": blocks,
        "attention": (),
        "middle": blocks,
        "middle_attention": False,
        "z_width": 0,
        "norm": "layer" if "encoder/LayerNorm_0/scale" in theirs else "group",
        "activation": activation,
        "bias": False,
        "shortcut_of_output": True,
    }
    return {
        "encoder": {**coder, "down": "conv4" if convs > 2 else "pool"},
        "decoder": coder,
        "quantizer": {**QUANTIZERS[kind], "codes": book[0], "width": book[1]},
        "pixels": "unit",
    }
