"""Runs whose workdir, data and results are on a bucket: a stand-in for one on this machine."""

import asyncio
import importlib.util
import itertools
import json
import os
import pathlib
import re
import signal
import threading
import time
import types

import jax
import numpy as np
import pytest

# launch/test.sh installs gcsfs, so that these tests run there. Owners, heartbeats and mirrors
# are guarded always, on local folders, by tests/test_stores.py.
if importlib.util.find_spec("gcsfs") is None:  # imported by `stores`, which sets it up before
    why = "gcsfs is not installed: pip install -r requirements-test.txt"
    pytest.skip(why, allow_module_level=True)

import aiohttp
import fsspec
import requests
import test_cluster
from bucket_server import environment_of, serving
from test_pipeline import folder_of
from test_stored_ids import make
from test_train import config_of, metrics_of, start, state_of

import evqgan
from evqgan.core import bucket_retries, checkpoint, cli, files, lease, npz, pictures, stores
from evqgan.core.errors import InputError
from evqgan.core.metrics_writer import Writer
from evqgan.data import named, stored_ids, stored_split
from evqgan.data.dataset import Dataset
from evqgan.inference import mode_sample
from evqgan.main import main
from evqgan.training import loop

GS_RUN = "gs://bucket/run"


@pytest.fixture(scope="module")
def store():
    """The objects of gs://bucket, and what is asked of it."""
    with serving() as (store, environment), environment_of(environment):
        fsspec.config.conf.setdefault("gcs", {})["token"] = "anon"  # read when it was imported
        yield store


@pytest.fixture(autouse=True)
def apart(store, tmp_path, monkeypatch):
    """An empty bucket and folder; nothing is left that is named as a bucket is."""
    store.fault = lambda method, path: None
    store.objects.clear()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = set(os.listdir(os.path.dirname(__file__)))
    yield
    assert not list(tmp_path.rglob("gs:*")) and not list(tmp_path.rglob("bucket"))
    assert set(os.listdir(os.path.dirname(__file__))) == before


def every(number, *kinds):
    """A fault of each `number`-th request: of these kinds, one after the other."""
    count = [0]

    def fault(method, path):
        count[0] += 1
        turn, rest = divmod(count[0], number)
        return None if rest else kinds[turn % len(kinds)]

    return fault


# Files.


def test_files_appear_whole_and_a_body_that_fails_leaves_the_old_one(store):
    files.save_json("gs://bucket/a/b.json", {"x": 1})
    assert json.loads(store.files()["a/b.json"]) == {"x": 1}
    assert files.read_json("gs://bucket/a/b.json") == {"x": 1}
    with pytest.raises(KeyError), files.atomic("gs://bucket/a/b.json") as file:
        file.write(b"half")
        raise KeyError
    assert files.read_json("gs://bucket/a/b.json") == {"x": 1}
    with pytest.raises(InputError, match=r"there is no gs://bucket/c\.json"):
        files.read_json("gs://bucket/c.json")
    files.tried("gs://bucket/a")
    assert list(store.files()) == ["a/b.json"]


def test_arrays_and_pictures_can_be_read_back(store):
    place, array = stores.path("gs://bucket/run"), np.arange(2_000_000, dtype=np.int32)
    npz.save(place / "a.npz", ids=array)
    with npz.opened(place / "a.npz") as saved:
        np.testing.assert_array_equal(saved["ids"], array)
    pieces = npz.load_pieces(place / "a.npz", "ids", 1_000_000)
    np.testing.assert_array_equal(np.concatenate(list(pieces.pieces)), array)
    pictures.save_png(place / "a.png", np.zeros((4, 4, 3), np.uint8))
    with stores.as_file(place / "a.png") as file:
        assert file.read_bytes() == store.files()["run/a.png"]
    assert not file.exists()
    assert stores.stamp(place / "a.png").size == len(store.files()["run/a.png"])
    assert abs(stores.stamp(place / "a.png").time - time.time()) < 60


def test_a_folder_of_results_is_replaced(store):
    for names in (["a.png", "b.png"], ["b.png", "c.png"], []):
        with files.swapped("gs://bucket/out/images") as folder:
            for name in names:
                (folder / name).write_text(f"{names}")
        assert sorted(store.files()) == [f"out/images/{name}" for name in names]
    store.put("out/edit_001.png", b"old")
    store.put("out/mine.png", b"mine")
    with files.exchanged("gs://bucket/out", lambda name: name.startswith("edit_")) as folder:
        (folder / "edit_000.png").write_text("new")
    assert store.files() == {"out/edit_000.png": b"new", "out/mine.png": b"mine"}


