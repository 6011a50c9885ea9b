"""Stage 1: training a tokenizer (paper, Sec. 3.1, Eq. 1).

The loss so far: L2 + quantization.
"""

import jax
import jax.numpy as jnp

from evqgan.core import build, optim
from evqgan.core.stage import Stage
from evqgan.data import pipeline, transforms
from evqgan.tokenizers import tokenizer as tokenizers


def resolve(config):
    """A tokenizer takes nothing from other workdirs."""
    return config


def make(config, examples=1, classes=0):
    """The stage of `config`; examples: size of the training set, for durations in epochs. State:

    step, params and codebook (what is trained), ema (averaged params: what is evaluated and kept), opt.
    """
    model = tokenizers.make(config.tokenizer, config.dtype)
    updater = optim.updater(config, examples, ema=0.999)  # MaskGIT's tokenizer
    height, width = build.call(pipeline.Dataset, config.dataset, "config.dataset").shape

    def init():
        rngs = dict(zip(("params", "codebook"), jax.random.split(jax.random.key(config.seed)), strict=True))
        variables = model.init(rngs, jnp.zeros((1, height, width, 3)), train=True)
        return {**updater.init(variables["params"]), "codebook": variables.get("codebook", {})}

    def loss(params, codebook, batch, rng):
        image = transforms.scale(batch["image"])
        (reconstruction, _, aux), changed = model.apply(
            {"params": params, "codebook": codebook}, image, train=True, rngs={"codebook": rng}, mutable=["codebook"]
        )
        l2 = jnp.mean(jnp.square(reconstruction - image))
        total = l2 + aux["quantizer_loss"]
        return total, (changed.get("codebook", {}), {"l2": l2, **aux})

    def update(state, batch):
        rng = jax.random.fold_in(jax.random.key(config.seed + 1), state["step"])
        differentiate = updater.gradients(loss)
        (value, (codebook, metrics)), grads = differentiate(state["params"], state["codebook"], batch, rng)
        return updater.step({**state, "codebook": codebook}, value, grads, metrics)

    def predict(state, batch, rng):
        variables = {"params": state["ema"], "codebook": state["codebook"]}
        reconstruction, ids, _ = model.apply(variables, transforms.scale(batch["image"]), train=False)
        return {"reconstruction": transforms.unscale(reconstruction), "ids": ids}

    return Stage(init, lambda state: state, update, predict)
