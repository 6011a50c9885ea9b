"""The table of CLIP's image encoder: names of Hugging Face's `CLIPModel`."""

from evqgan.convert.mapping import Row, norm
from evqgan.convert.transformers import block

ENCODER = "params/encoder"
VISION, LAYER = "vision_model", "vision_model.encoder.layers.{i}"
EMBEDDINGS = f"{VISION}.embeddings"
TABLE = [
    Row(f"{EMBEDDINGS}.class_embedding", f"{ENCODER}/class_embedding"),
    Row(f"{EMBEDDINGS}.patch_embedding.weight", f"{ENCODER}/patches/kernel", "conv"),
    Row(f"{EMBEDDINGS}.position_embedding.weight", f"{ENCODER}/positions"),
    *norm(f"{VISION}.pre_layrnorm", f"{ENCODER}/norm_before"),  # their spelling
    *block(
        f"{ENCODER}/blocks",
        norms=(f"{LAYER}.layer_norm1", f"{LAYER}.layer_norm2"),
        attention=[f"{LAYER}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")],
        mlp=(f"{LAYER}.mlp.fc1", f"{LAYER}.mlp.fc2"),
    ),
    *norm(f"{VISION}.post_layernorm", f"{ENCODER}/norm_after"),
    Row("visual_projection.weight", "params/projection/kernel", "dense"),
]
# The encoder of texts, the temperature, and a buffer of older files.
IGNORED = (
    r"^text_model\.",
    r"^text_projection\.weight$",
    r"^logit_scale$",
    r"^vision_model\.embeddings\.position_ids$",
)
