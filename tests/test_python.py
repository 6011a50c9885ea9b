"""The Python API on the model that ships: what it takes, what it gives, and what its docs show."""

import contextlib
import copy
import doctest
import functools
import inspect
import itertools
import logging
import pickle
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs
from jax.sharding import AxisType
from PIL import Image

import evqgan
from evqgan import models as networks
from evqgan.core import pictures
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.inference import devices, images, masks, rejection, tiled
from evqgan.inference import model as models
from evqgan.inference.model import Model
from evqgan.tokenizers.quantizers import residual
from evqgan.tokenizers.tokenizer import Tokenizer

METHODS = ("encode", "decode", "reconstruct", "generate", "sample", "edit", "outpaint")
MASK = np.zeros((64, 64), bool)
MASK[16:48, 16:48] = True
TRACED = r"got an array that JAX traces: call evqgan.load and .* outside of jax.jit"


@functools.cache
def loaded():
    return evqgan.load("drawings")


@functools.cache
def made():
    """Two images of the model, uint8 [2,64,64,3]."""
    return loaded().generate(2, labels=[0, 8], seed=1)


def picture(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def exactly(found, expected):
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in found]), expected)


WRONG = {
    "config": (lambda: evqgan.load("drawings", config="nope"), "config as a ConfigDict, .*'nope'"),
    "device": (
        lambda: evqgan.load("drawings", device=[jax.devices()[0]] * 2),
        "expected each device once, got",
    ),
    "ids": (
        lambda: loaded().decode(np.zeros((1, 0, 8, 1), np.int32)),
        r"ids of at least one token, got \[1, 0, 8, 1\]",
    ),
    "num": (lambda: loaded().generate(10**14, force=True), "labels of 100,000,.* ask for less"),
    "nul": (lambda: loaded().encode("a\0b"), "expected the path of a file of this machine"),
    "url": (lambda: loaded().encode("https://x.org/a.png"), "cannot read 'https://x.org/a.png'"),
    "no path": (lambda: loaded().encode(""), "cannot read ''"),
    "folder": (lambda: loaded().sample(1, folder="a\0b"), "expected the path of a folder"),
    "dict": (lambda: loaded().encode({"a": picture()}), r"got {'a': array.*\.\.\.$"),
    "no mask": (
        lambda: loaded().edit(picture(), None, label=0),
        "expected a boolean mask, .*, got None",
    ),
    "traced seed": (
        lambda: jax.jit(lambda seed: loaded().generate(1, seed=seed))(1),
        "expected known numbers as a seed, got an array that JAX traces",
    ),
    "masked": (lambda: loaded().encode(np.ma.masked_array(picture())), "got a masked array"),
    "masked in a list": (
        lambda: loaded().encode([picture(), np.ma.masked_array(picture())]),
        "got a masked array",
    ),
    "masked ids": (
        lambda: loaded().decode(np.ma.masked_array(np.zeros((8, 8, 1), np.int32))),
        "expected ids as plain arrays, got a masked array",
    ),
    "masked mask": (
        lambda: loaded().edit(picture(), np.ma.masked_array(MASK), label=0),
        "expected a mask as plain arrays, got a masked array",
    ),
    "traced": (lambda: jax.jit(loaded().reconstruct)(picture()), f"as images, {TRACED}"),
    "traced in a list": (
        lambda: jax.vmap(lambda image: loaded().encode([image]))(picture()[None]),
        f"as images, {TRACED}",
    ),
    "traced ids": (
        lambda: jax.jit(loaded().decode)(np.zeros((8, 8, 1), np.int32)),
        f"as ids, {TRACED}",
    ),
    "traced mask": (
        lambda: jax.jit(lambda mask: loaded().edit(picture(), mask, label=0))(MASK),
        f"as a mask, {TRACED}",
    ),
    "traced label": (
        lambda: jax.jit(lambda label: loaded().edit(picture(), MASK, label=label))(0),
        f"as a label, {TRACED}",
    ),
    "traced labels": (
        lambda: jax.jit(lambda labels: loaded().generate(2, labels))(np.arange(2)),
        f"as labels, {TRACED}",
    ),
    "traced setting": (
        lambda: jax.jit(lambda x: loaded().generate(2, temperature=x))(0.9),
        f"as temperature, {TRACED}",
    ),
    "traced parts": (
        lambda: jax.jit(loaded().to_ids)(picture()[None]),
        f"as rows, {TRACED}",
    ),
    "traced load": (
        lambda: jax.jit(lambda x: evqgan.load("drawings").codes + x)(0),
        f"as weights, {TRACED}",
    ),
    "traced acceptance": (
        lambda: jax.jit(lambda x: loaded().sample(2, acceptance=x))(0.5),
        "an acceptance above 0 and at most 1, got JitTracer",
    ),
    "acceptance": (
        lambda: loaded().sample(2, acceptance="0.5"),
        "an acceptance above 0 and at most 1, got '0.5'",
    ),
    "dtype": (lambda: evqgan.load("drawings", dtype="f16"), "there is no dtype 'f16' to compute"),
    "uint16": (
        lambda: loaded().encode(picture().astype(np.uint16)),
        r"got uint16 .*: give images.astype\('uint8'\) if .* 255, or \(images // 257\)",
    ),
    "int32": (lambda: loaded().encode(picture().astype(int)), r"give images.astype\('uint8'\) if"),
    "bool": (
        lambda: loaded().encode(picture() > 99),
        r"got bool .*: give images.astype\('uint8'\) \* 255$",
    ),
    "nan": (lambda: loaded().encode(np.full((64, 64, 3), np.nan)), "got nan or infinite numbers"),
    "near": (
        lambda: loaded().encode(np.full((64, 64, 3), -1.0000001)),
        "got -1.0000001 to -1.0000001",
    ),
    "dtypes": (
        lambda: loaded().encode([picture(), picture() / 127.5 - 1]),
        "images of one dtype, got float64 and uint8",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused_in_one_line(name):
    wrong, message = WRONG[name]
    loaded()  # by itself: within jax.jit it would be refused for that
    with pytest.raises(InputError, match=message) as refused:
        wrong()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn])
