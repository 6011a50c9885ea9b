"""The order of the data: exact, elastic, restartable; every example once; bad input is named.

Bad input is counted, too.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from evqgan.core import mesh
from evqgan.core.errors import InputError
from evqgan.data import named, pipeline, stored_ids, transforms
from evqgan.data.dataset import CROPS, Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.pipeline import eval_batches, identity, open_split, train_batches
from evqgan.data.views import training_view, validation_view
from evqgan.evals import batches as held_out
from evqgan.training import prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def generated(**changes):
    """Images that differ in every example.

    They are cropped and flipped from a wider picture when `size` says so.
    """
    return Dataset(**{"name": "generated", "size": 8, "classes": 3, "num_examples": 20, **changes})


def folder_of(path, count, broken=(), shape=(12, 20)):
    """A folder of numbered images whose every pixel is unlike the others'.

    Those in `broken` are cut short.
    """
    path.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (*shape, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data = buffer.getvalue()
        (path / f"{k:03d}.png").write_bytes(data[: len(data) // 2] if k in broken else data)
    return str(path)


def take(batches, count):
    with contextlib.closing(batches):
        return [next(batches) for _ in range(count)]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return Dataset(
        folder=folder_of(tmp_path_factory.mktemp("photos"), 20),
        train="all",
        size=8,
        crop="random_resized",
    )


# Rows of a batch of eight that processes hold.
# They are all, halves, as wires may order them, and shared by two each.
ROWS = (
    [range(8)],
    [range(4), range(4, 8)],
    [[0, 1, 6, 7], [2, 3, 4, 5]],
    [[0, 1, 2, 3], [4, 5, 6, 7]] * 2,
)


@pytest.mark.parametrize("rows", ROWS[1:])
def test_what_processes_read_are_rows_of_the_batches_of_one(photos, rows):
    whole = take(train_batches(photos, 8, seed=3), 7)
    for held in rows:
        for batch, part in zip(
            whole, take(train_batches(photos, 8, seed=3, rows=np.array(held)), 7), strict=True
        ):
            assert batch["image"].shape == (8, 8, 8, 3) and batch["image"].dtype == np.uint8
            assert batch["label"].dtype == np.int32
            for key in ("image", "label"):
                np.testing.assert_array_equal(part[key], batch[key][list(held)])


def test_a_restart_goes_on_where_it_stopped(photos):
    whole = take(train_batches(photos, 8, seed=3), 9)
    assert_same(take(train_batches(photos, 8, seed=3, start=4), 5), whole[4:])
    of_others = [
        take(train_batches(photos, 8, seed=3, start=6, rows=rows), 1)[0]["image"]
        for rows in ROWS[1]
    ]
    np.testing.assert_array_equal(np.concatenate(of_others), whole[6]["image"])


def test_seeds_and_epochs_differ(photos):
    one, other = (
        np.concatenate([b["image"] for b in take(train_batches(photos, 4, seed=s), 10)])
        for s in (0, 1)
    )
    assert (one != other).any()
    assert (one[:20] != one[20:]).any(), "the second epoch has an order and crops of its own"


def test_every_epoch_has_every_example_once():
    dataset = generated(flip=False)
    labels, images = [], []
    for batch in take(train_batches(dataset, 6, seed=0), 20):  # 120 = 6 epochs of 20
        images.extend(image.tobytes() for image in batch["image"])
        labels.extend(batch["label"])
    source = open_split(dataset, "train")
    expected = sorted((source[i]["image"].tobytes(), source[i]["label"]) for i in range(20))
    orders = []
    for epoch in range(6):
        part = list(zip(images, labels, strict=True))[20 * epoch : 20 * epoch + 20]
        assert sorted(part) == expected
        orders.append(tuple(image for image, _ in part))
    assert len(set(orders)) == 6


def test_a_batch_may_be_larger_than_the_data():
    batch = take(train_batches(generated(num_examples=3), 16, seed=0), 2)[1]
    assert batch["image"].shape == (16, 8, 8, 3)


@pytest.mark.parametrize("rows", ROWS[:3])
@pytest.mark.parametrize("count", [1, 16, 20])
def test_evaluation_has_every_example_once(rows, count):
    dataset = generated(num_examples=count)
    source = open_split(dataset, "train")
    parts = [list(eval_batches(dataset, "train", 8, rows=held)) for held in rows]
    assert {len(part) for part in parts} == {-(-count // 8)}
    seen = []
    places = [
        next((h, list(held).index(row)) for h, held in enumerate(rows) if row in held)
        for row in range(8)
    ]
    for batches in zip(*parts, strict=True):  # the rows in turn are the order of the source
        for h, j in places:
            image, label, valid = (batches[h][key][j] for key in ("image", "label", "valid"))
            assert valid.dtype == bool and image.shape == (8, 8, 3)
            if valid:
                seen.append((image.tobytes(), label))
            else:
                assert not image.any() and len(seen) == count
    assert seen == [(source[i]["image"].tobytes(), source[i]["label"]) for i in range(count)]


def test_views_of_training_and_validation(tmp_path):
    path = folder_of(tmp_path / "one", 2, shape=(12, 20))
    first = open_split(Dataset(folder=path, size=6), "all")[0]["image"]
    image = transforms.decode(first)
    rng = np.random.default_rng(0)
    resized = transforms.cover(image, (6, 6))
    assert resized.shape[:2] == (6, 10)
    windows = {resized[:, x : x + 6].tobytes() for x in range(5)}
    plain = Dataset(folder=path, size=6, flip=False)
    assert {training_view(image, plain, rng).tobytes() for _ in range(100)} == windows
    np.testing.assert_array_equal(validation_view(image, plain), resized[:, 2:8])
    native = Dataset(folder=path, size=(12, 6), crop="native", flip=True)
    crops = [image[:, x : x + 6] for x in range(15)]
    views = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    assert {training_view(image, native, rng).tobytes() for _ in range(1000)} == views
    np.testing.assert_array_equal(validation_view(image, native), image[:, 7:13])
    centre = Dataset(folder=path, size=(12, 6), crop="centre", flip=True)
    views = {image[:, 7:13].tobytes(), image[:, 7:13][:, ::-1].tobytes()}
    assert {training_view(image, centre, rng).tobytes() for _ in range(100)} == views
    for crop in CROPS:
        shape = (30, 30) if crop == "adm" else (30, 20)
        large = Dataset(folder=path, size=shape, crop=crop)
        assert training_view(image, large, rng).shape == (*shape, 3)
        assert validation_view(image, large).shape == (*shape, 3)
    adm = Dataset(folder=path, size=6, crop="adm", flip=False)
    np.testing.assert_array_equal(validation_view(image, adm), transforms.adm_crop(image, 6))
    np.testing.assert_array_equal(training_view(image, adm, rng), transforms.adm_crop(image, 6))


def test_a_broken_image_is_replaced_by_its_neighbour(tmp_path, caplog):
    whole = folder_of(tmp_path / "whole", 20)
    broken = folder_of(tmp_path / "broken", 20, broken=[5])
    datasets = [Dataset(folder=path, train="all", size=8) for path in (whole, broken)]
    expected, batches = train_batches(datasets[0], 4, seed=0), train_batches(datasets[1], 4, seed=0)
    with contextlib.closing(expected), contextlib.closing(batches):
        pairs = list(itertools.islice(zip(expected, batches, strict=False), 15))
        assert batches.skipped() == 1 and expected.skipped() == 0
    changed = [(one["image"][j], other["image"][j]) for one, other in pairs for j in range(4)]
    changed = [(one, other) for one, other in changed if (one != other).any()]
    assert len(changed) == 3  # of 60 examples, three epochs, only those that are the broken image
    warnings = [
        record.getMessage() for record in caplog.records if "Skipped" in record.getMessage()
    ]
    assert len(warnings) == 1 and "005.png: expected an image" in warnings[0]


def test_a_broken_image_is_named_once_however_often_it_is_read(tmp_path, caplog):
    """As by both stages of a run, and by each of their evaluations."""
    dataset = Dataset(folder=folder_of(tmp_path, 10, broken=[3]), train="all", size=8)
    for _ in range(2):
        with contextlib.closing(train_batches(dataset, 4, seed=0)) as batches:
            take(batches, 3)
            assert batches.skipped() == 1
        held_out = list(eval_batches(dataset, "all", 4))
        assert sum(batch["valid"].sum() for batch in held_out) == 9
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if "Skipped" in message]) == 1


def test_a_broken_image_is_not_evaluated(tmp_path):
    dataset = Dataset(folder=folder_of(tmp_path, 10, broken=[7]), size=8)
    valid = np.concatenate([batch["valid"] for batch in eval_batches(dataset, "sorted", 4)])
    np.testing.assert_array_equal(valid, [True] * 7 + [False, True, True] + [False] * 2)


def test_of_several_processes_one_that_cannot_read_takes_part_to_the_end(tmp_path, monkeypatch):
    """In what all compute together, where the others would wait for it; then it raises."""
    dataset = Dataset(folder=folder_of(tmp_path, 10, broken=[3, 7]), size=8, max_bad=0.0)
    dataset = dataclasses.replace(dataset, validation="sorted")
    read = held_out.Batches(dataset, 4, np.arange(4), mesh.make(devices=jax.devices()[:1]))
    monkeypatch.setattr(held_out.multihost_utils, "process_allgather", lambda x: x[None])
    for processes, taken in ((1, 0), (2, 3)):
        monkeypatch.setattr(jax, "process_count", lambda n=processes: n)
        valid = []
        with pytest.raises(InputError, match="of 10 images do not decode"), held_out.errors_last():
            for batch in read():
                valid.append(np.asarray(batch["valid"]).sum())
        assert len(valid) == taken and sum(valid) in (0, 8)
    with pytest.raises(InputError, match="do not decode"), held_out.errors_last():
        list(read())
        raise ValueError("which may come of it")


def test_processes_forgive_as_many_broken_images_as_one(tmp_path, monkeypatch):
    """Each meets those of its own rows alone."""
    dataset = Dataset(folder=folder_of(tmp_path, 10, broken=[3]), size=8, max_bad=0.15)
    dataset = dataclasses.replace(dataset, validation="sorted")
    read = held_out.Batches(dataset, 4, np.arange(4), mesh.make(devices=jax.devices()[:1]))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for of_other in (0, 1):
        both = lambda x, other=of_other: np.array([x, other])  # noqa: E731
        monkeypatch.setattr(held_out.multihost_utils, "process_allgather", both)
        with contextlib.ExitStack() as stack:
            if of_other:
                message = "2 of 10 images do not decode, .*max_bad = 0.15"
                stack.enter_context(pytest.raises(InputError, match=message))
            stack.enter_context(held_out.errors_last())
            assert len(list(read())) == 3


def test_too_many_broken_images_stop(tmp_path):
    path = folder_of(tmp_path, 20, broken=[3, 4, 5])
    message = (
        "3 of 20 images do not decode, .* config.dataset.max_bad = 0.1; "
        "the last was .*png: .*; repair or remove"
    )
    with pytest.raises(InputError, match=message) as caught:
        take(train_batches(Dataset(folder=path, train="all", size=8, max_bad=0.1), 4, seed=0), 30)
    assert "\n" not in str(caught.value)
    batches = train_batches(Dataset(folder=path, train="all", size=8, max_bad=0.15), 4, seed=0)
    with contextlib.closing(batches):
        for _ in range(10):
            next(batches)
        assert batches.skipped() == 3
    one = folder_of(tmp_path / "one", 10, broken=[2])
    # A single one is forgiven.
    take(train_batches(Dataset(folder=one, train="all", size=8), 4, seed=0), 5)
    with pytest.raises(InputError, match="1 of 10 images"):
        take(train_batches(Dataset(folder=one, train="all", size=8, max_bad=0), 4, seed=0), 5)


@pytest.mark.parametrize("training", [True, False])
def test_batches_that_are_closed_end_in_the_midst_of_one(training, monkeypatch):
    """Of many images one takes minutes, and a process ends after its threads."""
    size, made, load = 2000, [], DecodedImages.load
    began, goes_on = threading.Event(), threading.Event()

    def slow(self, index):
        made.append(index)
        began.set()
        assert goes_on.wait(60)
        return load(self, index)

    monkeypatch.setattr(DecodedImages, "load", slow)
    dataset = generated(num_examples=8 * size)
    batches = train_batches(dataset, size, 0) if training else eval_batches(dataset, "train", size)

    def read():
        with contextlib.suppress(RuntimeError):  # ours, or that of an executor which is closed
            next(batches)

    reader = threading.Thread(target=read)
    reader.start()
    assert began.wait(60)
    closer = threading.Thread(target=batches.close)
    closer.start()
    assert batches.ended.wait(60)
    goes_on.set()  # the image at hand is made, and no other
    closer.join(60)
    reader.join(60)
    for thread in threading.enumerate():  # Python waits for these before it ends
        if thread.name.startswith("grain-prefetch"):
            thread.join(60)
            assert not thread.is_alive()
    assert len(made) < size / 2


def test_nothing_is_said_behind_the_error_of_too_many(tmp_path, caplog):
    """Other threads read on for a while: the error is the last line."""
    dataset = Dataset(folder=folder_of(tmp_path, 20, broken=[3, 4, 5, 6]), size=8)
    images = DecodedImages(open_split(dataset, "sorted"), 0.1)
    assert images.load(3) is images.load(4) is None
    for index in (5, 6):
        with pytest.raises(InputError, match=f"the last was .*{index}.png"):
            images.load(index)
    said = [record.getMessage() for record in caplog.records]
    assert ["003.png" in said[0], "004.png" in said[1]] == [True, True] and len(said) == 2


def test_a_data_set_of_broken_images_ends(tmp_path):
    dataset = Dataset(
        folder=folder_of(tmp_path, 3, broken=[0, 1, 2]), train="all", size=8, max_bad=1
    )
    with pytest.raises(InputError, match="no image of the data set decodes, .* give another"):
        take(train_batches(dataset, 2, seed=0), 1)


def test_labels_follow_the_images(tmp_path):
    for label, level in enumerate((0, 100, 200)):
        (tmp_path / f"class{label}").mkdir()
        for k in range(4):
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"class{label}" / f"{k}.png")
    for batch in take(
        train_batches(Dataset(folder=str(tmp_path), train="all", size=8), 4, seed=0), 6
    ):
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"] * 100)


def test_generated_images_are_fixed_and_their_splits_apart():
    dataset = generated(size=(16, 24), num_examples=32)
    train, held = open_split(dataset, "train"), open_split(dataset, "validation")
    assert (len(train), len(held), len(open_split(dataset, "train[:25%]+validation"))) == (
        32,
        4,
        12,
    )
    images = [source[i]["image"] for source in (train, held) for i in range(len(source))]
    assert all(image.shape == (16, 24, 3) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 36
    np.testing.assert_array_equal(images[5], open_split(dataset, "train")[5]["image"])
    assert train.class_names == ("0", "1", "2") and [train[i]["label"] for i in range(4)] == [
        0,
        1,
        2,
        0,
    ]
    assert open_split(generated(classes=0), "train").class_names == ()


def test_digits_by_name(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    dataset = Dataset(name="digits", size=32, flip=False)
    pipeline.prepare(dataset)
    assert len(open_split(dataset, "train")) == 1433
    batch = take(train_batches(dataset, 8, seed=0), 1)[0]
    assert batch["image"].shape == (8, 32, 32, 3) and batch["image"].max() == 255
    held = list(eval_batches(dataset, "validation[:10]", 8))
    assert sum(b["valid"].sum() for b in held) == 10
    assert len(open_split(dataset, "train[:50%]+validation")) == 716 + 364


@pytest.mark.parametrize(
    ("name", "classes"), [("imagenet2012", 1000), ("celeb_a_hq/256", 0), ("mnist", 10)]
)
def test_any_tfds_name(name, classes):
    """tfds' own stand-in data take the place of the images; everything else is the real path."""
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=7):
        dataset = Dataset(name=name, size=16)
        assert len(open_split(dataset, "train").class_names) == classes
        batch = take(train_batches(dataset, 4, seed=0), 3)[2]
        assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32 and (batch["label"] < max(1, classes)).all()
        assert sum(b["valid"].sum() for b in eval_batches(dataset, "validation", 4)) == 7


