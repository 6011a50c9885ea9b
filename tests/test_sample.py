"""A trained workdir in use: encode, decode, generate, edit, outpaint."""

import copy
import functools
import itertools
import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs

import evqgan
from evqgan.core.config_files import of_workdir
from evqgan.core.errors import InputError
from evqgan.data import generated
from evqgan.inference.images import to_uint8

LEFT = np.zeros((32, 32), bool)
LEFT[5:20, :13] = True  # touches tokens 1 to 4 by 0 to 3, the last ones in part
GREEDY = {"steps": 1, "temperature": 0.0}  # the likeliest codes at once: nothing is left to chance
TOUCHED = np.zeros((32, 32), bool)
TOUCHED[4:20, :16] = True


@pytest.fixture(scope="module")
def model():
    return evqgan.load(workdirs.trained())


@pytest.fixture(scope="module")
def tokenizer():
    return evqgan.load(workdirs.trained() / "tokenizer")


@pytest.fixture
def unconditional(model):
    model = copy.copy(model)
    model.classes = 0
    return model


def picture(index=0, shape=(32, 32)):
    return generated.draw(index, 3, shape)


def painting_labels(model, **changes):
    """A model that paints labels: a few steps have not taught it to tell classes apart."""
    expected = model.settings(changes)

    def sampler_of(settings):
        assert settings == expected
        return lambda state, ids, mask, labels, seeds, numbers: jnp.broadcast_to(
            labels[:, None, None, None], ids.shape
        )

    model = copy.copy(model)
    model._sampler_of = functools.cache(sampler_of)
    model._decode = lambda weights, ids: (
        ids.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3).astype(jnp.uint8)
    )
    return model


def same_but_for_rounding(a, b):
    """Batches of different sizes may be summed in different orders: a grey level of 256 at most."""
    assert np.abs(a.astype(int) - b).max() <= 1


def test_importing_evqgan_does_not_import_jax():
    code = (
        "import sys, evqgan; dir(evqgan), evqgan.InputError; assert 'jax' not in sys.modules; "
        "evqgan.load; assert 'jax' in sys.modules; evqgan.lod"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    message = run.stderr.splitlines()[-1]
    assert message.startswith("AttributeError: module 'evqgan' has no attribute 'lod'")
    assert "'load'?" in message


def test_images_become_ids_and_images_again(model, tokenizer):
    images = np.stack([picture(i) for i in range(3)])
    ids = model.encode(images)
    assert ids.shape == (3, 8, 8, 1) and ids.dtype == np.int32 and 0 <= ids.min() <= ids.max() < 64
    again = model.decode(ids)
    assert again.shape == (3, 32, 32, 3) and again.dtype == np.uint8
    np.testing.assert_array_equal(model.reconstruct(images), again)
    # The generator's workdir holds its tokenizer.
    np.testing.assert_array_equal(tokenizer.reconstruct(images), again)
    np.testing.assert_array_equal(
        model.encode(images[0] / np.float32(127.5) - 1), model.encode(images[0])
    )
    assert model.encode(images[0]).shape == (1, 8, 8, 1) and model.decode(ids[0]).shape == (
        1,
        32,
        32,
        3,
    )
    # The tokenizer takes other sizes.
    assert model.encode(picture(shape=(16, 48))).shape == (1, 4, 12, 1)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((32, 32), np.uint8), r"got uint8 \[32, 32\]: a grey image has to repeat"),
        ("nowhere.png", "^(?!expected images of one shape).*nowhere.png"),
        (None, "got None$"),
        ([], "expected at least one image, got none"),
        (np.zeros((3, 32, 32), np.uint8), r"got uint8 \[3, 32, 32\]: channels come last"),
        (np.zeros((5, 32, 32), np.uint8), r"got uint8 \[5, 32, 32\]: a grey image has to repeat"),
        (np.zeros((32, 32, 1), np.uint8), r"got uint8 \[32, 32, 1\]: a grey image has to repeat"),
        (np.zeros((32, 32, 4), np.uint8), r"32, 4\]: leave the fourth channel out"),
        (np.zeros((32, 32, 3), np.int64), r"got int64"),
        (np.full((32, 32, 3), 255.0), r"expected floats in \[-1, 1\], got 255 to 255"),
        (np.full((32, 32, 3), np.nan), r"expected floats in \[-1, 1\], got nan"),
        (np.zeros((0, 32, 32, 3), np.uint8), "expected at least one image, got none"),
        (np.zeros((30, 32, 3), np.uint8), r"multiples of 4, got 32x30 \(width x height\)"),
    ],
)
def test_what_is_no_image_is_refused(model, images, message):
    with pytest.raises(InputError, match=message):
        model.encode(images)


