"""The models, apart from how they are trained: a tokenizer of images, and a generator of its ids.

Both are built from config.tokenizer, config.generator and the size of the images alone: no
optimizer, no loss, no data. They hold no weights; these are arguments of every method, and all
methods can be jitted.

weights: a tokenizer's {"params", "codebook"}. params: a generator's. ids: int32 [B,h,w,D]. image:
uint8 [B,H,W,3].
"""

import dataclasses
import functools
import os
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import (
    build,
    checkpoint,
    chosen_step,
    exported,
    exported_weights,
    flag_kinds,
    kinds,
)
from evqgan.core.errors import ContractError, InputError
from evqgan.data import transforms
from evqgan.data.dataset import Dataset
from evqgan.generators import Decoded, Generator, KeepHistory, Request, Traits
from evqgan.generators.autoregressive import check_suffix
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.tokenizers.tokenizer import Tokenizer

# Arguments of a generator's loss that `TokenGenerator.loss` gives it; all others are config.loss.
GIVEN_TO_LOSS = ("model", "params", "ids", "label", "rng", "codebook", "soft_targets")


@dataclasses.dataclass(frozen=True, eq=False)  # jit asks for a hash, and by identity there is one
class ImageTokenizer:
    """A tokenizer of images of one size."""

    network: Tokenizer
    shape: tuple[int, int]  # of the images

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid (h, w)."""
        h, w = (side // self.network.factor for side in self.shape)
        return h, w

    def init(self, rng: jax.Array) -> dict:
        """Return the weights of an untrained tokenizer."""
        image = jnp.zeros((1, *self.shape, 3))
        with build.at_key("config.tokenizer"):
            variables = self.network.init({"params": rng, "codebook": rng}, image, train=False)
        return {"params": variables["params"], "codebook": variables.get("codebook", {})}

    def encode(self, weights: dict, image: jax.Array) -> jax.Array:
        """Return the ids of images."""
        scaled = transforms.scale(image)
        encoded: Any = self.network.apply(weights, scaled, method=Tokenizer.encode)
        _, ids, _ = encoded
        return ids

    def decode(self, weights: dict, ids: jax.Array) -> jax.Array:
        """Return the images of ids."""
        z_q = self.network.apply(weights, ids, method=Tokenizer.embed)
        return transforms.unscale(self.network.apply(weights, z_q, method=Tokenizer.decode))

    def shapes(self) -> dict:
        """Return the shapes of what a workdir holds: {"ema": averaged params, "codebook"}."""
        weights = _shapes_of_tokenizer(self.network, self.shape)
        return {"ema": weights["params"], "codebook": weights["codebook"]}

    def predict(self, state: dict, batch: dict, rng: jax.Array) -> dict[str, jax.Array]:
        """Return {"reconstruction": image, "ids"}, for evaluators. state: see `shapes`."""
        weights = {"params": state["ema"], "codebook": state["codebook"]}
        image = transforms.scale(batch["image"])
        made: Any = self.network.apply(weights, image, train=False)
        reconstruction, ids, _ = made
        return {"reconstruction": transforms.unscale(reconstruction), "ids": ids}

    def restored(self, workdir: Any, step: int | None = None) -> tuple[dict, int]:
        """Return the averaged weights of a tokenizer's workdir, as NumPy arrays, and their step.

        step: as of the function `restored`.
        """
        like = jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
            self.shapes(),
        )
        state, found = restored(workdir, like, step)
        return {"params": state["ema"], "codebook": state["codebook"]}, found


# A process may load a model several times, as the quickstart does: equal networks are traced once.
@functools.cache
def _shapes_of_tokenizer(network: Tokenizer, shape: tuple[int, int]) -> dict:
    """Return the shapes of the weights of a tokenizer of images of `shape`."""
    return jax.eval_shape(lambda: ImageTokenizer(network, shape).init(jax.random.key(0)))


@functools.cache
def _shapes_of_params(module: Generator, network: nn.Module) -> dict:
    """Return the shapes of the params of a generator, whose functions are in `module`."""
    label = jnp.zeros((1,), jnp.int32)
    return jax.eval_shape(lambda: module.init(network, jax.random.key(0), label))


@dataclasses.dataclass(frozen=True, eq=False)
class TokenGenerator:
    """A generator on the token grid of a tokenizer's images."""

    name: str
    tokenizer: ImageTokenizer
    module: Generator  # in evqgan/generators
    network: nn.Module
    # How many codes of a position the generator sees side by side in a row: D of a generator that
    # does not know depths (`Traits.needs`), else 1. `flatten_depth` lays them out.
    flat: int

    @property
    def traits(self) -> Traits:
        """What sets this generator apart."""
        return self.module.TRAITS

    def init(self, rng: jax.Array) -> dict:
        """Return the params of an untrained generator."""
        return self.module.init(self.network, rng, jnp.zeros((1,), jnp.int32))

    def loss(
        self,
        params: dict,
        weights: dict,
        ids: jax.Array,
        label: jax.Array,
        rng: jax.Array,
        soft_targets: jax.Array | None = None,
        **keys: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the training loss, and metrics {name: scalar}.

        soft_targets: see `generators.Traits`; keys: config.loss.
        """
        more = {} if soft_targets is None else {"soft_targets": soft_targets}
        more |= self._keywords(weights)
        ids = flatten_depth(ids, self.flat)
        return self.module.loss(self.network, params, ids, label, rng, **keys, **more)

    def settings(self, changes: dict | None = None) -> Any:
        """Return the settings of `sample`, an instance of the generator's Settings.

        changes: {key: value} where it differs from the default, as config.sample is. Raises
          InputError for an unknown key or an impossible value.
        """
        return build.call(self.module.Settings, changes or {}, "config.sample")

    def check_settings(self, settings: Any) -> None:
        """Raise InputError for settings that `sample` will refuse of this network."""
        if check := getattr(settings, "check", None):
            check(self.network)

    def sample(
        self,
        params: dict,
        weights: dict,
        request: Request,
        settings: Any,
        keep_history: KeepHistory = False,
    ) -> Decoded:
        """Return a `Decoded` of the request's ids [B,h,w,D], made anew where its mask is True.

        weights: the tokenizer's, whose codebook some generators read.
        settings: what `TokenGenerator.settings` returns.
        keep_history: also return the ids after each step [S,B,h,w,D], V where still unknown.
        """
        ids, mask = flatten_depth(request.ids, self.flat), flatten_mask(request.mask, self.flat)
        request = request._replace(ids=ids, mask=mask)
        more = self._keywords(weights)
        made = self.module.sample(
            self.network, params, request, settings, keep_history=keep_history, **more
        )
        return jax.tree.map(lambda ids: unflatten_depth(ids, self.flat), made)

    def check_mask(self, mask: np.ndarray) -> None:
        """Raise InputError if `sample` cannot generate just the tokens where `mask` is True.

        mask: NumPy bool [B,h,w].
        """
        if self.traits.fills == "suffix":
            check_suffix(np.repeat(mask, self.flat, axis=2), self.name)

    def shapes(self) -> dict:
        """Return the shapes of what a workdir holds: {"ema": averaged params, "tokenizer"}."""
        tokenizer = _shapes_of_tokenizer(self.tokenizer.network, self.tokenizer.shape)
        return {"ema": _shapes_of_params(self.module, self.network), "tokenizer": tokenizer}

    def ids_of(self, weights: dict, batch: dict) -> jax.Array:
        """Return the ids of a batch: stored, or of its images."""
        ids = batch["ids"] if "ids" in batch else self.tokenizer.encode(weights, batch["image"])
        return jax.lax.stop_gradient(ids)

    def predict(self, state: dict, batch: dict, rng: jax.Array) -> dict[str, Any]:
        """Return {"ids", "sums": what the generator's `evaluate` returns}, for evaluators.

        state: see `shapes`.
        """
        weights = state["tokenizer"]
        ids = self.ids_of(weights, batch)
        given = flatten_depth(ids, self.flat), batch["label"], rng
        more = self._keywords(weights)
        sums = self.module.evaluate(self.network, state["ema"], *given, **more)
        return {"ids": ids, "sums": sums}

    def _keywords(self, weights: dict) -> dict[str, jax.Array]:
        """Return {"codebook": ...} for a generator whose functions take it, else {}."""
        if not self.traits.codebook:
            return {}
        codebook: Any = self.tokenizer.network.apply(weights, method=Tokenizer.codebook)
        return {"codebook": codebook}


def find_step(workdir: str | os.PathLike[str], config: Any, step: chosen_step.Step) -> int | None:
    """Return the `step` of `restored` by which it finds the checkpoint that is meant.

    workdir: of one stage, whose config it is, or an exported model.

    Raises InputError, before anything is built, where there is no such checkpoint.
    """
    is_name = isinstance(step, str) and step in flag_kinds.STEPS
    if not (step is None or is_name or kinds.fits(step, int)):
        expected = f"{kinds.describe(int)}, {' or '.join(map(repr, flag_kinds.STEPS))}"
        raise InputError(f"expected a step that is {expected}, got {step!r}")
    folder = exported.find(workdir)
    if not exported.is_one(folder):
        return chosen_step.number_of(folder, step)
    if step == "best":
        raise InputError(
            f"{folder} is an exported model, which holds one checkpoint alone: leave step out"
        )
    number = None if step == "last" else step
    part = "tokenizer" if config.stage == "stage1" else "generator"
    exported.check_step(folder, part, number)
    return number


def restored(
    workdir: str | os.PathLike[str], like: dict, step: int | None = None
) -> tuple[dict, int]:
    """Return the state that a workdir or an exported model holds, and its step.

    like: what a model's `shapes` say, as arrays or with shardings.
    step: of the checkpoint, None is the latest.

    Raises InputError where there is none, or it is another model's, or damaged.
    """
    folder = exported.find(workdir)
    if exported.is_one(folder):
        return exported_weights.restore(folder, like, step)
    checkpoints = checkpoint.Checkpoints(folder, create=False)
    # None, where there is no checkpoint, is refused by restore.
    found: Any = max(checkpoints.steps(), default=None) if step is None else step
    state = checkpoints.restore(like, found)
    checkpoints.close()
    return state, found


def of(config: Any) -> ImageTokenizer | TokenGenerator:
    """Return the model of a config: the tokenizer of a stage 1, the generator of a stage 2."""
    return of_stage1(config) if config.stage == "stage1" else of_stage2(config)


def of_stage1(config: Any) -> ImageTokenizer:
    """Return the tokenizer of a stage 1's config."""
    return image_tokenizer(tokenizers.make(config.tokenizer, config.dtype), config)


def of_stage2(config: Any) -> TokenGenerator:
    """Return the generator of a stage 2's resolved config, with its tokenizer."""
    with build.config_of(config.tokenizer.get("weights")):  # training has noted its config
        tokenizer = image_tokenizer(tokenizers.of_generator(config), config)
    return token_generator(config.generator, tokenizer, config.dtype)


def image_tokenizer(network: Tokenizer, config: Any) -> ImageTokenizer:
    """Return the tokenizer of images of config.dataset.size; InputError for a size it cannot take.

    network: with this factor the sides are multiples of it.
    """
    shape, factor = shape_of(config), network.factor
    if any(side % factor for side in shape):
        below = [side // factor * factor for side in shape]
        fits = [below, [side + factor for side in below]]
        sizes = [str(a) if a == b else f"({a}, {b})" for a, b in (shape, *fits) if a and b]
        raise InputError(
            f"config.dataset.size = {sizes[0]} is no multiple of {factor}, the pixels of a token's "
            f"side: {' or '.join(sizes[1:])} would fit"
        )
    return ImageTokenizer(network, shape)


def shape_of(config: Any) -> tuple[int, int]:
    """Return the images' (height, width)."""
    return build.call(Dataset, config.dataset, "config.dataset").shape


def token_generator(keys: Any, tokenizer: ImageTokenizer, dtype: str) -> TokenGenerator:
    """Return the generator of config.generator, `keys`, on a tokenizer."""
    names = build.contract(Generator)
    found = build.module("generators", keys.get("name"), "config.generator", *names)
    module = cast(Generator, found)
    needs, network, (h, w) = module.TRAITS.needs, tokenizer.network, tokenizer.grid
    depth, width = network.quantizer.depth, network.quantizer.width
    flat = 1 if "depth" in needs else depth
    known = {"depth": depth, "codebook_width": width, "factor": network.factor}
    given = {"codes": network.quantizer.codes, "latent": (h, w * flat), "dtype": dtype}
    given |= {name: known[name] for name in needs}
    if missing := given.keys() - build.keys_of(module.Model):
        fields = ", ".join(sorted(missing))
        raise ContractError(f"evqgan/generators/{keys['name']}.py: its Model has no field {fields}")
    model = build.build("generators", "Model", keys, "config.generator", **given)
    return TokenGenerator(keys["name"], tokenizer, module, model, flat)


def flatten_depth(ids: jax.Array, flat: int) -> jax.Array:
    """Lay depths side by side, if `flat` > 1: [B,h,w,D] -> [B,h,w*D,1]."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:2], -1, 1)


def flatten_mask(mask: jax.Array, flat: int) -> jax.Array:
    """Repeat a mask for each of the depths that lie side by side: [B,h,w] -> [B,h,w*D]."""
    return jnp.repeat(mask, flat, axis=2)


def unflatten_depth(ids: jax.Array, flat: int) -> jax.Array:
    """Return the inverse of `flatten_depth`: [...,h,w*D,1] -> [...,h,w,D]."""
    return ids if flat == 1 else ids.reshape(*ids.shape[:-2], -1, flat)
