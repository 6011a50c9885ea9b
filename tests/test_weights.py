"""Weights of frozen networks: what is saved comes back.

What cannot be used is one line that says what to do.
"""

import errno
import os
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from evqgan.core import weights
from evqgan.core.errors import InputError

ABOUT = {"network": "tiny", "source": "tiny.pth", "sha256": "00", "licence": "MIT"}


def tree():
    rng = np.random.default_rng(0)
    return {
        "params": {
            "conv1": {
                "kernel": np.float32(rng.standard_normal((3, 3, 2, 4))),
                "bias": np.zeros(4, np.float32),
            },
            "scale": np.asarray(2.5, np.float32),
            "half": rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
            "empty": np.zeros((0, 3), np.float32),
        },
        "batch_stats": {"count": np.arange(3, dtype=np.int64)},
    }


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def saved(folder, tree=None):
    weights.save(folder / "tiny.safetensors", globals()["tree"]() if tree is None else tree, ABOUT)
    return folder / "tiny.safetensors"


def refused(folder, like, match):
    with pytest.raises(InputError, match=match) as caught:
        weights.load(folder, "tiny", like)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No weights of the machine's user are seen."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EVQGAN_WEIGHTS", raising=False)


def test_weights_come_back_bit_for_bit_with_their_structure(tmp_path):
    saved(tmp_path)
    for like in (tree(), shapes(tree())):
        found = weights.load(tmp_path, "tiny", like)
        assert jax.tree.structure(found) == jax.tree.structure(tree())
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree()), strict=True):
            assert isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
            assert a.tobytes() == b.tobytes()
    assert weights.source(tmp_path, "tiny") == ABOUT


def test_arrays_on_the_device_and_transposed_ones_are_saved_as_they_look(tmp_path):
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    saved(tmp_path, {"a": view, "b": jnp.ones((2, 2))})
    found = weights.load(tmp_path, "tiny", {"a": view, "b": np.zeros((2, 2), np.float32)})
    np.testing.assert_array_equal(found["a"], view)
    np.testing.assert_array_equal(found["b"], 1)


def test_the_file_is_plain_safetensors_named_by_paths(tmp_path):
    stored = safetensors.numpy.load_file(saved(tmp_path))
    assert sorted(stored) == [
        "batch_stats/count",
        "params/conv1/bias",
        "params/conv1/kernel",
        "params/empty",
        "params/half",
        "params/scale",
    ]


def test_files_that_others_wrote_need_no_checksum(tmp_path):
    safetensors.numpy.save_file({"a/b": np.ones(2, np.float32)}, tmp_path / "tiny.safetensors")
    assert weights.load(tmp_path, "tiny", {"a": {"b": np.zeros(2, np.float32)}})["a"][
        "b"
    ].tolist() == [1, 1]
    assert weights.source(tmp_path, "tiny") == {}


def test_the_folder_is_the_given_one_the_environments_or_the_users_cache(monkeypatch, tmp_path):
    assert weights.folder("") == tmp_path / "home/.cache/evqgan/weights"
    assert weights.folder("~/w") == tmp_path / "home/w"
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path / "env"))
    assert weights.folder("") == tmp_path / "env"
    assert weights.folder(tmp_path / "given") == tmp_path / "given"
    saved(tmp_path / "env")
    weights.load("", "tiny", tree())


def test_missing_weights_are_one_line_with_the_command_that_gets_them(tmp_path):
    refused(
        "",
        tree(),
        r"no weights of tiny in .*cache/evqgan/weights: "
        ".*`python -m evqgan.convert tiny --download`",
    )
    assert "weights=random" in refused(
        tmp_path / "a b", tree(), r"convert tiny --download '.*/a b'`"
    )


def test_several_are_required_at_once_before_anything_starts(tmp_path):
    saved(tmp_path)
    weights.require(tmp_path, ["tiny", "tiny"])
    weights.require(tmp_path, [])
    with pytest.raises(InputError) as caught:
        weights.require("", ["vgg16", "lpips", "vgg16"])
    line = str(caught.value)
    assert "no weights of vgg16, lpips in" in line and "\n" not in line
    assert (
        "`python -m evqgan.convert vgg16 --download && python -m evqgan.convert lpips --download`"
        in line
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda p: p["conv1"].update(kernel=np.zeros((3, 3, 4, 2), np.float32)),
            "conv1/kernel is F32 .* F32 .*",
        ),
        (
            lambda p: p["conv1"].update(bias=np.zeros(4, np.float16)),
            r"conv1/bias is F32 \[4\] there, F16 \[4\] here",
        ),
        (lambda p: p["conv1"].pop("bias"), "params/conv1/bias is none of its arrays"),
        (lambda p: p.update(new=np.zeros(2, np.float32)), "params/new is missing"),
    ],
)
def test_other_weights_than_expected_are_named(tmp_path, change, message):
    file = saved(tmp_path)
    like = tree()
    change(like["params"])
    line = refused(tmp_path, like, message)
    assert str(file) in line and "python -m evqgan.convert tiny --download" in line


def test_many_differences_are_cut_short(tmp_path):
    saved(tmp_path, {f"a{i}": np.zeros(1, np.float32) for i in range(9)})
    refused(tmp_path, {"b": np.zeros(1, np.float32)}, "a0 is none of its arrays; .*, and 5 more")


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    file = saved(tmp_path)
    data = file.read_bytes()
    for size in {0, 1, 7, 8, 9, 40, len(data) // 2, len(data) - 5, len(data) - 1}:
        file.write_bytes(data[:size])
        refused(tmp_path, tree(), "damaged or unreadable")


def test_every_flipped_bit_of_an_array_is_noticed(tmp_path):
    file = saved(tmp_path)
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for at in range(start, len(data), 13):
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        refused(tmp_path, tree(), "damaged: its bytes are not those that were written")


def test_a_folder_in_the_place_of_the_file_is_missing_weights(tmp_path):
    (tmp_path / "tiny.safetensors").mkdir()
    refused(tmp_path, tree(), "there are no weights of tiny")


def test_a_failed_save_keeps_the_old_weights_and_leaves_nothing_else(tmp_path, monkeypatch):
    file = saved(tmp_path)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*tiny\.safetensors: No space left"):
        saved(tmp_path, {"a": np.zeros(3)})
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["tiny.safetensors"]


def test_the_file_may_be_given_as_text(tmp_path):
    weights.save(str(tmp_path / "deep/er/tiny.safetensors"), tree(), ABOUT)
    assert weights.path(str(tmp_path / "deep/er"), "tiny") == pathlib.Path(
        tmp_path / "deep/er/tiny.safetensors"
    )
    weights.load(str(tmp_path / "deep/er"), "tiny", tree())


def test_the_same_weights_are_the_same_file(tmp_path):
    """Down to its bytes, or a hash on the card of a number would not tell whose it is."""
    found = {saved(tmp_path).read_bytes() for _ in range(8)}
    assert len(found) == 1
    assert weights.source(tmp_path, "tiny") == ABOUT