@pytest.mark.parametrize("kind", [503, 429, "drop"])
def test_what_fails_for_a_moment_is_tried_again(store, kind, request):
    if kind != 503:  # the pauses of gcsfs are the same for all kinds
        request.getfixturevalue("impatient")
    left = [2]

    def fault(method, path):
        left[0] -= 1
        return kind if left[0] >= 0 else None

    store.fault = fault
    files.save_json("gs://bucket/a.json", {"x": 1})
    left[0] = 1
    with files.owned("gs://bucket/run"):
        assert "run/.owner" in store.files()
    assert list(store.files()) == ["a.json"] and left[0] < 0


def test_what_is_refused_is_one_line(store, capfd):
    store.fault = lambda method, path: 403 if method != "GET" else None
    for write in (files.tried, lambda place: files.save_json(f"{place}/a.json", {})):
        with pytest.raises(
            InputError, match=r"cannot write gs://bucket/run.*gcloud auth"
        ) as caught:
            write("gs://bucket/run")
        assert "\n" not in str(caught.value)
    store.fault = lambda method, path: 401
    assert main(["", "--mode=sample", "--workdir=gs://bucket/run"]) == 2
    error = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(error) == 1 and "gcloud auth application-default login" in error[0]


def test_a_bucket_that_is_not_there_is_named(store, capfd):
    with pytest.raises(InputError, match="there is no bucket gs://other; `gcloud storage buckets"):
        files.tried("gs://other/run")
    assert main(["", "--config=quickstart:tiny", "--workdir=gs://other/run"]) == 2
    error = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error: ")]
    assert error == [
        "error: gs://other/run: there is no bucket gs://other; "
        "`gcloud storage buckets create gs://other` makes it"
    ]


def test_a_folder_has_one_owner_at_a_time(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(lease, "LOOK", 0.05)
    with files.owned("gs://bucket/run"):
        first = store.objects["run/.owner"].generation
        with (
            pytest.raises(InputError, match=rf"gs://bucket/run is in use by process {os.getpid()}"),
            files.owned("gs://bucket/run"),
        ):
            pass
        assert store.objects["run/.owner"].generation > first
    assert not store.files()
    with pytest.raises(KeyError), files.owned("gs://bucket/run"):
        raise KeyError
    assert not store.files()


def test_a_heartbeat_on_its_way_is_taken_away_too(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.05)
    owner = lease.Lease(stores.path("gs://bucket/run"), str)
    owner.take()
    theirs, arrived = owner._store, threading.Event()

    def write(*args, **keys):
        made = theirs.write(*args, **keys).result()
        arrived.set()
        time.sleep(0.3)  # the answer takes long
        return types.SimpleNamespace(result=lambda timeout=None: made)

    owner._store = types.SimpleNamespace(write=write, read=theirs.read)
    assert arrived.wait(20)
    owner.release()
    assert not store.files()


# Outages.


@pytest.fixture
def impatient(monkeypatch):
    """gcsfs' rounds of six tries pass at once, and the pauses between them quickly."""
    from gcsfs import retry

    quick = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0.001 * seconds))
    monkeypatch.setattr(retry, "asyncio", quick)
    monkeypatch.setattr(bucket_retries, "PAUSE", 0.1)
    monkeypatch.setattr(bucket_retries, "_said", float("-inf"))
    bucket_retries._answered.clear()


@pytest.mark.parametrize("kind", [503, "drop"])
def test_a_bucket_that_has_answered_is_waited_for(store, impatient, capfd, kind):
    files.save_json("gs://bucket/a.json", {"x": 1})
    until = time.monotonic() + 1.0
    store.fault = lambda method, path: kind if time.monotonic() < until else None
    files.save_json("gs://bucket/a.json", {"x": 2})
    assert files.read_json("gs://bucket/a.json") == {"x": 2}
    lines = capfd.readouterr().out.splitlines()
    assert 2 <= len(lines) <= 11, lines
    assert all(x.startswith("WARNING the bucket does not answer (") for x in lines)
    assert lines[0].endswith("): asking again, for 15m00s at most")


