"""Data sets by name: data that would bring code are refused, and labels that are no classes."""

import importlib.util
import json
import os
import pkgutil
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from tensorflow_datasets.core import registered

from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import say
from evqgan.data import builders, named
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.pipeline import open_split, train_batches
from evqgan.data.quiet import quiet


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder with the digits under another name, which no class of tfds has."""
    folder = tmp_path_factory.mktemp("tfds")
    shutil.copytree(named.prepare("digits", str(folder)).data_path, folder / "foreign" / "1.0.0")
    info = folder / "foreign" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "name": "foreign"}))
    for file in (folder / "foreign" / "1.0.0").glob("digits-*"):
        file.rename(file.with_name(file.name.replace("digits", "foreign")))
    return folder


def test_a_data_set_without_code_is_read_by_the_classes_of_tfds(foreign):
    source = open_split(Dataset(name="foreign", data_dir=str(foreign)), "train")
    assert len(source) == 1433 and source.class_names == tuple("0123456789")


@pytest.mark.parametrize("legacy", [False, True])
def test_data_that_name_a_module_are_refused_and_it_is_not_imported(
    foreign, tmp_path, monkeypatch, legacy
):
    (tmp_path / "brought_along.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(foreign / "foreign", tmp_path / "foreign")
    file = tmp_path / "foreign" / "1.0.0" / "features.json"
    if legacy:
        file.write_text(json.dumps({"type": "brought_along.Image", "content": {}}))
    else:
        text = file.read_text()
        assert "tensorflow_datasets.core.features.image_feature.Image" in text
        file.write_text(
            text.replace(
                "tensorflow_datasets.core.features.image_feature.Image", "brought_along.Image"
            )
        )
    for name in ("foreign", "foreign:1.0.0"):
        with pytest.raises(
            InputError, match="'brought_along.Image': expected those of tensorflow_datasets"
        ) as caught:
            named.prepare(name, str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["kaggle:dogs", "huggingface:mnist", "somebody:mnist/small:1.0.0"])
def test_the_registers_of_others_are_not_asked(name, tmp_path):
    with pytest.raises(
        InputError, match=f"{name}' is refused: the data sets of other places .* code of their own"
    ):
        named.prepare(name, str(tmp_path))


class Labelled:
    """Three images of two classes."""

    class_names = ("cat", "dog")

    def __init__(self, *labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"image": np.zeros((2, 2, 3), np.uint8), "label": self.labels[i]}

    def where(self, i):
        return f"example {i}"


def test_a_label_that_is_no_class_is_named():
    assert DecodedImages(Labelled(0, 1), 0.01).load(1)["label"] == 1
    for label, message in (
        (2, "2, expected 0 to 1"),
        (-1, r"-1 \(tfds' word for no label\), expected 0 to 1"),
    ):
        with pytest.raises(
            InputError,
            match=f"example 1 has the label {message}: for a new run take another split, or",
        ) as caught:
            DecodedImages(Labelled(0, label), 0.01).load(1)
        assert "\n" not in str(caught.value)


def test_a_label_that_is_no_class_ends_training(monkeypatch):
    monkeypatch.setattr("evqgan.data.pipeline.open_split", lambda *_: Labelled(0, 1, -1))
    batches = train_batches(Dataset(name="digits", size=2), 3, seed=0)
    with pytest.raises(InputError, match="example 2 has the label -1"):
        next(batches)
    batches.close()


BUILDER = """
import io

import cv2
import numpy as np
import tensorflow_datasets as tfds


class TwoShapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["square", "circle"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        image = np.zeros((8, 8, 3), np.uint8)
        yield 0, {"image": io.BytesIO(cv2.imencode(".png", image)[1].tobytes()), "label": 1}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(source) makes a module two_shapes of the package of builders."""
    (tmp_path / "code").mkdir()
    monkeypatch.setattr(builders, "__path__", [*builders.__path__, str(tmp_path / "code")])
    monkeypatch.delitem(sys.modules, "evqgan.data.builders.two_shapes", raising=False)

    def write(source):
        (tmp_path / "code" / "two_shapes.py").write_text(source)
        found = [x.name for x in pkgutil.iter_modules(builders.__path__)]
        monkeypatch.setattr(named, "BUILDERS", found)
        return lambda: named.Named("two_shapes", "train", str(tmp_path / "data"))

    yield write
    registered._DATASET_REGISTRY.pop("two_shapes", None)
    registered._ABSTRACT_DATASET_REGISTRY.pop("two_shapes", None)


def test_progress_is_heard_while_tfds_is_quiet(capsys):
    with quiet(ours=True):
        print("of tfds")
        beating = threading.Thread(target=say, args=("still writing",))
        beating.start()
        beating.join()
    print("behind")
    assert capsys.readouterr().out == "still writing\nbehind\n"


def test_what_another_process_clears_is_no_error(tmp_path):
    (tmp_path / "incomplete.a").symlink_to("gone")  # listed, and not there when it is looked at
    for name, age in (("incomplete.b", 2 * named.OLD), ("incomplete.c", 0.0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    named.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"incomplete.a", "incomplete.c"}


def test_our_data_sets_are_the_modules_of_their_package():
    assert named.BUILDERS == ["digits", "drawings", "photographs"]


def test_a_module_in_the_package_of_builders_is_a_data_set(own):
    source = own(BUILDER)()
    assert len(source) == 1 and source[0]["label"] == 1
    assert source.class_names == ("square", "circle")


@pytest.mark.parametrize(
    "old, new, words",
    [
        (
            'io.BytesIO(cv2.imencode(".png", image)[1].tobytes())',
            "image",
            "Failed to encode example: No module named 'tensorflow'; .*io.BytesIO of a PNG",
        ),
        ("def _split_generators", "def splits", "TwoShapes lacks the method _split_generators"),
        ("class TwoShapes", "class Shapes", "two_shapes.py .*TwoShapes"),
    ],
)
def test_what_is_wrong_in_a_builder_is_said_in_a_line(own, old, new, words):
    if new == "image" and importlib.util.find_spec("tensorflow"):
        # Where TensorFlow is, tfds encodes arrays; the line is tested by test_the_last_cause too.
        pytest.skip("TensorFlow is installed")
    assert old in BUILDER
    with pytest.raises(InputError, match=words) as caught:
        own(BUILDER.replace(old, new))()
    assert "\n" not in str(caught.value)
    registered._DATASET_REGISTRY.pop("shapes", None)


def test_the_last_cause_of_an_error_is_told_with_its_first_line():
    cause = ModuleNotFoundError("No module named 'tensorflow'")
    error = RuntimeError("Failed to encode example:\n{'image': 3}\nNo module")
    assert first_line(error) == "Failed to encode example"
    error.__cause__ = ValueError("between")
    error.__cause__.__cause__ = cause
    assert first_line(error) == "Failed to encode example: No module named 'tensorflow'"
    again = RuntimeError("wrapped: No module named 'tensorflow'")
    again.__cause__ = cause
    assert first_line(again) == str(again)
    assert "without TensorFlow" in named.advice("digits", error)
