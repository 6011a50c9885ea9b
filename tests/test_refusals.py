"""Results that are there, under way, or were stopped; and slips that are told early.

Results are samples, edits and stored ids.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import workdirs
from PIL import Image

import evqgan
from evqgan import main
from evqgan.core import files, output, png_records, signals
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.core.progress import counted
from evqgan.data import stored_ids
from evqgan.evals import finished
from evqgan.evals.provenance import MadeBy
from evqgan.export import __main__ as export
from evqgan.inference import (
    evaluation,
    finished_samples,
    mode_inputs,
    mode_sample,
    rejection,
    sample_settings,
)
from evqgan.inference.class_names import Classes
from evqgan.inference.core import CoreModel


def call(capsys, *args):
    """-> exit code, lines on stdout, lines on stderr."""
    code = main.main(["main", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupting(number, before=2):
    """`CoreModel.new_ids`, but that a signal comes when its call number `before` begins."""
    calls, new_ids = [], CoreModel.new_ids

    def instead(self, *args, **given):
        calls.append(args)
        if len(calls) == before:
            os.kill(os.getpid(), number)
        return new_ids(self, *args, **given)

    return instead


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workdir with six finished samples of seed 3."""
    place = workdirs.copy(tmp_path_factory.mktemp("finished") / "w")
    asked = ["--num=6", "--labels=cat,0", "--seed=3", "--batch_size=4"]
    assert main.main(["main", "--mode=sample", f"--workdir={place}", *asked]) == 0
    return place


FID = "--config.evals.distribution"
ASKED = ("--mode=sample", "--num=6", "--labels=cat,0", "--seed=3", "--batch_size=4")


@pytest.mark.parametrize(
    "changes, made",
    [
        (["--num=4"], "num = 6, not num = 4"),
        (["--labels=3,5"], "labels = 2,0, not labels = 3,5"),
        (["--num=8", "--labels=9"], "num = 6 and labels = 2,0, not num = 8 and labels = 9"),
        (["--seed=4"], "seed = 3, not seed = 4"),
        (["--config.sample.steps=3"], "config.sample.steps = 8, not config.sample.steps = 3"),
        (["--acceptance=0.5"], "acceptance = 1.0, not acceptance = 0.5"),
    ],
)
def test_finished_samples_of_other_settings_stay(place, capsys, monkeypatch, changes, made):
    monkeypatch.setattr(mode_inputs, "load", None)  # whoever would load something fails
    before = files_of(place)
    for out in ([], [f"--out={place}/samples"]):
        code, said, errors = call(capsys, f"--workdir={place}", *ASKED, *out, *changes)
        assert (code, said) == (2, []) and files_of(place) == before
        assert errors == [
            f"error: {place}/samples holds 6 finished samples, made with {made}: give another "
            "folder by --out=FOLDER, or replace them by --force"
        ]


def test_the_same_samples_are_not_made_again(place, capsys, monkeypatch):
    before = files_of(place / "samples")
    monkeypatch.setattr(CoreModel, "new_ids", None)  # whoever would make something anew fails
    code, said, errors = call(capsys, f"--workdir={place}", *ASKED)
    assert (code, errors) == (0, []) and files_of(place / "samples") == before
    done = "they are made already: 6 samples of step 6 with these settings, in"
    assert said[1:-1] == [f"{done} {place / 'samples'}"] and said[-1].startswith("next: see ")
    (place / "samples" / "images" / "00003.png").unlink()
    code, said, _ = call(capsys, f"--workdir={place}", *ASKED)
    again = "the ids in samples.npz are decoded again"
    assert code == 0 and said[1] == f"{place}/samples/images/00003.png is not there yet: {again}"
    assert files_of(place / "samples") == before
    (place / "samples" / "grid.png").write_bytes(before["grid.png"][:200])
    code, said, _ = call(capsys, f"--workdir={place}", *ASKED)
    assert code == 0 and said[1] == f"{place}/samples/grid.png is damaged: {again}"
    assert files_of(place / "samples") == before
    (place / "samples" / "grid.png").unlink()  # PNGs that nobody asks for now stay
    without_pngs(place, place / "samples")
    assert files_of(place / "samples") == before


