"""The launch scripts run the right commands.

Nothing is installed here: Python is a script that notes its calls.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from launch_machine import ROOT, Machine, commands, one_error
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from evqgan.core.cli import CONFIG_KEYS, TEXT, Flag, parse

SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci" / "run"])
PATH = "/usr/bin:/bin"  # neither gcloud nor srun
PYTEST = "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"
LINT = ["-m ruff check", "-m ruff format --check --quiet", "-m mypy"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses_and_says_what_it_does(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert re.match(r"(#!/usr/bin/env bash|# shellcheck shell=bash)\n# [A-Z]", script.read_text())
    sourced = script.read_text().startswith("# shellcheck shell=bash")
    assert sourced != os.access(script, os.X_OK)


@pytest.mark.parametrize(
    "name", ["local", "test", "tpu_vm", "queued_resource", "xpk", "slurm", "prepare_data"]
)
def test_help_prints_the_head_of_a_script_and_does_nothing_else(tmp_path, name):
    script = ROOT / "launch" / f"{name}.sh"
    bash = shutil.which("bash"), "--noprofile", script, "a", "us-east5-a", "--config=c.py", "--help"
    done = subprocess.run(bash, capture_output=True, text=True, cwd=tmp_path, env={"PATH": PATH})
    assert done.returncode == 0 and not done.stderr and not list(tmp_path.iterdir())
    head = script.read_text().partition("\nset -euo")[0]
    shown = [line[2:] for line in head.splitlines() if line.startswith("# ")]
    assert done.stdout.splitlines() == shown and f"bash launch/{name}.sh" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--workdir=a b"],
        ["-workdir=a", "--config.seed=1"],
        ["--workdir", "a", "--config=c"],
        ["--workdir=a", "--config=c", "--workdir=gs://b/c=d"],
        ["--config.workdir=a"],
    ],
)
def test_the_scripts_read_a_flag_as_the_program_does(words):
    script = '. launch/environment.sh; value_of workdir "$@"'
    done = subprocess.run(
        ["bash", "-euc", script, "bash", *words], cwd=ROOT, capture_output=True, text=True
    )
    table = Flag("workdir", TEXT, (), ""), Flag("config", TEXT, (), ""), CONFIG_KEYS
    assert done.returncode == 0 and done.stdout == (parse(table, words)[0].workdir or "")


@pytest.mark.parametrize(
    "flags, quickstart",
    [
        ([], True),
        (["--workdir=a b"], True),
        (["--workdir=x", "--config.batch_size=8"], True),
        (["--config=configs/photos_stage1.py:tiny", "--workdir=x"], False),
        (["--config", "c.py"], False),
        (["--mode=sample", "--workdir=x"], False),
    ],
)
def test_local_runs_the_quickstart_unless_a_config_or_a_mode_is_given(machine, flags, quickstart):
    *_, last = commands(machine.run("launch/local.sh", *flags, EVQGAN_DRY_RUN="1"))
    default = [f"--config={machine.repository}/configs/quickstart.py"] if quickstart else []
    assert last == [
        "exec",
        f"{machine.repository}/.venv/bin/python",
        "-P",
        "-m",
        "evqgan.main",
        *default,
        *flags,
    ]


def test_local_says_how_its_python_is_typed_where_the_shell_has_another(machine):
    done = machine.run("launch/local.sh", EVQGAN_DRY_RUN="1")
    paths = f"PATH={machine.repository}/.venv/bin:$PATH PYTHONPATH={machine.repository}"
    assert f"python -m evqgan... yourself: export {paths}\n" in done.stderr
    machine.add_program()
    done = machine.run("launch/local.sh", EVQGAN_DRY_RUN="1", EVQGAN_VENV="none")
    assert "yourself" not in done.stderr


def test_a_dry_run_prints_the_installation_and_does_nothing(machine):
    make, install, _ = commands(machine.run("launch/local.sh", EVQGAN_DRY_RUN="1"))
    assert make == ["python3.11", "-m", "venv", f"{machine.repository}/.venv"]
    assert install[1:4] == ["-m", "pip", "install"] and install[-2:] == [
        "-r",
        f"{machine.repository}/requirements.txt",
    ]
    assert machine.calls() == [] and not (machine.repository / ".venv").exists()


def test_a_dry_run_refuses_what_the_program_would(machine):
    machine.add_program()
    settings = {"EVQGAN_VENV": "none", "EVQGAN_DRY_RUN": "1"}
    mine = machine.place / "user" / "mine.py"
    mine.write_text("from configs.quickstart import get_config\n")
    for config in ([], [f"--config={mine}"], ["--config=mine.py:tiny"]):
        done = machine.run("launch/local.sh", *config, "--config.nokey=3", **settings)
        assert "config has no key 'nokey'" in one_error(done)
        done = machine.run("launch/local.sh", *config, "--config.samples=3", **settings)
        assert done.returncode == 0 and "checked" not in done.stderr, done.stderr


def test_a_dry_run_of_the_tests_prints_them_and_runs_none(machine):
    *_, lint, form, tests, types = commands(machine.run("launch/test.sh", "--dry_run", "-k", "x"))
    assert [line[2] for line in (lint, form, tests, types)] == ["ruff", "ruff", "pytest", "mypy"]
    assert tests[-4:] == ["-m", "not slow", "-k", "x"] and machine.calls() == []


@pytest.mark.parametrize(
    "gpu, asked, build",
    [
        (None, "", None),
        ("580.65.06, 9.0", "", "cuda13"),
        ("595.10, 12.0\n595.10, 12.0", "", "cuda13"),
        ("580.65.06, 7.0", "", "cuda12"),  # Volta, which CUDA 13 has dropped
        ("535.183.01, 8.0", "", "cuda12"),
        ("580.65.06, 9.0", "cpu", None),
        (None, "tpu", "tpu"),
    ],
)
def test_the_build_of_jax_follows_the_machine(machine, gpu, asked, build):
    machine.add(
        "nvidia-smi",
        f"#!/usr/bin/env bash\necho '{gpu}'\n" if gpu else "#!/usr/bin/env bash\nexit 9\n",
    )
    done = machine.run("launch/local.sh", EVQGAN_DRY_RUN="1", EVQGAN_JAX=asked)
    _, install, _ = commands(done)
    platforms = f"JAX_PLATFORMS={build.rstrip('123')},cpu " if build else ""
    assert f"evqgan: {platforms}{machine.repository}/.venv/bin/python -m evqgan.main" in done.stderr
    pin = re.search("^jax==(.*)$", (ROOT / "requirements.txt").read_text(), re.M)[1]
    assert [word for word in install if word.startswith("jax[")] == (
        [f"jax[{build}]=={pin}"] if build else []
    )


@pytest.mark.parametrize("own", ["", "cpu", "cuda"])
def test_what_a_user_has_set_for_jax_stays(machine, own):
    settings = {"EVQGAN_DRY_RUN": "1", "EVQGAN_JAX": "cuda13", "JAX_PLATFORMS": own}
    said = machine.run("launch/local.sh", **settings).stderr
    shown = f"JAX_PLATFORMS={own} " if own else ""
    assert f"evqgan: {shown}{machine.repository}/.venv/bin/python -m evqgan.main" in said


def test_what_cannot_be_used_is_one_line(machine):
    assert "cuda13 or tpu, got rocm" in one_error(machine.run("launch/local.sh", EVQGAN_JAX="rocm"))
    assert "Python 3.11 or later" in one_error(machine.run("launch/local.sh", TOO_OLD="1"))
    assert not (machine.repository / ".venv").exists()
    machine.add("nvidia-smi", "#!/usr/bin/env bash\necho '470.82.01, 7.0'\n")
    assert "found 470.82.01" in one_error(machine.run("launch/local.sh"))
    (machine.bin / "python3.11").unlink()
    assert "found none" in one_error(machine.run("launch/local.sh", EVQGAN_JAX="cpu"))
    assert "no python" in one_error(machine.run("launch/local.sh", EVQGAN_VENV="none"))
    assert "expected: bash launch/tpu_vm.sh" in one_error(machine.run("launch/tpu_vm.sh", "name"))


def test_the_environment_is_made_once_and_again_when_the_pins_change(machine):
    done = machine.run("launch/local.sh", "--config=c.py")
    assert done.returncode == 0, done.stderr
    assert len(machine.installs()) == 1 and machine.calls()[-1] == "-P -m evqgan.main --config=c.py"
    machine.run("launch/local.sh", "--config=c.py")
    assert machine.calls() == ["-P -m evqgan.main --config=c.py"]
    with open(machine.repository / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    machine.run("launch/local.sh")
    assert len(machine.installs()) == 1 and not any(
        "venv" in line.split() for line in machine.calls()
    )
    machine.run("launch/local.sh", EVQGAN_JAX="cuda12")
    assert len(machine.installs()) == 1 and "jax[cuda12]==" in machine.installs()[0]


def test_what_reads_a_bucket_is_installed_where_a_flag_names_one(machine):
    flags = ("--config=c.py", "--workdir=gs://bucket/run")
    machine.run("launch/local.sh", *flags)
    assert len(machine.installs()) == 1 and "gcsfs" in machine.installs()[0].split()
    for again in (flags, flags[:1]):
        machine.run("launch/local.sh", *again)
        assert machine.installs() == []
    *_, install, _ = commands(machine.run("launch/local.sh", "--dry_run", "--x", EVQGAN_VENV="new"))
    assert "gcsfs" not in install


def test_an_installation_that_was_cut_short_begins_again(machine):
    place = machine.place / "user" / "env"  # named from the user's folder
    done = machine.run("launch/local.sh", EVQGAN_VENV="env", FAILS="pip install")
    assert (
        "installation failed" in one_error(done)
        and "evqgan.main" not in machine.calls_file.read_text()
    )
    (place / "half").mkdir()
    assert machine.run("launch/local.sh", EVQGAN_VENV="env").returncode == 0
    assert [line.split()[1] for line in machine.calls()] == ["venv", "pip", "-m"] and not (
        place / "half"
    ).exists()


def test_an_environment_of_somebody_else_is_not_touched(machine):
    place = machine.place / "own"
    place.mkdir()
    (place / "precious").write_text("")
    assert "was not made by this script" in one_error(
        machine.run("launch/local.sh", EVQGAN_VENV=str(place))
    )
    assert os.listdir(place) == ["precious"] and machine.calls() == []


def test_the_users_environment_and_folder_are_kept(machine):
    package = machine.repository / "evqgan"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    (machine.bin / "python").write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    (machine.bin / "python").chmod(0o755)
    # A folder of that name where the user stands is not taken.
    (machine.place / "user" / "evqgan").mkdir()
    done = machine.run("launch/local.sh", "--config=c.py", EVQGAN_VENV="none")
    assert done.stdout == f"{machine.place / 'user'} ['--config=c.py']\n", done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (machine.repository / ".venv").exists()


def lint_and_tests(machine):
    """The last four calls: ruff twice, then mypy and pytest, side by side in any order."""
    lint, form, *beside = machine.calls()[-4:]
    return [lint, form, *sorted(beside)]


@pytest.mark.parametrize(
    "flags, given", [([], "-m not slow"), (["-m", "slow"], "-m slow"), (["-x"], "-m not slow -x")]
)
def test_test_runs_lint_and_tests(machine, flags, given):
    assert machine.run("launch/test.sh", *flags).returncode == 0
    assert lint_and_tests(machine) == [*LINT, f"{PYTEST} {given}"]
    assert "requirements-test.txt" in machine.installs()[0]
    machine.run("launch/local.sh")
    assert machine.installs() == []  # the test environment serves the main job too


@pytest.mark.parametrize(
    "fails, code", [("ruff check", 1), ("ruff format", 1), ("-m mypy", 1), ("-m pytest", 3)]
)
def test_test_fails_when_lint_or_tests_fail(machine, fails, code):
    assert machine.run("launch/test.sh", FAILS=fails).returncode == code
    assert lint_and_tests(machine) == [*LINT, f"{PYTEST} -m not slow"]


def test_ci_makes_an_environment_of_its_own(machine):
    (machine.place / "tmp").mkdir()
    done = machine.run(".ci/run", TMPDIR=str(machine.place / "tmp"), FAILS="-m pytest")
    assert done.returncode == 3 and lint_and_tests(machine)[-1] == f"{PYTEST} -m not slow"
    assert machine.calls()[0].startswith(f"-m venv {machine.place / 'tmp'}")
    assert not (machine.repository / ".venv").exists() and os.listdir(machine.place / "tmp") == []


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def test_the_pins_are_within_the_ranges_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    main, test = pins("requirements.txt"), pins("requirements-test.txt")
    groups = [
        (project["dependencies"], main),
        (project["optional-dependencies"]["test"], main | test),
        (project["optional-dependencies"]["weights"], test),  # CI checks with trained weights
        (project["optional-dependencies"]["gcs"], test),  # and runs on a bucket's stand-in
    ]
    for ranges, pinned in groups:
        for one in map(Requirement, ranges):
            assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one
    assert not main.keys() & test.keys() and not main.keys() & {
        "tensorflow",
        "torch",
        "pip",
        "setuptools",
    }
    documented = re.findall(r'"jax\[\w+\]==([\d.]+)"', (ROOT / "requirements.txt").read_text())
    assert documented and set(documented) == {main["jax"]}
