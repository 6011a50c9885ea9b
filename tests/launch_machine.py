"""A machine to try the launch scripts on: a few tools, and stand-ins that note their calls."""

import pathlib
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent

TOOLS = shlex.split(
    "awk bash cat cksum cp date dirname env find flock git grep gzip head kill ls mkdir mktemp mv "
    "rm sed setsid sleep sort tail tar touch tr wc"
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
        for name in ("c.py", "other.py", "configs/d.py", "configs/baselines/e.py"):
            (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / name).touch()
        self.bin.mkdir()
        (place / "user").mkdir()
        (place / "temporary").mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.add("python3.11", PYTHON)

    def add(self, name, text):
        (self.bin / name).unlink(missing_ok=True)  # a link to a tool stays one elsewhere
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def add_program(self):
        """Put the program into the repository, and the Python of these tests on the PATH."""
        for folder in ("evqgan", "configs"):
            left_out = shutil.ignore_patterns("__pycache__", "examples")
            place = self.repository / folder
            shutil.copytree(ROOT / folder, place, ignore=left_out, dirs_exist_ok=True)
        self.add("python", f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} "$@"\n')

    def run(self, script, *flags, **settings):
        """Run a script from another folder than the repository's -> CompletedProcess.

        Earlier calls are forgotten.
        """
        self.calls_file.write_text("")
        env = self.environment() | settings
        command = ["bash", str(self.repository / script), *flags]
        return subprocess.run(
            command, cwd=self.place / "user", env=env, capture_output=True, text=True, timeout=60
        )

    def environment(self):
        """What the scripts know of the machine; their temporary files are the test's, too."""
        return {
            "PATH": str(self.bin),
            "CALLS": str(self.calls_file),
            "HOME": str(self.place),
            "TMPDIR": str(self.place / "temporary"),
        }

    def temporary(self):
        """The names of the temporary files that are left."""
        return sorted(path.name for path in (self.place / "temporary").iterdir())

    def calls(self):
        """The calls of Python but for questions about itself."""
        lines = self.calls_file.read_text().splitlines()
        return [line for line in lines if not line.startswith(("--version", "-c"))]

    def installs(self):
        return [line for line in self.calls() if "pip install" in line]


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