def test_what_are_no_ids_is_refused(model):
    for shape in ([8, 8], [8, 8, 2], [1, 8, 8, 2], [1, 1, 8, 8, 1]):
        with pytest.raises(InputError) as error:
            model.decode(np.zeros(shape, np.int64))
        expected = f"expected ids as int [h,w,1] or [B,h,w,1], got int64 {shape}"
        assert str(error.value) == expected
    with pytest.raises(InputError, match="expected ids from 0 to 63, got 0 to 64"):
        model.decode(np.arange(65).reshape(1, 5, 13, 1))


def test_floats_and_bytes_are_the_same_images():
    image = picture()
    np.testing.assert_array_equal(to_uint8(image / np.float64(127.5) - 1)[0], image)


def test_floats_from_0_to_1_are_not_taken_for_pale_images():
    image = picture()
    with pytest.raises(
        InputError, match=r"in \[-1, 1\], got none below 0, as if they were in \[0, 1\]: give 2 \*"
    ):
        to_uint8(image / 255)
    with pytest.raises(InputError, match="got none below 0"):
        to_uint8(np.zeros((2, 4, 4, 3), np.float32))
    np.testing.assert_array_equal(to_uint8(2 * (image / 255) - 1)[0], image)
    # One bright image in a batch is as it is.
    dark = np.stack([image / 127.5 - 1, np.ones_like(image, float)])
    np.testing.assert_array_equal(to_uint8(dark)[1], 255)
    assert (to_uint8(np.ones((4, 4, 3))) == 255).all()


def test_an_image_depends_on_the_seed_and_its_number_alone(model):
    made = model.sample(6, seed=7)
    assert sorted(made) == ["ids", "images", "labels", "numbers"]
    assert made["images"].shape == (6, 32, 32, 3) and made["images"].dtype == np.uint8
    assert (
        made["ids"].shape == (6, 8, 8, 1)
        and made["ids"].dtype == np.int32
        and made["ids"].max() < 64
    )
    np.testing.assert_array_equal(made["labels"], np.arange(6, dtype=np.int32))
    small = [evqgan.load(workdirs.trained(), batch_size=size) for size in (1, 2, 4)]
    for other in (
        model.sample(3, seed=7),
        model.sample(5, seed=7),
        *(other.sample(6, seed=7) for other in small),
    ):
        number = len(other["ids"])
        ids = made["ids"][:number]
        assert np.mean(other["ids"] == ids) > 0.98  # a token near a tie may be another
        alike = (other["ids"] == ids).all(axis=(1, 2, 3))
        same_but_for_rounding(other["images"][alike], made["images"][:number][alike])
    again = evqgan.load(workdirs.trained(), batch_size=4).sample(6, seed=7)
    np.testing.assert_array_equal(again["ids"], other["ids"])  # of equal batches
    np.testing.assert_array_equal(model.generate(6, seed=7), made["images"])
    assert len(np.unique(made["ids"].reshape(6, -1), axis=0)) == 6
    assert (model.sample(6, seed=8)["ids"] != made["ids"]).any(axis=(1, 2, 3)).all()


def test_parts_are_the_whole(model):
    model, reported = evqgan.load(workdirs.trained(), batch_size=2), []
    whole = model.sample(5, ["cat", 3], 7)
    parts = [
        model.sample(5, ["cat", 3], 7, progress=lambda *now: reported.append(now[:2]), part=(i, 2))
        for i in range(2)
    ]
    assert [len(part["images"]) for part in parts] == [3, 3]  # alike, so that all compile the same
    assert reported == [(4, 5), (5, 5)] * 2  # what both have
    for name in whole:
        np.testing.assert_array_equal(
            np.concatenate([part[name] for part in parts])[:5], whole[name], name
        )


