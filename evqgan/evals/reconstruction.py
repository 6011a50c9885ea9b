"""How well a tokenizer reconstructs held-out images, and how much of its codebook it uses."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import build, pictures, weights
from evqgan.core.leafwise_init import Drawing
from evqgan.data import transforms
from evqgan.evals import protocols
from evqgan.evals.batches import Batches
from evqgan.evals.feature_metrics import METRICS, FeatureSet, measure, too_few
from evqgan.evals.image_set import Tally
from evqgan.evals.provenance import Measured, Produced
from evqgan.features.extractor import extractors
from evqgan.features.names import UNTRAINED
from evqgan.tokenizers import tokenizer as tokenizers
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics

# ours: of images in one piece of a perceptual distance: 16 of 256x256, one of 1024x1024
PIXELS = 2**20
KEY = "config.evals.reconstruction.perceptual"
FRECHET = {"frechet": METRICS["frechet"]}  # what is measured of features


@jax.jit
def distances(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return mse (in [-1, 1]^2), psnr (dB) and ssim of images uint8 [B,H,W,3], each [B].

    ssim: with a Gaussian window of 11, sigma 1.5.
    """
    a, b = a.astype(jnp.float32) / 255, b.astype(jnp.float32) / 255
    mse = jnp.mean(jnp.square(a - b), axis=(1, 2, 3))
    psnr = -10 * jnp.log10(jnp.maximum(mse, 1e-10))  # 100 dB at most: of identical images
    return 4 * mse, psnr, dm_pix.ssim(a, b)


def occurrences(ids: np.ndarray, codes: int) -> np.ndarray:
    """Return how often each code occurs in ids [B,h,w,D], by depth: int [D,V]."""
    by_depth = np.moveaxis(ids, -1, 0)
    return np.stack([np.bincount(x.reshape(-1), minlength=codes) for x in by_depth])


def compared(images: Any, again: Any, valid: np.ndarray, number: int) -> list[np.ndarray]:
    """Return a picture of each of the first `number` valid images: it, its reconstruction, error.

    images, again: uint8 [B,H,W,3]. The error is as in `pictures.error_map`.
    """
    pairs = zip(*(np.asarray(x)[valid][:number] for x in (images, again)), strict=True)
    return [pictures.column([a, b, pictures.error_map(a, b)]) for a, b in pairs]


