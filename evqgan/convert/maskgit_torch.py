"""MaskGIT's weights under the names of hmorimitsu/maskgit-torch, as the original names them.

That port (Apache-2.0) publishes the official weights in PyTorch's form; its notebooks say how they
were renamed and turned, which is undone here.
"""

import re

import numpy as np

from evqgan.convert.mapping import Weights
from evqgan.core.errors import InputError

HEADS = 16  # configs/maskgit_class_cond_config.py: theirs are fused, and no longer show it
BLOCKS = 2  # residual blocks on each level, which their names count by level
PARTS = ("query", "key", "value")  # in the order of the rows of in_proj
OUTSIDE = {  # layers outside of the blocks
    "emb_ln": "Embed_0/embeddings_ln",
    "Token_Prediction.0": "MlmLayer_0/mlm_dense",
    "Token_Prediction.2": "MlmLayer_0/mlm_ln",
}
WHOLE = {  # names without a layer
    "pos_emb": "Embed_0/position_embeddings/embedding",
    "tok_emb.weight": "Embed_0/word_embeddings/embedding",
    "bias": "MlmLayer_0/mlm_bias/bias",
    "quantizer.codebook.weight": "quantizer/codebook",
}
OF_BLOCK = {
    "AttentionLN": "Attention_0/attention_output_ln",
    "MlpLN": "Mlp_0/layer_output_ln",
    "MLP.0": "Mlp_0/intermediate_output",
    "MLP.2": "Mlp_0/layer_output",
    "MultiHeadAttention.out_proj": "Attention_0/self_attention/out",
}
OF_RESIDUAL = {
    "norm0": "GroupNorm_0",
    "norm1": "GroupNorm_1",
    "conv0": "Conv_0",
    "conv1": "Conv_1",
    "conv_res": "Conv_2",
}


def to_original(theirs: Weights) -> Weights:
    """Return {name: array} of a tokenizer or a transformer under the original names.

    Raises InputError for a name that the port does not have.
    """
    found: Weights = {}
    last = 1 + max((_number(r"decoder\.res_blocks\.(\d+)\.3\.", x) for x in theirs), default=0)
    for name, array in theirs.items():
        if name in WHOLE:
            found[WHOLE[name]] = array
        elif match := re.fullmatch(r"blocks\.(\d+)\.MultiHeadAttention\.in_proj_(\w+)", name):
            above = f"TransformerLayer_{match[1]}/Attention_0/self_attention"
            for part, third in zip(PARTS, np.split(array, len(PARTS)), strict=True):
                found[f"{above}/{part}/{_kind(match[2], third)}"] = _heads(third)
        else:
            layer, _, kind = name.rpartition(".")
            original = _layer(layer, last)
            if not original or kind not in ("weight", "bias"):
                raise InputError(f"{name} is no weight of maskgit-torch, nor of MaskGIT")
            found[f"{original}/{_kind(kind, array)}"] = _turned(layer, array)
    return found


def _layer(layer: str, last: int) -> str:
    """Return the original name of a layer, "" for an unknown one.

    last: the number of the decoder's last convolution.
    """
    if layer in OUTSIDE:
        return OUTSIDE[layer]
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", layer):
        return f"TransformerLayer_{match[1]}/{OF_BLOCK[match[2]]}" if match[2] in OF_BLOCK else ""
    if match := re.fullmatch(r"decoder\.res_blocks\.(\d+)\.3", layer):
        return f"decoder/Conv_{match[1]}"
    if match := re.fullmatch(r"(encoder|decoder)\.res_blocks\.(\d+)\.([01])\.(\w+)", layer):
        number = BLOCKS * int(match[2]) + int(match[3])
        inner = OF_RESIDUAL.get(match[4], "")
        return f"{match[1]}/ResBlock_{number}/{inner}" if inner else ""
    outer = {"conv_in": "Conv_0", "norm_out": "GroupNorm_0", "conv_out": "Conv_1"}
    coder, _, end = layer.partition(".")
    if coder not in ("encoder", "decoder") or end not in outer:
        return ""
    return f"{coder}/{f'Conv_{last}' if layer == 'decoder.conv_out' else outer[end]}"


def _kind(kind: str, array: np.ndarray) -> str:
    """Return what the original calls a weight: of a norm (one axis) it is a scale."""
    if kind == "bias":
        return "bias"
    return "scale" if array.ndim == 1 else "kernel"


def _turned(layer: str, array: np.ndarray) -> np.ndarray:
    """Return a weight of a layer with its axes as the original has them."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:
        out = array.T
        return out.reshape(HEADS, -1, out.shape[1]) if layer.endswith("out_proj") else out
    return array


def _heads(third: np.ndarray) -> np.ndarray:
    """Return [heads*d,c] as [c,heads,d], and [heads*d] as [heads,d]."""
    if third.shape[0] % HEADS:
        raise InputError(f"a width of {third.shape[0]} does not divide into {HEADS} heads")
    return third.T.reshape(*third.shape[1:], HEADS, -1)


def _number(pattern: str, name: str) -> int:
    match = re.match(pattern, name)
    return int(match[1]) if match else 0
