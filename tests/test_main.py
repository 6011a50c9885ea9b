"""The command line: what it understands; whatever is wrong ends in one line and exit code 2."""

import errno
import importlib
import logging
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
import workdirs
from absl import logging as absl_logging
from ml_collections import ConfigDict

import evqgan
from evqgan import flags, main, next_steps, quickstart
from evqgan.core import cli, config_files, kinds
from evqgan.core.errors import InputError, NonFinite
from evqgan.inference import evaluation, mode_edit, mode_encode, mode_reconstruct, mode_sample
from evqgan.training import loop

ROOT = pathlib.Path(__file__).parent.parent
TINY = f"--config={ROOT}/configs/imagenet_stage1.py:tiny"
QUICK = f"--config={ROOT}/configs/quickstart.py:tiny"


def parse(*args):
    return main.parse([*map(str, args)])


def call(capsys, *args):
    """-> exit code, lines on stderr."""
    code = main.main(["main", *map(str, args)])
    return code, capsys.readouterr().err.splitlines()


def started(*args, **environment):
    """The command as a user types it, from a folder of their own -> the finished process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "evqgan.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("config_config", None)  # config_flags loads every config into this module


def test_each_mode_takes_the_flags_that_the_help_gives_it():
    text = flags.__doc__.split("\n\n")[2]
    modes = re.split(rf"^({'|'.join(flags.MODES)}) ", text, flags=re.MULTILINE)[1:]
    assert modes[::2] == list(flags.MODES)
    given = {"num": 1, "views": 1, "seed": 0, "acceptance": 0.5, "margin": 1, "feather": 1}
    for mode, text in zip(modes[::2], modes[1::2], strict=True):
        names = set(re.findall(r"--(\w+)", text)) - {"config", "steps_strip", "workdir", "notiles"}
        names -= {"image"} if mode == "sample" else set()  # a PNG answers all other flags
        values, _ = parse(
            f"--mode={mode}",
            TINY,
            "--workdir=w",
            *(f"--{name}={given.get(name, 1)}" for name in names),
        )
        assert all(values[name].present for name in names)


def test_a_folder_takes_the_place_of_a_data_set_and_the_other_way_round(tmp_path):
    given = ["--config=configs/photos_stage1.py", f"--workdir={tmp_path}"]
    _, config = parse(*given, "--config.dataset.folder=mine")
    assert (config.dataset.name, config.dataset.folder) == ("", "mine")
    _, config = parse("--config=configs/folder_stage1.py", "--config.dataset.name=digits")
    assert (config.dataset.name, config.dataset.folder) == ("digits", "")
    # Refused later.
    _, config = parse(*given, "--config.dataset.folder=mine", "--config.dataset.name=digits")
    assert (config.dataset.name, config.dataset.folder) == ("digits", "mine")


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "--config=FILE is needed to train"),
        (["--workdir=w", "--confg=3"], "there is no flag --confg: did you mean '--config'?"),
        (["--workdr", "w", TINY], "there is no flag --workdr: did you mean '--workdir'?"),
        (
            ["--seed=1", TINY],
            "--seed is a flag of --mode=encode and sample and edit, not of --mode=train",
        ),
        (
            ["--mode=edit", "--labels=1", TINY],
            "--labels is a flag of --mode=sample, not of --mode=edit",
        ),
        ([TINY, "--workdir"], "Missing value for flag --workdir"),
        ([TINY, "w"], "expected flags as --name=value, got 'w'"),
        (
            [TINY, "--mode=tain"],
            "--mode=tain: value should be one of <train|encode|sample|edit|reconstruct|evaluate>",
        ),
        ([TINY, "--mode=sample", "--labels="], "--labels=: expected values with commas between"),
        ([TINY, "--mode=sample", "--labels=3,,5"], "--labels=3,,5: expected values with commas"),
        ([TINY, "--mode=evaluate", "--metrics="], "--metrics=: expected values with commas"),
        ([TINY, "--mode=sample", "--out="], "--out= is empty: give a value, or leave it out"),
        ([TINY, "--workdir="], "--workdir= is empty: give a value, or leave it out"),
        ([TINY, "--num=0"], "--num=0: expected a positive integer"),
        ([TINY, "--num=many"], "--num=many: expected a positive integer"),
        ([TINY, "--num=0x10"], "--num=0x10: expected a positive integer"),
        ([TINY, "--batch_size=0"], "--batch_size=0: expected a positive integer"),
        ([TINY, "--acceptance=1.5"], "--acceptance=1.5: expected a number in the range [0.0, 1.0]"),
        ([TINY, "--seed=-1"], "--seed=-1: expected an integer in the range [0"),
        (["--mode=sample"], "--workdir=DIR is needed to sample"),
        (
            ["--mode=edit", "--workdir=nowhere"],
            "nowhere is no workdir: there is no nowhere/config.json",
        ),
        ([f"--config={ROOT}/configs/imagenet_stag1.py"], "/configs/imagenet_stage1.py'?"),
        (["--config="], "--config= is empty: give a value, or leave it out"),
        (
            ["--config=nowhere/x.py"],
            "there is no file nowhere/x.py; expected the path of a file in configs/",
        ),
        (
            ["--config=old"],
            "expected a Python file, but old is a workdir: give --workdir=old",
        ),
        (["--config=old/config.json"], "is what a run was trained with: give --workdir=old"),
        ([f"--config={ROOT}/docs"], "docs is a folder: give a file such as configs/quickstart.py"),
        (
            [f"--config={ROOT}/configs"],
            f"configs is a folder: give a file such as {ROOT}/configs/celebahq_stage1.py",
        ),
        ([f"--config={ROOT}/README.md"], "README.md is none: give a file such as"),
        ([TINY, "--mode=edit", "--mask="], "--mask= is empty: give a value, or leave it out"),
        (
            [f"--config={ROOT}/configs/common.py"],
            "common.py is no config, but maybe a helper of configs: it has no get_config()",
        ),
        (
            [f"--config={ROOT}/configs/ffhq_stage1.py:huge"],
            "there is no variant 'huge' of this config: expected",
        ),
        (
            ["--config=broken.py"],
            "--config=broken.py: line 3, NameError: name 'foos' is not defined",
        ),
        (["--config=syntax.py"], "SyntaxError: "),
        (
            ["--config=plain.py:x"],
            "TypeError: get_config() takes 0 positional arguments but 1 was given",
        ),
        (["--config=plain.py"], "expected its get_config() to return a ConfigDict with a stage"),
        (["--config=reads.py"], "FileNotFoundError: "),
        ([TINY, "--config.duratoin=3"], "config has no key 'duratoin': did you mean 'duration'?"),
        ([QUICK, "--config.epochs=3"], "config has no key 'epochs': expected one of "),
        (
            [QUICK, "--config.log_every=3"],
            "no key 'log_every': did you mean 'generator.log_every' or 'tokenizer.log_",
        ),
        (
            [TINY, "--config.sizes=3"],
            "config has no key 'sizes': expected one of adversarial, alarm, batch_size",
        ),
        ([TINY, "--config.dataste.size=3"], "config has no key 'dataste': did you mean 'dataset'?"),
        ([TINY, "--config.seed.x=3"], "--config.seed.x: config.seed is 0, which has no keys"),
        ([TINY, "--config.dataset.=3"], "config.dataset has no key ''"),
        (
            [TINY, "--config.evals.distributoin.samples=3"],
            "no module with Evaluator in evqgan/evals/: did you mean 'distribution'",
        ),
        (
            [TINY, "--config.evals.distribution.protocol=amd"],
            "config.evals.distribution.protocol expects one of folder, adm, got 'amd'",
        ),
        (
            [TINY, "--config.tokenizer.encoder.depths[0]=3"],
            "has no key 'depths[0]': did you mean 'depths'?",
        ),
        (
            [TINY, "--config.batch_size=many"],
            "--config.batch_size expects a value of type int, such as 2, got 'many'",
        ),
        (
            [TINY, "--config.batch_size=1.5"],
            "--config.batch_size expects a value of type int, such as 2, got '1.5'",
        ),
        (
            [TINY, "--config.optimizer.ema=x"],
            "--config.optimizer.ema expects a value of type float, such as 0.999",
        ),
        ([TINY, "--config.dataset=3"], "--config.dataset expects a dict, got '3'"),
        (
            [TINY, "--config.tokenizer.encoder.depths=a"],
            "depths expects a value of type tuple, such as (2, 2, 2), got",
        ),
        ([TINY, "--config.batch_size"], "Missing value for flag --config.batch_size"),
        ([QUICK, "--config.sampels=3"], "config has no key 'sampels': did you mean 'samples'?"),
        ([QUICK, "--config.mesh.fsdp=2"], "config has no key 'mesh'"),
        (
            [QUICK, "--config.generator.duratoin=3"],
            "config.generator has no key 'duratoin': did you mean 'duration'?",
        ),
    ],
)
def test_what_is_wrong_is_one_line(capsys, args, message):
    pathlib.Path("broken.py").write_text("def get_config():\n    foo = 3\n    return foos\n")
    pathlib.Path("syntax.py").write_text("def get_config(:\n")
    pathlib.Path("plain.py").write_text("def get_config():\n    return {'stage': 'stage1'}\n")
    pathlib.Path("reads.py").write_text("def get_config():\n    return open('nothing').read()\n")
    pathlib.Path("old").mkdir()
    pathlib.Path("old/config.json").write_text("{}")
    before = sorted(pathlib.Path().rglob("*"))
    code, lines = call(capsys, *args)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    # Nothing was made.
    assert sorted(p for p in pathlib.Path().rglob("*") if "__pycache__" not in str(p)) == before


def test_keys_of_the_config_can_be_set():
    apart = ("--workdir", "here", "--config.batch_size", "3")
    joined = (
        "--config.seed=-2",
        "--config.dataset.name=a=b",
        "--config.duration=2 epochs",
        "--config.optimizer.learning_rate=1",
        "--config.tokenizer.encoder.depths=(4,5)",
    )
    values, config = parse(TINY, *apart, *joined)
    assert values.workdir == "here" and values.mode == "train"
    assert (config.batch_size, config.seed, config.dataset.name) == (3, -2, "a=b")
    assert config.duration == "2 epochs" and config.optimizer.learning_rate == 1.0
    assert config.tokenizer.encoder.depths == (4, 5) and config.is_locked


def test_keys_of_a_command_have_two_dashes_in_the_record_of_a_run():
    argv = [
        "evqgan",
        "-config.seed=1",
        "--config.keep",
        "2",
        "-config.duration",
        "3",
        "--workdir=x",
    ]
    assert main.keys_of(argv) == ["--config.seed=1", "--config.keep=2", "--config.duration=3"]


def test_keys_that_a_constructor_has_can_be_set_too():
    _, config = parse(
        TINY,
        "--config.mesh.fsdp=2",
        "--config.keep=3",
        "--config.dataset.folder=/x",
        "--noconfig.dataset.flip",
        "--config.tokenizer.encoder.remat=true",
        "--config.tokenizer.quantizer.decay=0.9",
        "--config.eval_batch_size=7",
    )
    assert config.mesh.to_dict() == {"fsdp": 2} and config.keep == 3 and config.eval_batch_size == 7
    assert config.dataset.folder == "/x" and config.dataset.flip is False
    assert config.tokenizer.encoder.remat is True and config.tokenizer.quantizer.decay == 0.9


def test_the_workdir_has_the_configs_name_by_default():
    assert parse(QUICK)[0].workdir == "workdirs/quickstart_tiny"
    assert (
        parse(f"--config={ROOT}/configs/imagenet_stage1.py")[0].workdir
        == "workdirs/imagenet_stage1"
    )
    assert parse(f"--config={ROOT}/configs/imagenet_stage1.py", "--workdir=x")[0].workdir == "x"


@pytest.mark.parametrize("part", ["tokenizer", "generator", ""])
def test_other_modes_take_the_config_from_the_workdir(part):
    place = workdirs.trained() / part
    for args in (
        ["--mode=sample", f"--workdir={place}"],
        ["--mode", "evaluate", "--workdir", str(place)],
    ):
        _, config = (
            parse(*args, "--config.sample.temperature=0.9") if part != "tokenizer" else parse(*args)
        )
        assert config.stage == ("stage1" if part == "tokenizer" else "stage2")
        if part != "tokenizer":
            rest = {"steps": 8, "choice_temperature": 4.5, "schedule": "cosine"}  # the preset
            assert config.sample.to_dict() == {"temperature": 0.9, **rest}
    with pytest.raises(InputError, match="config has no key 'sampel': did you mean 'sample'"):
        parse("--mode=sample", f"--workdir={workdirs.trained()}", "--config.sampel.temperature=0.9")


def test_the_home_folder_may_be_left_out_of_every_path(tmp_path, monkeypatch):
    """A shell leaves the "~" of --name=~/folder as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    place = workdirs.copy(tmp_path / "w")
    for mode in ("sample", "evaluate", "encode"):
        values, _ = parse(f"--mode={mode}", "--workdir=~/w")
        assert values.workdir == str(place)
    values, config = parse("--workdir=~/w/tokenizer", "--config.init=~/x")
    assert (values.mode, config.stage, config.init) == ("train", "stage1", f"{tmp_path}/x")
    paths = [flag.name for flag in flags.FLAGS if flag.kind in (cli.PATH, cli.PLACE)]
    expected = ["workdir", "preset", "classifier_weights", "out", "image", "mask", "json"]
    assert paths == expected
    keys = ("dataset.folder", "dataset.data_dir", "dataset.codes", "tokenizer.weights", "init")
    _, config = parse("--config=folder_stage2", *(f"--config.{key}=~/{key}" for key in keys))
    for key in keys:
        assert config_files.at(config, key.split(".")) == f"{tmp_path}/{key}"
    config = ConfigDict({"evals": {"distribution": {"reference": "~/r"}}, "weights": "~/p"})
    config_files.expand_paths(config)
    expected = {"reference": f"{tmp_path}/r"}
    assert config.evals.distribution.to_dict() == expected and config.weights == f"{tmp_path}/p"
    values, _ = parse("--config=folder_stage2", "--mode=encode", "--config.tokenizer.weights=~/w")
    assert values.workdir == str(place)
    assert str(evqgan.load("~/w").workdir) == f"{place}/generator"


