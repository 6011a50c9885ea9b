"""Rejection sampling: of more candidates than needed, keep those that a classifier likes best.

Paper, Sec. 4.2, Table 5. Candidates are drawn with config.sample, as plain samples are: rejection
has no temperature of its own. Where it was stopped it goes on, as plain sampling does
(`resumable`).

A classifier is any callable (images uint8 [B,H,W,3], labels int32 [B]) -> scores [B], such as the
probability of that class; it gets batches of one size. ResNets of torchvision are at hand;
the paper takes ResNet-101, as VQGAN.
"""

import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import jax_settings, mesh, weights
from evqgan.core.errors import InputError, first_line, is_out_of_memory
from evqgan.core.leafwise_init import Drawing
from evqgan.inference import resumable
from evqgan.inference.batched import BatchRunner
from evqgan.inference.class_names import Classes
from evqgan.inference.core import CoreModel
from evqgan.inference.images import is_float
from evqgan.inference.resumable import SamplingTask
from evqgan.nn import resnet

RESIZED = 256  # torchvision evaluates so: scaled to 256 (antialiased), its centre of resnet.SIZE
CLASSES = 1000  # of ImageNet, in the order of their WordNet numbers
WORDNET = re.compile(r"n\d{8}")  # how ImageNet's folders and classes are called


