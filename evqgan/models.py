"""The models, apart from how they are trained: a tokenizer of images, and a generator of its ids.

Both are built from config.tokenizer, config.generator and the size of the images alone: no optimizer, no loss, no data.
They hold no weights; these are arguments of every method, and all methods can be jitted.

weights: a tokenizer's {"params", "codebook"}. params: a generator's. ids: int32 [B,h,w,D]. image: uint8 [B,H,W,3].
"""

import dataclasses
import inspect
from types import ModuleType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import build, checkpoint
from evqgan.data import pipeline, transforms
from evqgan.generators import Generator, decoding
from evqgan.tokenizers import tokenizer as tokenizers

OURS = ("model", "params", "ids", "mask", "label", "rng", "keys", "codebook", "soft")  # arguments of a generator's
# functions that are no keys of config.loss and config.sample


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class ImageTokenizer:
    """A tokenizer of images of one size."""

    network: tokenizers.Tokenizer
    shape: tuple[int, int]  # of the images

    @property
    def grid(self):
        """The token grid (h, w)."""
        return tuple(side // self.network.factor for side in self.shape)

    def init(self, rng):
        """-> the weights of an untrained one."""
        variables = self.network.init({"params": rng, "codebook": rng}, jnp.zeros((1, *self.shape, 3)), train=False)
        return {"params": variables["params"], "codebook": variables.get("codebook", {})}

    def encode(self, weights, image):
        """image -> ids."""
        return self.network.apply(weights, transforms.scale(image), method="encode")[1]

    def decode(self, weights, ids):
        """ids -> image."""
        z_q = self.network.apply(weights, ids, method="embed")
        return transforms.unscale(self.network.apply(weights, z_q, method="decode"))

    def shapes(self):
        """The shapes of what a workdir holds of it: {"ema": averaged params, "codebook"}."""
        weights = jax.eval_shape(lambda: self.init(jax.random.key(0)))
        return {"ema": weights["params"], "codebook": weights["codebook"]}

    def predict(self, state, batch, rng):
        """state: as `shapes` has it -> {"reconstruction": image, "ids"}, for evaluators."""
        weights = {"params": state["ema"], "codebook": state["codebook"]}
        reconstruction, ids, _ = self.network.apply(weights, transforms.scale(batch["image"]), train=False)
        return {"reconstruction": transforms.unscale(reconstruction), "ids": ids}

    def restored(self, workdir):
        """The averaged weights of a tokenizer's workdir, as NumPy arrays, and their step."""
        like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), self.shapes())
        saved = checkpoint.Checkpoints(workdir, create=False)
        theirs, step = saved.restore(like), saved.steps()[-1]
        saved.close()
        return {"params": theirs["ema"], "codebook": theirs["codebook"]}, step


