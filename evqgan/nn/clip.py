"""The image encoder of CLIP (Radford et al., 2021): a vision transformer and its projection."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evqgan.nn.attention import attend

# Of colours in [0, 1]; openai/CLIP, `clip.py`.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EPSILON = 1e-5  # of the layer norms; PyTorch's default


def prepare(image: jax.Array, side: int) -> jax.Array:
    """Return the input [B,side,side,3] float32 of images uint8 [B,H,W,3].

    As CMMD's code (google-research/cmmd) has it: resized to a square, bicubic, antialiased, and
    normalized. CLIP's own evaluation crops instead of squeezing.
    """
    mean, std = (jnp.array(x, jnp.float32).reshape(1, 1, 1, 3) for x in (MEAN, STD))
    colours = image.astype(jnp.float32) / 255
    return (jax.image.resize(colours, (len(image), side, side, 3), "bicubic") - mean) / std


class Block(nn.Module):
    """x [B,S,c] -> x, as a step of nn.scan: attention and MLP, each after a layer norm."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = nn.LayerNorm(EPSILON, name="norm1")(x)
        split = (self.heads, x.shape[-1] // self.heads)
        query, key, value = (
            nn.DenseGeneral(split, name=name)(y) for name in ("query", "key", "value")
        )
        x = x + nn.DenseGeneral(x.shape[-1], (-2, -1), name="out")(attend(query, key, value))
        y = nn.Dense(4 * x.shape[-1], name="hidden")(nn.LayerNorm(EPSILON, name="norm2")(x))
        # QuickGELU; openai/CLIP, `model.py`.
        return x + nn.Dense(x.shape[-1], name="mlp")(y * nn.sigmoid(1.702 * y)), None


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
        size, normal = (self.patch, self.patch), nn.initializers.normal(0.02)
        x = nn.Conv(self.width, size, size, "VALID", use_bias=False, name="patches")(image)
        x = x.reshape(len(x), -1, self.width)
        of_image = self.param("class_embedding", normal, (self.width,))
        of_image = jnp.broadcast_to(of_image.reshape(1, 1, -1), (len(x), 1, self.width))
        x = jnp.concatenate([of_image, x], axis=1)
        x = x + self.param("positions", normal, x.shape[1:])[None]
        x = nn.LayerNorm(EPSILON, name="norm_before")(x)
        scanned: Any = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers
        )
        x, _ = scanned(self.heads, name="blocks")(x, None)
        x = nn.LayerNorm(EPSILON, name="norm_after")(x[:, 0])
        return nn.Dense(self.out, use_bias=False, name="projection")(x)
