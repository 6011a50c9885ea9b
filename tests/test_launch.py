"""The launch scripts run the right commands.

Nothing is installed here: Python is a script that notes its calls.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci" / "run"])
LINT = ["-m ruff check", "-m mypy"]
TOOLS = shlex.split(
    "bash cat cksum cp dirname env find flock git grep ls mkdir mktemp rm sed tr wc"
)
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  --version) echo Python 3.11.7 ;;
  *version_info*) [ "${TOO_OLD:-}" = "" ] ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"${FAILS:-nothing fails}"*) exit 3 ;;
esac
"""


class Machine:
    """A machine with the scripts in `repository`, a few tools, and a Python.

    The scripts are a copy, and this Python notes its calls.
    """

    def __init__(self, place):
        self.place, self.calls_file, self.bin = place, place / "calls", place / "bin"
        self.repository = place / "repo"
        for folder in ("launch", ".ci"):
            shutil.copytree(ROOT / folder, self.repository / folder)
        for file in ROOT.glob("requirements*.txt"):
            shutil.copy(file, self.repository)
        self.bin.mkdir()
        (place / "user").mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.add("python3.11", PYTHON)

    def add(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, script, *flags, **settings):
        """Run a script from another folder than the repository's -> CompletedProcess.

        Earlier calls are forgotten.
        """
        self.calls_file.write_text("")
        env = {
            "PATH": str(self.bin),
            "CALLS": str(self.calls_file),
            "HOME": str(self.place),
            **settings,
        }
        command = ["bash", str(self.repository / script), *flags]
        return subprocess.run(
            command, cwd=self.place / "user", env=env, capture_output=True, text=True, timeout=60
        )

    def calls(self):
        """The calls of Python but for questions about itself."""
        lines = self.calls_file.read_text().splitlines()
        return [line for line in lines if not line.startswith(("--version", "-c"))]

    def installs(self):
        return [line for line in self.calls() if "pip install" in line]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def commands(done):
    """The commands that a dry run printed, as lists of words."""
    assert done.returncode == 0, done.stderr
    return [shlex.split(line[2:]) for line in done.stdout.splitlines() if line.startswith("+ ")]


