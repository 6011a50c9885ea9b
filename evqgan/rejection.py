"""Rejection sampling (paper, Sec. 4.2, Table 5): of more candidates than wanted, those a classifier likes best.

A classifier is any callable (images uint8 [B,H,W,3], labels int32 [B]) -> scores [B], such as the probability of the
class wanted; it gets batches of one size. ResNets of torchvision are at hand; the paper takes ResNet-101, as VQGAN.
"""

import contextlib
import importlib
import json
import math
import pathlib
import tempfile
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from evqgan.core import files, mesh, weights
from evqgan.core.errors import InputError
from evqgan.nn import resnet

RESIZED = 256  # torchvision evaluates so: the image scaled to 256 (antialiased), its centre of 224 (resnet.SIZE)
CLASSES = 1000  # of ImageNet, in the order of their WordNet numbers


def sample(model, labels, seed, acceptance, classifier, folder, sampler, report=None):
    """The best of num / acceptance candidates of each label -> as `sample.Loaded.sample`, with "scores" float32 [num].

    model: a `sample.Loaded` generator; labels int32 [num]; classifier: a callable, or what `find` knows. Candidate n
    is image n of the seed, so that the first num candidates are those of plain sampling; what is kept stands where its
    label stands, by number. The same but for acceptance is the same set of candidates, cut earlier or later.

    Kept are, in `folder`, ids and scores alone, a file a batch: a call that was stopped goes on there and ends as if
    it had not been, and candidates of other settings are refused. When all is safe, `remove` it; None: a temporary one.
    report(done, total, seconds) is called after each batch of candidates, and first with 0 seconds when it goes on.
    """
    if not 0 < acceptance <= 1:
        raise InputError(f"expected an acceptance above 0 and at most 1, got {acceptance}")
    if isinstance(classifier, str):
        classifier = find(classifier, model)
    candidates = plan(labels, acceptance)
    settings = {
        "workdir": str(model.workdir), "step": model.step, "sampler": {**model.sampler, **sampler}, "seed": seed,
        "acceptance": acceptance, "classifier": name_of(classifier), "labels": np.asarray(labels).tolist(),
    }  # fmt: skip
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        kept = Candidates(place, settings)
        size, began, total = model.rows.size(len(candidates)), model.rows.clock(), len(candidates)
        if kept.done and report:
            report(kept.done, total, 0.0)
        while kept.done < total:
            numbers = np.arange(kept.done, kept.done + size, dtype=np.uint32).clip(max=total - 1)
            ids, images = model.new(candidates[numbers], numbers, seed, sampler, size=size)
            scores = checked(classifier(images, candidates[numbers]), size)
            kept.add(ids[: total - kept.done], scores[: total - kept.done])
            if report:
                report(kept.done, total, model.rows.clock() - began)
        numbers = best(labels, candidates, kept.scores())
        ids = kept.ids(numbers)
        scores = kept.scores()[numbers]
    made = {"images": model.decode(ids, size), "ids": ids, "labels": labels}
    return {**made, "numbers": numbers.astype(np.uint32), "scores": scores}


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


class Candidates:
    """Ids and scores of candidates in a folder, added to batch by batch, each batch in a whole file or not at all."""

    def __init__(self, folder, settings):
        """InputError if the folder holds candidates that were made with other `settings` (a dict for JSON)."""
        self.folder, self._found = pathlib.Path(folder), []
        file, batches = self.folder / "settings.json", sorted(self.folder.glob("*.npz"))
        settings = json.loads(json.dumps(settings, default=lambda x: x.item() if hasattr(x, "item") else str(x)))
        if not batches:
            files.save_json(file, settings)
        with self._readable():
            theirs = json.loads(file.read_text())
            other = [name for name, value in settings.items() if theirs.get(name) != value]
        if other:
            was, now = (f"{other[0]} = {x.get(other[0])}" if other[0] != "labels" else "" for x in (theirs, settings))
            made = f"{was}, not {now}" if was else "other labels"
            raise InputError(
                f"{self.folder} holds candidates made with {made}: give the same settings again to go on, or remove it"
            )
        with self._readable():
            for path in batches:
                if path.stem != f"{self.done:08d}":
                    raise ValueError(f"expected the file {self.done:08d}.npz")
                with np.load(path, allow_pickle=False) as saved:
                    self._found.append((self.done, saved["scores"]))

    @property
    def done(self):
        """How many there are."""
        return self._found[-1][0] + len(self._found[-1][1]) if self._found else 0

    def add(self, ids, scores):
        """ids int32 [n,h,w,D] and scores float32 [n] of the next candidates."""
        files.save_npz(self.folder / f"{self.done:08d}.npz", ids=ids, scores=scores)
        self._found.append((self.done, scores))

    def scores(self):
        """-> float32 [done]"""
        return np.concatenate([scores for _, scores in self._found])

    def ids(self, numbers):
        """-> the ids [n,h,w,D] int32 of the candidates with these numbers [n]."""
        found = [None] * len(numbers)
        for start, scores in self._found:
            here = np.flatnonzero((numbers >= start) & (numbers < start + len(scores)))
            if len(here):
                with self._readable(), np.load(self.folder / f"{start:08d}.npz", allow_pickle=False) as saved:
                    for at, ids in zip(here, saved["ids"][numbers[here] - start], strict=True):
                        found[at] = ids
        return np.stack(found)

    @contextlib.contextmanager
    def _readable(self):
        try:
            yield
        except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{self.folder} does not hold candidates as they were left: {error}; remove it") from error


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

    A ResNet judges images of ImageNet's classes, in the order of their WordNet numbers: InputError for a model of other
    classes, and, with the command that gets them, for missing weights. where: "" is the usual place (`core.weights`),
    "random" no weights at all, for tests.
    """
    if name in resnet.DEPTHS:
        if model.classes != CLASSES:
            has = f"has {model.classes} classes" if model.classes else "is unconditional"
            raise InputError(
                f"{name} knows the {CLASSES:,} classes of ImageNet, and this model {has}: give a classifier of your "
                "own as package.module:function"
            )
        return imagenet(name, where, model.rows)
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


def imagenet(name, where, rows):
    """A ResNet as a classifier: the probability of the label, one of 1000 classes, on the devices of `rows`."""
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
        return rows(probability, variables, images, labels)

    classifier.name = " ".join(filter(None, [name, which]))  # for the card, and so that other weights are refused
    return classifier
