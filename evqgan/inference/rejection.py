"""Rejection sampling: of more candidates than needed, keep those that a classifier likes best.

Paper, Sec. 4.2, Table 5. It goes on where it was stopped, as does plain sampling, which is the case
that all candidates are kept.

A classifier is any callable (images uint8 [B,H,W,3], labels int32 [B]) -> scores [B], such as the
probability of that class; it gets batches of one size. ResNets of torchvision are at hand;
the paper takes ResNet-101, as VQGAN.
"""

import contextlib
import importlib
import math
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import files, mesh, processes, room, weights
from evqgan.core.errors import InputError
from evqgan.inference.batched import BatchRunner
from evqgan.inference.candidates import Candidates, begin
from evqgan.inference.core import CoreModel
from evqgan.nn import resnet

RESIZED = 256  # torchvision evaluates so: scaled to 256 (antialiased), its centre of resnet.SIZE
BYTES = 32  # ours: of memory for a candidate: its label, its score, where it lies
CLASSES = 1000  # of ImageNet, in the order of their WordNet numbers
WORDNET = re.compile(r"n\d{8}")  # how ImageNet's folders and classes are called


def sample(
    model: CoreModel,
    labels: np.ndarray,
    seed: int,
    acceptance: float,
    classifier: Any,
    folder: Any,
    changes: Mapping[str, Any],
    report: Callable | None = None,
    part: tuple[int, int] = (0, 1),
) -> dict[str, np.ndarray]:
    """Return what `choose` keeps, with its images; of the part (i, n) the i-th part of it."""
    given = model, labels, seed, acceptance, classifier, folder, changes
    made, size = choose(*given, report, part)
    mine = processes.share(len(labels), part)
    made = {name: value[mine] for name, value in made.items()}
    return {"images": model.decode(made["ids"], size), **made}


def choose(
    model: CoreModel,
    labels: np.ndarray,
    seed: int,
    acceptance: float,
    classifier: Any,
    folder: Any,
    changes: Mapping[str, Any],
    report: Callable | None = None,
    part: tuple[int, int] = (0, 1),
) -> tuple[dict[str, np.ndarray], int]:
    """Generate num / acceptance candidates per label and keep the best-scoring ones.

    Returns {"ids", "labels", "numbers", "scores" float32 [num]} as `Model.sample` does, and how
    many of them are made, and to be decoded, at a time. Candidate n is image n of the seed, so the
    first num candidates equal plain sampling. The kept candidates of a label fill that label's
    positions in `labels`, ordered by candidate number.

    Ids and scores (no images) are saved in `folder`, one file per batch. A call that was stopped
    goes on there and ends as if it had not been; a folder made with other settings is refused. Call
    `remove` when the result is safe.

    labels: int32 [num].
    classifier: a callable, or what `find` knows; None, with an acceptance of 1, keeps all, and
      there are no scores.
    folder: None is a temporary one.
    changes: to config.sample.
    report: report(done, total, seconds) is called after each batch of candidates, and first with 0
      seconds when it goes on.
    part: (i, n) for the i-th of n processes. They share the candidates that are still to be made,
      whatever number of processes made the others, wait for each other, and all return the same.
    """
    require_memory(model, len(labels), acceptance)
    if isinstance(classifier, str):
        classifier = find(classifier, model)
    candidates = plan(labels, acceptance)
    settings = {
        "workdir": str(model.workdir),
        "step": model.step,
        "sampler": {**model.sampler, **changes},
        "seed": seed,
        "acceptance": acceptance,
        "classifier": classifier and name_of(classifier),
        "labels": np.asarray(labels).tolist(),
    }
    total = len(candidates)
    size = model.runner.size(len(processes.share(total, part)))
    temporary = contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory()
    with temporary as directory:
        with processes.together(part):
            if part[0] == 0:
                begin(directory, settings)
        with processes.together(part):
            missing = Candidates(directory, total).missing
        done = total - len(missing)
        if done and report:
            report(done, total, 0.0)
        with processes.together(part):
            mine = np.array_split(missing, part[1])[part[0]]
            report = processes.of_all(report, total, part, done)
            make(model, candidates, mine, seed, changes, classifier, size, directory, report)
        kept = Candidates(directory, total)
        if len(kept.missing):
            lacking = f"{directory} lacks {len(kept.missing):,} candidates"
            raise InputError(f"{lacking}: it has to be one folder for all processes")
        numbers = best(labels, candidates, kept.scores)
        made = {"ids": kept.ids(numbers), "labels": labels, "numbers": numbers.astype(np.uint32)}
    return (made if classifier is None else {**made, "scores": kept.scores[numbers]}), size


def require_memory(model: CoreModel, num: int, acceptance: float) -> None:
    """Raise InputError unless there is room for the candidates of `num` images."""
    number, tokens = num / acceptance, math.prod(model.size) // model.factor**2 * model.depth
    what = f"the ids of {num:,} images, the best of {number:,.0f},"
    room.require(BYTES * number + 4 * num * tokens, what)


