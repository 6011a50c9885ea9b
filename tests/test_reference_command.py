"""The command reference: statistics of a folder or a config's images, kept by hash."""

import json
import os

import numpy as np
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import reference
from evqgan.core import pictures
from evqgan.data import generated, transforms
from evqgan.metrics import pixels
from evqgan.metrics.frechet import gaussian
from evqgan.metrics.references import load_reference

NUMBER = 11  # of images, in batches of 4


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EVQGAN_REFERENCES", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    for i in range(NUMBER):
        pictures.save_png(tmp_path / "pictures" / f"{i:02d}.png", generated.draw(i, i, (40, 50)))
    return tmp_path / "pictures"


def call(folder, *flags):
    """Return the exit code of the command for the images of a folder, 16x16."""
    given = [f"--folder={folder}", "--size=16", "--features=pixels", "--batch=4", *flags]
    return benchmark.main(["reference", *given])


def test_a_folder_becomes_statistics_with_a_card_once(folder, tmp_path, capsys, monkeypatch):
    file = tmp_path / "out" / "all.npz"
    assert call(folder, "--split=sorted", f"--out={file}") == 0
    images = [transforms.decode(path.read_bytes()) for path in sorted(folder.iterdir())]
    expected = gaussian(pixels.colours(np.stack([transforms.adm_crop(x, 16) for x in images])))
    found = load_reference(file, 192)
    np.testing.assert_allclose(found.pooled.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(found.pooled.covariance, expected.covariance, atol=1e-7)
    card = json.loads(found.card)
    assert card["real"]["crop"] == "adm" and card["real"]["count"] == NUMBER == found.pooled.count
    assert card["features"]["name"] == "pixels"
    said = capsys.readouterr().out
    assert "reading" in said
    assert f"WARNING frechet_pixels: {NUMBER} images are few, 1,000 would do" in said
    # the same again is known; other crops and splits are not, nor a file that was replaced
    with monkeypatch.context() as without:
        without.setattr(reference, "Extractor", None)  # a network is not made for it
        assert call(folder, "--split=sorted") == 0
    assert "reading" not in capsys.readouterr().out
    os.utime(folder / "03.png", (0, 0))
    for flags in (["--split=sorted"], ["--split=sorted", "--crop=centre"], ["--split=all[:5]"]):
        assert call(folder, *flags) == 0
        assert "reading" in capsys.readouterr().out, flags
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_config_says_which_images_its_evaluator_reads(folder, tmp_path):
    file = tmp_path / "mine.py"
    keys = {"protocol": "adm", "features": ["pixels", "inception"]}
    file.write_text(
        "from configs import folder_stage2\n"
        "def get_config(variant=''):\n"
        "    config = folder_stage2.get_config(variant)\n"
        f"    config.evals.distribution = {keys}\n"
        "    return config\n"
    )
    request = reference.requested(given(config=file), [f"--config.dataset.folder={folder}"])
    assert request.dataset.crop == "adm" and request.dataset.size == 64
    assert request.split == "train" and request.features == "pixels"
    plain = reference.requested(given(config="folder_stage2", folder=folder, size=32), [])
    assert plain.dataset.crop == "resize" and plain.dataset.size == 32
    assert plain.features == "inception"


def given(**flags):
    """The flags of a command line."""
    line = [f"--{name}={value}" for name, value in flags.items()]
    return benchmark.cli.parse(reference.FLAGS, line)[0]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--folder=/nowhere", "--size=8"], "--folder: there is no folder '/nowhere'"),
        (["--name=generated"], "--size is needed"),
        (["--size=8"], "expects one of name (such as digits) and folder, got neither"),
        (["--size=8", "--name=generated", "--features=fid"], "names 'fid'"),
        (["--size=1000000", "--name=generated"], "64 images of 1000000x1000000 would take"),
        (["--size=8", "--name=generated", "--crop=middle"], "value should be one of <resize|"),
        (["--config.dataset.size=8"], "give one by --config=FILE"),
        (["--config=quickstart"], "quickstart is of quickstart and has no config.dataset: give"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, tmp_path, flags, message):
    assert benchmark.main(["reference", "--weights=random", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "cache").exists()


def test_a_single_image_is_too_few_and_its_folder_is_named(tmp_path, capsys):
    pictures.save_png(tmp_path / "train" / "a.png", generated.draw(0, 0, (16, 16)))
    pictures.save_png(tmp_path / "validation" / "b.png", generated.draw(1, 0, (16, 16)))
    assert call(tmp_path) == 2
    error = capsys.readouterr().err.strip()
    assert "a covariance needs two images or more: the split 'train' of " in error
    assert str(tmp_path) in error and "\n" not in error
