"""The table of CLIP's image encoder: names of Hugging Face's `CLIPModel`."""

from evqgan.convert.mapping import Row

VISION, LAYER, BLOCKS = "vision_model", "vision_model.encoder.layers.{i}", "params/blocks"


def _norm(theirs: str, ours: str, index: str = "") -> tuple[Row, ...]:
    return (
        Row(f"{theirs}.weight", f"{ours}/scale{index}"),
        Row(f"{theirs}.bias", f"{ours}/bias{index}"),
    )


def _dense(theirs: str, ours: str, weight: str = "dense", bias: str = "same") -> tuple[Row, ...]:
    return (
        Row(f"{LAYER}.{theirs}.weight", f"{BLOCKS}/{ours}/kernel[{{i}}]", weight),
        Row(f"{LAYER}.{theirs}.bias", f"{BLOCKS}/{ours}/bias[{{i}}]", bias),
    )


TABLE = [
    Row(f"{VISION}.embeddings.class_embedding", "params/class_embedding"),
    Row(f"{VISION}.embeddings.patch_embedding.weight", "params/patches/kernel", "conv"),
    Row(f"{VISION}.embeddings.position_embedding.weight", "params/positions"),
    *_norm(f"{VISION}.pre_layrnorm", "params/norm_before"),  # their spelling
    *_norm(f"{LAYER}.layer_norm1", f"{BLOCKS}/norm1", "[{i}]"),
    *_dense("self_attn.q_proj", "query", "to_heads", "head_bias"),
    *_dense("self_attn.k_proj", "key", "to_heads", "head_bias"),
    *_dense("self_attn.v_proj", "value", "to_heads", "head_bias"),
    *_dense("self_attn.out_proj", "out", "from_heads"),
    *_norm(f"{LAYER}.layer_norm2", f"{BLOCKS}/norm2", "[{i}]"),
    *_dense("mlp.fc1", "hidden"),
    *_dense("mlp.fc2", "mlp"),
    *_norm(f"{VISION}.post_layernorm", "params/norm_after"),
    Row("visual_projection.weight", "params/projection/kernel", "dense"),
]
# The encoder of texts, the temperature, and a buffer of older files.
IGNORED = (
    r"^text_model\.",
    r"^text_projection\.weight$",
    r"^logit_scale$",
    r"^vision_model\.embeddings\.position_ids$",
)