@dataclasses.dataclass(frozen=True, eq=False)
class TokenGenerator:
    """A generator on the token grid of a tokenizer's images."""

    name: str
    tokenizer: ImageTokenizer
    module: ModuleType  # in evqgan/generators, with the names of `generators.Generator`
    network: nn.Module
    flat: int  # codes of a position that lie side by side in a row of the generator's grid

    @property
    def traits(self):
        """What sets this generator apart, see `generators.Traits`."""
        return self.module.TRAITS

    def init(self, rng):
        """-> the params of an untrained one."""
        return self.module.init(self.network, rng, jnp.zeros((1,), jnp.int32))

    def loss(self, params, weights, ids, label, rng, soft=None, **keys):
        """-> the training loss, {name: scalar}. keys: config.loss; soft: see `generators.Traits`."""
        more = {} if soft is None else {"soft": soft}
        ids = flattened(ids, self.flat)
        return self.module.loss(self.network, params, ids, label, rng, **keys, **more, **self._codebook(weights))

    def sample(self, params, weights, ids, mask, label, keys, **settings):
        """-> ids, new where mask bool [B,h,w] is True; with trace=True [S,B,h,w,D], after each of S steps, V where
        there is none yet. keys [B]: one random key an image; settings: config.sample.
        """
        build.check(self.module.sample, settings, "the sampler", OURS)
        ids, mask = flattened(ids, self.flat), jnp.repeat(mask, self.flat, axis=2)
        given = {**settings, **self._codebook(weights)}
        return deepened(self.module.sample(self.network, params, ids, mask, label, keys, **given), self.flat)

    def settings(self):
        """The defaults of all settings of `sample`."""
        known = inspect.signature(self.module.sample).parameters.items()
        known = {name: x.default for name, x in known if x.kind is x.KEYWORD_ONLY and x.default is not x.empty}
        return {name: value for name, value in known.items() if name != "trace"}  # which is no setting

    def check_mask(self, mask):
        """InputError if `sample` cannot generate just the tokens where mask NumPy bool [B,h,w] is True."""
        if self.traits.fills == "suffix":
            decoding.check_prefix(np.repeat(mask, self.flat, axis=2), self.name)

    def shapes(self):
        """The shapes of what a workdir holds of it: {"ema": averaged params, "tokenizer": weights}."""
        rng = jax.random.key(0)
        return jax.eval_shape(lambda: {"ema": self.init(rng), "tokenizer": self.tokenizer.init(rng)})

    def ids_of(self, weights, batch):
        """The ids of a batch: stored, or of its images."""
        ids = batch["ids"] if "ids" in batch else self.tokenizer.encode(weights, batch["image"])
        return jax.lax.stop_gradient(ids)

    def predict(self, state, batch, rng):
        """state: as `shapes` has it -> {"ids", "sums": those [B,2] of the generator's `evaluate`}, for evaluators."""
        weights = state["tokenizer"]
        ids = self.ids_of(weights, batch)
        given = flattened(ids, self.flat), batch["label"], rng
        sums = self.module.evaluate(self.network, state["ema"], *given, **self._codebook(weights))
        return {"ids": ids, "sums": sums}

    def _codebook(self, weights):
        codebook = self.traits.codebook
        return {"codebook": self.tokenizer.network.apply(weights, method="codebook")} if codebook else {}


def of(config):
    """The ImageTokenizer of a stage 1's config, the TokenGenerator of a stage 2's resolved one."""
    if config.stage == "stage1":
        return ImageTokenizer(tokenizers.make(config.tokenizer, config.dtype), shape_of(config))
    tokenizer = ImageTokenizer(tokenizers.of_generator(config), shape_of(config))
    return token_generator(config.generator, tokenizer, config.dtype)


def shape_of(config):
    """The images' (height, width)."""
    return build.call(pipeline.Dataset, config.dataset, "config.dataset").shape


def token_generator(keys, tokenizer, dtype):
    """The TokenGenerator of config.generator `keys` on an ImageTokenizer."""
    module = build.module("generators", keys.get("name"), "config.generator", *build.contract(Generator))
    traits, network, (h, w) = module.TRAITS, tokenizer.network, tokenizer.grid
    codes, depth, width = network.quantizer.codes, network.quantizer.depth, network.quantizer.width
    flat = 1 if "depth" in traits.told else depth
    more = {"depth": depth, "codebook_width": width, "factor": network.factor}
    given = {"codes": codes, "latent": (h, w * flat), **{name: more[name] for name in traits.told}}
    model = build.build("generators", "Model", keys, "config.generator", **given, dtype=dtype)
    return TokenGenerator(keys["name"], tokenizer, module, model, flat)


def flattened(ids, flat):
    """ids [B,h,w,D] -> [B,h,w*D,1], depths side by side, if `flat` > 1."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:2], -1, 1)


def deepened(ids, flat):
    """ids [...,h,w*D,1] -> [...,h,w,D]: the inverse of `flattened`."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:-2], -1, flat)