def choose(
    model: CoreModel, task: SamplingTask, acceptance: float, classifier: Any
) -> tuple[dict[str, np.ndarray], int]:
    """Generate num / acceptance candidates per label and keep the best-scoring ones.

    Returns {"ids", "labels", "numbers", "scores" float32 [num]} as `Model.sample` does, and how
    many of them are to be decoded at a time. Candidate n is image n of the seed, so the first num
    candidates equal plain sampling. The kept candidates of a label fill that label's positions in
    task.labels, ordered by candidate number.

    classifier: a callable, or what `find` knows.
    """
    number = len(task.labels)
    what = f"the ids of {number:,} images, the best of {number / acceptance:,.0f},"
    resumable.require_memory(model, number, number / acceptance, what)
    if classifier is None:
        raise InputError(f"an acceptance of {acceptance} needs a classifier: give one")
    rate = classifier
    if isinstance(classifier, str):
        rate = find(classifier, model.known_classes())(model.runner)
    settings = resumable.settings_of(model, task, acceptance, name_of(rate))
    candidates = dataclasses.replace(task, labels=plan(task.labels, acceptance))

    def make(labels: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(labels)
        ids, images = model.new(labels, numbers, task.seed, task.changes, rows=size)
        return ids, checked(rate(images, labels), size)

    with resumable.filled_folder(model, candidates, settings, make) as folder:
        numbers = best(task.labels, candidates.labels, folder.scores)
        made = {"ids": folder.ids(numbers), "labels": task.labels}
    made |= {"numbers": numbers.astype(np.uint32), "scores": folder.scores[numbers]}
    return made, candidates.batch_size(model)


def plan(labels: np.ndarray, acceptance: float) -> np.ndarray:
    """Return the labels of all candidates, int32: those of `labels`, then what else each needs.

    A label that stands n times in `labels` has ceil(n / acceptance) candidates.
    """
    classes, counts = np.unique(labels, return_counts=True)
    # 1e-12: 3 / 0.3 is a little above 10
    more = [math.ceil(n / acceptance * (1 - 1e-12)) - n for n in counts]
    return np.concatenate([labels, np.repeat(classes, more)]).astype(np.int32)


def best(labels: np.ndarray, candidates: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the numbers [num] of the candidates to keep: of each label the best.

    Those of a label are in the order of number. Of equal scores the first is better.

    labels: [num]; candidates: int32, their labels; scores: float32, theirs.
    """
    numbers = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(candidates == label)
        order = np.argsort(-scores[mine], kind="stable")[: (labels == label).sum()]
        numbers[labels == label] = np.sort(mine[order])
    return numbers


def checked(scores: Any, number: int) -> np.ndarray:
    """Return what a classifier gave, as float32 [number]; InputError if it is anything else."""
    scores = np.asarray(scores)
    is_number = scores.dtype.kind in "iub" or is_float(scores.dtype)
    if scores.shape != (number,) or not is_number or not np.isfinite(scores).all():
        found = f"{scores.dtype} {list(scores.shape)}"
        found = "not finite" if scores.shape == (number,) else found
        expected = f"expected the classifier to give a finite score for each of {number} images"
        raise InputError(f"{expected}, got {found}")
    return scores.astype(np.float32)


def name_of(classifier: Any) -> str:
    """Return how a classifier is called: its `name`, if it has one, or module:function."""
    named = classifier if hasattr(classifier, "__qualname__") else type(classifier)
    return getattr(classifier, "name", None) or f"{named.__module__}:{named.__qualname__}"


def find(name: str, classes: Classes, where: str = "") -> Callable[[BatchRunner], Callable]:
    """Return what gives the classifier `name` on the devices of a runner, which keeps a ResNet.

    name: "resnet101" or "resnet50", which judge images of ImageNet's classes (`imagenet_numbers`),
      or module:function.
    where: the folder of a ResNet's weights; "" is the usual place (`core.weights`), "random" no
      weights at all, for tests.

    Needs no model yet, and reads no weights: InputError if there is no such classifier of these
    classes, or, with the command that gets them, if its weights are missing.
    """
    if name not in resnet.DEPTHS:
        rate = in_one_line(own(name, where), name)
        return lambda runner: rate
    numbers = imagenet_numbers(name, classes)
    if where != "random":
        weights.require(where, [name])
    key = "classifier", name, where, numbers.tobytes()  # made anew it would compile anew
    return lambda runner: runner.keeping(key, lambda: imagenet(name, where, runner, numbers))


def own(name: str, where: str) -> Callable:
    """Return the classifier module:function. where: as in `find`, but there are no weights."""
    module, _, function = name.partition(":")
    if not function:
        expected = f"{', '.join(resnet.DEPTHS)} or your own as package.module:function"
        raise InputError(f"there is no classifier {name!r}: expected {expected}")
    if where:
        known = " or ".join(resnet.DEPTHS)
        raise InputError(f"the weights are those of {known}; {name} knows its own")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InputError(f"there is no classifier {name!r}: {first_line(error)}") from error
    if not callable(found):
        raise InputError(f"the classifier {name!r} is no function, but {type(found).__name__}")
    return found


def in_one_line(classifier: Callable, name: str) -> Callable:
    """Return a classifier of a user's, of whose errors one line is said."""

    def rate(images: np.ndarray, labels: np.ndarray) -> Any:
        try:
            return classifier(images, labels)
        except Exception as error:
            if isinstance(error, InputError) or is_out_of_memory(error):
                raise
            what = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(
                f"the classifier {name} raised {what} (--debug shows where)"
            ) from error

    rate.name = name_of(classifier)  # type: ignore[attr-defined]  # as below
    return rate


def imagenet_numbers(name: str, classes: Classes) -> np.ndarray:
    """Return what number each class of a generator has in ImageNet, int32 [CLASSES].

    InputError unless it has these classes. Their names are WordNet numbers, in whatever order;
    without names, as in a public checkpoint, they are in order.
    """
    own = "give a classifier of your own as package.module:function"
    if classes.number != CLASSES:
        has = f"has {classes.number} classes" if classes.number else "is unconditional"
        knows = f"{name} knows the {CLASSES:,} classes of ImageNet"
        raise InputError(f"{knows}, and this model {has}: {own}")
    names = classes.names
    other = next((one for one in names if not WORDNET.fullmatch(one)), "")
    if other:
        raise InputError(
            f"{name} knows the classes of ImageNet by their WordNet numbers, such as n01440764, "
            f"and this model has the class {other!r}: train on folders with these names, or {own}"
        )
    if not names:
        return np.arange(CLASSES, dtype=np.int32)
    return np.argsort(np.argsort(names)).astype(np.int32)


@jax_settings.ours()
def imagenet(name: str, where: str, runner: BatchRunner, numbers: np.ndarray) -> Callable:
    """Return a ResNet as a classifier: the probability of the label, on the devices of `runner`.

    numbers: int32 [classes], what number a label has in ImageNet.
    """
    network = resnet.Network(resnet.DEPTHS[name])
    image = jnp.zeros((1, 32, 32, 3))
    if where == "random":
        variables, which = Drawing(lambda: network.init(jax.random.key(0), image))(), "untrained"
        print(f"the classifier {name} is untrained: its choice means nothing", flush=True)
    else:
        like = jax.eval_shape(network.init, jax.random.key(0), image)
        variables = weights.load(where, name, like)
        which = weights.source(where, name).get("sha256", "")[:8]
    variables = jax.device_put(variables, mesh.replicated(runner.mesh))
    edge = (RESIZED - resnet.SIZE) // 2
    centre = slice(edge, edge + resnet.SIZE)

    def probability(variables: dict, images: jax.Array, labels: jax.Array) -> jax.Array:
        views = resnet.prepare(images.astype(jnp.float32) / 127.5 - 1, RESIZED)
        outputs: Any = network.apply(variables, views[:, centre, centre])
        chances = jax.nn.softmax(outputs["logits"])
        return jnp.take_along_axis(chances, labels[:, None], axis=-1)[:, 0]

    def classifier(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return runner(probability, variables, images, numbers[labels])

    # For the card, and so that candidates chosen by other weights are refused.
    full_name = " ".join(filter(None, [name, which]))
    classifier.name = full_name  # type: ignore[attr-defined]  # mypy knows no attributes of functions
    return classifier
