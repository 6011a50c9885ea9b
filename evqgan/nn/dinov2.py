"""DINOv2's vision transformer (Oquab et al., 2024), with the input of Stein et al. (2023)."""

from functools import partial

import jax

from evqgan.nn.bicubic import pillow
from evqgan.nn.vision_transformer import VisionTransformer, normalized

SIDE = 224  # of the input, in pixels; layer6ai-labs/dgm-eval, `dinov2.py`
# ImageNet's, of colours in [0, 1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# ViT-L/14: 304,367,616 parameters. facebookresearch/dinov2, `hub/backbones.py` and
# `vision_transformer.py`: trained at last at 518x518, so that its positions are of 37x37 patches.
Network = partial(VisionTransformer, 37, 1e-6, "gelu", layer_scale=True)


def prepare(image: jax.Array, side: int = SIDE) -> jax.Array:
    """Return the input [B,side,side,3] float32 of images uint8 [B,H,W,3].

    As dgm-eval has it: resized to a square by Pillow's bicubic filter, and normalized.
    """
    return normalized(pillow(image, side), MEAN, STD)