def test_floats_that_numpy_lacks_are_taken(dtype):
    """Where numbers are the same: images, masks, and what a classifier gives."""
    floats = np.random.default_rng(0).integers(-4, 5, (2, 64, 64, 3)) / 4
    for given in (jnp.asarray(floats, dtype), np.asarray(floats, dtype), [*floats.astype(dtype)]):
        np.testing.assert_array_equal(images.to_uint8(given), images.to_uint8(floats))
    with pytest.raises(InputError, match=r"floats in \[-1, 1\], got -2 to 2: scale or clip them"):
        images.to_uint8((2 * floats).astype(dtype))
    np.testing.assert_array_equal(masks.as_bool(MASK.astype(dtype)), MASK)
    scores = rejection.checked(jnp.asarray([0.5, 1], dtype), 2)
    assert scores.dtype == np.float32 and scores.tolist() == [0.5, 1]


def test_settings_of_jax_that_a_user_has_for_other_code_change_nothing():
    ids, seen = loaded().encode(made()), []
    decoded = loaded().decode(ids)
    with contextlib.ExitStack() as stack:
        for setting in (
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("strict"),
            jax.transfer_guard("disallow_explicit"),
            jax.disable_jit(),
            jax.default_prng_impl("rbg"),
            jax.threefry_partitionable(False),
            jax.set_mesh(jax.make_mesh((1,), ("x",), axis_types=(AxisType.Explicit,))),
        ):
            stack.enter_context(setting)
        model = evqgan.load("drawings")
        exactly(model.generate(2, labels=[0, 8], seed=1), made())
        exactly(model.encode(made()), ids)
        assert model.takes((96, 64))
        before = model.runner.compiling

        def progress(*_):
            seen.append(jax.config.jax_enable_x64)

        exactly(model.decode(ids, progress=progress), decoded)
    exactly(model.generate(2, labels=[0, 8], seed=1), made())
    exactly(model.encode(made()), ids)
    assert model.runner.compiling == before
    assert seen == [True]  # the user's own code has the user's settings


def test_images_may_come_from_a_generator():
    expected = loaded().encode(list(made()))
    np.testing.assert_array_equal(loaded().encode(image for image in made()), expected)


