"""The bundled data sets: exact counts and pixels, and no pixel in both splits."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from evqgan.core.errors import InputError
from evqgan.data import named, transforms
from evqgan.data.builders import digits, photographs


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def everything(name, split, data_dir):
    source = named.Named(name, split, data_dir)
    examples = [source[i] for i in range(len(source))]
    return [(transforms.decode(example["image"]), example["label"]) for example in examples]


def test_enlarging_keeps_levels_and_shapes():
    assert (digits.enlarge(np.zeros((8, 8))) == 0).all() and (
        digits.enlarge(np.full((8, 8), 16)) == 255
    ).all()
    assert (digits.enlarge(np.full((8, 8), 8)) == 128).all()
    originals = load_digits().images
    back = np.stack(
        [
            cv2.resize(digits.enlarge(d)[..., 0], (8, 8), interpolation=cv2.INTER_AREA)
            for d in originals
        ]
    )
    assert abs(back / 255 * 16 - originals).mean() < 1  # of 16 levels


def test_digits_are_divided_once_and_evenly(data_dir):
    train = everything("digits", "train", data_dir)
    held = everything("digits", "validation", data_dir)
    assert (len(train), len(held)) == (1433, 364)
    assert named.Named("digits", "train", data_dir).class_names == tuple("0123456789")
    counts = [np.bincount([label for _, label in part], minlength=10) for part in (train, held)]
    assert (abs(counts[1] / (counts[0] + counts[1]) - 0.2) < 0.01).all()
    originals = zip(load_digits().images, load_digits().target, strict=True)
    expected = sorted((digits.enlarge(digit).tobytes(), int(label)) for digit, label in originals)
    assert sorted((image.tobytes(), label) for image, label in train + held) == expected


def test_photographs_hold_out_whole_regions():
    """From the table alone: no training tile shares a pixel with a held-out tile.

    All tiles lie inside the photograph.
    """
    for photograph in photographs.PHOTOGRAPHS:
        count = np.zeros(photograph.size, int)
        for top, left, bottom, right in photographs.train_tiles(photograph):
            assert (
                0 <= top < bottom <= photograph.size[0] and 0 <= left < right <= photograph.size[1]
            )
            count[top:bottom, left:right] += 1
        top, left, bottom, right = photograph.train
        assert (count[top:bottom, left:right] > 0).all(), "the training region is covered"
        held = np.zeros(photograph.size, int)
        for top, left, bottom, right in photographs.held_tiles(photograph):
            assert bottom - top == right - left == 128 and min(top, left) >= 0
            assert bottom <= photograph.size[0] and right <= photograph.size[1]
            held[top:bottom, left:right] += 1
        assert held.max() == 1 and not (count * held).any(), photograph.name


def test_photographs_are_the_tiles_of_the_table(data_dir):
    for split, tiles in (
        ("train", photographs.train_tiles),
        ("validation", photographs.held_tiles),
    ):
        expected = []
        for label, photograph in enumerate(photographs.PHOTOGRAPHS):
            image = photographs.read(photograph.name)
            expected += [(image[y:b, x:r].tobytes(), label) for y, x, b, r in tiles(photograph)]
        stored = everything("photographs", split, data_dir)
        assert sorted((image.tobytes(), label) for image, label in stored) == sorted(expected)
        assert len(stored) == {"train": 76, "validation": 38}[split]
        assert all(min(image.shape[:2]) >= 128 for image, _ in stored)


def test_licences_are_named(data_dir):
    license = named.prepare("photographs", data_dir).info.redistribution_info.license
    for photograph in photographs.PHOTOGRAPHS:
        assert f"{photograph.name}: {photograph.licence}" in license
    assert "danielbuechele" in license and "vultilion" in license
    assert "Alpaydin" in named.prepare("digits", data_dir).info.citation


def test_what_a_killed_process_has_left_is_not_taken(tmp_path):
    for age, name in ((0, "incomplete.A_1.0.0"), (2 * named.OLD, "incomplete.B_1.0.0")):
        left = tmp_path / "digits" / name
        left.mkdir(parents=True)
        (left / "digits-train.array_record").touch()
        os.utime(left, (time.time() - age,) * 2)
    assert len(named.Named("digits", "train", str(tmp_path))) == 1433
    left = sorted(path.name for path in (tmp_path / "digits").iterdir())
    assert left == ["1.0.0", "incomplete.A_1.0.0"]  # the first may still be at work


def test_a_folder_that_is_not_whole_is_refused_with_what_to_do(data_dir, tmp_path):
    whole = pathlib.Path(named.prepare("digits", data_dir).data_path)
    there = tmp_path / "digits" / "1.0.0"
    shutil.copytree(whole, there)
    (there / "dataset_info.json").write_text("")
    with pytest.raises(InputError, match="dataset_info.json cannot be read .*remove its folder"):
        named.prepare("digits", str(tmp_path))
    (there / "dataset_info.json").unlink()
    message = "1.0.0 is not whole, it has no dataset_info.json: remove this folder to have it prep"
    with pytest.raises(InputError, match=message):
        named.prepare("digits", str(tmp_path))


def test_two_processes_may_prepare_at_once(tmp_path):
    """Both end well, with the same data, and nothing half-written stays behind."""
    code = (
        "import hashlib, sys; from evqgan.data.named import Named;"
        "s = Named('digits', 'train', sys.argv[1]);"
        "images = b''.join(s[i]['image'] for i in range(len(s)));"
        "print(len(s), hashlib.sha256(images).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = [output.splitlines()[-1] for output, _ in outputs]
    assert found[0] == found[1] and found[0].startswith("1433 ")
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