def one_error(done):
    """The message of a script that ended with one line of error and exit code 2."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        done.returncode == 2 and len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0]
    ), done.stderr
    return errors[0]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses_and_says_what_it_does(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert re.match(r"(#!/usr/bin/env bash|# shellcheck shell=bash)\n# [A-Z]", script.read_text())
    assert script.name == "environment.sh" or os.access(script, os.X_OK)


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


def test_a_dry_run_prints_the_installation_and_does_nothing(machine):
    make, install, _ = commands(machine.run("launch/local.sh", EVQGAN_DRY_RUN="1"))
    assert make == ["python3.11", "-m", "venv", f"{machine.repository}/.venv"]
    assert install[1:4] == ["-m", "pip", "install"] and install[-2:] == [
        "-r",
        f"{machine.repository}/requirements.txt",
    ]
    assert machine.calls() == [] and not (machine.repository / ".venv").exists()


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
    _, install, _ = commands(machine.run("launch/local.sh", EVQGAN_DRY_RUN="1", EVQGAN_JAX=asked))
    pin = re.search("^jax==(.*)$", (ROOT / "requirements.txt").read_text(), re.M)[1]
    assert [word for word in install if word.startswith("jax[")] == (
        [f"jax[{build}]=={pin}"] if build else []
    )


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
    """The last three calls: ruff, then mypy and pytest, which run side by side in any order."""
    first, *beside = machine.calls()[-3:]
    return [first, *sorted(beside)]


@pytest.mark.parametrize(
    "flags, given", [([], "-m not slow"), (["-m", "slow"], "-m slow"), (["-x"], "-m not slow -x")]
)
def test_test_runs_lint_and_tests(machine, flags, given):
    assert machine.run("launch/test.sh", *flags).returncode == 0
    assert lint_and_tests(machine) == [*LINT, f"-m pytest -n 2 --dist loadfile {given}"]
    assert "requirements-test.txt" in machine.installs()[0]
    machine.run("launch/local.sh")
    assert machine.installs() == []  # the test environment serves the main job too


@pytest.mark.parametrize("fails, code", [("ruff check", 1), ("-m mypy", 1), ("-m pytest", 3)])
def test_test_fails_when_lint_or_tests_fail(machine, fails, code):
    assert machine.run("launch/test.sh", FAILS=fails).returncode == code
    assert lint_and_tests(machine) == [*LINT, "-m pytest -n 2 --dist loadfile -m not slow"]


def test_ci_makes_an_environment_of_its_own(machine):
    (machine.place / "tmp").mkdir()
    done = machine.run(".ci/run", TMPDIR=str(machine.place / "tmp"), FAILS="-m pytest")
    assert (
        done.returncode == 3
        and lint_and_tests(machine)[-1] == "-m pytest -n 2 --dist loadfile -m not slow"
    )
    assert machine.calls()[0].startswith(f"-m venv {machine.place / 'tmp'}")
    assert not (machine.repository / ".venv").exists() and os.listdir(machine.place / "tmp") == []


def test_tpu_vm_copies_the_commit_and_runs_it_on_every_worker(machine):
    flags = ["--config=c.py", "--workdir=/a b", "--config.name=it's"]
    done = machine.run("launch/tpu_vm.sh", "pod", "us-east5-a", *flags, EVQGAN_DRY_RUN="1")
    archive, copy, run = commands(done)
    assert (
        archive[-1] == "HEAD"
        and copy[4] == "scp"
        and copy[6] == "pod:"
        and run[4:6] == ["ssh", "pod"]
    )
    assert "--worker=all" in copy and "--worker=all" in run and "--zone=us-east5-a" in run
    remote = run[-1].removeprefix("--command=")
    subprocess.run(["bash", "-n", "-c", remote], check=True)
    assert shlex.split(remote.rsplit("&&", 1)[1])[-3:] == flags


def test_on_a_tpu_vm_a_clone_in_the_home_folder_is_left_alone(machine, tmp_path):
    *_, run = commands(
        machine.run("launch/tpu_vm.sh", "pod", "zone", "--config=c.py", EVQGAN_DRY_RUN="1")
    )
    home = tmp_path / "home"
    for file in ("evqgan/evqgan/mine.py", "evqgan/configs/mine.py", "evqgan_tpu_vm/evqgan/old.py"):
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text("")
    for file in ("evqgan_tpu_vm/.venv", "evqgan_tpu_vm/workdirs"):
        (home / file).mkdir()
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "local.sh").write_text('echo "$EVQGAN_JAX $EVQGAN_DISTRIBUTED $PWD $*"')
    with tarfile.open(home / "evqgan_tpu_vm.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "launch", "launch")
    remote = run[-1].removeprefix("--command=")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        ["bash", "-c", remote], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == [f"tpu 1 {home}/evqgan_tpu_vm --config=c.py"], (
        done.stderr
    )
    assert (home / "evqgan/evqgan/mine.py").exists() and (home / "evqgan/configs/mine.py").exists()
    assert sorted(os.listdir(home / "evqgan_tpu_vm")) == [".venv", "launch", "workdirs"]
    assert sorted(os.listdir(home)) == ["evqgan", "evqgan_tpu_vm"]


def test_slurm_starts_one_process_a_task(machine):
    settings = {"SLURM_SUBMIT_DIR": str(machine.repository), "EVQGAN_DRY_RUN": "1"}
    *_, last = commands(machine.run("launch/slurm.sh", "--config=c.py", **settings))
    python = f"{machine.repository}/.venv/bin/python"
    assert last == [
        "exec",
        "srun",
        "--kill-on-bad-exit=1",
        python,
        "-P",
        "-m",
        "evqgan.main",
        "--config=c.py",
    ]
    assert "in the repository" in one_error(machine.run("launch/slurm.sh", SLURM_SUBMIT_DIR="/"))


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
