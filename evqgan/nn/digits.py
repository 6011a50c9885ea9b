"""A small classifier of handwritten digits, in the place of networks of photographs."""

import flax.linen as nn
import jax

SIDE = 16  # ours: of its input; the digits are 8x8 counts, enlarged
CLASSES = 10


class Network(nn.Module):
    """x [B,16,16,1] float32 in [0, 1] -> dict of features, float32.

    "48" [B,48]: the last hidden layer; "logits" [B,10]. Two convolutions, each with a pooling, and
    two dense layers: 29,914 parameters. Ours.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        for i, channels in enumerate((16, 32)):
            x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv{i}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        hidden = nn.relu(nn.Dense(48, name="hidden")(x.reshape(len(x), -1)))
        return {"48": hidden, "logits": nn.Dense(CLASSES, name="head")(hidden)}
