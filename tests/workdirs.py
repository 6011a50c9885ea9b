"""One trained workdir for all tests: a tokenizer, and a class-conditional generator on it."""

import atexit
import functools
import pathlib
import shutil
import tempfile

from ml_collections import ConfigDict
from test_configs import load

from evqgan.core import pictures
from evqgan.data import generated
from evqgan.training import loop

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")


@functools.cache
def trained():
    """Return the path of a workdir as the quickstart leaves it.

    It has images/, tokenizer/ and generator/, a few steps each. 32 x 32 pixels, 8 x 8 tokens, 64
    codes, ten classes with names. Tests must not change it: they take a `copy`.
    """
    place = pathlib.Path(tempfile.mkdtemp(prefix="evqgan-tests-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for label, name in enumerate(NAMES):
        for i in range(6):
            pictures.save_png(
                place / "images" / name / f"{i}.png", generated.draw(i, label, (32, 32))
            )
    first, second = configs(place / "images")
    loop.train(first, place / "tokenizer")
    second.tokenizer.weights = str(place / "tokenizer")
    loop.train(second, place / "generator")
    return place


def configs(images):
    """The configs of a tiny tokenizer and a tiny generator on a folder of images."""
    config = load("quickstart", "tiny")
    for part in (config.tokenizer, config.generator):
        part.dataset = ConfigDict({"folder": str(images), "size": 32, "flip": False})
        part.update(
            {
                "batch_size": 4,
                "duration": "6 steps",
                "log_every": "1 step",
                "checkpoint_every": "6 steps",
            }
        )
    # Not the quickstart's, which is chosen by measurement: tests name these.
    config.generator.sample = ConfigDict(
        {"steps": 8, "temperature": 1.0, "choice_temperature": 4.5, "schedule": "cosine"}
    )
    for coder in (config.tokenizer.tokenizer.encoder, config.tokenizer.tokenizer.decoder):
        coder.depths = (1,)
    return config.tokenizer, config.generator


def copy(place):
    """A copy of the trained workdir at `place`, to be changed."""
    shutil.copytree(trained(), place)
    return place
