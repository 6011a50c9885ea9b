"""The table of DINOv2's network: names of facebookresearch/dinov2's `DinoVisionTransformer`."""

from functools import partial

from evqgan.convert import together
from evqgan.convert.mapping import Row, layer, norm
from evqgan.convert.transformers import block

LAYER, ATTENTION = "blocks.{i}", "blocks.{i}.attn"
TABLE = [
    Row("cls_token", "params/class_embedding", "token"),
    Row("pos_embed", "params/positions", "row"),
    *layer("patch_embed.proj", "params/patches", "conv"),
    *block(
        "params/blocks",
        norms=(f"{LAYER}.norm1", f"{LAYER}.norm2"),
        attention=[f"{ATTENTION}.{name}" for name in ("q", "k", "v", "proj")],
        mlp=(f"{LAYER}.mlp.fc1", f"{LAYER}.mlp.fc2"),
    ),
    Row(f"{LAYER}.ls1.gamma", "params/blocks/scale1[{i}]"),
    Row(f"{LAYER}.ls2.gamma", "params/blocks/scale2[{i}]"),
    *norm("norm", "params/norm_after"),
]
IGNORED = (r"^mask_token$",)  # of the patches that training hides

# {name in the file: array} to the names of the table, and back
split, fuse = (partial(f, layer="qkv") for f in (together.split, together.fuse))
