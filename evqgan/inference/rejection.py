"""Rejection sampling (paper, Sec. 4.2, Table 5): of more candidates than wanted, those a classifier likes best.

It goes on where it was stopped, as does plain sampling, which is the case that all candidates are kept.

A classifier is any callable (images uint8 [B,H,W,3], labels int32 [B]) -> scores [B], such as the probability of the
class wanted; it gets batches of one size. ResNets of torchvision are at hand; the paper takes ResNet-101, as VQGAN.
"""

import contextlib
import importlib
import json
import math
import pathlib
import re
import tempfile
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import files, mesh, processes, room, weights
from evqgan.core.errors import InputError
from evqgan.nn import resnet

RESIZED = 256  # torchvision evaluates so: the image scaled to 256 (antialiased), its centre of 224 (resnet.SIZE)
BYTES = 32  # ours: of memory for a candidate: its label, its score, where it lies
CLASSES = 1000  # of ImageNet, in the order of their WordNet numbers
WORDNET = re.compile(r"n\d{8}")  # how ImageNet's folders and classes are called


def sample(model, labels, seed, acceptance, classifier, folder, sampler, report=None, part=(0, 1)):
    """What `choose` keeps, with its images -> as `Model.sample`; of the part (i, n) the i-th part of it."""
    made, size = choose(model, labels, seed, acceptance, classifier, folder, sampler, report, part)
    rows = processes.share(len(labels), part)
    made = {name: value[rows] for name, value in made.items()}
    return {"images": model.decode(made["ids"], size), **made}


def choose(model, labels, seed, acceptance, classifier, folder, sampler, report=None, part=(0, 1)):
    """The best of num / acceptance candidates of each label -> {"ids", "labels", "numbers", "scores" float32 [num]},
    as `Model.sample` has them but for images, and how many of them are made, and to be decoded, at a time.

    model: a generator `CoreModel`; labels int32 [num]; classifier: a callable, or what `find` knows; None, with an
    acceptance of 1, keeps all, and there are no scores. Candidate n is image n of the seed, so that the first num
    candidates are those of plain sampling; what is kept stands where its label stands, by number. The same but for
    acceptance is the same set of candidates, cut earlier or later.

    Kept are, in `folder`, ids and scores alone, a file a batch: a call that was stopped goes on there and ends as if
    it had not been, and candidates of other settings are refused. When all is safe, `remove` it; None: a temporary one.
    report(done, total, seconds) is called after each batch of candidates, and first with 0 seconds when it goes on.

    part: (i, n) for the i-th of n processes. They share the candidates that are still to be made, whatever number of
    processes made the others, wait for each other, and all return the same.
    """
    number, kept = len(labels) / acceptance, 4 * len(labels) * math.prod(model.size) // model.factor**2 * model.depth
    room.require(BYTES * number + kept, f"the ids of {len(labels):,} images, the best of {number:,.0f},")
    if isinstance(classifier, str):
        classifier = find(classifier, model)
    candidates = plan(labels, acceptance)
    settings = {
        "workdir": str(model.workdir), "step": model.step, "sampler": {**model.sampler, **sampler}, "seed": seed,
        "acceptance": acceptance, "classifier": classifier and name_of(classifier),
        "labels": np.asarray(labels).tolist(),
    }  # fmt: skip
    total = len(candidates)
    size = model.rows.size(len(processes.share(total, part)))
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        with processes.together(part):
            if part[0] == 0:
                begin(place, settings)
        with processes.together(part):
            missing = Candidates(place, total).missing
        done = total - len(missing)
        if done and report:
            report(done, total, 0.0)
        with processes.together(part):
            mine, report = np.array_split(missing, part[1])[part[0]], processes.of_all(report, total, part, done)
            make(model, candidates, mine, seed, sampler, classifier, size, place, report)
        kept = Candidates(place, total)
        if len(kept.missing):
            raise InputError(
                f"{place} lacks {len(kept.missing):,} candidates: it has to be one folder for all processes"
            )
        numbers = best(labels, candidates, kept.scores)
        made = {"ids": kept.ids(numbers), "labels": labels, "numbers": numbers.astype(np.uint32)}
    return (made if classifier is None else {**made, "scores": kept.scores[numbers]}), size


