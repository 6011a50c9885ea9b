"""A device that was asked for, or whose package is here, is not replaced by the CPU unsaid."""

import importlib.util

import jax
import pytest

from evqgan import main
from evqgan.core import cli, platforms
from evqgan.core.errors import InputError


def on(monkeypatch, here, asked=None, installed=()):
    """Have JAX run on `here`, JAX_PLATFORMS be `asked`, and these modules be there."""
    monkeypatch.setattr(jax, "default_backend", lambda: here)
    if asked is None:
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    else:
        monkeypatch.setenv("JAX_PLATFORMS", asked)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)


@pytest.mark.parametrize("asked", ["cuda,cpu", "cuda", "gpu", "tpu,cpu"])
def test_jax_does_not_take_the_cpu_where_a_device_was_asked_for(monkeypatch, asked):
    """JAX itself passes over CUDA in such a list on a machine without a GPU."""
    on(monkeypatch, "cpu", asked)
    absent = "TPU" if "tpu" in asked else "GPU"
    message = (
        f"JAX_PLATFORMS={asked} asks for a {absent}, and JAX finds none, but would use the CPU"
    )
    with pytest.raises(InputError, match=message):
        cli.start_jax()


@pytest.mark.parametrize(
    "asked, here",
    [
        ("cuda,cpu", "gpu"),
        ("tpu,cpu", "tpu"),
        ("cpu", "cpu"),
        ("cpu,cuda", "cpu"),
        ("", "cpu"),
        (None, "gpu"),
        ("mine", "cpu"),
    ],
)
def test_what_was_asked_for_is_taken(monkeypatch, asked, here):
    on(monkeypatch, here, asked)
    platforms.require()


@pytest.mark.parametrize(
    "here, asked, installed, said",
    [
        ("cpu", None, ("jax_cuda13_plugin",), "JAX finds no GPU, for which jax_cuda13_plugin is"),
        ("cpu", "", ("libtpu",), "JAX finds no TPU, for which libtpu is installed"),
        ("cpu", "cpu", ("libtpu",), ""),
        ("cpu", None, (), ""),
        ("gpu", None, ("jax_cuda13_plugin", "libtpu"), ""),
    ],
)
def test_a_device_whose_package_is_here_is_missed(monkeypatch, here, asked, installed, said):
    on(monkeypatch, here, asked, installed)
    line = platforms.warning_of_unused_device()
    assert said in line and bool(line) == bool(said)


def test_training_says_at_its_start_that_it_misses_a_device(monkeypatch, tmp_path, capsys):
    """Here the run ends behind that line, as its data are not there."""
    on(monkeypatch, "cpu", None, ("libtpu",))
    flags = ["--config=imagenet_stage1:tiny", f"--workdir={tmp_path / 'w'}"]
    flags.append(f"--config.dataset.folder={tmp_path / 'none'}")
    assert main.main(["main", *flags]) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("WARNING this trains on the CPU: JAX finds no TPU"), said