@pytest.mark.parametrize("more", [(), ("--acceptance=0.5", "--classifier=resnet101")])
def test_pngs_that_are_asked_for_later_are_those_of_the_same_samples(
    place, tmp_path, capsys, monkeypatch, more
):
    """Of plain samples, and of the best of more."""
    if more:
        monkeypatch.setattr(rejection, "find", lambda *_: lambda runner: rate)
    asked = [f"--workdir={place}", *ASKED, *more]
    assert call(capsys, *asked, f"--out={tmp_path / 'a'}")[0] == 0
    without_pngs(place, tmp_path / "b", **({"acceptance": 0.5} if more else {}))
    assert not (tmp_path / "b" / "images").exists()
    monkeypatch.setattr(CoreModel, "new_ids", None)
    assert call(capsys, *asked, f"--out={tmp_path / 'b'}")[0] == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    # A run of both stages is called by its own name, not by that of its folder "generator".
    assert png_records.read(tmp_path / "b" / "images" / "00000.png")["model"] == place.name


def without_pngs(place, out, **more):
    """The samples ASKED for, as a run of both stages makes them."""
    given = {"num": 6, "labels": ["cat", 0], "seed": 3, "batch_size": 4, "pngs": False, **more}
    config, workdir = of_workdir(place)
    mode_sample.sample(config, workdir, out, mode_sample.SampleRequest(**given))


def rate(images, labels):
    """A classifier that likes bright images."""
    return images.mean((1, 2, 3)) / 255


def test_force_replaces_samples(place, tmp_path, capsys):
    asked = [f"--workdir={place}", f"--out={tmp_path}", "--mode=sample", "--batch_size=4"]
    for num in (1, 2):
        code, said, errors = call(capsys, *asked, f"--num={num}", "--force")
        assert code == 0, errors
    assert said[-2].startswith(f"2 samples of step 6 are in {tmp_path}: generated")
    assert finished_samples.read(tmp_path)["labels"] == [0, 1]


def test_why_finished_samples_are_made_again(place, tmp_path):
    out, weights = place / "samples", place / "generator" / "checkpoints" / "6"
    there = finished_samples.read(out)
    now = MadeBy(6, there["fingerprint"], there["tokenizer"]), weights
    outdated = finished_samples.outdated
    assert outdated(out, there, *now) == ""
    assert finished_samples.lacking(out, 6, False) == ""
    assert finished_samples.lacking(out, 6, True).endswith("steps.png is not there yet")
    assert finished_samples.lacking(out, 7, False).endswith("00006.png is not there yet")
    other = there | {"step": 5}
    assert outdated(out, other, *now).startswith("the samples of step 5 in ")
    for name in ("fingerprint", "tokenizer"):
        other = there | {name: "of others"}
        assert outdated(out, other, *now).startswith("the samples of other weights in ")
        older = {key: value for key, value in there.items() if key != name}
        assert outdated(out, older, *now) == ""
    newer = tmp_path / "6"
    newer.mkdir()
    later = os.stat(out / "samples.npz").st_mtime + 1
    os.utime(newer, (later, later))
    assert "is newer than the samples in" in outdated(out, there, now[0], newer)


def test_what_is_no_samples_file_is_not_replaced(place, tmp_path, capsys):
    (tmp_path / "samples.npz").write_bytes(b"of somebody else")
    code, _, errors = call(capsys, f"--workdir={place}", *ASKED, f"--out={tmp_path}")
    assert code == 2 and "samples.npz is not what --mode=sample writes: " in errors[0]
    assert (tmp_path / "samples.npz").read_bytes() == b"of somebody else"
    with np.load(place / "samples" / "samples.npz") as saved:  # as it was before ADM's name
        older = {name.replace("arr_0", "images"): x for name, x in saved.items()}
    np.savez(tmp_path / "samples.npz", **older)
    code, _, errors = call(capsys, f"--workdir={place}", *ASKED, f"--out={tmp_path}")
    assert code == 2 and "it holds its images as images, which are now arr_0" in errors[0]
    assert errors[0].endswith("give another folder by --out=FOLDER, or replace them by --force")


@pytest.mark.parametrize("mode", ["sample", "encode", "edit"])
def test_a_folder_of_results_has_one_owner(place, tmp_path, capsys, monkeypatch, mode):
    monkeypatch.setattr(mode_inputs, "load", None)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    more = [f"--image={tmp_path}/a.png", "--box=0,0,8,8", "--label=3"] if mode == "edit" else []
    out = tmp_path / "out"
    with files.owned(out):
        before = files_of(out)
        given = f"--workdir={place}", f"--mode={mode}", f"--out={out}", *more
        code, _, errors = call(capsys, *given)
        assert code == 2 and files_of(out) == before
        who = f"error: {out} is in use by process {os.getpid()} on "
        assert errors[0].startswith(who) and len(errors) == 1
        assert errors[0].endswith(": wait, stop it, or give another --out")