def make(model, candidates, numbers, seed, sampler, classifier, size, folder, report):
    """The candidates with these numbers [n], `size` at a time, into `folder`; candidates: the labels of all."""
    began = model.rows.clock()
    for start in range(0, len(numbers), size):
        some = numbers[start : start + size]
        batch = np.resize(some, size)  # filled up: the classifier, too, sees batches of one size
        made = model.new(candidates[batch], batch, seed, sampler, size=size, decode=classifier is not None)
        ids, scores = made, np.zeros(size, np.float32)
        if classifier is not None:
            ids, images = made
            scores = checked(classifier(images, candidates[batch]), size)
        arrays = {"numbers": some, "ids": ids[: len(some)], "scores": scores[: len(some)]}
        files.save_npz(pathlib.Path(folder) / f"{some[0]:08d}.npz", **arrays)
        if report:
            report(start + len(some), len(numbers), model.rows.clock() - began)


def plan(labels, acceptance):
    """The labels of all candidates: those of `labels` int32 [num], then what else a label needs -> int32 [candidates].

    A label that stands n times in `labels` has ceil(n / acceptance) candidates.
    """
    wanted, counts = np.unique(labels, return_counts=True)
    more = [math.ceil(n / acceptance * (1 - 1e-12)) - n for n in counts]  # 1e-12: 3 / 0.3 is a little above 10
    return np.concatenate([labels, np.repeat(wanted, more)]).astype(np.int32)


def best(labels, candidates, scores):
    """The numbers [num] of the candidates to keep for `labels` [num]: of each label the best, in order of number.

    candidates int32 [candidates]: their labels; scores float32 [candidates]. Of equal scores the first is better.
    """
    numbers = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(candidates == label)
        order = np.argsort(-scores[mine], kind="stable")[: (labels == label).sum()]
        numbers[labels == label] = np.sort(mine[order])
    return numbers


def checked(scores, number):
    """What a classifier gave, as float32 [number]; InputError if it is anything else."""
    scores = np.asarray(scores)
    if scores.shape != (number,) or scores.dtype.kind not in "fiub" or not np.isfinite(scores).all():
        found = "not finite" if scores.shape == (number,) else f"{scores.dtype} {list(scores.shape)}"
        raise InputError(f"expected the classifier to give a finite score for each of {number} images, got {found}")
    return scores.astype(np.float32)


def begin(folder, settings):
    """Makes `folder` the place of candidates of these `settings` (a dict for JSON); InputError if it holds others."""
    folder = pathlib.Path(folder)
    file = folder / "settings.json"
    settings = json.loads(json.dumps(settings, default=lambda x: x.item() if hasattr(x, "item") else str(x)))
    if not any(folder.glob("*.npz")):
        files.save_json(file, settings)
    with readable(folder):
        theirs = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if theirs.get(name) != value]
    if other:
        was, now = (f"{other[0]} = {x.get(other[0])}" if other[0] != "labels" else "" for x in (theirs, settings))
        made = f"{was}, not {now}" if was else "other labels"
        raise InputError(
            f"{folder} holds candidates made with {made}: give the same settings again to go on, or remove it"
        )


class Candidates:
    """The candidates that a folder holds: numbers, ids and scores, a file a batch, each whole or not at all."""

    def __init__(self, folder, total):
        """scores: float32 [total], NaN for those that are missing; missing: the numbers of these, uint32 [n]."""
        self.folder, self.scores = pathlib.Path(folder), np.full(total, np.nan, np.float32)
        self._files = sorted(self.folder.glob("*.npz"))
        self._where = np.zeros((total, 2), np.int64)  # which file, and which row there
        for i, path in enumerate(self._files):
            with readable(self.folder), np.load(path, allow_pickle=False) as saved:
                numbers, self.scores[saved["numbers"]] = saved["numbers"], saved["scores"]
                self._where[numbers] = np.stack([np.full(len(numbers), i), np.arange(len(numbers))], axis=1)
        self.missing = np.flatnonzero(np.isnan(self.scores)).astype(np.uint32)

    def ids(self, numbers):
        """-> the ids [n,h,w,D] int32 of the candidates with these numbers [n], none of them missing."""
        found, where = None, self._where[numbers]
        for i in np.unique(where[:, 0]):
            with readable(self.folder), np.load(self._files[i], allow_pickle=False) as saved:
                ids, here = saved["ids"], where[:, 0] == i
                found = np.empty((len(numbers), *ids.shape[1:]), np.int32) if found is None else found
                found[here] = ids[where[here, 1]]
        return found


