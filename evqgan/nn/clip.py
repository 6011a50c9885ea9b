"""The image encoder of CLIP (Radford et al., 2021): a vision transformer and its projection."""

import flax.linen as nn
import jax

from evqgan.nn.bicubic import pillow
from evqgan.nn.vision_transformer import VisionTransformer, normalized

# Of colours in [0, 1]; openai/CLIP, `clip.py`.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EPSILON = 1e-5  # of the layer norms; PyTorch's default


def prepare(image: jax.Array, side: int) -> jax.Array:
    """Return the input [B,side,side,3] float32 of images uint8 [B,H,W,3].

    As CMMD's code (google-research/cmmd, `io_util.py`) has it: the square in the centre, resized
    by Pillow's bicubic filter and normalized.
    """
    height, width = image.shape[1:3]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    image = image[:, top : top + square, left : left + square]
    return normalized(pillow(image, side), MEAN, STD)


class Network(nn.Module):
    """image [B,side,side,3], see `prepare` -> embeddings [B,out] float32, of any length.

    The defaults are ViT-L/14@336: 304,293,888 parameters (Radford et al., 2021, Table 20).
    """

    side: int = 336
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    out: int = 768

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        encoder = VisionTransformer(
            self.side // self.patch,
            EPSILON,
            "quick_gelu",  # openai/CLIP, `model.py`
            self.patch,
            self.width,
            self.layers,
            self.heads,
            patch_bias=False,
            norm_before=True,
            name="encoder",
        )
        return nn.Dense(self.out, use_bias=False, name="projection")(encoder(image))
