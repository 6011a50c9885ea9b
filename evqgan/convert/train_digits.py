"""Trains the classifier of digits whose features `evqgan.features.digits` has.

python -m evqgan.convert.train_digits DEST    writes DEST, a .safetensors file, in a few seconds

From one seed, on the training split alone (`evqgan.data.builders.digits`). The same machine makes
the same file; another one may round otherwise, so that a file of its own is another version.
"""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evqgan.core import cli, files, weights
from evqgan.core.errors import InputError
from evqgan.data.builders.digits import examples
from evqgan.features.digits import prepare
from evqgan.nn import digits

# Ours: some 30 epochs, which take seconds, and shifts by up to 2 of 32 pixels against overfitting.
STEPS, BATCH, RATE, SHIFT, SEED = 700, 64, 3e-3, 2, 0
CARD = {
    "network": "digits",
    "source": "evqgan.convert.train_digits, of the training split of scikit-learn's digits",
    "licence": "Apache-2.0; the digits: CC BY 4.0 (UCI Machine Learning Repository)",
}


def split(held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the images uint8 [N,32,32,3] and labels int32 [N] of held-out digits, or others."""
    chosen = [(image, label) for _, image, label, held in examples() if held == held_out]
    images, labels = zip(*chosen, strict=True)
    return np.stack(images), np.array(labels, np.int32)


def train(steps: int = STEPS) -> Any:
    """Return the trained variables: cross-entropy, Adam, a rate that falls along a cosine."""
    images, labels = split(held_out=False)
    network, rng = digits.Network(), np.random.default_rng(SEED)
    like = jnp.zeros((1, digits.SIDE, digits.SIDE, 1))
    variables = network.init(jax.random.key(SEED), like)
    adam = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(variables: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        made: Any = network.apply(variables, prepare(image))
        return optax.softmax_cross_entropy_with_integer_labels(made["logits"], label).mean()

    @jax.jit
    def update(variables: Any, state: Any, image: jax.Array, label: jax.Array) -> tuple[Any, Any]:
        changes, state = adam.update(jax.grad(loss)(variables, image, label), state)
        return optax.apply_updates(variables, changes), state

    state = adam.init(variables)
    for _ in range(steps):
        chosen = rng.integers(0, len(images), BATCH)
        shift = rng.integers(-SHIFT, SHIFT + 1, 2)
        batch = np.roll(images[chosen], shift, (1, 2))  # the border is black
        variables, state = update(variables, state, batch, labels[chosen])
    return jax.device_get(variables)


def accuracy(variables: Any) -> float:
    """Return the share of held-out digits whose class has the largest logit."""
    images, labels = split(held_out=True)
    made: Any = digits.Network().apply(variables, prepare(jnp.asarray(images)))
    return float(np.mean(np.argmax(made["logits"], -1) == labels))


def run(argv: list[str]) -> None:
    """Train, and write the file that the arguments name."""
    if len(argv) != 1 or pathlib.Path(argv[0]).suffix != ".safetensors":
        raise InputError(f"expected one DEST.safetensors, got {' '.join(argv) or 'nothing'}")
    dest = pathlib.Path(argv[0]).expanduser()
    files.tried(dest.parent)
    variables = train()
    weights.save(dest, variables, CARD)
    share = f"{accuracy(variables):.1%} of held-out digits in their class"
    print(f"wrote {dest}: {share}; sha256 {files.digest(dest)}...")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(cli.main(sys.argv[1:], run, lambda: __doc__ or ""))