def test_names_that_cannot_be_read(data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    for changes, message in [
        ({"name": "digit"}, "there is no data set 'digit'; did you mean 'digits'"),
        ({"name": "imagnet2012"}, "did you mean 'imagenet2012'"),
        (
            {"name": "celeb_a_hq/999"},
            "'celeb_a_hq/999' is refused by tfds: .*BuilderConfig 999 not found",
        ),
        (
            {"name": "imagenet2012"},
            "'imagenet2012' is not in .* cannot be prepared there: Manual dir.*`tfds build",
        ),
        (
            {"name": "digits", "data_dir": str(tmp_path / "file")},
            "cannot be prepared there: .*data_dir .or TFDS_",
        ),
        (
            {"name": "digits", "train": "tain"},
            "'digits' in .* cannot give the split 'tain': .*; its splits are train, validation",
        ),
        (
            {"name": "digits", "train": "train[:0]"},
            "'digits' in .* cannot give the split 'train\\[:0\\]'",
        ),
        ({"name": "digits", "train": "train["}, "'digits' in .* cannot give the split 'train\\['"),
        (
            {"name": "digits", "train": "train[5000:]"},
            "'digits' in .* cannot give the split 'train\\[5000:\\]'",
        ),
        (
            {"name": "digits", "image_key": "imag"},
            "dataset.image_key: 'digits' has no 'imag'; did you mean 'image'",
        ),
        (
            {"name": "digits", "label_key": "lable"},
            "dataset.label_key: 'digits' has no 'lable'; did you mean 'label'",
        ),
        (
            {"name": "digits", "label_key": "image"},
            "label_key: 'image' of 'digits' is no whole number",
        ),
    ]:
        dataset = Dataset(**{"data_dir": data_dir, **changes})
        with pytest.raises(InputError, match=message) as caught:
            open_split(dataset, dataset.train)
        assert "\n" not in str(caught.value)


def test_tfrecord_is_refused_with_the_way_out(data_dir, tmp_path):
    builder = named.prepare("digits", data_dir)
    shutil.copytree(builder.data_path, tmp_path / "digits" / "1.0.0")
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(
        InputError, match=r"is written as tfrecord, expected array_record: convert it by .*from_tfr"
    ):
        open_split(Dataset(name="digits", data_dir=str(tmp_path)), "train")


def test_a_cut_record_file_stops_with_its_name(data_dir, tmp_path):
    path = tmp_path / "digits" / "1.0.0"
    shutil.copytree(named.prepare("digits", data_dir).data_path, path)
    (file,) = path.glob("*train.array_record*")
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(
        InputError, match=r"images do not decode.*record cannot be read .*remove .*1.0.0"
    ) as caught:
        take(train_batches(Dataset(name="digits", data_dir=str(tmp_path), size=32), 8, seed=0), 5)
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_named():
    for changes, message in [
        ({"name": ""}, "expects one of name \\(such as digits\\) and folder, got neither"),
        ({"folder": "x"}, "got both 'generated' and 'x'"),
        ({"size": 0}, "dataset.size expects a whole number from 1 or .*, got 0"),
        ({"size": (8, 8, 3)}, r"dataset.size expects .*, got \(8, 8, 3\)"),
        ({"crop": "adm", "size": (8, 16)}, "crop = 'adm' makes square images"),
        ({"min_scale": 0}, "dataset.min_scale expects a number above 0"),
        ({"max_bad": 2}, "dataset.max_bad expects a number from 0 to 1, got 2"),
        ({"num_examples": 0}, "dataset.num_examples expects a whole number from 1, got 0"),
        ({"workers": -1}, "dataset.workers expects a whole number from 0, got -1"),
    ]:
        with pytest.raises(InputError, match=message):
            generated(**changes)


def store(folder, dataset, views=3):
    """Stored ids of a folder of twenty images, each with its example and view written on it."""
    images = identity(open_split(dataset.of_images(), "all"))
    info = stored_ids.describe(
        dataset,
        {"train": images, "validation": images},
        [],
        views,
        0,
        100,
        (2, 2),
        1,
        {"fingerprint": ""},
    )
    stored_ids.begin(folder, info)
    for shard in stored_ids.shards(info):
        rows = np.arange(shard.start, shard.stop, dtype=np.uint16)[:, None, None, None, None]
        number = info["splits"][shard.split]["views"]
        ids = np.broadcast_to(rows, (len(rows), number, 2, 2, 1)).copy()
        ids[:, :, 1] = np.arange(number)[:, None, None]
        labels = np.full(len(rows), 0, np.int32)
        labels[rows[:, 0, 0, 0, 0] == 3] = stored_ids.BAD if shard.split == "validation" else 0
        for path, array in zip(stored_ids.paths(folder, shard), (ids, labels), strict=True):
            np.save(path, array)


@pytest.fixture
def stored(photos, tmp_path):
    dataset = dataclasses.replace(photos, validation="all", codes=str(tmp_path / "ids"))
    store(tmp_path / "ids", dataset)
    return dataset


def test_stored_ids_come_in_the_order_of_the_images(stored, monkeypatch):
    monkeypatch.setattr(pipeline, "training_view", lambda image, dataset, rng: image[:1, :1])
    images = take(train_batches(stored.of_images(), 8, seed=3), 8)
    files = open_split(stored.of_images(), "all")
    source = [transforms.decode(files[i]["image"])[0, 0].tobytes() for i in range(20)]
    for n, (one, other) in enumerate(
        zip(images, take(train_batches(stored, 8, seed=3), 8), strict=True)
    ):
        assert other.keys() == {"ids", "label"} and other["ids"].shape == (8, 2, 2, 1)
        assert other["ids"].dtype == np.int32 and other["label"].dtype == np.int32
        assert [source.index(image.tobytes()) for image in one["image"]] == list(
            other["ids"][:, 0, 0, 0]
        )
        # Epochs take views in turn.
        assert list(other["ids"][:, 1, 0, 0]) == [(8 * n + j) // 20 % 3 for j in range(8)]


def test_stored_ids_go_on_where_they_stopped_on_any_number_of_processes(stored):
    whole = take(train_batches(stored, 8, seed=3), 9)
    assert_same(take(train_batches(stored, 8, seed=3, start=4), 5), whole[4:])
    parts = [
        take(train_batches(stored, 8, seed=3, start=6, rows=rows), 1)[0]["ids"] for rows in ROWS[1]
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole[6]["ids"])


def test_stored_ids_are_mapped_and_not_copied_where_they_are_unpickled(stored):
    ids = open_split(stored, "all")
    there = pickle.loads(pickle.dumps(ids))
    assert len(pickle.dumps(ids)) < 1000 and isinstance(there.shards[0], np.memmap)
    for index in range(len(ids)):
        np.testing.assert_array_equal(there.load(index, 2)["ids"], ids.load(index, 2)["ids"])


@pytest.mark.slow
def test_workers_read_stored_ids(stored):
    whole = take(train_batches(stored, 8, seed=3), 9)
    workers = dataclasses.replace(stored, workers=2)
    assert_same(take(train_batches(workers, 8, seed=3, start=4), 5), whole[4:])


def test_stored_ids_are_evaluated_once_but_for_what_did_not_decode(stored):
    batches = list(eval_batches(stored, "all", 8))
    assert [batch["ids"].shape for batch in batches] == [(8, 2, 2, 1)] * 3
    seen = np.concatenate([batch["ids"][batch["valid"]][:, 0, 0, 0] for batch in batches])
    np.testing.assert_array_equal(seen, [i for i in range(20) if i != 3])
    invalid = np.concatenate([batch["ids"][~batch["valid"]] for batch in batches])
    assert len(invalid) == 5 and not invalid.any()
    assert all((batch["label"] >= 0).all() for batch in batches)


def test_stored_ids_need_no_images(stored):
    away = dataclasses.replace(stored, folder=f"/nowhere/{pathlib.Path(stored.folder).name}")
    pipeline.prepare(away)
    source = open_split(away, away.train)
    assert len(source) == 20 and source.class_names == ()
    take(train_batches(away, 8, seed=0), 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"size": 16},
            r"was made with config.dataset.size = \[8, 8\], now it is \[16, 16\]: "
            "use the tokenizer",
        ),
        (
            {"crop": "resize"},
            "was made with config.dataset.crop = 'random_resized', now it is 'resize'",
        ),
        ({"flip": False}, "was made with config.dataset.flip = True, now it is False"),
        (
            {"folder": "/nowhere/else"},
            "was made with config.dataset.folder = 'photos.*', now it is 'else'",
        ),
        ({"codes": "/nowhere"}, "'/nowhere' holds no stored ids"),
    ],
)
def test_stored_ids_of_other_data_are_refused(stored, changes, message):
    with pytest.raises(InputError, match=message) as error:
        train_batches(dataclasses.replace(stored, **changes), 8, seed=0)
    assert "\n" not in str(error.value)