def test_training_goes_on_by_the_workdirs_own_config():
    values, config = parse(f"--workdir={workdirs.trained() / 'tokenizer'}", "--config.keep=2")
    assert (values.mode, config.stage, config.keep) == ("train", "stage1", 2)
    # Its training in both parts said nowhere how a quickstart was begun.
    for other in ("no/such", workdirs.trained()):
        with pytest.raises(InputError, match="--config=FILE is needed to train"):
            parse(f"--workdir={other}")


def test_help_is_given(capsys):
    for flag in ("--help", "-h", "--helpfull"):
        assert main.main(["main", "--workdir=x", flag]) == 0
        out, err = capsys.readouterr()
        assert "--config.key=value" in out and "samples.npz" in out and not err
        assert all(f"--{flag.name} " in out for flag in flags.FLAGS)


@pytest.mark.parametrize("command", ["evqgan.main", "evqgan.convert"])
def test_the_version_is_printed(capsys, command):
    module = importlib.import_module(f"{command}.__main__" if "convert" in command else command)
    argv = ["--version"] if "convert" in command else ["main", "--config=none", "--version"]
    assert module.main(argv) == 0
    assert capsys.readouterr() == (f"evqgan {evqgan.__version__}\n", "")


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["--confg=3"], [TINY, "--seed=1"], [TINY, "--config.x=1"]]
)
def test_help_and_wrong_flags_do_not_wait_for_jax(args):
    code = (
        "import sys\nfrom evqgan import main\n"
        f"main.main(['main', *{args}])\nsys.exit('jax' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, capture_output=True, env=env, timeout=120).returncode == 0


MAKERS = {
    "train": (loop, "train"),
    "quickstart": (quickstart, "run"),
    "encode": (mode_encode, "encode"),
    "sample": (mode_sample, "sample"),
    "edit": (mode_edit, "edit"),
    "reconstruct": (mode_reconstruct, "reconstruct"),
    "evaluate": (evaluation, "evaluate"),
}


@pytest.fixture
def runs(monkeypatch):
    """What a command line leads to, instead of its doing: the name and the arguments."""
    workdirs.trained()  # before training is no training any more
    found = []

    def note(name):
        return lambda *args: found.append((name, *args))

    for name, (module, function) in MAKERS.items():
        monkeypatch.setattr(module, function, note(name))
    return found


@pytest.mark.parametrize(
    "args, expected",
    [
        (
            ["--config=imagenet_stage1", "--workdir=a b"],
            "next: python -m evqgan.main --mode=reconstruct --workdir='a b' --image=PICTURE, or a "
            "generator on it: python -m evqgan.main --config=imagenet_stage2 "
            "--config.tokenizer.weights='a b'\n",
        ),
        (
            ["--config=folder_stage1:gpu64", "--workdir=w", "--config.dataset.folder=f"],
            "--config=folder_stage2:gpu64 --config.tokenizer.weights=w --config.dataset.folder=f\n",
        ),
        (
            [TINY, "--workdir=w"],
            "stage2.py:tiny --config.tokenizer.weights=w --config.tokenizer.model={} "
            "--config.dataset.size=128\n",
        ),
        (
            [
                *(TINY, "--workdir=w", "--config.dataset.name=", "--config.dataset.folder=f"),
                *("--config.dataset.max_bad=0.2", "--config.dataset.size=64"),
            ],
            "--config.dataset.name= --config.dataset.folder=f --config.dataset.size=64 "
            "--config.dataset.max_bad=0.2\n",
        ),
        (
            ["--config=digits_quantizers:fsq", "--workdir=w"],
            "--config=STAGE2_FILE --config.tokenizer.weights=w --config.dataset.name=digits "
            "--config.dataset.size=32\n",
        ),
        (
            ["--config=imagenet_stage2", "--workdir=w", "--config.tokenizer.weights=t"],
            "next: python -m evqgan.main --mode=sample --workdir=w\n",
        ),
        (
            [QUICK, "--workdir=w"],
            "next: see w/edits.png; more samples: python -m evqgan.main --mode=sample --workdir=w "
            "--num=64 --out=w/more; your own pictures: python -m evqgan.main "
            "--config=configs/folder.py --config.dataset.folder=FOLDER\n",
        ),
    ],
)
def test_training_ends_with_what_can_be_done_next(runs, capsys, args, expected):
    assert main.main(["main", *args]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(expected) and bool(out) == bool(expected) and not err


def test_a_generator_on_a_tokenizer_of_other_classes_is_told_how_many(tmp_path):
    file = "configs/baselines/vqgan_imagenet_stage1.py:tiny"
    config = config_files.read_file(file)
    assert "generator.classes" not in next_steps.after_training(file, config, tmp_path, [])
    with config.unlocked():
        config.class_names = ("a", "b", "c")
    (tmp_path / "config.json").write_text(config.to_json())
    line = next_steps.after_training(file, config, tmp_path, [])
    assert line.endswith(" --config.generator.classes=3")


def test_training_gets_its_config(runs, capsys):
    assert call(capsys, TINY, "--workdir=w") == (0, [])
    assert call(capsys, QUICK) == (0, [])
    (name, config, workdir, profile), (other, _, place, command) = runs
    assert (name, config.stage, workdir, profile) == ("train", "stage1", pathlib.Path("w"), 0)
    assert (other, place) == ("quickstart", pathlib.Path("workdirs/quickstart_tiny"))
    assert command == (QUICK.removeprefix("--config="), ())


@pytest.mark.parametrize(
    "mode, args, request_of",
    [
        ("sample", [], mode_sample.SampleRequest()),
        (
            "sample",
            ["--num=3", "--labels=cat,5", "--seed=4", "--out=o", "--force"],
            mode_sample.SampleRequest(3, ["cat", "5"], 4, force=True),
        ),
        (
            "sample",
            [
                "--acceptance=0.5",
                "--classifier=a.b:c",
                "--classifier_weights=w",
                "--steps_strip",
                "--batch_size=8",
            ],
            mode_sample.SampleRequest(
                64, None, 0, 0.5, "a.b:c", "w", steps_strip=True, batch_size=8
            ),
        ),
        (
            "edit",
            ["--image=i", "--box=1,2,3,4", "--label=cat", "--margin=0"],
            mode_edit.EditRequest("i", box=["1", "2", "3", "4"], label="cat", num=4, margin=0),
        ),
        (
            "edit",
            ["--image=i", "--batch_size=2", "--num=1"],
            mode_edit.EditRequest("i", num=1, batch_size=2),
        ),
        ("encode", ["--views=3", "--seed=7"], mode_encode.EncodeRequest(3, 7)),
    ],
)
def test_each_mode_gets_its_flags(runs, capsys, mode, args, request_of):
    place = workdirs.trained()
    assert call(capsys, f"--workdir={place}", f"--mode={mode}", *args) == (0, [])
    ((name, config, workdir, out, request),) = runs
    assert (name, workdir, request) == (mode, place, request_of)
    assert out == (pathlib.Path("o") if "--out=o" in args else None)
    assert config.stage == ("stage1" if mode == "encode" else "stage2")


def test_modes_of_few_flags_get_these(runs, capsys):
    at = f"--workdir={workdirs.trained()}"
    assert call(capsys, at, "--mode=evaluate", "--metrics=generation,samples") == (0, [])
    assert call(capsys, at, "--mode=evaluate", "--batch_size=4", "--step=best") == (0, [])
    assert call(capsys, at, "--mode=reconstruct", "--image=~/x", "--out=o") == (0, [])
    home, out = os.path.expanduser("~/x"), pathlib.Path("o")
    assert [(name, *args[2:]) for name, *args in runs] == [
        ("evaluate", None, ["generation", "samples"], None, None, None),
        ("evaluate", None, [], 4, None, "best"),
        ("reconstruct", out, home, None, None, None),
    ]


def test_keys_of_a_quickstarts_tokenizer_reach_its_evaluation(runs, capsys, tmp_path):
    place, file = workdirs.trained(), tmp_path / "both.py"
    file.write_text(
        "import workdirs\nfrom ml_collections import ConfigDict\ndef get_config():\n"
        f"  first, second = workdirs.configs({str(place / 'images')!r})\n"
        "  parts = {'tokenizer': first, 'generator': second}\n"
        "  return ConfigDict({'stage': 'quickstart', 'samples': 20, **parts})\n"
    )
    key = "--config.tokenizer.evals.reconstruction.features=pixels"
    args = [f"--config={file}", f"--workdir={place}", "--mode=evaluate", key]
    assert call(capsys, *args) == (0, [])
    ((_, config, *_, tokenizer, _),) = runs
    assert config.stage == "stage2" and tokenizer.evals.reconstruction.features == "pixels"


def test_a_config_of_another_run_is_refused(runs, capsys):
    code, lines = call(capsys, TINY, f"--workdir={workdirs.trained()}", "--mode=sample")
    assert (
        code == 2
        and len(lines) == 1
        and "holds a run of another config, config." in lines[0]
        and not runs
    )


@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_a_workdir_of_another_run_is_refused_before_data_are_read(tmp_path, capsys, stage):
    """The data there are would be read for minutes, or are not there."""
    place = workdirs.copy(tmp_path / "w")
    config = {"tokenizer": "folder_stage1", "generator": "folder_stage2"}[stage]
    args = [f"--config={config}", f"--workdir={place / stage}", "--config.dataset.folder=/nowhere"]
    weights = f"--config.tokenizer.weights={place / 'tokenizer'}"
    code, lines = call(capsys, *args, *([weights] if stage == "generator" else []))
    assert code == 2 and len(lines) == 1
    start = f"error: {place / stage} holds a run of another config, config.batch_size: 4 -> "
    assert lines[0].startswith(start) and lines[0].count(" -> ") == 5
    assert re.search(r", and \d+ more: give the config it was made with", lines[0])
    other = "generator" if stage == "tokenizer" else "tokenizer"
    args = [f"--config={config}", f"--workdir={place / other}", "--config.dataset.folder=/nowhere"]
    code, lines = call(capsys, *args, *([weights] if stage == "generator" else []))
    assert code == 2 and len(lines) == 1
    assert re.search(r"another config, config.stage: stage\d -> stage\d: give", lines[0])


@pytest.mark.parametrize(
    "error, code, message",
    [
        (InputError("expected this,\n got that"), 2, "error: expected this, got that"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/disk"),
            2,
            "No space left on device: '/full/disk'",
        ),
        (
            NonFinite("stopped at step 3: train/loss = nan"),
            1,
            "error: stopped at step 3: train/loss = nan",
        ),
        (
            KeyboardInterrupt(),
            130,
            "stopped by SIGINT; give the same command again",
        ),
    ],
)
def test_what_stops_a_run_is_one_line(monkeypatch, capsys, error, code, message):
    def stop(*_):
        raise error

    monkeypatch.setattr(loop, "train", stop)
    found, lines = call(capsys, TINY)
    assert found == code and len(lines) == 1 and message in lines[0]
    if code != 130:
        found, lines = call(capsys, TINY, "--debug")
        assert found == code and message in lines[-1]
        assert lines[0] == "Traceback (most recent call last):" and any(
            "in stop" in line for line in lines
        )


def test_a_defect_shows_its_traceback(monkeypatch):
    def stop(*_):
        raise KeyError("a defect")

    monkeypatch.setattr(loop, "train", stop)
    with pytest.raises(KeyError, match="a defect"):
        main.main(["main", TINY])


@pytest.mark.parametrize(
    "args, message",
    [
        (
            [TINY, "--config.tokenizer.quantizer.cods=3"],
            "tokenizer.quantizer has no key 'cods': did you mean 'codes'?",
        ),
        (
            [QUICK, "--config.generator.generator.windw=5"],
            "generator has no key 'windw': did you mean 'window'?",
        ),
        (
            [QUICK, "--config.generator.sample.step=5"],
            "config.sample has no key 'step': did you mean 'steps'?",
        ),
        (
            [TINY, "--config.tokenizer.encoder.name=swim"],
            "no module with Encoder in evqgan/tokenizers/: did you mean 'swin'?",
        ),
        (
            [TINY, "--config.dataset.name=digts"],
            "there is no data set 'digts'; did you mean 'digits'?",
        ),
        (
            [TINY, "--config.dataset.folder=/no", "--config.dataset.name="],
            "folder of images, got '/no', which is no",
        ),
        ([TINY, "--config.optimizer.decay=cosin"], "did you mean 'cosine'?"),
        ([TINY, "--config.optimizer.lr=1"], "config.optimizer has no key 'lr'"),
        ([TINY, "--config.mesh.fdsp=1"], "config.mesh has no key 'fdsp': did you mean 'fsdp'?"),
        (
            [TINY, "--config.mesh.fsdp=64"],
            "'data': -1, 'fsdp': 64, 'tensor': 1} needs a multiple of 64 devices, not 1",
        ),
        (
            [QUICK, "--config.tokenizer.dataset.size=50"],
            "config.dataset.size = 50 is no multiple of 4, the pixels of a token's side: 48 or 52 "
            "would fit",
        ),
        (
            [TINY, "--config.dataset.size=64,7"],
            "config.dataset.size = (64, 7) is no multiple of 16, the pixels of a token's side: "
            "(80, 16) would fit",
        ),
        (
            [TINY, "--config.dataset.size=16"],
            "config.adversarial.critic: patchgan with 3 layers sees 24 pixels or more, got 16x16",
        ),
        (
            [TINY, "--config.tokenizer.encoder.head_dim=7"],
            "config.tokenizer.encoder: the width of a Swin encoder or decoder is a multiple of "
            "its head_dim, 7, not 16",
        ),
        (
            [QUICK, "--config.generator.generator.window=5"],
            "config.generator.window = 5 does not divide the 8 x 8 token grid: 1, 2, 4, 8 do",
        ),
        (
            [TINY, "--config.duration=soon"],
            "config.duration expects more than 0: a number of steps",
        ),
    ],
)
def test_wrong_values_of_keys_are_one_line_and_make_nothing(capsys, args, message):
    code, lines = call(capsys, *args, "--workdir=w")
    assert code == 2 and len(lines) == 1 and message in lines[0]
    assert not pathlib.Path("w").exists()


def test_a_checkpoint_cut_short_is_one_line(tmp_path, capsys):
    place = workdirs.copy(tmp_path / "w")
    arrays = [p for p in (place / "generator" / "checkpoints").rglob("d/*") if p.is_file()]
    for file in arrays:  # all: which of them hold the part that sampling reads is orbax's affair
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, lines = call(capsys, "--mode=sample", "--workdir", place, "--num=1")
    assert (
        code == 2
        and len(lines) == 1
        and "is damaged" in lines[0]
        and not (place / "samples").exists()
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes(
        (place / "generator" / "config.json").read_bytes()
    )
    code, lines = call(capsys, "--mode=sample", "--workdir", tmp_path / "empty")
    assert code == 2 and len(lines) == 1 and "there is no checkpoint in" in lines[0]


def test_that_jax_cannot_start_is_one_line(monkeypatch, capsys):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda'\nand more")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    code, lines = call(capsys, TINY, "--workdir=w")
    expected = "error: JAX cannot start with JAX_PLATFORMS=cuda: Unable to initialize backend"
    assert code == 2 and len(lines) == 1 and lines[0].startswith(expected)


def test_what_is_logged_is_plain():
    cli.start_jax()
    where = "decoded.py", 1
    record = logging.LogRecord("absl", logging.WARNING, *where, "Skipped %s", ("a",), None)
    assert absl_logging.get_absl_handler().format(record) == "Skipped a"
    assert absl_logging.get_absl_handler() in logging.getLogger().handlers


# Where there is a GPU none is absent. What is said is guarded always, by
# test_that_jax_cannot_start_is_one_line.
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks for a GPU that this machine has")
def test_a_device_that_is_absent_is_asked_for_in_vain():
    run = started(TINY, "--workdir=w", JAX_PLATFORMS="cuda")
    lines = run.stderr.splitlines()
    assert run.returncode == 2 and len(lines) == 1, run.stderr
    assert "JAX cannot start with JAX_PLATFORMS=cuda" in lines[0] and not pathlib.Path("w").exists()


def test_a_process_says_one_line_and_no_more():
    run = started("--mode=sample", f"--workdir={workdirs.trained()}", "--labels=cta")
    assert run.returncode == 2 and not run.stdout  # nothing was loaded
    assert run.stderr.splitlines() == [
        "error: there is no class 'cta': expected a whole number from 0 to 9, or a name: "
        "did you mean 'cat'?"
    ]


@pytest.mark.parametrize("before", [(), ("frechet",), None])
@pytest.mark.parametrize("text", ["frechet,mmd", "('frechet','mmd')", "['frechet', 'mmd']"])
def test_a_list_is_written_in_two_ways(before, text):
    """Whether the config has it, or it is new: `kinds.read` makes a list of a text in that case."""
    keys = {} if before is None else {"metrics": before}
    config = ConfigDict({"stage": "stage2", "evals": {"distribution": keys}})
    config_files.override(config, [f"--config.evals.distribution.metrics={text}"])
    found = kinds.read(config.evals.distribution.metrics, tuple[str, ...])
    assert tuple(found) == ("frechet", "mmd")


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("--config.duration=20 epochs", "20 epochs"),
        ("--config.duration=1,000 steps", "1,000 steps"),
        ("--config.duration=7", 7),
        ("--config.optimizer.warmup=5%", "5%"),
        ("--config.dataset.size=32,48", (32, 48)),
        ("--config.sample.top_k=8,4,2,1", (8, 4, 2, 1)),
        ("--config.sample.top_k=(8, 4)", (8, 4)),
        ("--config.sample.top_k=[8]", (8,)),
        ("--config.sample.top_k=7", 7),
        ("--config.sample.top_p=0.9,.8", (0.9, 0.8)),
        ("--config.perceptual=None", None),
        ("--config.sample.final=None", None),
        ("--config.sample.name=None", None),
        ("--config.adversarial=None", None),
        ("--config.sample.depths=8,4", (8, 4)),
        ("--config.sample.depths=5", (5,)),
    ],
)
def test_a_key_takes_a_value_of_another_type_where_it_has_two(given, value):
    """A config file of one's own may have `duration = 5000`; those that ship have texts."""
    keys = {"dataset": {"size": 32}, "optimizer": {"warmup": 100}, "perceptual": {"weight": 1.0}}
    keys |= {"sample": {"top_k": 0, "top_p": 1.0, "final": 0.5, "name": "a", "depths": [4, 4]}}
    keys["adversarial"] = None  # as the config.json of a workdir has it, and lists
    config = ConfigDict({"stage": "stage2", "duration": 5000, **keys})
    config_files.override(config, [given])
    key = given.partition("=")[0].removeprefix("--config.")
    assert config_files.at(config, key.split(".")) == value


def test_a_wrong_duration_in_place_of_a_number_is_refused():
    config = ConfigDict({"stage": "stage2", "duration": 5000})
    with pytest.raises(InputError, match="duration expects a value of type int, such as 5000"):
        config_files.override(config, ["--config.duration=0,5 epochs"])


def test_a_section_cannot_be_none_and_have_keys():
    config = ConfigDict({"generator": {"layers": 2}})
    given = ["--config.generator.layers=3", "--config.generator=None"]
    with pytest.raises(InputError, match="--config.generator=None leaves no section for --config"):
        config_files.override(config, given)


@pytest.mark.parametrize("given", ["sample.flag=1,2", "sample.name=1,2", "sample.top_k=a,b"])
def test_no_list_is_taken_in_place_of_what_is_no_number(given):
    config = ConfigDict({"sample": {"flag": True, "name": "a", "top_k": 0}})
    before = config.to_dict()
    assert (
        not config_files.set_otherwise(config, f"--config.{given}") and config.to_dict() == before
    )


def test_a_number_that_is_not_watched_is_told_how_to_be():
    """config_flags takes no key with a slash."""
    config = ConfigDict({"stage": "stage2", "alarm": {"val/loss": 0.5}})
    with pytest.raises(InputError, match="no key 'val/mse': others are given with all") as error:
        config_files.override(config, ["--config.alarm.val/mse=0.5"])
    config_files.override(config, [str(error.value).rpartition(", ")[2].replace('"', "")])
    assert config.alarm.to_dict() == {"val/mse": 0.5}