def test_one_that_has_not_answered_yet_or_was_given_up_is_not(store, impatient, monkeypatch, capfd):
    store.fault = lambda method, path: 503
    for _ in range(2):
        with pytest.raises(InputError, match="a.json: status 503") as caught:
            files.save_json("gs://bucket/a.json", {"x": 1})
        assert not capfd.readouterr().out
        assert cli.report(caught.value, debug=False) == 1  # nobody can mend it
        # From here on it is one that had answered.
        store.fault = lambda method, path: None
        files.save_json("gs://bucket/a.json", {"x": 1})
        store.fault = lambda method, path: 503
        monkeypatch.setattr(bucket_retries, "OUTAGE", 2.0)
        began = time.monotonic()
        with pytest.raises(InputError, match="cannot write gs://bucket/a.json: status 503"):
            files.save_json("gs://bucket/a.json", {"x": 2})
        assert time.monotonic() - began > 2.0
        assert re.search(r"asking again, for [012]s at most", capfd.readouterr().out)
    store.fault = lambda method, path: None
    assert files.read_json("gs://bucket/a.json") == {"x": 1}


@pytest.mark.parametrize("code", [401, 403])
def test_what_is_refused_is_not_waited_for(store, impatient, capfd, code):
    files.save_json("gs://bucket/a.json", {"x": 1})
    store.fault = lambda method, path: code
    with pytest.raises(InputError, match="gcloud auth") as caught:
        files.save_json("gs://bucket/a.json", {"x": 2})
    assert not capfd.readouterr().out and cli.report(caught.value, debug=False) == 2


@pytest.mark.parametrize(
    "cause, code",
    [
        (aiohttp.ServerDisconnectedError("gone"), 1),
        (ValueError("UNAVAILABLE: all retry attempts failed"), 1),
        (requests.ConnectionError("gone"), 2),  # of a download
        (ValueError("a number"), 2),
    ],
)
def test_what_a_bucket_did_not_answer_has_a_code_of_its_own(store, cause, code):
    error = InputError("cannot write")
    error.__cause__ = cause
    assert cli.report(error, debug=False) == code


@pytest.mark.slow
def test_a_run_goes_on_after_an_outage_and_one_without_end_ends_it_in_a_line(
    store, impatient, tmp_path, monkeypatch, capfd
):
    config = config_of(2, duration="8", eval_every="8", checkpoint_every="4", log_every="2")
    loop.train(config.copy_and_resolve_references(), tmp_path / "straight")
    began = {4: [], 8: []}  # the times of requests

    def outage(method, path):
        """A fault from the sixth request of a save on, of the second one without end.

        Of arrays TensorStore asks by itself, for a quarter of an hour.
        """
        found = re.search(r"run/checkpoints/([48])\b", path)
        if found and not re.search(r"/d/|ocdbt", path):
            began[int(found[1])].append(time.monotonic())
        if len(began[8]) > 5:
            bucket_retries.OUTAGE = 0.5
            return 503
        return 503 if len(began[4]) > 5 and time.monotonic() < began[4][5] + 1.5 else None

    monkeypatch.setattr(bucket_retries, "OUTAGE", bucket_retries.OUTAGE)
    store.fault = outage
    with pytest.raises(InputError, match="cannot write .*gs://bucket/run.*503") as caught:
        loop.train(config.copy_and_resolve_references(), GS_RUN)
    assert "\n" not in str(caught.value) and cli.report(caught.value, debug=False) == 1
    said = capfd.readouterr().out
    assert "asking again, for 15m00s at most" in said and "step 8/8" in said
    store.fault = lambda method, path: None
    assert checkpoint.latest(GS_RUN) == 4
    loop.train(config.copy_and_resolve_references(), GS_RUN)
    assert_is_that_of(config, GS_RUN, tmp_path / "straight")


# Metrics.


def test_a_line_of_metrics_asks_nothing_of_the_bucket(store):
    with Writer("gs://bucket/run") as writer:
        before = len(store.requests)
        for step in range(1, 201):
            writer.write(step, {"loss": 1.0})
        assert len(store.requests) == before
        writer.flush()
        uploads = [path for method, path in store.requests[before:] if method == "POST"]
        assert len(store.files("run/metrics.jsonl")["run/metrics.jsonl"].splitlines()) == 200
        assert len(uploads) == 2  # metrics.jsonl, and the events
        before = len(store.requests)
        writer.flush()  # nothing has changed
        assert len(store.requests) == before