def test_stored_ids_of_a_folder_that_grew_are_refused(stored, tmp_path):
    folder = folder_of(tmp_path / pathlib.Path(stored.folder).name, 21)
    with pytest.raises(
        InputError, match=r"has 21 images in 'all', the stored ids in '.*' are of 20: --mode=encode"
    ):
        open_split(dataclasses.replace(stored, folder=folder), "all")
    with pytest.raises(
        InputError, match=r"train = 'all' and .validation = 'all' alone, not of 'train'"
    ):
        eval_batches(stored, "train", 8)


def test_stored_ids_of_as_many_other_images_are_refused(stored, tmp_path):
    folder = pathlib.Path(folder_of(tmp_path / pathlib.Path(stored.folder).name, 20))
    first = min(folder.rglob("*.*"))
    first.rename(first.with_stem("renamed"))
    with pytest.raises(
        InputError, match=r"has 20 images in 'all', the stored ids in '.*' are of others, as many: "
    ):
        open_split(dataclasses.replace(stored, folder=str(folder)), "all")


def test_importing_the_pipeline_is_quick():
    heavy = "{'tensorflow_datasets', 'sklearn', 'skimage'}"
    code = f"import sys, evqgan.data.pipeline; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_data_of_a_run_in_a_line(tmp_path, data_dir):
    def line(**keys):
        dataset = Dataset(**keys)
        return pipeline.summary(dataset, open_split(dataset, dataset.train))

    folder = tmp_path / "images"
    for name, count in (("cat", 30), ("owl", 20)):
        folder_of(folder / name, count)
    (folder / "cat" / "a.svg").write_text("")
    assert line(folder=str(folder)) == (
        "45 training images in 2 classes (cat 28, owl 17); "
        "5 held out: one of ten by the hash of its name; 1 file ignored: .svg 1"
    )
    keys = {"label_key": "", "train": "sorted[:40]", "validation": "sorted[40:]"}
    assert line(folder=str(folder), **keys) == (
        "40 training images, no classes; 10 held out: the split 'sorted[40:]'; "
        "1 file ignored: .svg 1"
    )
    with pytest.raises(InputError, match="has no split 'vali'"):
        line(folder=str(folder), validation="vali")
    assert line(name="generated", classes=30, num_examples=100) == (
        "100 training images in 30 classes (3 to 4 each); 12 held out: the split 'validation'"
    )
    assert line(name="digits", data_dir=data_dir) == (
        "1,433 training images in 10 classes; 364 held out: the split 'validation'"
    )


