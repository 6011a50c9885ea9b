"""Tables of weight names: google-research/maskgit, flattened with "/" -> ours."""

import re
from typing import Any

from evqgan.convert import mapping
from evqgan.convert.mapping import Row, Tree, Weights
from evqgan.core.errors import InputError


def _both(theirs, ours, *names, index=""):
    return tuple(Row(f"{theirs}/{name}", f"params/{ours}/{name}{index}") for name in names)


def _layer(theirs, ours, *names):
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


def tokenizer_table(config: Any) -> list[Row]:
    """The table of VQVAE (nets/vqgan_tokenizer.py) -> the Tokenizer of `config` (as from `tokenizer_config`).

    Their layers are numbered by kind, in the order of use.
    """
    encoder, decoder = config["encoder"], config["decoder"]
    blocks, levels = encoder["blocks"], range(len(encoder["multipliers"]))
    norm = {"group": "GroupNorm", "layer": "LayerNorm"}[encoder["norm"]]

    def coder(name, order, convs):
        """Rows of an encoder or decoder, whose residual blocks and convolutions come in this order."""
        rows = [*_both(f"{name}/{norm}_0", f"{name}/norm_out", *NORM)]
        for i, ours in enumerate(
            f"{stage}_block{j}" for stage, number in order for j in range(number)
        ):
            for j in (0, 1):
                rows += _both(
                    f"{name}/ResBlock_{i}/{norm}_{j}", f"{name}/{ours}/norm{j + 1}", *NORM
                )
                rows += _both(
                    f"{name}/ResBlock_{i}/Conv_{j}", f"{name}/{ours}/conv{j + 1}", "kernel"
                )
            shortcut = Row(
                f"{name}/ResBlock_{i}/Conv_2/kernel",
                f"params/{name}/{ours}/shortcut/kernel",
                "dense1x1",
            )
            rows.append(shortcut)
        for i, ours in enumerate(convs):
            rows += _both(f"{name}/Conv_{i}", f"{name}/{ours}", *DENSE)
        return rows

    down = ["conv_in", *(f"down{i}_conv" for i in levels[:-1] if encoder["down"] == "conv4")]
    up = ["conv_in", *(f"up{i}_conv" for i in levels[:0:-1]), "to_rgb"]
    return (
        *coder(
            "encoder",
            [*((f"down{i}", blocks) for i in levels), ("middle", encoder["middle"])],
            down,
        ),
        Row(f"encoder/Conv_{len(down)}/kernel", "params/to_codes/kernel", "dense1x1"),
        Row(f"encoder/Conv_{len(down)}/bias", "params/to_codes/bias"),
        *coder(
            "decoder",
            [("middle", decoder["middle"]), *((f"up{i}", blocks) for i in levels[::-1])],
            up,
        ),
        Row(
            "quantizer/codebook",
            f"params/quantizer/codebook{'' if 'gumbel' in config['quantizer']['name'] else '[0]'}",
        ),
    )


def tokenizer_to_ours(theirs: Weights, like: Tree, config: Any) -> Tree:
    """{name: array} of VQVAE's params -> {"params", "codebook"} as `like`; InputError as in `mapping.to_ours`."""
    return mapping.to_ours(tokenizer_table(config), theirs, like)


def tokenizer_to_theirs(tree: Tree, config: Any) -> Weights:
    """The inverse of `tokenizer_to_ours`."""
    return mapping.to_theirs(tokenizer_table(config), tree)


def tokenizer_config(
    theirs: Weights, kind: str = "vq", activation: str = "swish"
) -> dict[str, Any]:
    """config.tokenizer of ours for {name: array} of VQVAE's params; InputError if they are not.

    What the weights cannot tell is as published, or said by `kind` and `activation`.
    """
    for name in ("encoder/Conv_0/kernel", "decoder/Conv_0/kernel", "quantizer/codebook"):
        if name not in theirs:
            raise InputError(f"these are not the weights of MaskGIT's tokenizer: {name} is missing")
    if any("BatchNorm" in name for name in theirs):
        raise InputError(
            "a MaskGIT tokenizer with batch norm is not built: convert one with norm_type GN or LN"
        )

    def count(pattern):
        return len({match[0] for match in map(re.compile(pattern).match, theirs) if match})

    levels, convs = count(r"decoder/Conv_\d+/") - 1, count(r"encoder/Conv_\d+/")
    blocks, rest = divmod(
        count(r"encoder/ResBlock_\d+/"), levels + 1
    )  # as many in the middle as on each level
    if rest or not blocks:
        raise InputError(
            f"expected as many residual blocks in the middle as on each of {levels} levels, got others"
        )
    width, codes = theirs["encoder/Conv_0/kernel"].shape[3], theirs["quantizer/codebook"].shape
    coder = {
        "name": "cnn", "width": width, "multipliers": tuple(
            theirs[f"encoder/ResBlock_{i * blocks}/Conv_0/kernel"].shape[3] // width for i in range(levels)
        ), "blocks": blocks, "attention": (), "middle": blocks, "middle_attention": False, "z_width": 0,
        "norm": "layer" if "encoder/LayerNorm_0/scale" in theirs else "group", "activation": activation,
        "bias": False, "shortcut_of_output": True,
    }  # fmt: skip
    return {
        "encoder": {**coder, "down": "conv4" if convs > 2 else "pool"},
        "decoder": coder,
        "quantizer": {**QUANTIZERS[kind], "codes": codes[0], "width": codes[1]},
        "pixels": "unit",
    }
