"""Rejection sampling: the best are kept, and whatever stops it, it goes on.

No more than a batch of images is made.
"""

import contextlib
import copy
import json
import re

import jax
import numpy as np
import pytest
import workdirs

import evqgan
from evqgan import main
from evqgan.core import weights
from evqgan.core.errors import InputError
from evqgan.evals import finished
from evqgan.inference import mode_sample, rejection, resumable, unfinished_samples
from evqgan.inference.class_names import Classes
from evqgan.nn import resnet


@pytest.fixture(scope="module")
def model():
    return evqgan.load(workdirs.trained(), batch_size=4)


class Classifier:
    """Likes bright images; remembers what it was shown, and can be stopped."""

    name = "brightness"

    def __init__(self, stop=None):
        self.stop, self.images, self.labels = stop, [], []

    def __call__(self, images, labels):
        if self.stop is not None and len(self.images) == self.stop:
            raise KeyboardInterrupt
        self.images.append(images)
        self.labels.append(labels)
        return images.mean(axis=(1, 2, 3))


def brightness(images, labels):
    """A classifier for command lines."""
    return images.mean(axis=(1, 2, 3))


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(
    "labels, acceptance, counts",
    [
        ([3, 5, 3, 5], 0.5, {3: 4, 5: 4}),
        ([3, 5, 3], 0.4, {3: 5, 5: 3}),  # 2 / 0.4 and 1 / 0.4
        ([3, 3, 3], 0.3, {3: 10}),  # 3 / 0.3 is 10.000000000000002
        ([7, 1], 1.0, {1: 1, 7: 1}),
        ([2] * 50, 0.05, {2: 1000}),
    ],
)
def test_every_label_has_its_candidates(labels, acceptance, counts):
    found = rejection.plan(np.array(labels, np.int32), acceptance)
    assert dict(zip(*np.unique(found, return_counts=True), strict=True)) == counts
    # The first ones are those of plain sampling.
    np.testing.assert_array_equal(found[: len(labels)], labels)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_of_each_label_are_kept(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rng.integers(1, 20)).astype(np.int32)
    candidates = rejection.plan(labels, rng.uniform(0.1, 1))
    scores = rng.integers(0, 5, len(candidates)).astype(np.float32)  # many are equal
    kept = rejection.best(labels, candidates, scores)
    np.testing.assert_array_equal(candidates[kept], labels)
    assert len(set(kept)) == len(kept)
    for label in set(labels):
        mine = [n for n in range(len(candidates)) if candidates[n] == label]
        mine = sorted(mine, key=lambda n: (-scores[n], n))[: (labels == label).sum()]
        assert list(kept[labels == label]) == sorted(mine)


def test_what_is_kept_is_what_scored_best(model):
    classifier = Classifier()
    made = model.sample(6, ["cat", 5], 3, acceptance=0.4, classifier=classifier)
    # Of 16: 2 * ceil(7.5).
    assert [len(images) for images in classifier.images] == [4] * 4
    images, labels = np.concatenate(classifier.images), np.concatenate(classifier.labels)
    np.testing.assert_array_equal(labels, rejection.plan(np.array([2, 5] * 3, np.int32), 0.4))
    # Candidates are plain samples.
    np.testing.assert_array_equal(model.generate(16, labels, seed=3), images)
    for label in (2, 5):
        mine = images[labels == label].mean(axis=(1, 2, 3))
        assert (
            sorted(made["scores"][made["labels"] == label]) == sorted(mine.astype(np.float32))[-3:]
        )
    # The very images that were scored.
    np.testing.assert_array_equal(made["images"], images[made["numbers"]])
    np.testing.assert_array_equal(
        made["scores"], brightness(made["images"], None).astype(np.float32)
    )
    np.testing.assert_array_equal(made["labels"], [2, 5] * 3)
    again = model.new(made["labels"], made["numbers"], 3, {}, rows=4)
    np.testing.assert_array_equal(again[0], made["ids"])


def test_all_accepted_is_plain_sampling(model):
    plain = model.sample(6, seed=1)
    task = resumable.SamplingTask(plain["labels"], seed=1)
    made = resumable.with_images(model, task, *rejection.choose(model, task, 1.0, brightness))
    assert made.keys() - plain.keys() == {"scores"}
    same({name: made[name] for name in plain}, plain)


def test_plain_sampling_goes_on_in_a_folder(model, tmp_path):
    reported = []
    plain = model.sample(6, seed=1)
    for _ in range(2):
        same(
            model.sample(
                6, seed=1, folder=tmp_path, progress=lambda *now: reported.append(now[:2])
            ),
            plain,
        )
    assert reported == [(4, 6), (6, 6), (6, 6)]