@pytest.mark.parametrize(("size", "said"), [(5, ""), (12, "a step sees every image 2.4 times")])
def test_a_batch_of_more_images_than_there_are_is_said(size, said):
    """It is filled by going through the data again."""
    dataset = Dataset(name="generated", size=8, num_examples=5, crop="centre", flip=False)
    _, line = prepare.open_data(ConfigDict({"batch_size": size}), dataset)
    assert line.endswith(said) and ("is more than there are" in line) == bool(said)
    with contextlib.closing(train_batches(dataset, size, 0)) as stream:
        images = next(stream)["image"]
    assert len(images) == size and len(np.unique(images, axis=0)) == 5


def test_images_that_go_while_a_run_begins_end_it(tmp_path):
    """The order of all would be another one, and no image would be found to be missing."""
    dataset = Dataset(folder=folder_of(tmp_path / "one", 20), size=8)
    source = open_split(dataset, dataset.train)
    with contextlib.closing(train_batches(dataset, 2, seed=0)) as batches:
        pipeline.check_identity(batches, identity(source))
    (tmp_path / "one" / pathlib.Path(source.paths[0]).name).unlink()
    with (
        contextlib.closing(train_batches(dataset, 2, seed=0)) as batches,
        pytest.raises(InputError, match="came or went while the run began"),
    ):
        pipeline.check_identity(batches, identity(source))
