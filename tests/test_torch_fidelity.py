"""FID and its kin of the same pixels by torch-fidelity 0.4 and by us, from files to numbers.

tests/test_metrics_recording.py and test_inception.py always run, on recorded numbers of both.
"""

import json
import os
import pathlib
import subprocess
import venv

import numpy as np
import pytest
from PIL import Image

from evqgan.convert.__main__ import main as convert
from evqgan.evals import feature_metrics
from evqgan.features.extractor import Extractor
from evqgan.metrics.mmd import kid

pytestmark = pytest.mark.slow

YARDSTICK = pathlib.Path(__file__).parent / "torch_fidelity_yardstick.py"
NEEDED = ("numpy", "pillow", "requests", "scipy", "torch", "tqdm")
# Inception's features agree to 1e-4 of their size (test_inception.py), and a distance is a
# difference of their moments.
TOLERANCE = 2e-3


def python():
    """A Python with torch-fidelity: EVQGAN_TORCH_FIDELITY, or one made for this test."""
    if given := os.environ.get("EVQGAN_TORCH_FIDELITY"):
        return given
    folder = pathlib.Path.home() / ".cache" / "evqgan" / "torch-fidelity"
    made = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [made, "-m", "pip", "install", "-q"]
        for packages in (NEEDED, ("--no-deps", "torch-fidelity==0.4.0")):
            done = subprocess.run([*pip, *packages], capture_output=True, text=True)
            if done.returncode:
                # It is no requirement of the project, and needs PyTorch. What it would say of other
                # pixels is recorded, and compared always: see the head of this file.
                pytest.skip(f"torch-fidelity cannot be installed: {done.stderr[-300:]}")
        (folder / "ready").touch()
    return str(made)


def images(seed, number, contrast):
    """Images of blurred noise, uint8 [number,72,96,3]: as different in kind as `contrast` says."""
    random = np.random.default_rng(seed)
    coarse = random.normal(128, contrast, (number, 9, 12, 3))
    fine = random.normal(0, 12, (number, 72, 96, 3))
    return np.clip(coarse.repeat(8, 1).repeat(8, 2) + fine, 0, 255).astype(np.uint8)


def save(folder, sets):
    folder.mkdir()
    for i, image in enumerate(sets):
        Image.fromarray(image).save(folder / f"{i:04d}.png")


def test_metrics_equal_torch_fidelitys_on_the_same_pixels(tmp_path, monkeypatch):
    interpreter = python()
    generated, real = images(0, 48, 40), images(1, 56, 55)
    save(tmp_path / "generated", generated)
    save(tmp_path / "real", real)
    file = tmp_path / "weights.pth"
    done = subprocess.run(
        [interpreter, YARDSTICK, file, tmp_path / "generated", tmp_path / "real"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])

    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path))
    assert not convert(["inception", str(file)])
    network = Extractor("inception", "", "features")
    sets = [feature_metrics.FeatureSet(feature_metrics.METRICS.values()) for _ in range(2)]
    for one, pixels in zip(sets, (generated, real), strict=True):
        one.add(network(pixels), np.ones(len(pixels), bool))
    ours = feature_metrics.measure(feature_metrics.METRICS, *sets)
    pooled = [one.of(feature_metrics.METRICS["mmd"]) for one in sets]
    mean, deviation = kid(*pooled, subset_size=40)

    pairs = {
        "frechet_inception_distance": ours["frechet"],
        "inception_score_mean": ours["score"],
        "inception_score_std": ours["score_sd"],
        "kernel_inception_distance_mean": mean,
        "kernel_inception_distance_std": deviation,
        "precision": ours["precision"],
        "recall": ours["recall"],
    }
    assert theirs["frechet_inception_distance"] > 1 and theirs["inception_score_mean"] > 1.005
    for name, value in pairs.items():
        np.testing.assert_allclose(value, theirs[name], rtol=TOLERANCE, atol=1e-4, err_msg=name)
    print({name: (theirs[name], float(value)) for name, value in pairs.items()})
