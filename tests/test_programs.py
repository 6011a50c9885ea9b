"""Programs that JAX alone runs: they make what the library makes, of every system.

The program in a model card is run where evqgan cannot be imported.
"""

import functools
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import large_weights
import numpy as np
import pytest
import test_export
import test_generators as small
from jax import export
from test_tokenizer import CODERS

import evqgan
from evqgan import models
from evqgan.core import build, exported, exported_weights
from evqgan.core.errors import InputError
from evqgan.core.mesh import path_name
from evqgan.export import __main__ as command_line
from evqgan.export import folder as folders
from evqgan.export import programs
from evqgan.generators.multigrained_network import GLOBAL_TOKENS
from evqgan.generators.requests import first_word, request_of, seeds_of
from evqgan.tokenizers import tokenizer as tokenizers

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers")
place = test_export.place  # a fixture: a trained workdir and its exports
QUANTIZERS = {
    "vq": {},
    "residual": {"depth": 2},
    "rqvae": {"depth": 2},
    "gumbel": {},
    "ema": {},
    "revived": {},
    "vqgan": {},
    "vitvqgan": {},
    "maskgit": {},
    "maskgit_gumbel": {},
    "fsq": {"levels": (5, 5), "codes": None, "width": None},
    "lfq": {"bits": 5, "codes": None, "width": None},
}


def named(state):
    """The arrays of a state, as model.safetensors names them."""
    leaves = jax.tree_util.tree_leaves_with_path(exported_weights.tree_of(state))
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def written(model, state, settings=None):
    """The programs of a model: {name: what is read of its bytes}, and its arrays."""
    arrays = named(state)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    found = {
        name: export.deserialize(programs.serialized(name, function, shapes, *given))
        for name, function, given in programs.functions(model, settings)
    }
    return found, arrays


@functools.cache
def images(number=3, side=16):
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3)).astype(np.uint8)


def largest_difference(ours, theirs):
    return np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max()


@pytest.mark.parametrize("seed", [0, 1, 7, 123_456, 2**32 - 1])
def test_a_seed_is_numpys(seed):
    assert int(jax.jit(first_word)(np.uint32(seed))) == seeds_of(seed, 1)[0]


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[] if form in ("multigrained", "gpt") else pytest.mark.slow)
        for form in small.FORMS
    ],
)
def test_samples_of_every_generator_are_the_librarys(form):
    model, settings = small.generator(form), None
    settings = model.settings({"steps": 3} if "steps" in small.names_of(model) else {})
    state = large_weights.drawn(model.shapes())
    found, arrays = written(model, state, settings)
    assert set(found) == set(exported.PROGRAMS)
    assert all(one.platforms == programs.PLATFORMS for one in found.values())
    labels, seed = np.int32([2, 0, 1]), np.uint32(5)
    made = found[exported.SAMPLE].call(arrays, labels, seed)
    ids = jnp.zeros((3, *small.GRID, small.DEPTH), jnp.int32)
    numbers = np.arange(3, dtype=np.uint32)
    request = request_of(ids, jnp.ones((3, *small.GRID), bool), labels, seeds_of(5, 3), numbers)
    run = jax.jit(lambda state: model.sample(state["ema"], state["tokenizer"], request, settings))
    # Equal, but for a token that lies between two codes on another processor.
    assert np.mean(made["ids"] == run(state).tokens) > 0.9
    decoded = model.tokenizer.decode(state["tokenizer"], made["ids"])
    assert made["images"].dtype == jnp.uint8 and largest_difference(made["images"], decoded) <= 1
    again = found[exported.DECODE].call(arrays, made["ids"])["images"]
    assert largest_difference(made["images"], again) <= 1
    one = found[exported.SAMPLE].call(arrays, labels[:1], seed)["ids"]
    assert np.mean(one == made["ids"][:1]) > 0.9


# Other branches of what is traced: (form, keys of its model, of its sampler).
WAYS = [
    *(("multigrained", {"global_tokens": name}, {}) for name in GLOBAL_TOKENS if name != "ordered"),
    ("multigrained", {"attention": "joint", "class_dropout": 0.1}, {"guidance": 2.0}),
    ("multigrained", {"window": 2}, {"order": "wavefront", "choice": "halton"}),
    ("multigrained", {}, {"remask": 0.5, "remask_schedule": "conf"}),
    ("maskgit", {"class_dropout": 0.1}, {"guidance": 2.0, "top_k": 3}),
    ("gpt", {"window": (2, 4)}, {"top_k": 3, "top_p": 0.9}),
    ("rqtransformer", {"classes": 0}, {"top_p": 0.9}),
]


@pytest.mark.parametrize(
    "form, keys, sampler",
    [
        *WAYS[:4],
        *(pytest.param(*way, marks=pytest.mark.slow) for way in WAYS[4:]),
    ],
)
def test_every_way_of_sampling_can_be_exported(form, keys, sampler):
    model = small.generator(form, **keys)
    settings, state = model.settings(sampler), large_weights.drawn(model.shapes())
    assert set(written(model, state, settings)[0]) == set(exported.PROGRAMS)