def test_a_model_without_classes_can_choose_too(model):
    model = copy.copy(model)
    model.classes = 0
    made = model.sample(3, acceptance=0.5, classifier=Classifier())
    assert sorted(made) == ["ids", "images", "numbers", "scores"] and len(made["scores"]) == 3


def test_stopped_it_goes_on_as_if_it_had_not_been(model, tmp_path):
    def run(folder, **stop):
        return model.sample(
            6, seed=2, progress=report, acceptance=0.3, classifier=Classifier(**stop), folder=folder
        )

    reported = []

    def report(*now):
        reported.append(now[:2])

    whole = run(tmp_path / "whole")
    assert reported == [(4, 24), (8, 24), (12, 24), (16, 24), (20, 24), (24, 24)]
    for stop in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", stop=stop)
    for name, value in files_of(tmp_path / "parts").items():
        assert value == files_of(tmp_path / "whole")[name]
    (tmp_path / "parts" / ".00000012.npz.17.01234567.part").write_bytes(b"killed while writing")
    reported.clear()
    same(run(tmp_path / "parts"), whole)
    assert reported == [(12, 24), (16, 24), (20, 24), (24, 24)]
    same(run(tmp_path / "parts", stop=0), whole)  # nothing is left to do
    np.testing.assert_array_equal(
        model.sample(6, seed=2, acceptance=0.3, classifier=brightness)["ids"], whole["ids"]
    )
    # As where another process was stopped before this one.
    (tmp_path / "parts" / "00000008.npz").unlink()
    reported.clear()
    same(run(tmp_path / "parts"), whole)
    assert reported == [(20, 24), (24, 24)]
    assert files_of(tmp_path / "whole").items() <= files_of(tmp_path / "parts").items()
    unfinished_samples.remove(tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_another_model_does_not_go_on_with_half_of_the_candidates(model, tmp_path):
    other = copy.copy(model)
    other.state = {**model.state, "ema": jax.tree.map(lambda x: x + 1, model.state["ema"])}
    given = {"num": 4, "seed": 2, "acceptance": 0.5, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        model.sample(**given, classifier=Classifier(stop=1))
    with pytest.raises(InputError, match="candidates made with fingerprint = .*, not fingerprint"):
        other.sample(**given, classifier=Classifier())
    assert len(model.sample(**given, classifier=Classifier())["images"]) == 4
    file = tmp_path / "settings.json"
    older = {k: v for k, v in json.loads(file.read_text()).items() if k != "fingerprint"}
    file.write_text(json.dumps(older))
    assert len(other.sample(**given, classifier=Classifier(stop=0))["images"]) == 4


def test_what_other_processes_did_not_leave_is_missed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable.processes, "together", lambda part: contextlib.nullcontext())
    given = {"num": 6, "seed": 2, "acceptance": 0.3, "classifier": Classifier(), "folder": tmp_path}
    with pytest.raises(
        InputError, match="lacks 12 candidates: it has to be one folder for all processes"
    ):
        model.sample(**given, part=(0, 2))
    reported = []
    whole = model.sample(**given, progress=lambda *now: reported.append(now[:2]))
    assert reported == [(12, 24), (16, 24), (20, 24), (24, 24)]
    parts = [model.sample(**given, part=(i, 4)) for i in range(4)]
    same({name: np.concatenate([part[name] for part in parts])[:6] for name in whole}, whole)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"seed": 3},
            "holds candidates made with seed = 2, not seed = 3: give the same settings again",
        ),
        ({"acceptance": 0.4}, "made with acceptance = 0.5, not acceptance = 0.4"),
        (
            {"classifier": brightness},
            "made with classifier = brightness, not classifier = test_rejection:brightness",
        ),
        ({"labels": ["cat"]}, "made with labels = 0,1,2,3, not labels = 2: give the same"),
        ({"num": 3}, "made with num = 4, not num = 3: give the same settings"),
        ({"steps": 3}, "made with config.sample.steps = 8, not config.sample.steps = 3: give"),
    ],
)
def test_candidates_of_other_settings_are_refused(model, tmp_path, changes, message):
    given = {"num": 4, "seed": 2, "acceptance": 0.5, "folder": tmp_path}
    model.sample(**given, classifier=Classifier())
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        model.sample(**{**given, "classifier": Classifier(), **changes})
    assert "\n" not in str(error.value) and files_of(tmp_path) == before
    if changes == {"num": 3}:
        model.sample(**{**given, "classifier": Classifier(), **changes}, force=True)
        assert json.loads((tmp_path / "settings.json").read_text())["labels"] == [0, 1, 2]


