"""The command that makes weights of ours from public files."""

import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import test_download
from test_torch_files import legacy, number, storage, table, tensor, zipped

from evqgan.convert import __main__ as convert
from evqgan.convert import download, frozen
from evqgan.convert.mapping import Row
from evqgan.core import weights

ROOT = pathlib.Path(__file__).parent.parent
server = test_download.server  # a fixture
# Of VGG16's five stages; "An Unreasonable Effectiveness", lpips/weights/v0.1/vgg.pth.
WIDTHS = (64, 128, 256, 512, 512)


def heads():
    """The five linear heads by their names there, lin0.model.1.weight [1,c,1,1]."""
    rng = np.random.default_rng(0)
    return {
        f"lin{i}.model.1.weight": np.float32(rng.random((1, c, 1, 1))) for i, c in enumerate(WIDTHS)
    }


def checkpoint(path, arrays, make=legacy, **more):
    """A checkpoint of PyTorch at `path` with float32 arrays, and `more` entries (as opcodes)."""
    entries, storages = {}, []
    for i, (name, array) in enumerate(arrays.items()):
        strides = [stride // 4 for stride in array.strides]
        entries[name] = tensor(storage(array.size, key=str(i)), 0, array.shape, strides)
        storages.append((str(i), array.size, array.tobytes()))
    if make is zipped:
        storages = [(f"data/{key}", data) for key, _, data in storages]
    return make(path, table(**entries, **more), storages)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path / "cache"))


@pytest.fixture
def small(monkeypatch):
    """The system vgg16 as a network of two weights, of which the files have a third."""
    rows = [
        Row("features.{i}.weight", "params/conv{i}/kernel", "conv"),
        Row("features.{i}.bias", "params/conv{i}/bias"),
    ]
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 2, 4), np.float32),
        "bias": jax.ShapeDtypeStruct((4,), np.float32),
    }
    source = frozen.Source(rows, (r"^classifier\.",), lambda: {"params": {"conv0": shapes}})
    monkeypatch.setitem(frozen.NETWORKS, "vgg16", source)
    rng = np.random.default_rng(0)
    sizes = {
        "features.0.weight": (4, 2, 3, 3),
        "features.0.bias": (4,),
        "classifier.0.weight": (5, 7),
    }
    return {name: np.float32(rng.standard_normal(shape)) for name, shape in sizes.items()}