# Runs.


def assert_is_that_of(config, workdir, expected):
    """Assert that a workdir has the state and the metrics of another one, to the bit."""
    a, b = state_of(config, expected), state_of(config, workdir)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert metrics_of(stores.path(workdir)) == metrics_of(expected)


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_that_is_killed_in_a_save_goes_on_to_the_same_bits(
    store, tmp_path, stage, impatient, capfd
):
    config, expected = config_of(stage), tmp_path / "straight"
    loop.train(config.copy_and_resolve_references(), expected)
    # It is killed in the midst of its third save, and the next one meets faults now and then.
    process = start(config, stores.path("gs://bucket/run"), tmp_path)
    writes = []

    def kill(method, path):
        if method == "POST" and "checkpoints/40" in path:
            writes.append(path)
            if len(writes) == 5:
                process.send_signal(signal.SIGKILL)
        return "drop" if len(writes) >= 5 else None

    store.fault = kill
    output, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL and len(writes) >= 5, output
    store.fault = lambda method, path: None
    assert store.files("run/checkpoints/40") and "run/.owner" in store.files()
    assert checkpoint.latest("gs://bucket/run") == 30
    store.put("run/checkpoints/35/state/left", b"of a save that was cut off")
    store.fault = every(97, 503, "drop", 429)
    loop.train(config.copy_and_resolve_references(), stores.path("gs://bucket/run"))
    store.fault = lambda method, path: None
    output = capfd.readouterr().out
    assert "steps 30 to 60" in output and "waiting" not in output
    assert_is_that_of(config, "gs://bucket/run", expected)
    names = {name.split("/")[1] for name in store.files("run/")}
    assert {"config.json", "metrics.jsonl", "parameters.txt", "versions.json"} <= names
    assert len([name for name in names if name.startswith("events.out")]) == 2
    assert ".owner" not in names and not store.files("run/checkpoints/35")
    pngs = {path.name for path in (expected / "training").iterdir()}
    assert pngs == {name.split("/")[-1] for name in store.files("run/training/")}
    if stage == 2:
        check_use("gs://bucket/run", expected, store)


@pytest.mark.slow
def test_two_processes_that_share_the_bucket_alone_are_one_run(store, tmp_path):
    config = test_cluster.config_of(evals={}, mesh={"data": 2})
    for folder in ("run", "gs://bucket/run"):
        folders = (folder, folder)
        started = test_cluster.pair(config, tmp_path, (test_cluster.run,) * 2, folders)
        ended, outputs = test_cluster.ends(started, 300)
        assert ended == [0, 0], outputs
    here, there = (checkpoint.Checkpoints(x, create=False) for x in (tmp_path / "run", GS_RUN))
    rows = [x._manifest(x.steps()[-1]) for x in (here, there)]  # with a CRC-32 of each array
    assert rows[0] == rows[1] and here.steps() == there.steps()
    assert metrics_of(stores.path(GS_RUN)) == metrics_of(tmp_path / "run")
    assert "run/.owner" not in store.files()


def check_use(workdir, expected, store):
    """Assert that a generator's workdir can be used as a local one is."""
    here, there = (evqgan.load(place) for place in (expected, workdir))
    np.testing.assert_array_equal(there.generate(2, seed=3), here.generate(2, seed=3))
    mode_sample.sample(there.config, stores.path(workdir), None, mode_sample.SampleRequest(num=2))
    made = {name.removeprefix("run/samples/") for name in store.files("run/samples/")}
    assert made == {"samples.npz", "grid.png", "images/00000.png", "images/00001.png"}
    with npz.opened(f"{workdir}/samples/samples.npz") as saved:
        assert saved["arr_0"].shape[0] == 2


# Data.


