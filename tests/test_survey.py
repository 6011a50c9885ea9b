"""A folder looked through before training: what is counted, found broken, equal or misread."""

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data import survey as module
from evqgan.data.dataset import Dataset
from evqgan.data.survey import look, survey


def picture(seed=0, size=(40, 30), mode="RGB", **how):
    """Return encoded bytes of noise; size: (width, height)."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels), np.uint8)
    how = {"format": "PNG", **how}
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, **how)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(3, format="JPEG", exif=exif)


def animated():
    frames = [Image.fromarray(np.full((50, 50, 3), 80 * k, np.uint8)) for k in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def filled(root, files):
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return Dataset(folder=str(root), size=32, max_bad=0.5)


@pytest.fixture
def odd(tmp_path):
    """A folder in which everything is there once."""
    plain = picture(0, format="JPEG")
    return filled(
        tmp_path / "odd",
        {
            "train/cat/plain.jpg": plain,
            "train/cat/again.jpg": plain,
            "train/cat/turned.jpg": turned(),
            "train/cat/grey.png": picture(1, mode="L"),
            "train/dog/clear.png": picture(2, (300, 200), "RGBA"),
            "train/dog/moves.gif": animated(),
            "train/dog/deep/down.png": picture(4),
            "train/dog/tiny.png": picture(5, (3, 2)),
            "train/dog/cut.png": picture(6)[:-30],
            "train/dog/text.jpg": b"no image at all",
            "val/cat/plain.jpg": plain,
            "val/dog/held.webp": picture(7, format="WEBP"),
            "notes.txt": b"mine",
            "train/a.svg": b"<svg/>",
        },
    )


@pytest.mark.parametrize("whole", [True, False])
def test_everything_odd_is_found_by_decoding_and_by_heads_and_ends(odd, whole, monkeypatch):
    monkeypatch.setattr(module, "DECODED", 100 if whole else 1)
    found = survey(odd)
    assert (found.images, found.train, found.validation, found.whole) == (12, 10, 2, whole)
    assert not found.divided and found.classes == {"cat": 5, "dog": 7}
    assert list(found.broken) == ["train/dog/cut.png", "train/dog/text.jpg"]
    assert found.broken["train/dog/text.jpg"] == "no image"
    assert found.kinds == {"animated": 1, "rotated": 1, "grey": 1, "maybe transparent": 1}
    assert (found.shorter["least"], found.shorter["most"], found.longest) == (2, 200, 300)
    copies = ["train/cat/again.jpg", "train/cat/plain.jpg", "val/cat/plain.jpg"]
    assert found.copies == found.across == [copies]
    assert found.ignored == {".svg": 1, ".txt": 1}
    assert json.loads(json.dumps(found.as_json())) == found.as_json()
    lines = found.lines()
    assert len(lines) <= 12 and all("\n" not in line for line in lines)
    text = "\n".join(lines)
    for words in (
        "12 images in ",
        "10 to train on, 2 held out (your own split)",
        "2 classes: dog 7, cat 5",
        "1 animated, 1 rotated, 1 grey, 1 maybe transparent",
        "2 broken files: train/dog/cut.png (",
        "2 files are copies of another, such as train/cat/again.jpg = train/cat/plain.jpg",
        "WARNING in both splits: 1 image, such as train/cat/again.jpg = ",
        "2 files ignored, no images by their endings: .svg 1, .txt 1",
        "WARNING 1 image in sub-folders of a class, such as train/dog/deep/down.png",
    ):
        assert words in text, words


def test_a_rotated_image_counts_as_it_is_shown(tmp_path):
    (tmp_path / "a.jpg").write_bytes(turned())
    assert module.look(str(tmp_path / "a.jpg"), True).size == (30, 40)
    assert module.look(str(tmp_path / "a.jpg"), False).size == (30, 40)


@pytest.mark.parametrize(
    "files, note",
    [
        (["in/a.png", "in/b.png"], "there is one class, 'in': .*--config.dataset.folder=.*/in$"),
        (
            ["a.png", "cat/b.png", "cat/c.png"],
            "the sub-folders are no classes, .* 1 image beside them",
        ),
        (["a.png", "b.png"], None),
        ([f"{name}/{k}.png" for name in ("cat", "dog") for k in range(40)], None),
    ],
)
def test_a_folder_of_another_level_than_meant_is_noted(tmp_path, files, note):
    notes = survey(filled(tmp_path / "x", {path: picture(k) for k, path in enumerate(files)})).notes
    assert len(notes) == (note is not None)
    assert all(re.search(note, text) for text in notes)


def test_a_class_without_an_image_is_named(tmp_path):
    dataset = filled(tmp_path, {"cat/a.png": picture(1), "dog/b.png": picture(2)})
    (tmp_path / "bird").mkdir()
    (tmp_path / "fish").mkdir()
    (tmp_path / "fish" / "notes.txt").touch()
    found = survey(dataset)
    assert found.classes == {"cat": 1, "dog": 1}
    assert found.notes[0] == "there is no image in bird/, fish/: an empty sub-folder is no class"


def test_a_class_of_which_no_image_is_held_out_or_to_train_on_is_named(tmp_path):
    paths = [*(f"train/{name}/a.png" for name in ("cat", "dog", "emu")), "val/emu/b.png"]
    notes = survey(filled(tmp_path, {path: picture(k) for k, path in enumerate(paths)})).notes
    assert [note.split(";")[0] for note in notes] == ["of 2 classes no image is held out: cat, dog"]
    images = {f"{i}/only.png": picture(i) for i in range(40)}  # one in ten is held out
    notes = survey(filled(tmp_path / "single", images)).notes
    numbers = [int(note.split()[1]) for note in notes]
    assert ["to train on" in note for note in notes] == [True, False]
    assert sum(numbers) == 40 and 0 < numbers[0] < 15


def test_long_names_of_classes_are_cut(tmp_path):
    names = [letter * 200 for letter in "abcd"]
    paths = [f"{part}/{name}/{part}.png" for name in names for part in ("train", "val")]
    dataset = filled(tmp_path, {path: picture(k) for k, path in enumerate(paths[:-1])})
    found = survey(dataset)
    assert found.lines()[1] == f"4 classes: {', '.join(f'{x[:37]}... 2' for x in names[:3])}, " + (
        f"{names[3][:37]}... 1"
    )
    assert found.notes == [
        f"of 1 class no image is held out: {names[3][:37]}...; no number can tell how well these do"
    ]
    assert f"({', '.join(f'{name[:37]}... 1' for name in names)})" in pipeline.summary(
        dataset, pipeline.open_split(dataset, dataset.train)
    )
    (note,) = survey(
        filled(tmp_path / "one", {f"{names[0]}/{k}.png": picture(k) for k in range(2)})
    ).notes
    assert note.startswith(f"there is one class, '{names[0][:37]}...': ")


def test_too_few_and_too_many_broken_images_are_refused_in_a_line(tmp_path):
    dataset = filled(tmp_path / "one", {"a.png": picture()})
    with pytest.raises(InputError, match="holds one image: at least 2 are needed"):
        survey(dataset)
    files = {f"{k}.png": picture(k)[: 60 if k < 3 else None] for k in range(4)}
    with pytest.raises(InputError, match=r"3 of 4 images are broken, .*max_bad = 0.5: 0.png \("):
        survey(filled(tmp_path / "bad", files))
    told, files = [], {f"{k}.png": picture(k)[: 60 if k < 5 else None] for k in range(6)}
    with pytest.raises(InputError, match=r"5 of 6 images are broken, .*; and 2 more; repair"):
        survey(filled(tmp_path / "more", files), told.append)
    assert [line[:14] for line in told] == [f"broken: {k}.png "[:14] for k in range(5)]
    broken = filled(tmp_path / "all", {f"{k}.png": picture(k)[:60] for k in range(3)})
    with pytest.raises(InputError, match=r"^all 3 images are broken: 0.png .* of whole images$"):
        survey(dataclasses.replace(broken, max_bad=1.0))
    files = {f"train/{k}.png": picture(k) for k in range(8)}
    files |= {f"val/{k}.png": picture(k)[: 60 if k < 2 else None] for k in range(3)}
    with pytest.raises(InputError, match=r"2 of 3 held-out images are broken, .*: val/0.png \("):
        survey(filled(tmp_path / "held", files))


@pytest.mark.parametrize("whole", [True, False])
def test_an_image_that_is_too_large_is_told_as_that(tmp_path, whole, recwarn):
    Image.new("1", (50_000, 5_000)).save(tmp_path / "a.png")
    assert "at most 89,478,485 pixels" in look(str(tmp_path / "a.png"), whole).fault


def test_only_files_of_one_length_are_read_for_copies(tmp_path, monkeypatch):
    dataset = filled(tmp_path / "x", {f"{k}.png": picture(k, (20 + k, 20)) for k in range(5)})
    monkeypatch.setattr("evqgan.data.copies._digest", None)
    assert survey(dataset).copies == []


def test_a_look_tells_how_far_it_is(tmp_path, monkeypatch):
    dataset, told = filled(tmp_path / "x", {f"{k}.png": picture(k) for k in range(3)}), []

    @contextlib.contextmanager
    def heartbeat(what, log, unit):
        told.append(what)
        yield lambda *at: told.append(at)

    monkeypatch.setattr(module, "heartbeat", heartbeat)
    survey(dataset)
    assert told == ["looking at 3 images", (1, 3), (2, 3), (3, 3)]


def test_every_image_is_decoded_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DECODED", 1)
    dataset = filled(tmp_path / "x", {f"{k}.png": picture(k) for k in range(3)})
    assert [survey(dataset, whole=whole).whole for whole in (False, True)] == [False, True]
