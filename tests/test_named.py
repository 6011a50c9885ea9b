"""Data sets by name: data that would bring code are refused, and labels that are no classes."""

import json
import shutil

import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.data import named
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.pipeline import open_split, train_batches


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
            InputError, match=f"example 1 has the label {message}: take another split, or"
        ) as caught:
            DecodedImages(Labelled(0, label), 0.01).load(1)
        assert "\n" not in str(caught.value)


def test_a_label_that_is_no_class_ends_training(monkeypatch):
    monkeypatch.setattr("evqgan.data.pipeline.open_split", lambda *_: Labelled(0, 1, -1))
    batches = train_batches(Dataset(name="digits", size=2), 3, seed=0)
    with pytest.raises(InputError, match="example 2 has the label -1"):
        next(batches)
    batches.close()