def test_labels_are_numbers_or_names_and_go_in_turn(model):
    made = painting_labels(model).sample(5, ["cat", 0, "9"])
    np.testing.assert_array_equal(made["labels"], [2, 0, 9, 2, 0])
    np.testing.assert_array_equal(made["images"][:, 0, 0, 0], [2, 0, 9, 2, 0])
    for wrong in (10, -1, "10", "1.5"):
        with pytest.raises(
            InputError, match=f"there is no class '?{wrong}'?: expected a whole number from 0 to 9"
        ):
            model.generate(1, [wrong])
    with pytest.raises(InputError, match=r"there is no class 'cta': .*did you mean 'cat'"):
        model.generate(1, ["cta"])
    with pytest.raises(
        InputError, match=r"there is no class 'zzz': .*, or a name: one of ant, bee, cat"
    ):
        model.edit(picture(), LEFT, "zzz")


@pytest.mark.parametrize(
    "labels",
    [
        *(3, "dog", np.int32(3), np.array(3), np.str_("dog"), (3,), np.array(["dog"])),
        *(range(3, 4), itertools.repeat("dog")),
    ],
    ids=str,
)
def test_one_class_needs_no_list(model, labels):
    made = painting_labels(model, steps=2, temperature=0.5).sample(
        np.int8(2), labels, np.uint8(1), steps=np.int64(2), temperature=np.float32(0.5)
    )
    np.testing.assert_array_equal(made["labels"], [3, 3])
    for wrong in ("cow", b"dog", 3.0):
        with pytest.raises(InputError, match=f"there is no class {wrong!r}: expected a whole num"):
            model.generate(4, labels=wrong)