def test_a_loaded_model_says_what_it_cannot_be_given():
    model = loaded()
    for name in ("batch_size", "device", "dtype"):
        with pytest.raises(AttributeError, match=rf"load the model again, by .*\(..., {name}=3\)"):
            setattr(model, name, 3)
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="no 'temperature' that can be set: settings are giv"):
        model.temperature = 0.9
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(InputError, match="cannot be pickled, .*: call evqgan.load in each"):
            copied(model)
    other = copy.copy(model)
    other.classes = 3
    assert other.runner is model.runner and model.classes == 9


@pytest.mark.parametrize("name", ["load", "Model", *METHODS])
def test_what_the_docs_show_is_so(name, monkeypatch):
    """Their `load` gives the model of this file, so that nothing compiles twice."""
    source = getattr(models, name, None) or getattr(Model, name)
    known = {"model": loaded(), "images": made(), "ids": np.zeros((2, 8, 8, 1), int)}
    if name != "load":
        monkeypatch.setattr(evqgan, "load", lambda *_, **__: loaded(), raising=False)
    found = doctest.DocTestFinder(recurse=False).find(source, name, globs=known)
    assert found and found[0].examples
    runner = doctest.DocTestRunner(verbose=False)
    output = []
    runner.run(found[0], out=output.append)
    assert runner.failures == 0, "".join(output)


@pytest.mark.parametrize("name", METHODS)
def test_docs_say_what_every_argument_is(name):
    text = inspect.getdoc(getattr(Model, name)) + inspect.getdoc(Model)
    for parameter in list(inspect.signature(getattr(Model, name)).parameters)[1:]:
        assert re.search(rf"\b{parameter}\b", text), parameter


def test_pictures_are_taken_as_their_arrays(tmp_path):
    array = picture(8, 12)
    image, path = Image.fromarray(array), tmp_path / "a.png"
    pictures.save_png(path, array)
    for one in (image, path, str(path)):
        exactly(images.to_uint8(one), array[None])
    exactly(images.to_uint8([image, path, array]), np.stack([array] * 3))
    exactly(images.to_uint8((image,)), array[None])
    grey = image.convert("L")
    exactly(images.to_uint8(grey), np.stack([np.asarray(grey)] * 3, axis=-1)[None])
    clear = image.copy()
    clear.putalpha(0)
    assert (images.to_uint8(clear) == 255).all()
    with pytest.raises(InputError, match=r"of one shape, got \[8, 8, 3\] and \[8, 12, 3\]: "):
        images.to_uint8([image, picture(8, 8)])
    with pytest.raises(InputError, match=r"no\.png: "):
        images.to_uint8(tmp_path / "no.png")
    path.write_bytes(path.read_bytes()[:-40])
    with Image.open(path) as cut, pytest.raises(InputError, match="a damaged one"):
        images.to_uint8(cut)


def test_masks_may_be_pictures(tmp_path):
    white = Image.fromarray(MASK)
    path = tmp_path / "mask.png"
    white.save(path)
    for mask in (white, white.convert("RGB"), path, str(path)):
        np.testing.assert_array_equal(masks.to_mask(mask), MASK)
    assert masks.to_mask(MASK) is MASK
    with pytest.raises(InputError, match="the mask has colours"):
        masks.to_mask(Image.new("RGB", (4, 4), "red"))


def test_every_method_returns_pictures_if_asked():
    model, (first, second) = loaded(), made()
    ids = model.encode([Image.fromarray(first), second])
    np.testing.assert_array_equal(ids, model.encode(made()))
    exactly(model.decode(ids, output="pil"), model.decode(ids))
    exactly(model.reconstruct(Image.fromarray(first), output="pil"), model.reconstruct(first))
    exactly(model.generate(2, [0, 8], 1, output="pil"), made())
    given = Image.fromarray(first), Image.fromarray(MASK)
    exactly(model.edit(*given, "flags", num=2, output="pil"), model.edit(first, MASK, 8, num=2))
    wide = model.outpaint(given[0], right=8, label=8, output="pil")
    assert [image.size for image in wide] == [(72, 64)]
    assert all(isinstance(image, Image.Image) for image in wide)
    for name, *arguments in (
        ("decode", ids),
        ("reconstruct", first),
        ("generate", 1),
        ("edit", first, MASK, 8),
        ("outpaint", first, 8),
    ):
        with pytest.raises(InputError, match="there is no output 'pill': did you mean 'pil'"):
            getattr(model, name)(*arguments, output="pill")


