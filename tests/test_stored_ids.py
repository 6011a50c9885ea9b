"""Stored ids: written whole, by any number of hosts, in any order.

They are read only if they are what they should be.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from test_pipeline import folder_of

from evqgan.core.errors import InputError
from evqgan.data import pipeline, stored_ids, stored_split
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import DecodedImages
from evqgan.data.pipeline import identity, open_split
from evqgan.data.views import training_view, validation_view

CODES = 300
TOKENIZER = {"fingerprint": "abc"}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stored_ids, "ROWS", 7)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return Dataset(
        folder=folder_of(tmp_path_factory.mktemp("photos"), 20), size=8, crop="random_resized"
    )


def to_ids(images):
    """A tokenizer that any pixel matters to: uint8 [B,8,8,3] -> ids [B,4,4,1] below CODES."""
    return images.reshape(-1, 4, 2, 4, 2, 3).astype(int).sum(axis=(2, 4, 5))[..., None] % CODES


def described(dataset, views=3, seed=5, tokenizer=TOKENIZER, codebook=CODES):
    sizes = {split: identity(open_split(dataset, split)) for split in stored_ids.SPLITS}
    return stored_ids.describe(
        dataset, sizes, ["a", "b"], views, seed, codebook, (4, 4), 1, tokenizer
    )


def make(folder, dataset, function=to_ids, host=0, hosts=1, report=None, **how):
    """As --mode=encode does, in batches of four images -> info."""
    info = described(dataset, **how)
    examples = {
        split: DecodedImages(open_split(dataset, split), dataset.max_bad)
        for split in stored_ids.SPLITS
    }

    def batches(split, start, stop):
        views = info["splits"][split]["views"]
        random = views if split == "train" else 0
        return pipeline.view_batches(
            examples[split], dataset, random, info["seed"], max(1, 4 // views), start, stop
        )

    stored_ids.begin(folder, info)
    stored_ids.encode(folder, info, batches, function, host, hosts, report, dataset.max_bad)
    return info


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stored(photos, tmp_path):
    make(tmp_path / "ids", photos)
    return tmp_path / "ids"


def test_ids_are_of_the_views_that_training_crops(photos, stored):
    assert sorted(files_of(stored)) == [
        "info.json",
        *(f"train-0000{s}-of-00003{end}" for s in range(3) for end in (".labels.npy", ".npy")),
        "validation-00000-of-00001.labels.npy",
        "validation-00000-of-00001.npy",
    ]
    train, held = (stored_split.StoredSplit(stored, split) for split in stored_ids.SPLITS)
    assert (len(train), train.views, len(held), held.views) == (17, 3, 3, 1)
    assert train.class_names == ("a", "b") and isinstance(train.shards[0], np.memmap)
    sources = [DecodedImages(open_split(photos, split), 0) for split in stored_ids.SPLITS]
    different = set()
    for i in range(len(train)):
        for v in range(3):
            view = training_view(sources[0][i]["image"], photos, np.random.default_rng((5, i, v)))
            example = train.load(i, v)
            np.testing.assert_array_equal(example["ids"], to_ids(view[None])[0])
            assert (
                example["ids"].dtype == np.int32
                and example["label"] == 0
                and example["label"].dtype == np.int32
            )
            different.add(example["ids"].tobytes())
    assert len(different) > 45  # few of the crops fall on the same place
    for i in range(len(held)):
        view = validation_view(sources[1][i]["image"], photos)
        np.testing.assert_array_equal(held.load(i)["ids"], to_ids(view[None])[0])


def test_a_shard_that_is_gone_is_made_again_and_no_other(photos, stored):
    before = files_of(stored)
    times = {path.name: path.stat().st_mtime_ns for path in stored.iterdir()}
    (stored / "train-00001-of-00003.npy").unlink()
    done = []
    make(stored, photos, report=lambda done_now, total, seconds: done.append((done_now, total)))
    assert files_of(stored) == before
    assert done[-1] == (21, 21)  # seven examples of three views
    changed = {
        path.name for path in stored.iterdir() if path.stat().st_mtime_ns != times[path.name]
    }
    assert changed == {"train-00001-of-00003.npy", "train-00001-of-00003.labels.npy"}


def test_a_kill_in_the_middle_leaves_whole_shards_only(photos, stored, tmp_path):
    calls = []

    def killed(images):
        calls.append(len(images))
        if len(calls) == 10:
            raise KeyboardInterrupt
        return to_ids(images)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", photos, killed)
    left = files_of(tmp_path / "cut")
    assert 1 < len(left) < len(files_of(stored)) and left.items() <= files_of(stored).items()
    with pytest.raises(
        InputError,
        match=r"not complete: train-00001-of-00003, .* of 4 shards are missing; the same",
    ):
        stored_split.StoredSplit(tmp_path / "cut", "train")
    make(tmp_path / "cut", photos)
    assert files_of(tmp_path / "cut") == files_of(stored)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_hosts_make_the_files_of_one(photos, stored, tmp_path, order):
    for host in order:
        # Two shards of four.
        assert not (tmp_path / "two").exists() or len(files_of(tmp_path / "two")) == 5
        make(tmp_path / "two", photos, host=host, hosts=2)
    assert files_of(tmp_path / "two") == files_of(stored)


def test_ids_take_the_smallest_type_that_holds_them(photos, tmp_path):
    for codebook, dtype in ((2**16, np.uint16), (2**16 + 1, np.int32)):
        make(
            tmp_path / str(codebook),
            photos,
            lambda x, top=codebook - 1: to_ids(x) * 0 + top,
            codebook=codebook,
        )
        stored = stored_split.StoredSplit(tmp_path / str(codebook), "train")
        assert stored.shards[0].dtype == dtype and (stored.load(16, 2)["ids"] == codebook - 1).all()


def test_a_shard_is_bounded(photos, monkeypatch):
    monkeypatch.setattr(stored_ids, "BYTES", 4 * 4 * 2 * 3 * 5)
    info = described(photos)
    assert info["splits"]["train"]["rows"] == 5 and info["splits"]["validation"]["rows"] == 7
    parts = [(shard.start, shard.stop) for shard in stored_ids.shards(info)]
    assert parts == [(0, 5), (5, 10), (10, 15), (15, 17), (0, 3)]


def test_what_does_not_decode_is_replaced_in_training_and_marked_in_validation(tmp_path):
    folder = folder_of(tmp_path / "broken", 10, broken=[2, 8])
    dataset = Dataset(folder=folder, train="sorted[:7]", validation="sorted[7:]", size=8)
    counts = {"train": {"examples": 7}, "validation": {"examples": 3}}
    info = stored_ids.describe(dataset, counts, [], 1, 0, CODES, (4, 4), 1, TOKENIZER)
    examples = {
        split: DecodedImages(open_split(dataset, getattr(dataset, split)), 1.0)
        for split in stored_ids.SPLITS
    }
    stored_ids.begin(tmp_path / "ids", info)

    def batches(split, *part):
        views = int(split == "train")
        return pipeline.view_batches(examples[split], dataset, views, 0, 4, *part)

    stored_ids.encode(tmp_path / "ids", info, batches, to_ids)
    train, held = (stored_split.StoredSplit(tmp_path / "ids", split) for split in stored_ids.SPLITS)
    image = examples["train"].load(3)["image"]
    expected = to_ids(training_view(image, dataset, np.random.default_rng((0, 2, 0)))[None])[0]
    np.testing.assert_array_equal(train.load(2)["ids"], expected)
    np.testing.assert_array_equal(held.labels, [0, stored_ids.BAD, 0])


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_forgive_as_many_broken_images_as_one(tmp_path, hosts):
    """Those of others, and of earlier calls, count: images of training have no mark but a note."""
    dataset = Dataset(folder=folder_of(tmp_path / "a", 30), size=8, max_bad=0.12)
    images = open_split(dataset, "train").paths
    for index in (1, 8, 15, 22):  # one of each shard
        pathlib.Path(dataset.folder, images[index]).write_bytes(b"broken")
    info, number = described(dataset), len(images)
    with pytest.raises(InputError, match=rf"4 of {number} .*do not decode, .*max_bad = 0.12"):
        for host in range(hosts):
            make(tmp_path / "ids", dataset, host=host, hosts=hosts)
    assert stored_ids.count_bad(tmp_path / "ids", info, "train") == 3
    with pytest.raises(InputError, match=f"4 of {number} train images do not decode"):
        make(tmp_path / "ids", dataset)  # which goes on
    make(tmp_path / "ids", dataclasses.replace(dataset, max_bad=0.15))
    assert stored_ids.count_bad(tmp_path / "ids", info, "train") == 4
    with pytest.raises(InputError, match=f"4 of {number} train images do not decode"):
        stored_ids.check_bad(tmp_path / "ids", info, "train", dataset.max_bad)
    note = json.loads((tmp_path / "ids" / "train-00001-of-00004.bad.json").read_text())
    assert note == [8]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 6}, "holds other ids, seed: 5 -> 6: give another --out"),
        ({"views": 2}, "splits.train.views: 3 -> 2"),
        (
            {"tokenizer": {"fingerprint": "abd"}},
            "holds other ids, tokenizer.fingerprint: abc -> abd",
        ),
        ({"codebook": 64}, "holds other ids, codes: 300 -> 64"),
    ],
)
def test_a_folder_keeps_to_what_it_was_made_for(photos, stored, changes, message):
    before = files_of(stored)
    with pytest.raises(InputError, match=message) as error:
        make(stored, photos, **changes)
    assert "\n" not in str(error.value) and files_of(stored) == before


def test_shards_without_their_info_are_not_taken_over(photos, stored):
    (stored / "info.json").unlink()
    with pytest.raises(
        InputError, match="holds shards of ids, but no info.json: give another --out"
    ):
        make(stored, photos)


def changed(file, function):
    info = json.loads(file.read_text())
    function(info)
    file.write_text(json.dumps(info))


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda file: file.unlink(),
            "holds no stored ids .*info.json.: make them with --mode=encode",
        ),
        (lambda file: file.write_text("{"), "is not what --mode=encode writes .JSONDecodeError"),
        (
            lambda file: file.write_bytes(b"\xff"),
            "is not what --mode=encode writes .UnicodeDecodeError",
        ),
        (lambda file: file.write_text("[]"), "is not what --mode=encode writes .TypeError"),
        (lambda file: changed(file, lambda x: x.pop("latent")), "KeyError: 'latent'"),
        (lambda file: changed(file, lambda x: x.update(format="other")), "expected the format"),
        (lambda file: changed(file, lambda x: x.update(codes="64")), "expected the format"),
        (lambda file: changed(file, lambda x: x.update(codes=-1)), "expected the format"),
        (lambda file: changed(file, lambda x: x.update(latent=[4, 4, 4])), "expected the format"),
        (
            lambda file: changed(file, lambda x: x["splits"]["train"].update(rows=0)),
            "expected the format",
        ),
        (lambda file: changed(file, lambda x: x["splits"].pop("train")), "KeyError: 'train'"),
    ],
)
def test_an_info_that_is_none_is_refused(stored, damage, message):
    damage(stored / "info.json")
    with pytest.raises(InputError, match=message) as error:
        stored_split.StoredSplit(stored, "train")
    assert "\n" not in str(error.value)


def test_missing_shards_are_named(photos, tmp_path):
    stored_ids.begin(tmp_path, described(photos))
    names = ", ".join(f"train-0000{s}-of-00003" for s in range(3))
    with pytest.raises(
        InputError,
        match=f"not complete: {names}, validation-00000-of-00001 of 4 shards are missing",
    ):
        stored_split.StoredSplit(tmp_path, "validation")


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda file: np.save(file, np.zeros((7, 3, 4, 4, 1), np.int32)),
            r"expected uint16 .*, got int32 \[7",
        ),
        (
            lambda file: np.save(file, np.zeros((6, 3, 4, 4, 1), np.uint16)),
            r"expected uint16 .*, got uint16 \[6",
        ),
        (
            lambda file: np.save(file, np.array([{}] * 7, object), allow_pickle=True),
            "expected uint16",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:500]), "expected uint16"),
        (lambda file: file.write_bytes(b""), "expected uint16"),
        (lambda file: file.write_bytes(b"\x80\x04none"), "expected uint16"),
        (lambda file: np.savez(file.open("wb"), np.zeros(3)), "expected uint16"),
    ],
)
def test_shards_that_are_none_are_refused(stored, damage, message):
    damage(stored / "train-00001-of-00003.npy")
    with pytest.raises(
        InputError, match=rf"train-00001-of-00003.npy: {message}.*; remove this file"
    ) as error:
        stored_split.StoredSplit(stored, "train")
    assert "\n" not in str(error.value)


def test_ids_outside_the_codebook_are_refused(photos, stored, tmp_path):
    file = stored / "train-00001-of-00003.npy"
    ids = np.load(file)
    ids[2, 1, 3, 3] = CODES
    np.save(file, ids)
    reader = stored_split.StoredSplit(stored, "train")
    reader.load(9, 0)
    with pytest.raises(
        InputError,
        match=r"train-00001-of-00003.npy: expected ids from 0 to 299, got \d+ to 300; rem",
    ):
        reader.load(9, 1)
    many = 2**16 + 1
    make(tmp_path / "many", photos, codebook=many)
    file = tmp_path / "many" / "train-00000-of-00003.npy"
    np.save(file, np.load(file) - 10**6)
    with pytest.raises(InputError, match=r"expected ids from 0 to 65536, got -"):
        stored_split.StoredSplit(tmp_path / "many", "train").load(0)


@pytest.mark.parametrize(
    "split, wrong", [("train", -1), ("train", 2), ("validation", 2), ("validation", -2)]
)
def test_labels_that_are_none_are_refused(stored, split, wrong):
    file = next(stored.glob(f"{split}-00000*.labels.npy"))
    labels = np.load(file)
    labels[0] = wrong
    np.save(file, labels)
    with pytest.raises(
        InputError, match=rf"labels.npy: expected labels from {-(split != 'train')} to 1, got"
    ):
        stored_split.StoredSplit(stored, split)


def test_a_fingerprint_changes_with_whatever_changes():
    weights = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(2, np.float32)}
    same = stored_ids.weights_digest(dict(reversed(weights.items())))
    assert stored_ids.weights_digest(weights) == same
    others = [
        {**weights, "b": np.array([0, 1e-9], np.float32)},
        {**weights, "b": np.zeros(2, np.int32)},
        {"a": {"bias": weights["a"]["kernel"]}, "b": weights["b"]},
        {**weights, "a": {"kernel": np.ones((3, 2), np.float32)}},
        {"a": weights["a"]},
    ]
    assert len({same, *map(stored_ids.weights_digest, others)}) == 6


def test_one_batch_is_always_under_way():
    asked = []
    items = (asked.append(i) or i for i in range(4))
    assert [(item, len(asked)) for item in stored_ids.behind(items)] == [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 4),
    ]