def make(
    model: CoreModel,
    candidates: np.ndarray,
    numbers: np.ndarray,
    seed: int,
    changes: Mapping[str, Any],
    classifier: Callable | None,
    size: int,
    folder: Any,
    report: Callable | None,
) -> None:
    """Make the candidates with these numbers [n], `size` at a time, into `folder`.

    candidates: the labels of all.
    """
    began = model.runner.clock()
    for start in range(0, len(numbers), size):
        some = numbers[start : start + size]
        batch = np.resize(some, size)  # filled up: the classifier, too, sees batches of one size
        given = candidates[batch], batch, seed, changes
        if classifier is None:
            ids, scores = model.new_ids(*given, size=size), np.zeros(size, np.float32)
        else:
            ids, images = model.new(*given, size=size)
            scores = checked(classifier(images, candidates[batch]), size)
        arrays = {"numbers": some, "ids": ids[: len(some)], "scores": scores[: len(some)]}
        files.save_npz(pathlib.Path(folder) / f"{some[0]:08d}.npz", **arrays)
        if report:
            report(start + len(some), len(numbers), model.runner.clock() - began)


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
    is_number = scores.dtype.kind in "fiub"
    if scores.shape != (number,) or not is_number or not np.isfinite(scores).all():
        found = f"{scores.dtype} {list(scores.shape)}"
        found = "not finite" if scores.shape == (number,) else found
        expected = f"expected the classifier to give a finite score for each of {number} images"
        raise InputError(f"{expected}, got {found}")
    return scores.astype(np.float32)


def remove(folder: Any) -> None:
    """Remove the candidates in `folder`, and it, if nothing else is there."""
    folder = pathlib.Path(folder)
    for path in [*folder.glob("[0-9]*.npz"), *folder.glob(".*.part"), folder / "settings.json"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def name_of(classifier: Any) -> str:
    """Return how a classifier is called: its `name`, if it has one, or module:function."""
    named = classifier if hasattr(classifier, "__qualname__") else type(classifier)
    return getattr(classifier, "name", None) or f"{named.__module__}:{named.__qualname__}"


def find(name: str, model: CoreModel, where: str = "") -> Callable:
    """Return the classifier `name`: "resnet101", "resnet50", or module:function.

    A ResNet judges images of ImageNet's classes (`imagenet_numbers`). InputError, with the command
    that gets them, for missing weights.

    where: the folder of a ResNet's weights; "" is the usual place (`core.weights`), "random" no
      weights at all, for tests.
    """
    if name in resnet.DEPTHS:
        return imagenet(name, where, model.runner, imagenet_numbers(name, model))
    module, _, function = name.partition(":")
    if not function:
        expected = f"{', '.join(resnet.DEPTHS)} or your own as package.module:function"
        raise InputError(f"there is no classifier {name!r}: expected {expected}")
    if where:
        known = " or ".join(resnet.DEPTHS)
        raise InputError(f"the weights are those of {known}; {name} knows its own")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"there is no classifier {name!r}: {error}") from error
    if not callable(found):
        raise InputError(f"the classifier {name!r} is no function, but {type(found).__name__}")
    return found


def imagenet_numbers(name: str, model: CoreModel) -> np.ndarray:
    """Return what number each class of a model has in ImageNet, int32 [CLASSES].

    InputError unless it has these classes. Their names are WordNet numbers, in whatever order;
    without names, as in a public checkpoint, they are in order.
    """
    own = "give a classifier of your own as package.module:function"
    if model.classes != CLASSES:
        has = f"has {model.classes} classes" if model.classes else "is unconditional"
        knows = f"{name} knows the {CLASSES:,} classes of ImageNet"
        raise InputError(f"{knows}, and this model {has}: {own}")
    names = model.class_names
    other = next((one for one in names if not WORDNET.fullmatch(one)), "")
    if other:
        raise InputError(
            f"{name} knows the classes of ImageNet by their WordNet numbers, such as n01440764, "
            f"and this model has the class {other!r}: train on folders with these names, or {own}"
        )
    if not names:
        return np.arange(CLASSES, dtype=np.int32)
    return np.argsort(np.argsort(names)).astype(np.int32)


def imagenet(name: str, where: str, runner: BatchRunner, numbers: np.ndarray) -> Callable:
    """Return a ResNet as a classifier: the probability of the label, on the devices of `runner`.

    numbers: int32 [classes], what number a label has in ImageNet.
    """
    network = resnet.Network(resnet.DEPTHS[name])
    image = jnp.zeros((1, 32, 32, 3))
    if where == "random":
        variables, which = jax.jit(network.init)(jax.random.key(0), image), "untrained"
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
        return jnp.take_along_axis(jax.nn.softmax(outputs["logits"]), labels[:, None], axis=-1)[
            :, 0
        ]

    def classifier(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return runner(probability, variables, images, numbers[labels])

    # For the card, and so that candidates chosen by other weights are refused.
    full_name = " ".join(filter(None, [name, which]))
    classifier.name = full_name  # type: ignore[attr-defined]  # mypy knows no attributes of functions
    return classifier