def test_progress_is_printed_or_told(capsys):
    model, told = copy.copy(loaded()), []
    model.runner = copy.copy(model.runner)
    model.runner.batch_size = 4
    given = np.concatenate([made()] * 3)
    model.encode(given, progress=lambda *now: told.append(now[:2]))
    assert told == [(4, 6), (6, 6)]
    model.generate(6, progress=lambda *now: told.append(now[:2]))
    model.edit(given[0], MASK, 8, progress=lambda *now: told.append(now[:2]))
    assert told[2:] == [(4, 6), (6, 6), (1, 1)]
    assert not capsys.readouterr().out
    model.decode(model.encode(given), progress=True)
    assert re.fullmatch(r"(decode \d/6  [\d.,]+ images/s  ETA \d+s\n)+", capsys.readouterr().out)
    for wrong in (1, "yes", None):
        with pytest.raises(InputError, match="expected progress=True, or a function"):
            model.encode(given, progress=wrong)


def test_a_shape_compiles_once(caplog):
    def compiled(use):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            use()
        return sum("Finished XLA compilation" in r.getMessage() for r in caplog.records)

    model = evqgan.load("drawings")  # which has compiled nothing yet
    assert compiled(lambda: model.encode(picture())) == 1
    for number, tiles in itertools.product((1, 3, 4), (None, False, True)):
        assert not compiled(lambda n=number, t=tiles: model.encode([picture()] * n, tiles=t))
    assert not compiled(lambda: model.encode(picture(96, 64), tiles=True))
    assert compiled(lambda: model.encode(picture(32, 64))) == 1
    assert not compiled(lambda: model.encode(picture(32, 64, seed=1)))


def test_a_larger_image_is_taken_whole_or_in_tiles_and_which_is_said(caplog):
    model, large = loaded(), np.concatenate([made()[0], made()[1]], axis=1)
    whole = model.encode(large)
    assert whole.shape == (1, 8, 16, 1) and len(caplog.messages) == 1
    line = (
        "images of 128x64 (width x height), larger than the model's 64x64, are encoded whole "
        "(tiles=True"
    )
    assert caplog.messages[0].startswith(line)
    model.encode(large)
    np.testing.assert_array_equal(model.encode(large, tiles=False), whole)
    tiles = model.encode(large, tiles=True)
    assert len(caplog.messages) == 1  # once, and nothing of what was asked for
    single = model.encode(made())
    # The outer tiles are the two images themselves.
    np.testing.assert_array_equal(tiles[0, :, :6], single[0, :, :6])
    np.testing.assert_array_equal(tiles[0, :, 10:], single[1, :, 2:])
    again = model.reconstruct(large, tiles=True)
    np.testing.assert_array_equal(again, model.decode(tiles, tiles=True))
    error = np.mean((again.astype(float) - large) ** 2)
    assert 10 * np.log10(255**2 / error) > 20
    with pytest.raises(InputError, match="at least 64x64 to take in tiles, got 64x32 "):
        model.encode(picture(32, 64), tiles=True)
    for how in (None, False, True):
        with pytest.raises(InputError, match=r"multiples of 8, got 100x64 \(width x height\)"):
            model.encode(picture(64, 100), tiles=how)


def test_the_codebook_is_what_the_decoder_gets():
    model = loaded()
    ids, vectors = model.encode(made()), model.codebook
    assert vectors.dtype == np.float32 and len(vectors) == model.codes and model.depth == 1
    z = model._network.apply(model._tokenizer, ids, method=Tokenizer.embed)
    np.testing.assert_array_equal(vectors[ids[..., 0]], z)
    vectors[:] = 0  # of a copy
    assert model.codebook.any()


@pytest.mark.parametrize("shared", [True, False])
def test_of_several_depths_the_decoder_gets_the_sum_of_the_codes_vectors(shared):
    quantizer = residual.Quantizer(codes=6, width=2, depth=3, shared=shared)
    variables = quantizer.init(
        {"params": jax.random.key(0), "codebook": jax.random.key(1)}, np.ones((1, 2, 2, 2))
    )
    model = copy.copy(loaded())
    network = networks.of(model.config).tokenizer.network.clone(quantizer=quantizer)
    inner = {name: {"quantizer": part} for name, part in variables.items()}
    model.__dict__.update(_network=network, _tokenizer=inner)
    ids = np.random.default_rng(0).integers(0, 6, (1, 2, 2, 3), np.int32)
    z = network.apply(inner, ids, method=Tokenizer.embed)
    if shared:
        assert model.codebook.shape == (6, 2)
        found = model.codebook[ids].sum(axis=-2)
    else:
        assert model.codebook.shape == (3, 6, 2)
        found = sum(model.codebook[d][ids[..., d]] for d in range(3))
    np.testing.assert_allclose(found, z, rtol=1e-6, atol=1e-6)