def test_damaged_candidates_are_one_line(model, tmp_path):
    given = {"num": 4, "acceptance": 0.5, "folder": tmp_path}
    model.sample(**given, classifier=Classifier())
    file = tmp_path / "00000000.npz"
    content = file.read_bytes()
    file.write_bytes(content[:100])
    with pytest.raises(
        InputError, match="does not hold candidates as they were left: .*; remove it"
    ):
        model.sample(**given, classifier=Classifier())
    file.write_bytes(content)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match="does not hold candidates as they were left"):
        model.sample(**given, classifier=Classifier())


@pytest.mark.parametrize("acceptance", [0, -0.5, 1.5, float("nan")])
def test_acceptances_that_cannot_be_are_refused(model, acceptance):
    with pytest.raises(InputError, match="expected an acceptance above 0 and at most 1, got"):
        model.sample(4, acceptance=acceptance, classifier=brightness)


def test_an_acceptance_below_1_needs_a_classifier(model):
    with pytest.raises(InputError, match="an acceptance of 0.5 needs a classifier"):
        model.sample(4, acceptance=0.5, classifier=None)


@pytest.mark.parametrize(
    "scores, found",
    [
        (lambda number: np.zeros((number, 10)), r"got float64 \[4, 10\]"),
        (lambda number: np.full(number, np.nan), "got not finite"),
        (lambda number: None, r"got object \[\]"),
        (lambda number: ["good"] * number, "got"),
    ],
)
def test_what_are_no_scores_is_refused(model, scores, found):
    with pytest.raises(
        InputError,
        match=f"expected the classifier to give a finite score for each of 4 images, {found}",
    ):
        model.sample(4, acceptance=0.5, classifier=lambda images, labels: scores(len(images)))


def broken(images, labels):
    raise KeyError("cat")


def test_what_a_classifier_raises_is_said_in_one_line_with_its_name(model):
    with pytest.raises(InputError, match="test_rejection:broken raised KeyError: cat"):
        model.sample(2, acceptance=0.5, classifier="test_rejection:broken")


def find(name, model, where=""):
    return rejection.find(name, model.known_classes(), where)(model.runner)


def test_missing_weights_are_told_before_there_is_a_model(tmp_path):
    classes = Classes(1000, (), "w")
    with pytest.raises(InputError, match="there are no weights of resnet101 in "):
        rejection.find("resnet101", classes, str(tmp_path))
    with pytest.raises(InputError, match="this model is unconditional"):
        rejection.find("resnet50", Classes(0, (), "w"))


def test_classifiers_are_found_by_name(model, monkeypatch, tmp_path):
    found = find("test_rejection:brightness", model)
    white = np.full((2, 4, 4, 3), 255, np.uint8)
    np.testing.assert_array_equal(found(white, None), brightness(white, None))
    assert rejection.name_of(found) == "test_rejection:brightness"
    assert rejection.name_of(brightness) == "test_rejection:brightness"
    assert rejection.name_of(Classifier()) == "brightness"
    unknown = "there is no classifier '{}': "
    for name, message in {
        "resnet": unknown + "expected resnet50, resnet101 or your own as package.mod",
        "test_rejection:brightnes": unknown + ".*brightnes",
        "nowhere:f": unknown + "No module named 'nowhere'",
        "test_rejection:weights": "the classifier '{}' is no function, but module",
        "resnet101": (
            "{} knows the 1,000 classes of ImageNet, and this model has 10 classes: "
            "give a classifier"
        ),
    }.items():
        with pytest.raises(InputError, match=message.format(name)):
            find(name, model)
    with pytest.raises(InputError, match="test_rejection:brightness knows its own"):
        find("test_rejection:brightness", model, "folder")
    model = copy.copy(model)
    model.classes = 0
    with pytest.raises(InputError, match="and this model is unconditional"):
        find("resnet50", model)
    model.classes, model.class_names = 1000, ()
    with pytest.raises(
        InputError,
        match="there are no weights of resnet101 in .*: get them with `python -m evqgan.con",
    ):
        find("resnet101", model, str(tmp_path))


def test_a_resnet_judges_classes_that_are_called_by_their_wordnet_numbers(model):
    model = copy.copy(model)
    model.classes, numbers = 1000, [f"n{k:08d}" for k in range(1000)]
    for model.class_names, expected in (
        ((), range(1000)),
        (numbers, range(1000)),
        (numbers[::-1], range(999, -1, -1)),
        ([*numbers[1:], numbers[0]], [*range(1, 1000), 0]),
    ):
        np.testing.assert_array_equal(
            rejection.imagenet_numbers("resnet101", model.known_classes()), expected
        )
    model.class_names = ("tench", *numbers[1:])
    with pytest.raises(
        InputError,
        match="by their WordNet numbers, .*, and this model has the class 'tench': train",
    ):
        find("resnet101", model)