def call(capsys, *args):
    """-> exit code, lines on stdout, lines on stderr."""
    code = convert.main([*map(str, args)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def fails(capsys, message, *args):
    code, out, err = call(capsys, *args)
    assert (
        code == 2
        and not out
        and len(err) == 1
        and err[0].startswith("error: ")
        and message in err[0]
    ), err
    return err[0]


def published(monkeypatch, url, path, system="vgg16"):
    """Makes the file at `path`, served at `url`, the published one."""
    data = path.read_bytes()
    file = download.FILES[system]._replace(
        url=url, sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )
    monkeypatch.setitem(download.FILES, system, file)
    return data


@pytest.mark.parametrize("make", [legacy, zipped])
def test_the_heads_of_lpips_from_the_command_line(tmp_path, make):
    source = checkpoint(tmp_path / "vgg.pth", heads(), make)
    command = [sys.executable, "-m", "evqgan.convert", "lpips", "vgg.pth"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(
        f"wrote {tmp_path}/cache/lpips.safetensors: 1,472 numbers from vgg.pth (another file than"
    )
    found = weights.load("", "lpips", frozen.NETWORKS["lpips"].like())
    assert os.listdir(tmp_path / "cache") == ["lpips.safetensors"]
    for i, theirs in enumerate(heads().values()):
        (ours,) = jax.tree.leaves(found["params"][f"head{i}"])
        np.testing.assert_array_equal(ours.ravel(), theirs.ravel())
    about = weights.source("", "lpips")
    assert about["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (
        about["network"] == "lpips"
        and about["source"] == "vgg.pth"
        and "vgg.pth: BSD-2-Clause" in about["licence"]
    )


def test_layouts_and_what_is_left_out(tmp_path, small, capsys):
    checkpoint(tmp_path / "x.pth", small)
    code, out, err = call(capsys, "vgg16", "x.pth", "weights")
    assert (
        code == 0 and not err and out[0].startswith("wrote weights/vgg16.safetensors: 76 numbers")
    )
    found = weights.load("weights", "vgg16", frozen.NETWORKS["vgg16"].like())["params"]["conv0"]
    np.testing.assert_array_equal(found["kernel"], small["features.0.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(found["bias"], small["features.0.bias"])


@pytest.mark.parametrize("dest", ["", "folder", "folder/mine.safetensors", "~/w"])
def test_where_the_result_goes(tmp_path, small, capsys, monkeypatch, dest):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    checkpoint(tmp_path / "x.pth", small)
    places = {"": "cache/vgg16", "folder": "folder/vgg16", "~/w": "home/w/vgg16"}
    assert call(capsys, "vgg16", "x.pth", *[dest] * bool(dest))[0] == 0
    assert (tmp_path / f"{places.get(dest, 'folder/mine')}.safetensors").is_file()


def test_safetensors_are_a_source_too(tmp_path, small, capsys):
    safetensors.numpy.save_file(small, tmp_path / "model.safetensors")
    assert call(capsys, "vgg16", "model.safetensors")[0] == 0
    weights.load("", "vgg16", frozen.NETWORKS["vgg16"].like())
    fails(capsys, "would be written over itself", "vgg16", "model.safetensors", "model.safetensors")


def test_a_download_is_verified_converted_and_not_kept_twice(
    tmp_path, small, capsys, monkeypatch, server
):
    server.data = published(monkeypatch, server.url, checkpoint(tmp_path / "x.pth", small))
    code, out, err = call(capsys, "vgg16", "--download")
    assert (
        code == 0 and "(the published file); licence: BSD-3-Clause" in out[0] and "MB/s" in err[-1]
    )
    assert os.listdir(tmp_path / "cache") == ["vgg16.safetensors"]
    assert weights.source("", "vgg16")["licence"] == download.FILES["vgg16"].licence
    code, out, err = call(capsys, "vgg16", "--download")
    assert code == 0 and "is there already" in out[0] and len(server.requests) == 1
    (tmp_path / "cache/vgg16.safetensors").write_bytes(b"damaged")
    assert call(capsys, "--download", "vgg16", "cache")[0] == 0 and len(server.requests) == 2
    weights.load("", "vgg16", frozen.NETWORKS["vgg16"].like())


def test_a_download_that_fails_goes_on_and_leaves_the_old_weights(
    tmp_path, small, capsys, monkeypatch, server
):
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setattr(download, "CHUNK", 100)
    server.data = published(monkeypatch, server.url, checkpoint(tmp_path / "x.pth", small))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/vgg16.safetensors").write_bytes(b"old")
    server.cuts = [500]
    assert call(capsys, "vgg16", "--download")[0] == 2
    assert (tmp_path / "cache/vgg16.safetensors").read_bytes() == b"old"
    assert (tmp_path / "cache/weights.pth.part").stat().st_size == 500
    assert call(capsys, "vgg16", "--download")[0] == 0
    assert server.requests[-1][1] == 500 and os.listdir(tmp_path / "cache") == ["vgg16.safetensors"]


def test_the_command_in_the_message_of_missing_weights_is_understood(tmp_path):
    for where in ("", tmp_path / "a b"):
        words = shlex.split(weights.command(where, "inception"))
        assert words[:3] == ["python", "-m", "evqgan.convert"]
        dest = weights.path(where, "inception")
        assert convert.parse(words[3:]) == ("inception", download.FILES["inception"], dest, "")


@pytest.mark.parametrize(
    "args, message",
    [
        (["vgg61", "x.pth"], "there is no system 'vgg61': did you mean 'vgg16'?"),
        (["x.pth"], "a name comes before a path, as in `python -m evqgan.convert NAME x.pth`: exp"),
        (
            ["--download"],
            "a system is needed: expected one of clip, dinov2, efficientnet_lite0, ",
        ),
        (["vgg16"], "give the path of vgg16-397923af.pth after vgg16, or --download to fetch it"),
        (["vgg16", "--downlaod"], "there is no flag --downlaod: did you mean '--download'?"),
        (["vgg16", "a", "b", "c"], "expected one DEST, got b c"),
        (["vgg16", "--download", "b", "c"], "expected one DEST, got b c"),
        (["vgg16", "none.pth"], "cannot read none.pth: No such file or directory"),
        (
            ["vgg16", "page.pth"],
            "cannot use page.pth: expected a PyTorch checkpoint or a .safetensors file",
        ),
        (
            ["lpips", "x.pth"],
            "x.pth is not a file of lpips such as vgg.pth: "
            "it lacks lin*.model.1.weight, and has features.0.weight, ",
        ),
        (
            ["vgg16", "x.pth", "page.pth/w"],
            "cannot write page.pth/w/vgg16.safetensors: expected a folder, but page.pth is a file",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path, small, capsys, args, message):
    checkpoint(tmp_path / "x.pth", small)
    (tmp_path / "page.pth").write_text("<html>")
    fails(capsys, message, *args)
    assert sorted(os.listdir(tmp_path)) == ["page.pth", "x.pth"]


@pytest.mark.parametrize("change", ["missing", "more", "shape", "not a tensor", "damaged"])
def test_weights_that_do_not_fit_leave_the_old_ones(tmp_path, small, capsys, change):
    checkpoint(tmp_path / "x.pth", small)
    assert call(capsys, "vgg16", "x.pth")[0] == 0
    before = (tmp_path / "cache/vgg16.safetensors").read_bytes()
    more = {}
    if change == "missing":
        small.pop("features.0.bias")
    elif change == "more":
        small["features.2.bias"] = np.zeros(4, np.float32)
    elif change == "shape":
        small["features.0.bias"] = np.zeros(5, np.float32)
    elif change == "not a tensor":
        more["features.0.other"] = number(1)
    source = checkpoint(tmp_path / "x.pth", small, **more)
    if change == "damaged":
        source.write_bytes(source.read_bytes()[:-50])
    fails(capsys, "x.pth", "vgg16", "x.pth")
    assert (tmp_path / "cache/vgg16.safetensors").read_bytes() == before
    assert os.listdir(tmp_path / "cache") == ["vgg16.safetensors"]


def test_debug_shows_the_traceback(capsys):
    code, _, err = call(capsys, "vgg16", "none.pth", "--debug")
    assert code == 2 and "Traceback" in err[0] and err[-1].startswith("error: cannot read none.pth")


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "run", interrupted)
    assert call(capsys, "vgg16", "--download") == (
        130,
        [],
        ["stopped by SIGINT; give the same command again"],
    )


def test_help_names_every_system_its_file_size_licence_and_address(capsys):
    code, out, err = call(capsys, "--help")
    assert code == 0 and not err
    for system, file in download.FILES.items():
        (line,) = [line for line in out if line.startswith(f"{system} ") and file.licence in line]
        assert file.name in line and re.search(r"[\d.,]+ M?B  ", line)
        assert [line for line in out if line.startswith(f"{system} ") and line.endswith(file.url)]
    assert call(capsys)[0] == 2


def test_every_system_has_a_table():
    assert set(convert.SYSTEMS) <= set(frozen.NETWORKS)