def test_the_lock_of_a_process_that_died_is_none(tmp_path):
    """As kill -9 leaves a folder."""
    code = (
        "import os\nfrom evqgan.core import files\n"
        f"with files.owned(r'{tmp_path / 'out'}'):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert sorted(os.listdir(tmp_path / "out")) == [".lock", ".owner"]
    with files.owned(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path / "out") == []


def test_a_refused_owner_leaves_no_folders(tmp_path):
    with files.owned(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert os.listdir(tmp_path) == []


def test_python_samples_into_an_owned_folder(place, tmp_path):
    model = evqgan.load(place)
    with (
        files.owned(tmp_path),
        pytest.raises(InputError, match="is in use by process .*, or give another folder"),
    ):
        model.sample(2, folder=tmp_path)


@pytest.mark.parametrize(
    "name",
    ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGHUP"))],
)
def test_sampling_that_a_signal_stops_goes_on(
    foreground, place, tmp_path, capsys, monkeypatch, name
):
    number, asked = signal.Signals[name], [f"--workdir={place}", *ASKED, f"--out={tmp_path}/out"]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(CoreModel, "new_ids", interrupting(number))
        code, _, errors = call(capsys, *asked)
    assert code == 128 + number and signal.getsignal(number) == before
    kept = f"4 of 6 images in {tmp_path}/out/candidates"
    assert errors == [f"stopped by {name}; the same command goes on from {kept}"]
    left = ["candidates/00000000.npz", "candidates/settings.json"]  # and no lock
    assert sorted(files_of(tmp_path / "out")) == left
    code, _, errors = call(capsys, *asked, "--num=5")
    assert code == 2 and "made with num = 6, not num = 5: give the same settings" in errors[0]
    code, said, _ = call(capsys, *asked)
    assert code == 0 and "going on from 4/6" in said
    assert files_of(tmp_path / "out")["images/00005.png"] == (
        (place / "samples" / "images" / "00005.png").read_bytes()
    )


def test_encoding_that_a_signal_stops_goes_on(foreground, place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "ids"
    asked = [f"--workdir={place}", "--mode=encode", f"--out={out}", "--batch_size=5"]
    asked += ["--config.dataset.train=train[:12]"]
    monkeypatch.setattr(stored_ids, "ROWS", 6)  # two shards to train from
    finished, encoded, found = stored_ids.finished, stored_ids._encoded, []

    def stopping(shard, *args):
        found.append(shard)
        if len(found) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return encoded(shard, *args)

    begins = "nothing is saved yet: the same command begins anew"
    goes_on = f"the same command goes on from 1 of 4 shards in {out}"
    for stop, left, then in ((1, [], begins), (2, ["train-00000-of-00002"], goes_on)):
        found.clear()
        with monkeypatch.context() as patch:
            patch.setattr(stored_ids, "_encoded", stopping)
            # What was stopped before its first shard binds nobody.
            code, _, errors = call(capsys, *asked, f"--seed={stop}")
        assert code == 143 and len(errors) == 1
        assert errors[0] == f"stopped by SIGTERM; {then}"
        info = stored_ids.read_info(out)
        there = [shard.name for shard in stored_ids.shards(info) if finished(out, shard)]
        assert there == left and not (out / ".lock").exists()
    code, _, errors = call(capsys, *asked, "--seed=3")
    assert code == 2 and "holds other ids, seed: 2 -> 3" in errors[0]
    code, said, _ = call(capsys, *asked, "--seed=2")
    assert code == 0 and said[-1].startswith("16 images encoded")


def test_a_second_signal_at_once_is_the_same_request(foreground, monkeypatch):
    came = []
    with signals.handled(came.append):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
        monkeypatch.setattr(signals, "AGAIN", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "mode, args, message",
    [
        ("sample", ["--labels=10"], "there is no class '10': expected a whole number from 0 to 9"),
        ("sample", ["--labels=-1"], "there is no class '-1': expected a whole number from 0 to 9"),
        ("sample", ["--num=100000000"], "images to generate, which are more than 20,000,000"),
        ("sample", ["--config.sample.guidance=1.5"], "guidance is 1.5, but the generator was"),
        ("sample", ["--config.sample.steps=0"], "config.sample.steps expects a whole number"),
        ("sample", ["--classifier=resnet50"], "a classifier chooses among candidates"),
        ("sample", ["--out={file}"], "cannot write "),
        ("edit", ["--label=10"], "there is no class '10': expected a whole number from 0 to 9"),
        ("edit", [], "editing needs a label"),
        ("edit", ["--label=3", "--num=1000000000000"], "results would take "),
        ("edit", ["--label=3", "--config.sample.guidance=1.5"], "guidance is 1.5, but the"),
        ("edit", ["--label=3", "--out={file}"], "cannot write "),
        (
            "edit",
            ["--label=3", "--image={folder}/edit_000.png", "--out={folder}"],
            "--image=.*edit_000.png lies in .*: give another folder by --out",
        ),
        ("reconstruct", ["--out={file}"], "cannot write "),
        ("sample", ["--config.batch_size=2"], "config.batch_size = 2 is not read by --mode=sam"),
        ("sample", ["--config.batch_size=2"], "there it is --batch_size"),
        ("sample", ["--config.seed=2"], "config.seed = 2 is not read .*there it is --seed"),
        ("edit", ["--config.optimizer.clip=2"], "is not read by --mode=edit: it reads config.sam"),
        ("sample", ["--config.evals.generation.show=1"], "is not read by --mode=sample"),
        ("sample", ["--config.tokenizer.weights=x"], "is not read by --mode=sample"),
        ("sample", ["--config.dataset.folder=x"], "is not read by --mode=sample"),
        ("reconstruct", ["--config.sample.steps=2"], "is not read by --mode=reconstruct"),
        ("evaluate", ["--config.log_every=2"], "is not read by --mode=evaluate"),
        ("evaluate", ["--config.evals.generation.sow=1"], "generation has no key 'sow': did you"),
        ("evaluate", [f"{FID}.samples=1"], "distribution.samples expects a whole number from 2"),
        ("evaluate", [f"{FID}.samples=9"], "distribution: there are no weights of inception in"),
        (
            "evaluate",
            [f"{FID}.features=pixels", f"{FID}.reference=nowhere.npz"],
            "there is no nowhere.npz",
        ),
        ("evaluate", [f"{FID}.features=pixels", f"{FID}.metrics=('score',)"], "score is of logits"),
        ("sample", ["--acceptance=0.5"], "resnet101 knows the 1,000 classes of ImageNet, and"),
        ("sample", ["--acceptance=0.5", "--classifier=nowhere:f"], "no classifier 'nowhere:f'"),
        ("reconstruct", ["--image={folder}", "--out={folder}"], "would replace the picture"),
        ("reconstruct", ["--image={file}"], "--image: .*/file: expected an image, got 0 bytes"),
        ("encode", ["--config.batch_size=2"], "there it is --batch_size"),
    ],
)
def test_a_slip_is_told_before_anything_is_loaded(
    place, tmp_path, capsys, monkeypatch, mode, args, message
):
    monkeypatch.setattr(mode_inputs, "load", None)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "file").touch()
    given = [f"--image={tmp_path}/a.png"] if mode in ("edit", "reconstruct") else []
    given = [] if any(arg.startswith("--image") for arg in args) else given
    given += ["--box=0,0,8,8"] if mode == "edit" else []
    out = f"--out={tmp_path}/out"
    args = [arg.format(file=tmp_path / "file", folder=tmp_path) for arg in args]
    code, said, errors = call(capsys, f"--mode={mode}", f"--workdir={place}", *given, out, *args)
    assert code == 2 and len(errors) == 1 and re.search(message, errors[0]), errors
    assert not said and not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_told_before_data_are_prepared(place, capsys, monkeypatch):
    monkeypatch.setattr(evaluation.pipeline, "open_split", None)
    given = ["--mode=evaluate", f"--workdir={place}", f"{FID}.samples=9"]
    code, said, errors = call(capsys, *given)
    assert code == 2 and not said and "there are no weights of inception in" in errors[0]


@pytest.mark.parametrize("gone", ["tokenizer", "generator"])
def test_a_part_without_a_checkpoint_is_told_before_the_other_is_measured(
    tmp_path, capsys, monkeypatch, gone
):
    def loaded(folder, *_):
        raise InputError(f"loaded {folder.name}")

    run = workdirs.copy(tmp_path / "w")
    shutil.rmtree(run / gone / "checkpoints")
    monkeypatch.setattr(evaluation, "load", loaded)
    code, _, lines = call(capsys, "--mode=evaluate", f"--workdir={run}")
    assert code == 2 and len(lines) == 1 and not (run / "evaluation.json").exists()
    assert f"there is no checkpoint in {run / gone / 'checkpoints'}: the run has saved" in lines[0]
    other, metric = {
        "tokenizer": ("generator", "generation"),
        "generator": ("tokenizer", "reconstruction"),
    }[gone]
    _, _, lines = call(capsys, "--mode=evaluate", f"--workdir={run}", f"--metrics={metric}")
    assert lines == [f"error: loaded {other}"]  # which alone is measured


def test_keys_that_a_run_was_trained_with_may_be_said_again(place, monkeypatch):
    """With --config, that is the run's own config."""
    (place / "mine.py").write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    text = open(r'{place}/generator/config.json').read()\n"
        "    return ConfigDict(json.loads(text))\n"
    )
    given = ["--mode=sample", f"--config={place}/mine.py", f"--workdir={place}"]
    trained = json.loads((place / "generator" / "config.json").read_text())["batch_size"]
    main.parse([*given, f"--config.batch_size={trained}"])
    with pytest.raises(InputError, match=r"config.batch_size = 3 is not read by --mode=sample"):
        main.parse([*given, "--config.batch_size=3"])


def test_labels_are_said_alike_in_python_and_on_the_command_line():
    classes = Classes(10, workdirs.NAMES, "w")
    for labels in ("3,5", "dog, fox", [3, 5], ("dog", "5"), np.array([3, 5]), "dog,5"):
        np.testing.assert_array_equal(classes.labels_of(labels, 3), [3, 5, 3])
    comma = Classes(2, ("tench, Tinca", "cat"), "w")
    np.testing.assert_array_equal(comma.labels_of("tench, Tinca", 2), [0, 0])
    assert comma.label_of(" cat ") == 1
    for nothing in ([], (), "", np.array([]), np.array([], int)):
        with pytest.raises(InputError, match="labels names no class: give one or several"):
            classes.labels_of(nothing, 3)
    for wrong in (10, -1, "10", "-1", "1.5", 1.5, "1e3", "nan", np.int64(12)):
        with pytest.raises(InputError, match=r"expected a whole number from 0 to 9$"):
            classes.labels_of(wrong, 1)
    for unordered in ({3, 5}, frozenset({3}), {3: 5}):  # whose order differs between processes
        with pytest.raises(InputError, match="labels come in an order: expected a list of"):
            classes.labels_of(unordered, 3)
    many = Classes(1000, tuple(f"n{i:08d}" for i in range(1000)), "w")
    with pytest.raises(InputError, match=r"'1000': expected a whole number from 0 to 999$"):
        many.label_of("1000")


def test_settings_that_differ_are_named_with_both_values():
    def settings(labels, **more):
        sampler = {"steps": 8, "top_k": (3, 4)}
        made = {"workdir": "w", "folder": "f", "sampler": sampler, "seed": 1, **more}
        return sample_settings.describe(labels=np.array(labels), **made)

    whole = settings([0, 1, 2, 0, 1])
    assert sample_settings.difference(whole, settings([0, 1, 2, 0, 1])) == ""
    for other, said in (
        (settings([0, 1]), "num = 5, not num = 2"),
        (settings([4] * 5), "labels = 0,1,2, not labels = 4"),
        (settings([0, 1, 2, 0, 1], seed=2), "seed = 1, not seed = 2"),
        (settings([0, 1, 2, 0, 1], workdir="v"), "workdir = ../w, not workdir = ../v"),
        (settings([0, 1, 2, 0, 1], sampler={"steps": 8, "top_k": (3, 5)}), "config.sample.top_k"),
    ):
        assert sample_settings.difference(whole, other).startswith(said)
    long = np.arange(5000)
    assert finished.in_words(long) == "0,1,2,3,4,5,6,7,8,9,... (5,000 in turn)"
    changed = settings(np.where(long == 4000, 1, long))
    texts = "labels = 4000 of image 4000, not labels = 1 of image 4000"
    assert sample_settings.difference(settings(long), changed) == texts


def test_a_workdir_by_way_of_a_symbolic_link_is_the_same(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")

    def settings(workdir):
        given = tmp_path / workdir, tmp_path / workdir / "samples", {}, 1, np.zeros(1, np.int32)
        return sample_settings.describe(*given)

    assert settings("run") == settings("link")
    apart = [
        sample_settings.describe(tmp_path / x, tmp_path / "out", {}, 1, np.zeros(1, np.int32))
        for x in ("run", "link", "other")
    ]
    assert apart[0] == apart[1] != apart[2]


def test_the_names_of_the_package_are_listed(place, monkeypatch):
    assert dir(evqgan) == ["InputError", "Model", "__version__", "load"] and evqgan.InputError
    monkeypatch.setenv("HOME", str(place.parent))
    assert evqgan.load(f"~/{place.name}").workdir == place / "generator"


def test_one_is_no_plural():
    assert [counted(n, "sample") for n in (0, 1, 1200)] == [
        "0 samples",
        "1 sample",
        "1,200 samples",
    ]


def test_what_is_no_workdir_is_told_by_what_it_is(tmp_path):
    run = tmp_path / "run"
    (run / "generator" / "checkpoints" / "4").mkdir(parents=True)
    picture = tmp_path / "cat.png"
    picture.touch()
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "plan.json").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    for path, message in (
        (tmp_path / "gone" / "run", "gone is a link to nowhere, which is not there: give the fol"),
        (stopped, "holds a run of both stages that was stopped before its tokenizer began"),
        (picture, "cat.png is a file: give the folder"),
        (
            run / "generator" / "checkpoints" / "4",
            "4 is a checkpoint: give its workdir, .*generator",
        ),
        (run, "generator/config.json is missing beside checkpoints/: bring it back"),
        ("", "expected the path of a workdir, got ''"),
        (tmp_path, "is no workdir"),
    ):
        with pytest.raises(InputError, match=message):
            evqgan.load(path)


def test_a_run_of_both_stages_without_its_generator_is_told_by_all_commands(
    place, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = workdirs.copy(tmp_path / "drawings")  # and not the model of that name
    shutil.rmtree(run / "generator")
    picture = str(next(place.rglob("*.png")))
    modes = {
        "sample": [],
        "edit": [f"--image={picture}", "--box=0,0,8,8"],
        "reconstruct": [f"--image={picture}"],
        "evaluate": [],
    }
    given = {x: ["evqgan", f"--mode={x}", "--workdir=drawings", *modes[x]] for x in modes}
    tries = [(main, words) for words in given.values()]
    tries += [(export, ["drawings", "there"])]
    for module, words in tries:
        assert module.main(words) == 2
        said = capsys.readouterr()
        assert "drawings holds a run of both stages, whose generator has not begun" in said.err
        assert "the tokenizer alone is drawings/tokenizer" in said.err
    assert not (tmp_path / "there").exists()
    command = ["evqgan", "--mode=reconstruct", "--workdir=drawings/tokenizer", "--out=again"]
    assert main.main([*command, f"--image={picture}"]) == 0
    (run / "tokenizer" / "config.json").unlink()
    with pytest.raises(InputError, match="tokenizer/config.json is missing beside checkpoints/"):
        evqgan.load(run)


def test_a_keyword_that_edit_does_not_have_is_told_first(place):
    model = evqgan.load(place)
    image, mask = np.zeros((*model.size, 3), np.uint8), np.ones(model.size, bool)
    with pytest.raises(InputError, match="no keyword 'labels': did you mean 'label'"):
        model.edit(image, mask, labels=3)
    with pytest.raises(InputError, match="expected margins in whole pixels from 0 on"):
        model.outpaint(image, label=3)


def test_a_stream_that_takes_nothing_is_one_line_on_any_system(monkeypatch, capsys):
    def flush():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output.os, "dup2", lambda *_: None)
    monkeypatch.setattr(output.sys, "stdout", types.SimpleNamespace(flush=flush))
    assert output.fault() == 2
    line = "error: standard output cannot be written: No space left on device\n"
    assert capsys.readouterr().err == line


# Other systems have no such device. That a full stream is one line there, too, is guarded always,
# by test_a_stream_that_takes_nothing_is_one_line_on_any_system.
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(("module", "unbuffered"), [("benchmark", ""), ("main", "1")])
def test_output_that_cannot_be_written_is_one_line(module, unbuffered):
    command = [sys.executable, "-W", "ignore", "-m", f"evqgan.{module}", "--help"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        given = {"stdout": full, "stderr": subprocess.PIPE, "text": True, "timeout": 100}
        found = subprocess.run(command, env=environment, **given)
    line = "error: standard output cannot be written: No space left on device\n"
    assert (found.returncode, found.stderr) == (2, line)