# Quantizers do not know coders: each is exported with one coder, and each coder with one.
PAIRS = [("swin", name) for name in QUANTIZERS] + [("cnn", "vqgan"), ("vit", "vitvqgan")]


def tokenizer(coder, quantizer):
    keys = {"name": quantizer, "codes": 32, "width": 8, **QUANTIZERS[quantizer]}
    keys = {name: value for name, value in keys.items() if value is not None}
    half = {"name": coder, **CODERS[coder]}
    network = tokenizers.make({"encoder": half, "decoder": half, "quantizer": keys})
    return models.ImageTokenizer(network, (16, 16))


@pytest.mark.parametrize("coder, quantizer", PAIRS)
def test_reconstructions_of_every_tokenizer_are_the_librarys(coder, quantizer):
    model = tokenizer(coder, quantizer)
    state = large_weights.drawn(model.shapes())
    weights = {"params": state["ema"], "codebook": state["codebook"]}
    found, arrays = written(model, state)
    assert set(found) == {exported.RECONSTRUCT, exported.DECODE}
    made = found[exported.RECONSTRUCT].call(arrays, images())
    ids = jax.jit(model.encode)(weights, images())
    assert made["ids"].shape == ids.shape and np.mean(made["ids"] == ids) > 0.9
    decoded = jax.jit(model.decode)(weights, made["ids"])
    assert largest_difference(made["images"], decoded) <= 1


def test_every_quantizer_is_among_them():
    assert set(QUANTIZERS) == set(build.having("tokenizers.quantizers", ["Quantizer"]))


def example(folder):
    """The Python program in the card of an exported model."""
    text = (folder / exported.CARD).read_text()
    (found,) = re.findall(rf"^{programs.TITLE}$.*?^```python\n(.*?)^```", text, re.M | re.S)
    return found


def run_alone(folder, code, tmp_path):
    """Run a program in an exported folder, in a process that cannot import evqgan."""
    blocked = "import sys\nsys.modules['evqgan'] = None\n"
    names = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=folder,
        env={**names, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", ["generator", "tokenizer"])
def test_the_program_in_the_card_runs_without_evqgan(place, tmp_path, part):
    folder = place / "float16"
    if part == "tokenizer":
        folder = tmp_path / "tokenizer"
        assert command_line.main([str(place / "run" / "tokenizer"), str(folder)]) == 0
    code = example(folder)
    assert 10 <= len(code.splitlines()) <= 16
    out = tmp_path / "out.npz"
    keep = f"\nnp.savez({str(out)!r}, images=images, ids=ids, made=made['images'], again=again)\n"
    run_alone(folder, code + keep, tmp_path)
    model, found = evqgan.load(folder, dtype="float32", device="cpu"), np.load(out)
    if part == "generator":
        ours = model.generate(4, labels=range(4), seed=0)
        assert np.mean(np.abs(found["images"].astype(int) - ours) <= 1) > 0.95
    np.testing.assert_array_equal(found["ids"].shape, (4, 8, 8, 1))
    assert np.mean(found["ids"] == model.encode(found["images"])) > 0.95
    assert largest_difference(found["made"], model.decode(found["ids"])) <= 1
    assert largest_difference(found["again"], model.decode(found["ids"])) <= 1


def test_programs_and_card_hold_no_place_of_this_machine(place):
    folder = place / "float16"
    names = exported.SAMPLE, exported.RECONSTRUCT, exported.DECODE
    for name in names:
        data = (folder / name).read_bytes()
        assert str(test_export.ROOT).encode() not in data and b"site-packages" not in data
    text = (folder / exported.CARD).read_text()
    assert f"written by jax {jax.__version__}" in text and "six months" in text
    assert not [name for name in names if (place / "float32" / name).exists()]
    assert programs.TITLE not in (place / "float32" / exported.CARD).read_text()


@pytest.mark.slow
def test_a_copy_has_programs_that_are_written_anew(place, tmp_path):
    (tmp_path / "new").mkdir()
    assert command_line.main([str(place / "float32"), str(tmp_path / "new")]) == 0
    old, new = place / "float32", tmp_path / "new"
    assert {path.name for path in new.iterdir()} == {
        *(path.name for path in old.iterdir()),
        *exported.PROGRAMS,
    }
    assert (new / exported.WEIGHTS).read_bytes() == (old / exported.WEIGHTS).read_bytes()
    text = (new / exported.CARD).read_text()
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    folders.copy(new, tmp_path / "again")
    assert (tmp_path / "again" / exported.CARD).read_text() == text
    assert text.count(programs.TITLE) == 1


def test_what_jax_cannot_export_is_one_line_and_leaves_nothing(
    place, tmp_path, monkeypatch, capsys
):
    def calls_back(self, weights, ids):
        shape = jax.ShapeDtypeStruct((ids.shape[0], 32, 32, 3), jnp.uint8)
        return jax.pure_callback(lambda ids: np.zeros(shape.shape, np.uint8), shape, ids)

    args = [str(place / "run" / "tokenizer"), str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(models.ImageTokenizer, "decode", calls_back)
        assert command_line.main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match("error: reconstruct.jax cannot be exported: .*by --noprograms$", line)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="jax.export needs flatbuffers .*pip install"):
        programs.write(place / "float32", tmp_path)