def test_stored_ids_are_written_to_a_bucket_and_read_from_it(store, tmp_path, monkeypatch):
    monkeypatch.setenv("EVQGAN_IDS", str(tmp_path / "kept"))
    monkeypatch.setattr(stored_ids, "ROWS", 7)
    photos = Dataset(folder=folder_of(tmp_path / "photos", 20), size=8, crop="random_resized")
    make(tmp_path / "ids", photos)
    make("gs://bucket/ids", photos)
    local = {path.name: path.read_bytes() for path in (tmp_path / "ids").iterdir()}
    assert {name.removeprefix("ids/"): x for name, x in store.files().items()} == local
    for split in stored_ids.SPLITS:
        here, there = (
            stored_split.StoredSplit(folder, split)
            for folder in (tmp_path / "ids", "gs://bucket/ids")
        )
        assert len(here) == len(there) and isinstance(there.shards[0], np.memmap)
        for i in range(len(here)):
            np.testing.assert_array_equal(here.load(i)["ids"], there.load(i)["ids"])
    before = len(store.requests)
    stored_split.StoredSplit("gs://bucket/ids", "train")  # from the copies
    assert not [
        path for _, path in store.requests[before:] if "alt=media" in path and "npy" in path
    ]
    del store.objects["ids/train-00001-of-00003.npy"]
    with pytest.raises(InputError, match="train-00001-of-00003 of 4 shards are missing"):
        stored_split.StoredSplit("gs://bucket/ids", "train")


def test_stored_ids_that_are_replaced_in_a_bucket_are_copied_again(store, tmp_path, monkeypatch):
    monkeypatch.setenv("EVQGAN_IDS", str(tmp_path / "kept"))
    photos = Dataset(folder=folder_of(tmp_path / "photos", 6), size=8, crop="random_resized")
    make("gs://bucket/ids", photos)
    name = next(x for x in store.objects if "train" in x and "labels" not in x)
    days, right = itertools.count(1), store.objects[name].data

    def replaced(file, data):
        """The split after a file was replaced: days later each time, as no second is waited for."""
        store.put(file, data).time = f"2099-01-{next(days):02d}T00:00:00.000000Z"
        return stored_split.StoredSplit("gs://bucket/ids", "train")

    wrong = replaced(name, right[:-32] + b"\xff" * 32)  # of the same size, ids out of range
    with pytest.raises(InputError, match=rf"gs://bucket/{name}: expected ids from 0"):
        wrong.load(len(wrong) - 1, 2)
    mended = replaced(name, right)
    assert mended.load(len(mended) - 1, 2)["ids"].max() < mended.codes
    before = len(store.requests)
    stored_split.StoredSplit("gs://bucket/ids", "train")
    assert not [x for _, x in store.requests[before:] if "alt=media" in x and "npy" in x]
    for file in (name.replace(".npy", ".labels.npy"), name):
        whole = store.objects[file].data
        with pytest.raises(InputError, match=rf"^gs://bucket/{file}: expected .*; remove this"):
            replaced(file, b"none")
        replaced(file, whole)


def test_record_files_are_read_from_a_bucket(store, tmp_path):
    built = pathlib.Path(named.prepare("digits", str(tmp_path / "data")).data_path)
    for file in built.iterdir():
        store.put(f"data/{file.relative_to(tmp_path / 'data').as_posix()}", file.read_bytes())
    here = named.Named("digits", "train", str(tmp_path / "data"))
    there = named.Named("digits", "train", "gs://bucket/data")
    assert len(here) == len(there) > 1_000 and here.class_names == there.class_names
    for i in (0, 7, len(here) - 1):
        assert here[i] == there[i]
    del store.objects[next(name for name in store.objects if "train.array_record" in name)]
    there = named.Named("digits", "train", "gs://bucket/data")
    with pytest.raises(InputError, match="its record cannot be read"):
        there[0]


@pytest.mark.slow
def test_the_last_good_checkpoint_and_a_trace_are_on_a_bucket(store, tmp_path, capsys):
    config = config_of(2, duration="6", eval_every="6", checkpoint_every="3", keep=2)
    loop.train(config.copy_and_resolve_references(), "gs://bucket/run", profile=2)
    assert any(name.endswith("perfetto_trace.json.gz") for name in store.files("run/profile"))
    name = next(iter(store.files("run/checkpoints/6/state/d/")))
    store.put(name, bytes(len(store.files()[name])))
    config.update({"resume": "last_good"})
    loop.train(config, "gs://bucket/run")
    said = capsys.readouterr().out
    assert "checkpoint 6 is damaged" in said and "going on from step 3" in said
    assert store.files("run/damaged/6/") and checkpoint.latest("gs://bucket/run") == 6
