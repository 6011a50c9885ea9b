"""Samples beside real images, which are read once."""

from types import MappingProxyType

import numpy as np
import pytest

from evqgan.benchmark import real_images
from evqgan.core.errors import InputError
from evqgan.core.npz import Pieces
from evqgan.evals import against_real
from evqgan.evals.against_real import AgainstReal, Colours, RealImages
from evqgan.inference import evaluation
from evqgan.metrics import pixels
from evqgan.metrics.frechet import frechet_distance, gaussian

SIZE = (16, 16)


class Grey(Colours):
    """Means over rows, under a name of their own, in two pieces; the second is filled up."""

    widths = MappingProxyType({"pooled": 16, "logits": 16})

    def name_of(self, number):
        return f"{number}_grey"

    def pieces(self, images):
        means = np.concatenate([images, images[-1:]]).mean((2, 3), dtype=np.float32)
        half = len(means) // 2
        for some, is_last in ((means[:half], False), (means[half:], True)):
            valid = np.arange(len(some)) < len(some) - is_last
            softmax = np.exp(some - some.max(1, keepdims=True))
            yield {"pooled": some, "logits": softmax}, valid


def images_of(number, seed):
    """Images of three classes, each of a brightness of its own."""
    labels = np.arange(number, dtype=np.int32) % 3
    noise = np.random.default_rng(seed).integers(0, 90, (number, *SIZE, 3))
    return (noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels


def split_of(images, labels, reads):
    """The images in batches of seven; `reads` has a line for each time that they are read."""

    def batches():
        reads.append(len(images))
        for start in range(0, len(images), 7):
            yield images[start : start + 7], labels[start : start + 7]

    return RealImages(len(images), batches)


@pytest.fixture(scope="module")
def sets():
    return images_of(61, 0), images_of(30, 1), images_of(40, 2)


def test_real_images_are_read_once_for_many_sets_of_samples(sets):
    reads = []
    (train, _), (heldout, held_labels), (samples, labels) = sets
    real, held = (split_of(*some, reads) for some in sets[:2])
    against = AgainstReal(real, held, SIZE, [Colours(), Grey()], ("frechet", "score"))
    found = against.numbers_of(samples, labels, copies=True)
    assert against.numbers_of(samples, labels, copies=True) == found and reads == [61, 30]
    of_colours = [gaussian(pixels.colours(x)) for x in (samples, train, heldout)]
    assert found["frechet_pixels"] == pytest.approx(frechet_distance(*of_colours[:2]), rel=1e-9)
    floor = frechet_distance(of_colours[2], of_colours[1])
    assert found["heldout_frechet_pixels"] == pytest.approx(floor, rel=1e-9)
    of_grey = [gaussian(x.mean((2, 3), dtype=np.float32)) for x in (samples, train)]
    assert found["frechet_grey"] == pytest.approx(frechet_distance(*of_grey), rel=1e-9)
    assert found["score_grey"] >= 1 and "heldout_score_grey" not in found
    assert found["sample_accuracy"] == 1 and found["nearest_copies"] == 0
    as_samples = against.numbers_of(heldout, held_labels)
    of_heldout = against.numbers_of_heldout()
    assert of_heldout.keys() == {"frechet_pixels", "frechet_grey", "sample_accuracy"}
    for name, value in of_heldout.items():
        assert as_samples[name] == pytest.approx(value, rel=1e-9)


def test_samples_in_pieces_have_the_same_numbers(sets):
    real, held = (split_of(*some, []) for some in sets[:2])
    images, labels = sets[2]
    pieces = Pieces(images.shape, images.dtype, [images[i : i + 9] for i in range(0, 40, 9)])
    against = AgainstReal(real, held, SIZE)
    for given in ((labels, True), (labels, False), (None, False)):
        whole, in_pieces = against.numbers_of(images, *given), against.numbers_of(pieces, *given)
        assert whole.keys() == in_pieces.keys() and ("nearest_mean" in whole) == given[1]
        for name, value in whole.items():
            assert in_pieces[name] == pytest.approx(value, rel=1e-9)


def test_shares_of_few_images_are_warned_of(sets):
    real, held = (split_of(*some, []) for some in sets[:2])
    against = AgainstReal(real, held, SIZE)
    labels = np.concatenate([sets[2][1]] * 3)
    lines = [x for x in against.warnings(120, labels) if "accuracy" in x]
    assert lines == [
        "heldout_accuracy: 30 held-out images are few, 100 would do: its standard error is up to "
        "9 points"
    ]
    assert sum("accuracy" in line for line in against.warnings(40, sets[2][1])) == 2


def test_without_images_in_memory_there_are_distances_alone(sets, monkeypatch):
    reads = []
    real, held = (split_of(*some, reads) for some in sets[:2])
    images, labels = sets[2]
    warning = "no distance to the nearest image, accuracy and spread: "
    for against in (AgainstReal(real, held, SIZE, keep=False), AgainstReal(real, None, SIZE)):
        assert against.numbers_of(images, labels).keys() <= {
            "frechet_pixels",
            "heldout_frechet_pixels",
        }
        (line,) = against.warnings(40)
        assert ("30 held-out images" in line) == (against.numbers_of_heldout() != {})
    monkeypatch.setattr(against_real, "MOST", 1000)
    against = AgainstReal(real, held, SIZE)
    assert against.numbers_of(images, labels, copies=True).keys() == {
        "frechet_pixels",
        "heldout_frechet_pixels",
    }
    assert against.numbers_of_heldout().keys() == {"frechet_pixels"}
    assert against.warnings(40)[-1].startswith(warning)
    assert AgainstReal(real, None, SIZE).beyond == ""


def test_images_of_another_size_and_no_images_are_refused(sets):
    real, held = (split_of(*some, []) for some in sets[:2])
    images, labels = sets[2]
    with pytest.raises(InputError, match=r"must be uint8 \[N,H,W,3\] of one size to be"):
        AgainstReal(real, held, (16, 8))
    with pytest.raises(InputError, match=r"must be uint8 \[N,H,W,3\] of one size to be"):
        AgainstReal(real, held, SIZE).numbers_of(images[:, ::2], labels)
    with pytest.raises(InputError, match="of which a split has none"):
        AgainstReal(split_of(images[:0], labels[:0], []), held, SIZE)


def test_cards_say_which_features_and_who_judges():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    real = RealImages(6, lambda: [(images, np.arange(6, dtype=np.int32) % 2)])
    against = AgainstReal(real, real, (8, 8), colour=True)
    (colours,) = against.cards
    assert (colours["name"], colours["resize"]) == ("pixels", "averaged by area to at most 8x8")
    assert against.settings["classifier"].startswith("support vector classifier")
    assert against.settings["classifier_sees_colours"] is True
    assert AgainstReal(real, None, (8, 8)).settings == {}  # nothing is judged


def test_what_is_new_kept_and_gone_is_said(capsys):
    card = {"numbers": ["new"], "warnings": ["few"]}
    found = {"numbers": {"old": 1.0, "new": 2.0}, "protocols": {"a": card, "b": {"numbers": []}}}
    evaluation.show(found, ["a"], {"old": 1.0, "lost": 3.0})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["new", "2"] and lines[1] == "WARNING few"
    assert lines[2] == "kept beside these, measured earlier: 1 number"
    assert lines[3].endswith("measured others: lost") and len(lines) == 4


def test_real_images_of_one_class_leave_the_classifier_out(sets):
    (train, classes), (heldout, held_classes), (samples, labels) = sets
    real, held = split_of(train, 0 * classes, []), split_of(heldout, 0 * held_classes, [])
    against = AgainstReal(real, held, SIZE)
    found = against.numbers_of(samples, labels, copies=True)
    assert {"frechet_pixels", "nearest_mean"} <= found.keys()
    assert not [name for name in found if "accuracy" in name or "spread" in name]
    assert against.settings == {} and against.numbers_of_heldout().keys() == {"frechet_pixels"}
    line = "no accuracy and spread of classes: the training images have fewer than two classes"
    assert line in against.warnings(40, labels) and line not in against.warnings(40)


@pytest.mark.parametrize("which", ["training", "held-out"])
def test_a_split_of_one_image_leaves_its_distance_out(sets, which):
    """What the other images give stays, and a sentence says what is missing."""
    (train, classes), (heldout, held_classes), (samples, labels) = sets
    if which == "training":
        train, classes = train[:1], classes[:1]
    else:
        heldout, held_classes = heldout[:1], held_classes[:1]
    against = AgainstReal(split_of(train, classes, []), split_of(heldout, held_classes, []), SIZE)
    found = against.numbers_of(samples, labels, copies=True)
    assert "heldout_frechet_pixels" not in found and "nearest_mean" in found
    assert ("frechet_pixels" in found) == ("sample_accuracy" in found) == (which == "held-out")
    name = "heldout_frechet_pixels" if which == "held-out" else "frechet_pixels"
    line = f"no {name}: it needs 2 or more, got 1 {which} image"
    missing = [line for line in against.warnings(40, labels) if line.startswith("no frechet_")]
    assert missing == ([line] if which == "training" else [])
    assert line in against.warnings(40, labels)


def test_classes_without_a_pair_of_samples_leave_their_spread_out(sets):
    """And nothing else."""
    real, held = (split_of(*some, []) for some in sets[:2])
    against = AgainstReal(real, held, SIZE)
    images, labels = (x[:3] for x in sets[2])
    found = against.numbers_of(images, labels, copies=True)
    assert {"sample_accuracy", "nearest_mean", "frechet_pixels"} <= found.keys()
    assert not [name for name in found if "spread" in name]
    line = "no spread of classes: it needs a class with two samples and two real images"
    assert any(x.startswith(line) for x in against.warnings(3, labels))
    assert not any(x.startswith(line) for x in against.warnings(40, sets[2][1]))


def test_benchmarks_which_compare_distances_refuse_a_split_of_one_image():
    keys = {"name": "generated", "size": 16, "classes": 3, "validation": "validation[:1]"}
    message = r"config.dataset.validation = 'validation\[:1\]' has one: add images"
    with pytest.raises(InputError, match=message):
        real_images.against(keys, 1, False, Colours())