class Evaluator:
    """How well images are reconstructed, and how much of the codebook is used.

    mse, psnr, ssim: means over the validation images.
    codebook_usage, codebook_perplexity: of the codebook over all of them.
    perceptual: "lpips", or another distance of evqgan/losses, is measured too.
    features: networks of evqgan/features, by name or as a dict of `name` and its keys: the Frechet
      distance of the reconstructions from the images is measured too (rfid_inception, ...).
    weights: of these frozen networks (see `core.weights`; default: those of the config's perceptual
      loss). With "random" (one seed for all runs) names of numbers end in _untrained.
    show: for so many images, a picture of input | reconstruction | four times the error; and one of
      the codebook's histogram, most frequent code first. None with 0.
    Reconstructions are rounded to 8 bits first, as they would be in a file.
    """

    stage = "stage1"  # whose models it measures
    higher_is_better = ("psnr", "ssim", "codebook_usage", "codebook_perplexity")

    def __init__(
        self,
        predict: Callable,
        batches: Batches,
        config: Any,
        sample: Callable | None = None,
        show: int = 8,
        perceptual: str = "",
        features: str | tuple[str | dict, ...] = (),
        weights: str | None = None,
    ) -> None:
        """Take what `evals.Evaluator` says, and the keys above."""
        self.predict, self.batches, self.show = predict, batches, show
        self.codes = tokenizers.make(config.tokenizer).quantizer.codes
        if weights is None:
            weights = (config.get("perceptual") or {}).get("weights", "")
        self.perceptual = perceptual
        if perceptual and weights == "random":
            self.perceptual += UNTRAINED
        self.distance = distance(perceptual, weights) if perceptual else None
        where = "config.evals.reconstruction.features"
        over = batches.device_mesh if features else None
        self.networks = extractors(features, weights, where, over)
        self.settings = {self.perceptual: files_of(perceptual, weights)} if perceptual else {}
        self.tally = Tally()  # images of the last run

    def run(self, state: dict) -> Iterator[tuple[str, Any]]:
        """Yield (name, value), which depend on the state alone."""
        self.tally = Tally()
        measured: list[dict[str, np.ndarray]] = []  # of each batch
        shown: list[np.ndarray] = []
        counts: Any = 0  # [D,V]: how often each code occurred
        sets = [[FeatureSet(FRECHET.values()) for _ in range(2)] for _ in self.networks]
        for i, batch in enumerate(self.batches()):
            out = self.predict(state, batch, jax.random.fold_in(jax.random.key(0), i))
            valid = np.asarray(out["valid"])
            self.tally.add(valid, out["digest"])
            pair = out["image"], out["reconstruction"]
            measured.append(self._distances(*pair, valid))
            for network, both in zip(self.networks, sets, strict=True):
                for of_images, images in zip(both, pair, strict=True):
                    of_images.add(network(images), valid)
            counts = counts + occurrences(np.asarray(out["ids"])[valid], self.codes)
            if len(shown) < self.show:
                shown += compared(*pair, valid, self.show - len(shown))
        for name in measured[0]:
            of_all = np.concatenate([batch[name] for batch in measured])
            yield name, float(of_all.mean(dtype=np.float64))
        for network, (real, again) in zip(self.networks, sets, strict=True):
            for name, value in measure(FRECHET, again, real).items():
                yield network.name_of(name, "r"), value
        usage, perplexity = codebook_statistics(counts)
        yield "codebook_usage", float(usage)
        yield "codebook_perplexity", float(perplexity)
        if self.show:
            yield "reconstructions", pictures.row(shown)
            bars = [pictures.bars(np.sort(of_depth)[::-1]) for of_depth in counts]
            yield "codebook", pictures.column(bars)

    def _distances(self, images: Any, again: Any, valid: np.ndarray) -> dict[str, np.ndarray]:
        """Return {name: distances of the valid ones of a batch from their reconstructions}."""
        found: dict[str, Any] = dict(
            zip(("mse", "psnr", "ssim"), distances(images, again), strict=True)
        )
        if self.distance:
            found[self.perceptual] = self.distance(images, again)
        return {name: np.asarray(value)[valid] for name, value in found.items()}

    def names(self) -> Sequence[str]:
        """Return the names of the numbers that a run yields."""
        perceptual = [self.perceptual] if self.perceptual else []
        frechet = [network.name_of("frechet", "r") for network in self.networks]
        codebook = ["codebook_usage", "codebook_perplexity"]
        return ["mse", "psnr", "ssim", *perceptual, *frechet, *codebook]

    def card(self) -> Measured:
        """Return what the numbers of the last run were measured on."""
        dataset = self.batches.dataset
        return Measured(
            protocol=protocols.RECONSTRUCTION.name,
            produced=Produced("reconstructions", self.tally.count, dataset.shape),
            real=self.tally.image_set(dataset, dataset.validation),
            features=[network.card() for network in self.networks],
            settings=self.settings,
            warnings=self._warnings(),
        )

    def _warnings(self) -> list[str]:
        """Return what Frechet distances of so few images are worth."""
        lines: list[str] = []
        for network in self.networks:
            name_of = functools.partial(network.name_of, prefix="r")
            counts = {"validation images": self.tally.count}
            lines += too_few(FRECHET, name_of, network.widths, counts, {})
        return lines


def files_of(name: str, where: str) -> dict[str, str]:
    """Return {network: the hash of its weights, or "random"} of a distance.

    Arguments as of `distance`.
    """
    names = build.module("losses", name, KEY, "PRETRAINED").PRETRAINED.values()
    return {x: "random" if where == "random" else weights.digest(where, x) for x in names}


def distance(name: str, where: str) -> Callable[[Any, Any], np.ndarray]:
    """Return a function of two uint8 [B,H,W,3] to [B] float32, in full precision.

    It takes a few images at a time: the maps of VGG16 take some 1.5 kB a pixel.
    name: of the module in evqgan/losses whose `Distance` it is.
    where: the folder of its weights, see `core.weights`.
    """
    model = build.build("losses", "Distance", {"name": name}, KEY)
    pretrained = build.module("losses", name, KEY).PRETRAINED
    image = jnp.zeros((1, 64, 64, 3))
    drawing = Drawing(lambda: model.init(jax.random.key(0), image, image)["frozen"])
    fill = where != "random"
    frozen = weights.fill(drawing.shapes, pretrained, where) if fill else drawing()

    @jax.jit
    def apply(frozen: dict, a: np.ndarray, b: np.ndarray) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return model.apply({"frozen": frozen}, transforms.scale(a), transforms.scale(b))

    def run(a: Any, b: Any) -> np.ndarray:
        a, b = np.asarray(a), np.asarray(b)
        step, found = max(1, min(len(a), PIXELS // (a.shape[1] * a.shape[2]))), []
        for i in range(0, len(a), step):
            # the last piece filled up: one shape, one program
            index = np.minimum(np.arange(i, i + step), len(a) - 1)
            found.append(np.asarray(apply(frozen, a[index], b[index])))
        return np.concatenate(found)[: len(a)]

    return run