@contextlib.contextmanager
def readable(folder):
    """What the body raises because files in `folder` are damaged becomes InputError."""
    try:
        yield
    except (OSError, ValueError, LookupError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{folder} does not hold candidates as they were left: {error}; remove it") from error


def remove(folder):
    """Removes the candidates in `folder`, and it, if nothing else is there."""
    folder = pathlib.Path(folder)
    for path in [*folder.glob("[0-9]*.npz"), *folder.glob(".*.part"), folder / "settings.json"]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def name_of(classifier):
    """How a classifier is called: its `name`, if it has one, or module:function."""
    named = classifier if hasattr(classifier, "__qualname__") else type(classifier)
    return getattr(classifier, "name", None) or f"{named.__module__}:{named.__qualname__}"


def find(name, model, where=""):
    """The classifier `name`: "resnet101", "resnet50", with weights from the folder `where`, or module:function.

    A ResNet judges images of ImageNet's classes (`imagenet_numbers`); InputError, with the command that gets them, for
    missing weights. where: "" is the usual place (`core.weights`), "random" no weights at all, for tests.
    """
    if name in resnet.DEPTHS:
        return imagenet(name, where, model.rows, imagenet_numbers(name, model))
    module, _, function = name.partition(":")
    if not function:
        known = ", ".join(resnet.DEPTHS)
        raise InputError(f"there is no classifier {name!r}: expected {known} or your own as package.module:function")
    if where:
        raise InputError(f"the weights are those of {' or '.join(resnet.DEPTHS)}; {name} knows its own")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"there is no classifier {name!r}: {error}") from error
    if not callable(found):
        raise InputError(f"the classifier {name!r} is no function, but {type(found).__name__}")
    return found


def imagenet_numbers(name, model):
    """-> what number each class of a model has in ImageNet, int32 [CLASSES]; InputError unless it has these classes.

    Their names are WordNet numbers, in whatever order; without names, as in a public checkpoint, they are in order.
    """
    own = "give a classifier of your own as package.module:function"
    if model.classes != CLASSES:
        has = f"has {model.classes} classes" if model.classes else "is unconditional"
        raise InputError(f"{name} knows the {CLASSES:,} classes of ImageNet, and this model {has}: {own}")
    names = model.class_names
    other = next((one for one in names if not WORDNET.fullmatch(one)), "")
    if other:
        raise InputError(
            f"{name} knows the classes of ImageNet by their WordNet numbers, such as n01440764, and this model has the "
            f"class {other!r}: train on folders with these names, or {own}"
        )
    return np.argsort(np.argsort(names)).astype(np.int32) if names else np.arange(CLASSES, dtype=np.int32)


def imagenet(name, where, rows, numbers):
    """A ResNet as a classifier: the probability of the label, on the devices of `rows`.

    numbers: int32 [classes], what number a label has in ImageNet.
    """
    network = resnet.Network(resnet.DEPTHS[name])
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    if where == "random":
        variables, which = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), "untrained"
        print(f"the classifier {name} is untrained: its choice means nothing", flush=True)
    else:
        variables, which = weights.load(where, name, like), weights.source(where, name).get("sha256", "")[:8]
    variables = jax.device_put(variables, mesh.replicated(rows.mesh))
    edge = (RESIZED - resnet.SIZE) // 2

    def probability(variables, images, labels):
        views = resnet.prepare(images.astype(jnp.float32) / 127.5 - 1, RESIZED)
        views = views[:, edge : edge + resnet.SIZE, edge : edge + resnet.SIZE]
        logits = network.apply(variables, views)["logits"]
        return jnp.take_along_axis(jax.nn.softmax(logits), labels[:, None], axis=-1)[:, 0]

    def classifier(images, labels):
        return rows(probability, variables, images, numbers[labels])

    classifier.name = " ".join(filter(None, [name, which]))  # for the card, and so that other weights are refused
    return classifier