def test_of_larger_images_a_device_takes_fewer_at_a_time(monkeypatch):
    model, batches = evqgan.load("drawings", batch_size=8), []
    call = type(model.runner).__call__

    def noted(runner, function, *given, rows=None, report=None):
        batches.append((function.__name__, rows))
        return call(runner, function, *given, rows=rows, report=report)

    monkeypatch.setattr(type(model.runner), "__call__", noted)
    monkeypatch.setattr(tiled, "PIXELS", 2**14)
    own = model.encode([picture()] * 5)
    large = [picture(192, 128, seed) for seed in range(5)]
    ids = model.encode(large, tiles=False)
    again = model.decode(ids, tiles=False)
    model.reconstruct(large[:1], tiles=False)
    single = model.encode(picture(192, 256), tiles=False)
    assert len(own) == len(ids) == len(again) == 5 and len(single) == 1
    devices = model.runner.mesh.size
    assert [rows for _, rows in batches] == [
        rows * devices for rows in (8 // devices, 1, 1, 1, 1, 1)
    ]
    # As many pixels as a batch of the model's own images has, and of smaller ones as many.
    monkeypatch.setattr(tiled, "PIXELS", 1)
    assert [tiled.most(model, shape) for shape in ((64, 64), (64, 96), (32, 32), (512, 512))] == [
        rows * devices for rows in (8, 5, 8, 1)
    ]


def test_tiles_are_chosen_where_a_network_or_the_memory_needs_them(caplog, monkeypatch):
    model = copy.copy(loaded())
    model.chosen = set()
    monkeypatch.setattr(tiled, "PIXELS", 96 * 96)
    assert not tiled.choose(model, (64, 128), None, "encoded")
    assert tiled.choose(model, (128, 128), None, "encoded")
    assert (
        "in tiles of 64x64 that overlap by half (tiles=False, or --notiles, does it whole)"
        in caplog.messages[-1]
    )
    with pytest.raises(InputError, match="tiles = 'yes': expected True, False or None"):
        tiled.choose(model, (64, 128), "yes", "encoded")
    model.takes = lambda shape: False
    assert tiled.choose(model, (64, 72), None, "decoded")
    assert caplog.messages[-1].endswith("are decoded in tiles of 64x64 that overlap by half")
    assert not tiled.choose(model, (64, 64), None, "decoded")
    assert len(caplog.messages) == 3
    for shape, tiles, way in (
        ((64, 72), False, "take them in tiles"),
        ((32, 72), None, "make them larger"),
        ((32, 72), False, "make them larger"),
    ):
        with pytest.raises(InputError, match=f"takes images of 64x64 alone, got .*: {way}"):
            tiled.choose(model, shape, tiles, "decoded")


def test_a_device_is_named_or_given(monkeypatch):
    first = jax.local_devices()[0]
    for device in (None, "cpu", first, [first]):
        assert devices.of(device) == jax.local_devices()
    assert devices.of("cpu:0") == [first]
    assert evqgan.load("drawings", device="cpu:0").runner.mesh.devices.ravel().tolist() == [first]
    for device, message in (
        ("cpuu", "there is no device 'cpuu': did you mean 'cpu'"),
        ("gpu:x", "there is no device 'gpu:x': did you mean 'gpu'"),
        ("npu9", "there is no device 'npu9': expected one of cpu, gpu, gpu:0, tpu"),
        ("cpu:99", "there is no device 'cpu:99' here: JAX has 1 x cpu"),
        ("tpu", "there is no device 'tpu' here: JAX has 0 x tpu, and computes on cpu"),
        ([], r"expected a device such as 'cpu' or jax.devices\(\)\[0\], got \[\]"),
        (0, "expected a device such as"),
    ):
        with pytest.raises(InputError, match=message):
            devices.of(device)


def test_a_cpu_computes_in_float32_unless_told_otherwise(monkeypatch):
    config, folder = of_workdir("drawings")
    config.dtype = config.tokenizer.dtype = "bfloat16"
    monkeypatch.setattr(models, "of_workdir", lambda workdir: (config, folder))

    def dtypes(**how):
        model = evqgan.load("drawings", **how)
        text = jax.jit(model._encode).lower(model._tokenizer, picture()[None]).as_text()
        assert f", {model.config.dtype} on 1 x cpu," in repr(model)
        return model.config.dtype, model.config.tokenizer.dtype, "bf16" in text

    assert dtypes() == ("float32", "float32", False)
    assert dtypes(config=config) == ("bfloat16", "bfloat16", True)
    cpu = jax.local_devices()
    assert devices.in_dtype(config, "bfloat16", cpu).dtype == "bfloat16"
    assert devices.in_dtype(config, np.float32, cpu).tokenizer.dtype == "float32"
    assert config.dtype == "bfloat16"
    with pytest.raises(InputError, match="there is no dtype 'float16' to compute in"):
        evqgan.load("drawings", dtype="float16")
    accelerator = type("Device", (), {"platform": "gpu"})()
    assert devices.in_dtype(config, None, [accelerator]) is config


def test_a_misspelt_keyword_is_named():
    for name, arguments, wrong, meant in (
        ("generate", (1,), "outputs", "output"),
        ("sample", (1,), "progression", "progress"),
        ("edit", (made()[0], MASK, 8), "feathers", "feather"),
        ("outpaint", (made()[0], 8), "progres", "progress"),
    ):
        with pytest.raises(InputError, match=f"there is no keyword '{wrong}': .*({meant})"):
            getattr(loaded(), name)(*arguments, **{wrong: 1})


@pytest.mark.parametrize(
    "name, arguments, other",
    [
        ("load", ("drawings",), "workdirs"),
        ("generate", (1,), "folder"),
        ("generate", (1,), "part"),
        ("sample", (1,), "output"),
        ("edit", (made, MASK, 8), "left"),
        ("edit", (made, MASK, 8), "acceptance"),
        ("outpaint", (made, 8), "mask"),
        ("outpaint", (made, 8), "folder"),
    ],
)
def test_a_message_names_the_keywords_of_its_function_alone(name, arguments, other):
    """What each takes is read from its signature here, and what generators share, from one."""
    given = [one()[0] if one is made else one for one in arguments]
    function = getattr(loaded(), name, None) or getattr(models, name)
    with pytest.raises(InputError, match=f"there is no keyword '{other}': ") as raised:
        function(*given, **{other: 1})
    with pytest.raises(InputError, match="there is no keyword 'zzzz': expected one of ") as all_of:
        function(*given, zzzz=1)
    named = str(all_of.value).split("expected one of ")[1].split(", ")
    assert other not in named and f"'{other}'?" not in str(raised.value)
    own = [x for x, y in inspect.signature(function).parameters.items() if y.kind != y.VAR_KEYWORD]
    more = {
        "generate": {"acceptance", "classifier", "force"},
        "edit": {"margin", "feather", "force"},
        "outpaint": {"margin", "feather", "force"},
    }
    sampler = () if name == "load" else loaded().sampler
    assert {*named} == {*own, *more.get(name, ()), *sampler}


@pytest.mark.parametrize("step", [7, None])
def test_a_step_that_is_not_there_is_refused_before_networks_are_built(tmp_path, monkeypatch, step):
    place = workdirs.copy(tmp_path / "w") / "generator"
    if step is None:
        shutil.rmtree(place / "checkpoints")
    monkeypatch.setattr(networks, "of", lambda config: pytest.fail("networks were built"))
    expected = (
        "there is no checkpoint in " if step is None else "of step 7 in .*: expected one of 6"
    )
    with pytest.raises(InputError, match=expected):
        evqgan.load(place, step=step)
    for wrong in ("7", 7.0, -1, True):
        with pytest.raises(InputError, match=f"a step that is a whole number.*, got {wrong!r}$"):
            evqgan.load(place, step=wrong)
    if step:
        with pytest.raises(InputError, match=r"an exported model of step [\d,]+, not of step 7"):
            evqgan.load("drawings", step=step)
