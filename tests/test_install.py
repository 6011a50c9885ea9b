"""What is installed has its configs, and a config is found by its name.

A script beside a clone finds the package.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

import pytest

from evqgan.core import config_files
from evqgan.core.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent


def packages():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_of_the_code_and_of_configs_is_installed():
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("evqgan", "configs")
        for path in ROOT.glob(f"{top}/**/*.py")
    }
    names = [".".join(folder.parts) for folder in folders]
    names = [f"evqgan.shipped.{name}" if name.startswith("configs") else name for name in names]
    assert sorted(packages()["packages"]) == sorted(names)
    assert packages()["package-dir"] == {"evqgan.shipped.configs": "configs"}


@pytest.fixture
def installed(tmp_path):
    """A folder with the package as `pip install .` lays it out."""
    copied = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "evqgan", tmp_path / "site" / "evqgan", ignore=copied)
    shutil.copytree(
        ROOT / "configs", tmp_path / "site" / "evqgan" / "shipped" / "configs", ignore=copied
    )
    return tmp_path / "site"


def run(code, folder, path=""):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_command_of_an_installed_package_is_the_command_line(installed, tmp_path):
    module, _, entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "evqgan"
    ].partition(":")
    # As pip's script has it.
    code = f"import sys, {module}\nsys.argv = ['evqgan', '--help']\nsys.exit({module}.{entry}())"
    assert run(code, tmp_path, installed)[:3] == ["python", "-m", "evqgan.main"]


def test_an_installed_package_reads_its_configs_in_any_folder(installed, tmp_path):
    names = (
        "configs/quickstart.py",
        "quickstart:tiny",
        "configs/baselines/vim_ffhq_stage2.py",
        "vim_ffhq_stage2",
    )
    code = (
        "from evqgan.core.config_files import *\n"
        f"print(SHIPPED, *(read_file(x).stage for x in {names}))"
    )
    place = str(installed / "evqgan" / "shipped")
    assert run(code, tmp_path, installed) == [place, "quickstart", "quickstart", "stage2", "stage2"]


def test_a_script_beside_a_clone_finds_the_package(tmp_path):
    (tmp_path / "evqgan").mkdir()
    for part in ("__init__.py", "evqgan"):
        (tmp_path / "evqgan" / part).symlink_to(ROOT / part)
    code = (
        "import evqgan\nfrom evqgan.core import errors\n"
        "print(evqgan.__version__, errors.InputError.__module__)"
    )
    assert run(code, tmp_path) == ["0.1.0", "evqgan.core.errors"]


def test_a_config_of_the_users_comes_before_one_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("quickstart.py", "quickstart", "configs/quickstart.py")
    assert len({config_files.find(name) for name in names}) == 1
    (tmp_path / "quickstart.py").write_text("")
    assert config_files.find("quickstart.py") == pathlib.Path("quickstart.py")
    with pytest.raises(
        InputError, match="there is no file imagenet_stage3; did you mean 'imagenet_stage"
    ):
        config_files.find("imagenet_stage3")
    with pytest.raises(InputError, match="there is no file commen.py; ") as caught:
        config_files.find("commen.py")
    assert "common" not in str(caught.value)
    monkeypatch.chdir(config_files.SHIPPED)
    # A common folder and suffix make no two names alike.
    with pytest.raises(InputError, match="there is no file configs/nope.py; expected one of"):
        config_files.find("configs/nope.py")
    with pytest.raises(InputError, match="did you mean '[^']*configs/folder.py'"):
        config_files.find("configs/foldr.py")
