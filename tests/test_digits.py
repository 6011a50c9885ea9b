"""The shipped classifier of digits: which file it is, what it knows, how it is made."""

import hashlib
import re

import jax
import numpy as np
import pytest

from evqgan.convert import train_digits
from evqgan.core import weights
from evqgan.features import digits
from evqgan.features.extractor import Extractor
from evqgan.metrics.frechet import frechet_distance, gaussian

FILE = weights.path("", "digits")


@pytest.fixture(scope="module")
def network():
    return Extractor("digits", "", "key")


@pytest.fixture(scope="module")
def splits():
    """The digits to train on, and those held out: images and labels of each."""
    return [train_digits.split(held_out) for held_out in (False, True)]


def test_the_file_is_the_recorded_one_wherever_other_weights_lie(monkeypatch, tmp_path):
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == digits.SHA256
    assert FILE.stat().st_size < 200_000
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path))
    recorded = {"digits": weights.digest(FILE.parent, "digits")}
    for where in ("", tmp_path):
        network = Extractor("digits", str(where), "key")
        assert network.card()["weights"] == recorded
        assert network.name_of("frechet") == "frechet_digits"
    assert Extractor("digits", "random", "key").name_of("mmd") == "mmd_digits_untrained"


def test_it_knows_held_out_digits(network, splits):
    (_, (images, labels)) = splits
    found = network(images)
    assert found["pooled"].shape == (364, 48)
    assert np.mean(found["logits"].argmax(-1) == labels) > 0.97


def test_a_distance_of_its_features_tells_digits_from_worse_ones(network, splits):
    (images, labels), (heldout, _) = splits
    real = gaussian(network(images)["pooled"])
    noise = np.random.default_rng(0).normal(0, 60, heldout.shape)
    noisy = (heldout + noise).clip(0, 255).astype(np.uint8)
    sets = heldout, images[labels != 3], noisy
    floor, *worse = (frechet_distance(gaussian(network(x)["pooled"]), real) for x in sets)
    assert all(distance > 2 * floor for distance in worse)


def test_training_is_deterministic_and_sees_no_held_out_digit(monkeypatch, splits):
    asked = []
    monkeypatch.setattr(train_digits, "split", lambda held_out: asked.append(held_out) or splits[0])
    first, second = train_digits.train(steps=2), train_digits.train(steps=2)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert asked == [False, False] and [len(x) for x, _ in splits] == [1433, 364]


def test_the_command_writes_what_is_read(monkeypatch, tmp_path, capsys):
    """With the shipped weights in the place of a training."""
    like = jax.eval_shape(
        train_digits.digits.Network().init, jax.random.key(0), np.zeros((1, 16, 16, 1))
    )
    shipped = weights.load("", "digits", like)
    monkeypatch.setattr(train_digits, "train", lambda: shipped)
    train_digits.run([str(tmp_path / "digits.safetensors")])
    assert (tmp_path / "digits.safetensors").read_bytes() == FILE.read_bytes()
    said = capsys.readouterr().out
    share = re.search(r"([\d.]+)% of held-out digits in their class", said)
    assert share and float(share[1]) > 97, said
    for argv in ([], ["a", "b"], ["a.npz"]):
        assert train_digits.cli.main(argv, train_digits.run, str) == 2
        assert "expected one DEST.safetensors" in capsys.readouterr().err