def test_a_resnet_gives_the_probability_of_the_label(model, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(resnet.DEPTHS, "resnet50", (1, 1, 1, 1))
    monkeypatch.setattr(resnet, "SIZE", 40)
    monkeypatch.setattr(rejection, "RESIZED", 48)
    model = copy.copy(model)
    model.classes, model.class_names = 1000, ()
    classifier = find("resnet50", model, "random")
    assert classifier.name == "resnet50 untrained" and "is untrained" in capsys.readouterr().out
    assert find("resnet50", model, "random") is classifier  # so that it compiles once
    other = copy.copy(model)
    other.class_names = [f"n{k:08d}" for k in range(1000)][::-1]
    assert find("resnet50", other, "random") is not classifier
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0, 5, 999, 5], np.int32)
    scores = classifier(images, labels)
    assert scores.shape == (4,) and (scores > 0).all() and (scores < 1).all()

    network = resnet.Network((1, 1, 1, 1))
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    large = jax.image.resize(images.astype(np.float32), (4, 48, 48, 3), "bilinear") / 255
    mean, std = (np.array(x).reshape(1, 1, 1, 3) for x in (resnet.MEAN, resnet.STD))
    views = (large[:, 4:44, 4:44] - mean) / std
    logits = jax.jit(network.apply)(variables, views)["logits"]
    expected = np.asarray(jax.nn.softmax(logits))[np.arange(4), labels]
    np.testing.assert_allclose(scores, expected, rtol=1e-3)

    weights.save(weights.path(tmp_path, "resnet50"), variables, {"sha256": "0123456789abcdef"})
    stored = find("resnet50", model, str(tmp_path))
    assert stored.name == "resnet50 01234567"
    np.testing.assert_array_equal(stored(images, labels), scores)
    made = model.sample(2, [1, 2], acceptance=0.5, classifier=stored)
    np.testing.assert_allclose(stored(made["images"], made["labels"]), made["scores"], rtol=1e-5)


def test_the_command_line_keeps_the_best_and_its_card_says_so(tmp_path, capsys, monkeypatch):
    place = workdirs.trained()

    def sample(*args):
        code = main.main(
            [
                "main",
                "--mode=sample",
                f"--workdir={place}",
                f"--out={tmp_path}",
                "--batch_size=4",
                *args,
            ]
        )
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    given = [
        "--num=4",
        "--labels=cat,3",
        "--acceptance=0.4",
        "--classifier=test_rejection:brightness",
    ]
    given += ["--config.sample.steps=2"]  # of the workdir's config
    monkeypatch.setattr(mode_sample.npz, "save", failing(mode_sample.npz.save, "samples.npz"))
    code, _, lines = sample(*given)
    assert code == 2 and len(lines) == 1 and "no space" in lines[0]
    assert json.loads((tmp_path / "candidates" / "settings.json").read_text())["acceptance"] == 0.4
    monkeypatch.undo()
    code, _, lines = sample(*given, "--seed=5")
    assert code == 2 and "made with seed = 0, not seed = 5" in lines[0]
    code, out, _ = sample(*given)
    assert (
        code == 0
        and "going on from 10/10" in out
        and "4 samples, the best of 10, of step 6 are in" in out
    )
    # This call has generated nothing, and says no rate of it.
    assert re.search(r": written at [\d.,]+ images/s, \d+s in all\n", out)
    assert not (tmp_path / "candidates").exists()
    images, labels, _, produced = finished.read(tmp_path / "samples.npz")
    expected = {
        "acceptance": 0.4,
        "classifier": "test_rejection:brightness",
        "candidates": 10,
    }
    assert expected.items() <= produced.sampler.items() and produced.count == images.shape[0] == 4
    assert list(labels) == [2, 3, 2, 3]
    assert produced.sampler["steps"] == 2

    for args, message in {
        ("--acceptance=0",): "expected an acceptance above 0 and at most 1, got 0.0",
        ("--acceptance=1.5",): "--acceptance=1.5: expected a number",
        (
            "--classifier=resnet101",
        ): "a classifier chooses among candidates: give an --acceptance below 1 too",
        (
            "--acceptance=0.5",
        ): "resnet101 knows the 1,000 classes of ImageNet, and this model has 10 classes",
    }.items():
        code, _, lines = sample(
            *dict.fromkeys((*args, *given[3 * (args == ("--acceptance=0",)) :][:1], "--force"))
        )
        assert code == 2 and len(lines) == 1 and message in lines[0]


def failing(save, name):
    """`save`, but that files called `name` cannot be written."""

    def instead(path, **arrays):
        if path.name == name:
            raise InputError(f"cannot write {path}: no space")
        save(path, **arrays)

    return instead