@pytest.mark.parametrize("part", [3, (2, 2), (-1, 2), (0, 1.5), (0, 1, 2)])
def test_a_part_is_one_of_several(model, part):
    with pytest.raises(InputError, match=r"expected a part \(i, n\), the i-th of n from 0 on, got"):
        painting_labels(model).sample(2, part=part)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"num": 2.0}, "at least one image to generate, a whole number, got 2.0"),
        ({"num": "2"}, "at least one image to generate, a whole number, got '2'"),
        ({"num": True}, "at least one image to generate, a whole number, got True"),
        (
            {"num": 10**12},
            "would take [0-9,.]+ GiB|images to generate, which are more than 20,000,000",
        ),
        (
            {"num": 2, "seed": 1.0},
            "expected a seed that is a whole number from 0 to 9223372036854775807, got 1.0",
        ),
        ({"num": 2, "seed": None}, "expected a seed that is a whole number .*, got None"),
        (
            {"num": 2, "seed": 2**64},
            "expected a seed that is a whole number .*, got 18446744073709551616",
        ),
        ({"num": 2, "seed": -1}, "expected a seed that is a whole number .*, got -1"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_made(model, given, message):
    idle = painting_labels(model, steps=7)  # whoever would make something fails
    with pytest.raises(InputError, match=message):
        idle.generate(**given)
    with pytest.raises(InputError, match=message):
        idle.edit(picture(), LEFT, "cat", **given)


@pytest.mark.parametrize("given", [{"acceptance": 1e-9}, {"num": 10**8}, {"acceptance": 5e-324}])
def test_more_than_weeks_of_work_is_begun_by_force_alone(model, given):
    given = {"num": 4, **given}
    images = "(inf|[0-9,]+) images to generate, which are more than 20,000,000"
    with pytest.raises(
        InputError,
        match=f"this takes {images}: ask for less, or lift the limit by --force .in Python",
    ):
        model.generate(**given)
    assert len(model.checked_labels(**{**given, "num": 4}, force=True)) == 4


def test_many_class_names_are_not_all_listed(model):
    model = copy.copy(model)
    model.class_names = tuple(f"n{i:05d}" for i in range(1000))
    with pytest.raises(InputError, match=r"from 0 to 9$"):
        model.label_of("zebra")
    with pytest.raises(InputError, match="did you mean 'n00077'"):
        model.label_of("n00077x")


def test_a_model_without_classes_takes_no_labels(unconditional):
    for use in (
        lambda: unconditional.generate(1, ["cat"]),
        lambda: unconditional.edit(picture(), LEFT, "cat"),
        lambda: unconditional.outpaint(picture(), 4, 0, 0, 0, 0),
    ):
        with pytest.raises(InputError, match="unconditional model: it takes no labels"):
            use()
    assert sorted(unconditional.sample(6)) == ["ids", "images", "numbers"]


def test_the_sampler_can_be_changed(model):
    made, other = model.sample(6), model.sample(6, **GREEDY)
    assert (made["ids"] != other["ids"]).any()
    np.testing.assert_array_equal(other["ids"], model.sample(6, seed=9, **GREEDY)["ids"])


@pytest.mark.parametrize(
    "sampler, message",
    [
        ({"temprature": 0.9}, "there is no keyword 'temprature': did you mean 'temperature'"),
        ({"schedule": "cosin"}, "config.sample.schedule expects one of cosine, linear"),
        ({"steps": 0}, "config.sample.steps expects a whole number from 1 to 4096, got 0"),
        ({"guidance": 1.5}, "guidance is 1.5, but the generator was trained without"),
        ({"label": 3}, "there is no keyword 'label': did you mean 'labels'"),
        ({"temperature": -1.0}, "config.sample.temperature expects a number from 0, got -1.0"),
    ],
)
def test_samplers_that_cannot_be_are_named(model, sampler, message):
    with pytest.raises(InputError, match=message):
        model.generate(1, **sampler)


def test_nothing_compiles_twice(model, caplog):
    def compiled(use):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            use()
        return [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]

    model = evqgan.load(workdirs.trained(), batch_size=4)
    assert compiled(lambda: model.generate(3))  # or this test sees nothing
    assert not compiled(lambda: model.generate(11, [5], seed=3))
    model.edit(picture(), LEFT, 1, num=3)
    model.decode(np.zeros((4, 8, 8, 1), int))
    assert not compiled(lambda: model.edit(picture(1), TOUCHED, 2, num=4, seed=1))
    assert not compiled(lambda: model.outpaint(picture(2), 8, 0, 24, 16, 3, num=4))
    assert not compiled(lambda: model.reconstruct(np.stack([picture()] * 4)))


def test_a_tokenizers_workdir_does_not_generate(tokenizer):
    for name, arguments in (
        ("generate", (1,)),
        ("sample", (1,)),
        ("edit", (picture(), LEFT)),
        ("outpaint", (picture(), 4, 0, 0, 0)),
    ):
        with pytest.raises(
            InputError, match=f"holds a tokenizer: {name} needs the workdir of a generator"
        ):
            getattr(tokenizer, name)(*arguments, temperature=0.5)


def test_a_model_says_what_it_is(model, tokenizer):
    where = "float32 on 1 x cpu, step 6 in "
    assert repr(model) == (
        "<evqgan model: generator multigrained of 32x32 images, 8x8 tokens of 64 codes, "
        f"10 classes, {where}{model.workdir}>"
    )
    assert repr(tokenizer) == (
        "<evqgan model: tokenizer of 32x32 images, 8x8 tokens of 64 codes, "
        f"{where}{tokenizer.workdir}>"
    )


def test_progress_is_reported(model):
    reported = []
    evqgan.load(workdirs.trained(), batch_size=4).sample(
        6, progress=lambda *now: reported.append(now[:2])
    )
    assert reported == [(4, 6), (6, 6)]


def test_a_workdir_is_found_and_left_as_it_is(tmp_path, model):
    place = workdirs.copy(tmp_path / "w")
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*")}
    loaded = evqgan.load(place)
    loaded.generate(1)
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*")} == before
    assert (
        loaded.workdir == place / "generator"
        and loaded.step == 6
        and loaded.class_names == workdirs.NAMES
    )
    np.testing.assert_array_equal(loaded.generate(1), model.generate(1))
    with pytest.raises(InputError, match="there is no checkpoint of step 5 in"):
        evqgan.load(place, step=5)
    with pytest.raises(InputError, match="batch_size that is a whole number .*, got 0"):
        evqgan.load(place, batch_size=0)
    with pytest.raises(InputError, match="no keyword 'batchsize': did you mean 'batch_size'"):
        evqgan.load(place, batchsize=1)
    for nothing in (None, 3):
        with pytest.raises(InputError, match=f"expected the path of a workdir, got {nothing}"):
            evqgan.load(nothing)


def test_images_of_several_sizes_are_refused(model):
    with pytest.raises(InputError, match=r"of one shape, got \[32, 32, 3\] and \[32, 40, 3\]: "):
        model.encode([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40, 3), np.uint8)])


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "is no workdir: there is no .*config.json; train one with --config=FILE --workdir="),
        ("{", "is not the config that training writes"),
        ("[1]", "is not the config that training writes"),
        ("{}", "config.json: config needs the key 'stage'"),
        ('{"stage": "stage7"}', "stage is 'stage7': did you mean 'stage"),
    ],
)
def test_what_is_no_workdir_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        of_workdir(tmp_path)
    assert "\n" not in str(error.value)
