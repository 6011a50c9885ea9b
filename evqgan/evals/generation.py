"""How well a generator predicts the tokens of held-out images, and what it generates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import limits, pictures
from evqgan.core.errors import ContractError
from evqgan.evals.batches import Batches
from evqgan.evals.image_set import Tally
from evqgan.evals.provenance import Measured, Produced
from evqgan.generators import Request

ENTROPY = "cross_entropy"  # what the names of the generator's numbers begin with


class Evaluator:
    """How well tokens are predicted, and a picture of samples.

    cross_entropy@0.50, ...: the "sums" that the generator's `evaluate` makes over the validation
      images, such as one by share of tokens masked.
    cross_entropy: the mean of these.
    samples: a picture of samples from a fixed seed.
    show: how many of them; 0: no picture.
    """

    stage = "stage2"  # whose models it measures
    higher_is_better = ("accuracy@*",)

    def __init__(
        self, predict: Callable, batches: Batches, config: Any, sample: Callable, show: int = 16
    ) -> None:
        """Take what `evals.Evaluator` says, and `show`; InputError for too many."""
        limits.limit_work(
            show, limits.IMAGES, "images to generate (config.evals.generation.show)", None
        )
        self.predict, self.batches, self.sample, self.show = predict, batches, sample, show
        self.classes = config.generator.get("classes", 0)
        self.generator = config.generator.get("name", "")
        self.tally = Tally()  # images of the last run

    def run(self, state: dict) -> Iterator[tuple[str, Any]]:
        """Yield (name, value), which depend on the state alone.

        Raises ContractError for "sums" that are not as `generators.Generator.evaluate` has them.
        """
        totals: dict[str, Any] = {}
        self.tally = Tally()
        grid_and_depth: tuple[int, ...] = ()
        for i, batch in enumerate(self.batches()):
            out = self.predict(state, batch, jax.random.fold_in(jax.random.key(0), i))
            grid_and_depth, valid = out["ids"].shape[1:], np.asarray(out["valid"])
            self.tally.add(valid, out["digest"])
            if not i:
                check_sums(out["sums"], len(valid), self.generator)
            for name, value in out["sums"].items():
                totals[name] = totals.get(name, 0) + np.asarray(value)[valid].sum(axis=0)
        numbers = {name: float(total / count) for name, (total, count) in totals.items()}
        yield from numbers.items()
        entropies = [x for name, x in numbers.items() if name.startswith(ENTROPY)]
        yield ENTROPY, float(np.mean(entropies))
        if self.show:
            images = self.sample(state, self.request(grid_and_depth))
            yield "samples", pictures.grid(np.asarray(images))

    def names(self) -> Sequence[str]:
        """Return the names of the numbers that a run yields; what follows @ is the generator's."""
        return [ENTROPY, f"{ENTROPY}@*", "accuracy@*"]

    def card(self) -> Measured:
        """Return what the numbers of the last run were measured on.

        Random masks depend on the batch, and so do the numbers, a little.
        """
        dataset = self.batches.dataset
        return Measured(
            protocol="prediction",
            produced=Produced("predictions", self.tally.count, dataset.shape, pixels=""),
            real=self.tally.image_set(dataset, dataset.validation),
            settings={"batch_size": self.batches.size},
        )

    def request(self, grid_and_depth: tuple[int, ...]) -> Request:
        """Return the request for the samples shown, of all classes in turn.

        grid_and_depth: (h, w, D).
        """
        ids = jnp.zeros((self.show, *grid_and_depth), jnp.int32)
        label = jnp.arange(self.show, dtype=jnp.int32) % max(self.classes, 1)
        keys = jax.random.split(jax.random.key(0), self.show)
        return Request(ids, jnp.ones(ids.shape[:-1], bool), label, keys)


def check_sums(sums: Any, images: int, generator: str) -> None:
    """Raise ContractError unless these are sums over tokens, cross-entropies among them.

    sums: what `generators.Generator.evaluate` returned, maybe abstract. images: of how many images.
    generator: config.generator.name.
    """
    where = f"evqgan/generators/{generator}.py: `evaluate`"
    if not isinstance(sums, Mapping):
        raise ContractError(f"{where} gave {type(sums).__name__}, expected a dict")
    for name, value in sums.items():
        if np.shape(value) != (images, 2):
            raise ContractError(
                f"{where} gave {name} as {list(np.shape(value))} for {images} images, expected "
                "[B,2], for each image a sum over tokens and their number"
            )
    if not any(str(name).startswith(ENTROPY) for name in sums):
        given = ", ".join(map(str, sums)) or "nothing"
        raise ContractError(
            f"{where} gave {given}, expected at least one name that begins with {ENTROPY}: "
            f"val/{ENTROPY} is the mean of these"
        )
