"""The modes sample, edit and evaluate: what they write, and what they refuse.

A refusal changes nothing.
"""

import copy
import io
import json
import pathlib
import re
import types

import jax
import numpy as np
import pytest
import test_cluster
import workdirs
from ml_collections import ConfigDict
from PIL import Image
from test_train import Given

import evqgan
from evqgan import evals, main, models
from evqgan.core import config_files, mesh, pictures, processes
from evqgan.core.errors import ContractError, InputError
from evqgan.data import generated
from evqgan.data.dataset import Dataset
from evqgan.evals import against_real, finished
from evqgan.evals.provenance import Measured, Produced
from evqgan.inference import (
    evaluation,
    evaluation_parts,
    grids,
    mode_edit,
    mode_inputs,
    mode_reconstruct,
    mode_sample,
)
from evqgan.inference.core import CoreModel
from evqgan.inference.evaluators import Evaluators, evaluators_of
from evqgan.inference.images import read_image
from evqgan.metrics import pixels
from evqgan.metrics.frechet import frechet_distance, gaussian
from evqgan.training import resume_rules


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """Models compile once for all tests of this file."""
    for module in (mode_inputs, evaluation):
        monkeypatch.setattr(module, "load", load)


def load(workdir, config=None, step=None, batch_size=None, models={}):  # noqa: B006 (kept on purpose)
    key = str(workdir).split("/")[-1], config and config.to_json(), step, batch_size
    if key not in models:
        models[key] = evqgan.load(workdir, config, step, batch_size)
    model = copy.copy(models[key])
    model.workdir = config_files.of_workdir(workdir)[1]
    return model


@pytest.fixture
def workdir(tmp_path):
    return workdirs.copy(tmp_path / "w")


@pytest.fixture
def config(workdir):
    return config_files.of_workdir(workdir)[0]


@pytest.mark.parametrize(
    "value, message",
    [
        (2.0, "config.evals.ours and config.evals.mine both give 'mse'"),
        (None, "config.evals.mine gave mse as object"),
    ],
)
def test_numbers_that_are_not_an_evaluators_to_give_end_an_evaluation(workdir, value, message):
    model = load(workdir)
    given = {"ours": Given(("mse", 1.0)), "mine": Given(("mse", value))}
    if value is None:
        del given["ours"]
    with pytest.raises(ContractError, match=message):
        list(evaluation.evaluate_model(model, Evaluators(given, model.runner.mesh)))


def test_a_batch_of_evaluation_that_is_none_is_that_of_training(config):
    with config.unlocked():
        config.eval_batch_size = None
    dataset = evaluation.images_of(config)
    ready = evaluators_of(config, dataset, {"generation": {}})
    assert ready.by_name["generation"].batches.size == config.batch_size
    made = evals.build_all(config, models.of(config), dataset, mesh.make())
    assert made["generation"].batches.size == config.batch_size


EMPTY = '{"numbers": {}, "protocols": {}}'


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def png(path):
    return np.asarray(Image.open(path))


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return str(path)


def make(config, workdir, out, *given, **more):
    """Sample what a SampleRequest of these arguments asks for."""
    mode_sample.sample(config, workdir, out, mode_sample.SampleRequest(*given, **more))


def picture(shape=(32, 32)):
    return generated.draw(0, 3, shape)


def test_sample_writes_samples_a_grid_and_pictures(workdir, config, capsys):
    make(config, workdir, None, 6, ["cat", "0"], seed=3)
    out = workdir / "samples"
    assert sorted(p.name for p in out.iterdir()) == ["grid.png", "images", "samples.npz"]
    assert sorted(p.name for p in (out / "images").iterdir()) == [f"{i:05d}.png" for i in range(6)]
    with np.load(out / "samples.npz") as saved:
        assert saved.files[0] == "arr_0"  # where ADM's evaluator looks
        images, ids = saved["arr_0"], saved["ids"]
        assert images.shape == (6, 32, 32, 3) and images.dtype == np.uint8
        assert ids.shape == (6, 8, 8, 1) and ids.dtype == np.int32
        np.testing.assert_array_equal(saved["labels"], np.array([2, 0, 2, 0, 2, 0], np.int32))
        assert saved["labels"].dtype == np.int32 and saved["step"] == 6 and saved["seed"] == 3
    np.testing.assert_array_equal(
        np.stack([png(out / "images" / f"{i:05d}.png") for i in range(6)]), images
    )
    grid = png(out / "grid.png")  # two columns with a name each: cats, and ants
    np.testing.assert_array_equal(grid[-32:, :32], images[4])
    assert len(grid) - 3 * 32 - 2 * 2 == len(pictures.label(images[0], "cat")) - 32
    made = load(workdir, config).sample(6, [2, 0], 3)
    np.testing.assert_array_equal(made["images"], images)
    assert re.search(
        rf"6 samples of step 6 are in {out}: generated at [\d.,]+ images/s, "
        r"written at [\d.,]+ images/s, \d+s in all\n$",
        capsys.readouterr().out,
    )


def test_samples_of_an_earlier_call_go_and_other_pictures_stop_the_next(workdir, config, tmp_path):
    out = tmp_path / "out"
    for num in (3, 2):
        make(config, workdir, out, num, force=True)
    assert sorted(files_of(out)) == [
        "grid.png",
        "images/00000.png",
        "images/00001.png",
        "samples.npz",
    ]
    save(out / "images" / "mine.png", picture())
    with pytest.raises(
        InputError, match=r"images would be replaced, but holds mine.png, no sample: give"
    ):
        make(config, workdir, out, 1, force=True)
    assert len(files_of(out)) == 5
    (out / "images" / "mine.png").unlink()
    make(config, workdir, out, 1, pngs=False, force=True)
    assert sorted(files_of(out)) == ["grid.png", "samples.npz"]


def test_samples_do_not_go_among_other_files(workdir, config, tmp_path):
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    save(tmp_path / "pictures" / "cat" / "mine.png", picture())
    with pytest.raises(InputError, match=r"pictures holds other files, such as cat: give another"):
        make(config, workdir, tmp_path / "pictures", 1)
    assert sorted(files_of(tmp_path / "pictures")) == ["cat/mine.png"]


def test_nothing_is_written_among_images(workdir, config, tmp_path):
    """Neither into the data set of the model, nor among images that no mode has written."""
    folder = tmp_path / "pictures"
    (folder / "cat").mkdir(parents=True)
    save(folder / "cat" / "mine.png", picture())
    with pytest.raises(InputError, match="no samples, such as mine.png, and samples would be"):
        make(config, workdir, folder / "cat", 1, force=True)
    config.dataset.folder = str(folder)
    for out in (folder / "new", folder / "cat" / "new"):
        lies = "--out .*new lies in the folder of images .*: give another --out"
        with pytest.raises(InputError, match=lies):
            make(config, workdir, out, 1, force=True)
        with pytest.raises(InputError, match=lies):
            mode_edit.edit(config, workdir, out, mode_edit.EditRequest(image="x.png"))
        with pytest.raises(InputError, match=lies):
            image = str(folder / "cat" / "mine.png")
            mode_reconstruct.reconstruct(config, workdir, out, image)
    assert sorted(files_of(folder)) == ["cat/mine.png"]


def test_compilation_is_told_and_does_not_count(workdir, config, monkeypatch, capsys):
    model = evqgan.load(workdir, config, batch_size=4)
    monkeypatch.setattr(mode_inputs, "load", lambda *_, batch_size: model)
    make(config, workdir, None, 6, batch_size=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"loading {workdir}", "compiling the sampler for 4 images at a time"]
    assert re.fullmatch(r"compiled in [\d.]+ s", lines[2])
    for line, number in zip(lines[3:5], (4, 6), strict=True):
        assert re.fullmatch(rf"sample {number}/6  [\d.,]+ images/s  ETA \d+s", line)
    assert lines[5:7] == [
        f"writing 6 images to {workdir}/samples",
        "compiling the decoder for 4 images at a time",
    ]
    clock = iter((0.0, 2.0, 3.0, 3.0, 6.0, 7.0))  # of sampling, and of writing
    monkeypatch.setattr(model.runner, "clock", lambda: next(clock))
    make(config, workdir, None, 6, batch_size=4, force=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["sample 4/6  2 images/s  ETA 1s", "sample 6/6  2 images/s  ETA 0s"]
    assert lines[5] == "write 6/6  1.5 images/s  ETA 0s"
    of_both = r": generated at 2 images/s, written at 1\.5 images/s, \d+s in all"
    assert re.search(of_both + "$", lines[6])


def test_sampling_that_was_stopped_goes_on_to_the_same_bits(workdir, config, monkeypatch, capsys):
    model, new = load(workdir, config), CoreModel.new_ids
    monkeypatch.setattr(model.runner, "rows", lambda _: 4)
    make(config, workdir, workdir / "whole", 10, seed=3)

    def stopping(self, labels, numbers, *args, **given):
        if numbers[0] == 8:
            raise KeyboardInterrupt
        return new(self, labels, numbers, *args, **given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CoreModel, "new_ids", stopping)
        make(config, workdir, workdir / "parts", 10, seed=3)
    kept = ["candidates/00000000.npz", "candidates/00000004.npz", "candidates/settings.json"]
    assert sorted(files_of(workdir / "parts")) == kept
    with pytest.raises(
        InputError,
        match="holds candidates made with seed = 3, not seed = 4: give the same settings",
    ):
        make(config, workdir, workdir / "parts", 10, seed=4)
    capsys.readouterr()
    make(config, workdir, workdir / "parts", 10, seed=3)
    assert "going on from 8/10\n" in capsys.readouterr().out
    assert files_of(workdir / "parts") == files_of(workdir / "whole")


def test_the_card_has_all_settings_of_the_sampler(workdir, config):
    config.sample.steps = 3
    config.sample.temperature = 0.5
    make(config, workdir, None, 2, pngs=False)
    _, _, made_by, card = finished.read(workdir / "samples" / "samples.npz")
    given = {"steps": 3, "temperature": 0.5, "choice_temperature": 4.5, "schedule": "cosine"}
    assert given.items() <= card.sampler.items() and card.count == 2 and made_by.step == 6


def test_samples_of_a_model_without_classes_have_no_labels(workdir, config, monkeypatch, tmp_path):
    model = load(workdir, config)
    model.classes = 0
    monkeypatch.setattr(mode_inputs, "load", lambda *_, **__: model)
    make(config, workdir, tmp_path / "out", 2, steps_strip=True)
    assert png(tmp_path / "out" / "steps.png").shape[0] == 2 * 32 + 2
    with np.load(tmp_path / "out" / "samples.npz") as saved:
        assert "labels" not in saved and len(saved["arr_0"]) == 2
    assert not (workdir / "samples").exists()


@pytest.mark.parametrize(
    "num, labels, message",
    [
        (4, ["cat", "cow"], "there is no class 'cow'"),
        (0, [], "expected at least one image to generate"),
    ],
)
def test_a_sample_that_cannot_be_leaves_the_last_one(workdir, config, num, labels, message):
    make(config, workdir, None, 2)
    before = files_of(workdir)
    with pytest.raises(InputError, match=message):
        make(config, workdir, None, num, labels, seed=1)
    assert files_of(workdir) == before


@pytest.mark.parametrize("mode", ["sample", "edit", "evaluate"])
def test_a_place_that_takes_no_results_is_told_before_any_are_made(
    workdir, config, monkeypatch, mode
):
    model = copy.copy(load(workdir, config))
    model.runner = types.SimpleNamespace()  # whoever would compute something fails
    for module in (mode_inputs, evaluation):
        monkeypatch.setattr(module, "load", lambda *_, **__: model)
    monkeypatch.setattr(evaluation, "evaluate_model", None)
    (workdir / "file").write_text("in the way")
    image, out = save(workdir / "a.png", picture()), workdir / "file"
    use = {
        "sample": lambda: make(config, workdir, out, 2, batch_size=3),
        "edit": lambda: edit(config, workdir, out=out, image=image, box=["0", "0", "8", "8"]),
        "evaluate": lambda: evaluation.evaluate(config, workdir, out, []),
    }
    advice = "give another folder" + (" by --out$" if mode == "evaluate" else "")
    with pytest.raises(InputError, match=f"cannot write .*file: .*; {advice}"):
        use[mode]()


def edit(config, workdir, out=None, **given):
    request = mode_edit.EditRequest(**{"label": "bee", "num": 2, **given})
    return mode_edit.edit(config, workdir, out, request)


def test_edit_writes_results_the_masked_input_and_a_strip(workdir, config, tmp_path):
    image = save(tmp_path / "a.png", picture())
    edit(config, workdir, image=image, box=["0", "5", "13", "20"])
    out = workdir / "edits"
    assert sorted(p.name for p in out.iterdir()) == [
        "edit_000.png",
        "edit_001.png",
        "masked.png",
        "strip.png",
    ]
    hidden = np.zeros((32, 32), bool)
    hidden[5:20, :13] = True
    masked = png(out / "masked.png")
    assert (masked[hidden] == 128).all()
    np.testing.assert_array_equal(masked[~hidden], picture()[~hidden])
    edits = [png(out / f"edit_{i:03d}.png") for i in range(2)]
    for result, expected in zip(
        edits, load(workdir, config).edit(picture(), hidden, "bee", 2, 0), strict=True
    ):
        np.testing.assert_array_equal(result, expected)
    strip = png(out / "strip.png")
    assert strip.shape == (32, 3 * 32 + 2 * 2, 3)
    np.testing.assert_array_equal(strip[:, 34:66], edits[0])

    mask = save(tmp_path / "mask.png", hidden.astype(np.uint8) * 255)
    edit(config, workdir, image=image, mask=mask, out=tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(out)  # a mask of the same pixels is the same edit


def test_an_edit_that_is_interrupted_leaves_the_last_ones_and_files_of_others_stay(
    workdir, config, tmp_path, monkeypatch
):
    image, out = save(tmp_path / "a.png", picture()), tmp_path / "out"
    out.mkdir()
    save(out / "edit_mine.png", picture())
    masked, results = picture(), np.stack([picture()] * 3)
    made = [mode_edit.MADE] * len(results)
    mode_edit.write(out, masked, results, made)
    save(out / "edit_1000.txt.png", picture())
    before, save_png = files_of(out), pictures.save_png
    assert len(before) == 7

    def interrupted(path, image, record=None):
        if path.name == "strip.png":
            raise KeyboardInterrupt
        save_png(path, image, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "save_png", interrupted)
        mode_edit.write(out, 255 - masked, 255 - results, made)
    assert files_of(out) == before
    edit(config, workdir, out=out, image=image, box=["0", "0", "8", "8"], num=1)
    left = {name for name in before if name not in ("edit_001.png", "edit_002.png")}
    assert (
        files_of(out).keys() == left and files_of(out)["edit_mine.png"] == before["edit_mine.png"]
    )


def test_a_picture_grows(workdir, config, tmp_path, capsys):
    image = save(tmp_path / "a.png", picture((16, 24)))
    edit(config, workdir, image=image, outpaint=["4", "16", "12", "0"], num=1, margin=1, feather=0)
    result, masked = png(workdir / "edits" / "edit_000.png"), png(workdir / "edits" / "masked.png")
    assert result.shape == masked.shape == (32, 40, 3)
    np.testing.assert_array_equal(result[16:, 4:28], picture((16, 24)))
    np.testing.assert_array_equal(masked[16:, 4:28], picture((16, 24)))
    assert (masked[:16] == 128).all()
    model, how = load(workdir, config), {"margin": 1, "feather": 0}
    np.testing.assert_array_equal(
        result, model.outpaint(picture((16, 24)), 4, 16, 12, 0, "bee", **how)[0]
    )
    told = [
        line
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith(("loading ", "compiling "))
    ]
    assert re.fullmatch(r"edit 2/2  [\d.,]+ windows/s  ETA 0s", told[-2])  # one a second before
    assert told[-1] == f"1 edit is in {workdir / 'edits'}"


def test_all_kinds_of_pictures_are_read(tmp_path):
    image = picture((24, 32))
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "g.png", grey)), np.stack([grey] * 3, axis=-1)
    )
    alpha = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    alpha[:4, :, 3] = 0
    found = read_image(save(tmp_path / "a.png", alpha))
    np.testing.assert_array_equal(found[4:], image[4:])
    assert (found[:4] == 255).all()
    Image.fromarray(image).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - image).mean() < 4
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    found = read_image(save(tmp_path / "e.png", image, exif=exif))
    np.testing.assert_array_equal(found, np.rot90(image, -1))


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "edit needs --image=FILE and exactly one of"),
        ({"image": "a.png"}, "edit needs --image=FILE and exactly one of"),
        (
            {"image": "a.png", "box": ["0"] * 4, "mask": "a.png"},
            "edit needs --image=FILE and exactly one of",
        ),
        ({"image": "none.png", "box": ["0", "0", "8", "8"]}, "^--image: cannot read none.png: No "),
        (
            {"image": ".", "box": ["0", "0", "8", "8"]},
            "^--image: cannot read .: expected a file, got a folder",
        ),
        ({"image": "a.png", "mask": "."}, "^--mask: cannot read .: expected a file, got a folder"),
        (
            {"image": "cut.png", "box": ["0", "0", "8", "8"]},
            "cut.png: expected an image, got 200 bytes",
        ),
        (
            {"image": "a.png", "box": ["0", "0", "8"]},
            "--box takes four whole numbers, .*, not 0,0,8",
        ),
        (
            {"image": "a.png", "box": ["0", "0", "8", "x"]},
            "--box takes four whole numbers, .*, not 0,0,8,x",
        ),
        (
            {"image": "a.png", "box": ["0", "0", "8", "33"]},
            "--box=0,0,8,33 does not lie in the image of 32x32",
        ),
        (
            {"image": "a.png", "box": ["8", "0", "8", "4"]},
            "--box=8,0,8,4: expected left,top,right,bottom with left below right .*, got left = 8,",
        ),
        (
            {"image": "a.png", "outpaint": ["1.5", "0", "8", "4"]},
            "--outpaint takes four whole numbers",
        ),
        (
            {"image": "a.png", "outpaint": ["0", "0", "-8", "4"]},
            "expected margins in whole pixels from 0 on",
        ),
        (
            {"image": "wide.png", "mask": "white.png"},
            r"^--mask: expected a mask of the image's size, 40x32 \(width x height\), got 32x32",
        ),
        (
            {"image": "a.png", "mask": "black.png"},
            "the mask black.png hides nothing: .* its brightest is 127",
        ),
        ({"image": "a.png", "mask": "cut.png"}, "cut.png: expected an image"),
        (
            {"image": "a.png", "mask": "red.png"},
            r"red.png has colours \(red, green, blue = 255, 0, 0\): it must be white where",
        ),
        (
            {"image": "a.png", "box": ["24", "8", "8", "24"]},
            "--box=24,8,8,24: expected left,top,right,bottom .* got left = 24, top = 8, right = 8,",
        ),
        ({"image": "a.png", "box": ["0", "0", "8", "8"], "label": None}, "editing needs a label"),
        (
            {"image": "a.png", "box": ["0", "0", "8", "8"], "label": "be"},
            "there is no class 'be': .* 'bee'",
        ),
        (
            {"image": "a.png", "box": ["0", "0", "8", "8"], "num": 0},
            "expected at least one image to generate",
        ),
    ],
)
def test_an_edit_that_cannot_be_leaves_the_last_one(
    workdir, config, tmp_path, monkeypatch, given, message
):
    monkeypatch.chdir(tmp_path)
    save("a.png", picture())
    save("wide.png", picture((32, 40)))
    save("black.png", np.full((32, 32), 127, np.uint8))
    save("white.png", np.full((32, 32), 255, np.uint8))
    save("red.png", np.full((32, 32, 3), (255, 0, 0), np.uint8))
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, format="png")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:200])
    (workdir / "edits").mkdir()
    pictures.save_png(workdir / "edits" / "edit_000.png", picture(), {"mode": "edit"})
    before = files_of(workdir)
    with pytest.raises(InputError, match=message) as error:
        edit(config, workdir, **given)
    assert "\n" not in str(error.value)
    assert files_of(workdir) == before


def test_the_grid_has_a_column_for_each_class_that_fits(monkeypatch):
    names = ("ant", "bee", "c" * 40)
    labels = np.array([2, 0, 2, 2, 0], np.int32)
    assert grids.by_class(labels, names, 32) == {
        "c" * 21 + "...": [0, 2, 3],
        "ant": [1, 4],
    }
    assert grids.by_class(labels, None, 32) == {}
    monkeypatch.setattr(grids, "SHOWN", 4)
    assert grids.by_class(labels, names, 32) == {"c" * 21 + "...": [0, 2], "ant": [1, 4]}
    monkeypatch.setattr(grids, "WIDTH", 40)
    # One is shown, however wide.
    assert grids.by_class(labels, names, 32) == {"c" * 21 + "...": [0, 2, 3]}
    assert grids.by_class(np.arange(3), names, 32) == {"ant": [0]}


def test_few_classes_are_no_narrow_strip():
    images = {n: np.full((8, 8, 3), n, np.uint8) for n in range(32)}
    two = {"ant": list(range(0, 32, 2)), "bee": list(range(1, 32, 2))}
    height, width, _ = grids.picture(images, two).shape
    # 16 of each in 3 columns and 6 rows, below a line of text
    assert 2 * (3 * 8) < width < 2 * (4 * 10) and 6 * 8 < height < 6 * 10 + 30
    many = {f"{n}": [n] for n in range(32)}
    assert grids.picture(images, many).shape[0] < 3 * 10


def test_reconstruct_lays_pictures_beside_what_becomes_of_them(workdir, tmp_path, capsys):
    top = tmp_path / "pictures"
    (top / "of" / "cats").mkdir(parents=True)
    wide = picture((18, 35))
    save(top / "a.png", picture())
    save(top / "of" / "cats" / "b.jpg", wide)
    save(top / "of" / "cats" / "b.png", wide)
    for part in ("tokenizer", ""):
        config, place = config_files.of_workdir(workdir / part)
        mode_reconstruct.reconstruct(config, workdir / part, None, str(top))
        out = workdir / part / "reconstructions"
        assert sorted(files_of(out)) == ["a.png", "of/cats/b.jpg.png", "of/cats/b.png.png"]
        model, shown = load(place, config), png(out / "a.png")
        np.testing.assert_array_equal(
            shown, pictures.row([picture(), model.reconstruct(picture())[0]])
        )
        np.testing.assert_array_equal(png(out / "of/cats/b.png.png")[:, :32], wide[1:17, 1:33])
        told = capsys.readouterr().out.splitlines()
        assert (
            f"{top / 'of' / 'cats' / 'b.png'}: 35x18 cropped to 32x16 (width x height), "
            "multiples of 4"
        ) in told
        sizes = [line for line in told if line.endswith(": each size is compiled once")]
        assert [line.split(":")[0] for line in sizes] == [
            "pictures of 32x32",
            "pictures of 32x16 (width x height)",
        ]
        assert (
            told[0] == f"loading {workdir / part}" and told[-1] == f"3 reconstructions are in {out}"
        )
    (top / "cut.png").write_bytes((top / "a.png").read_bytes()[:200])
    (top / "loop.png").symlink_to("loop.png")
    mode_reconstruct.reconstruct(config, workdir, tmp_path / "three", str(top))
    told = capsys.readouterr().out
    assert f"skipped: {top / 'cut.png'}: expected an image" in told
    loop = f"{top / 'loop.png'} is a link to loop.png, and so on in a loop"
    assert f"skipped: cannot read {top / 'loop.png'}: {loop}" in told
    assert told.endswith(f"3 reconstructions are in {tmp_path / 'three'}; 2 were skipped\n")
    mode_reconstruct.reconstruct(config, workdir, tmp_path / "one", str(top / "a.png"))
    assert files_of(tmp_path / "one") == {"a.png": files_of(out)["a.png"]}
    capsys.readouterr()
    mode_reconstruct.reconstruct(config, workdir, tmp_path / "three", str(top / "a.png"))
    assert capsys.readouterr().out.endswith("three; 2 PNGs of before stay there, too\n")


def test_each_picture_has_a_reconstruction_of_its_own_name():
    names = ["a.jpg", "a.png", "a.jpg.png", "b/a.jpg", "c.jpg"]
    found = mode_reconstruct.png_names([pathlib.Path(name) for name in names])
    ends = ["a.jpg.png", "a.png.png", "a.jpg.png.png", "b/a.png", "c.png"]
    assert [str(path) for path in found] == ends
    assert mode_reconstruct.png_names([]) == []


def test_reconstruct_takes_larger_pictures_in_tiles_if_it_is_told_to(workdir, tmp_path, capsys):
    wide, top = picture((32, 64)), tmp_path / "pictures"
    top.mkdir()
    path = save(top / "wide.png", wide)
    save(top / "low.png", picture((16, 64)))
    model = load(workdir, config_files.of_workdir(workdir)[0])

    def made(out, image, *flags):
        given = [f"--workdir={workdir}", "--mode=reconstruct", f"--image={image}", *flags]
        return main.main(["main", *given, f"--out={tmp_path / out}"])

    for out, tiles, *flags in (
        ("cut", True, "--tiles"),
        ("whole", False, "--notiles"),
        ("own", None),
    ):
        assert made(out, path, *flags) == 0
        after = model.reconstruct(wide, tiles=tiles)[0]
        np.testing.assert_array_equal(png(tmp_path / out / "wide.png")[:, -64:], after)
    assert not np.array_equal(png(tmp_path / "cut/wide.png"), png(tmp_path / "whole/wide.png"))
    capsys.readouterr()
    assert made("of", top, "--tiles") == 0
    told = capsys.readouterr().out
    assert "skipped: low.png: expected images of at least 32x32 to take in tiles" in told
    assert told.endswith("; 1 was skipped\n") and list(files_of(tmp_path / "of")) == ["wide.png"]
    assert made("no", top / "low.png", "--tiles") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: --tiles: expected images of at least 32x32 to take in tiles, got"
    )
    assert main.main(["main", f"--workdir={workdir}", "--mode=sample", "--tiles"]) == 2
    assert "--tiles is a flag of --mode=reconstruct, not" in capsys.readouterr().err


@pytest.mark.parametrize(
    "image, message",
    [
        (None, "reconstruct needs --image=FILE, or --image=FOLDER of pictures"),
        ("none.png", "^--image: cannot read none.png: No such file"),
        ("empty", "the folder 'empty' holds no image"),
        (
            "small.png",
            r"^--image: small.png is of 8x3 \(width x height\): expected at least 4x4 pixels",
        ),
    ],
)
def test_what_cannot_be_reconstructed_is_one_line(
    workdir, config, tmp_path, monkeypatch, image, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    save("small.png", picture((3, 8)))
    with pytest.raises(InputError, match=message) as error:
        mode_reconstruct.reconstruct(config, workdir, None, image)
    assert "\n" not in str(error.value) and not (workdir / "reconstructions").exists()


def test_a_tokenizers_workdir_reconstructs_and_nothing_else(workdir, tmp_path):
    config, place = config_files.of_workdir(workdir / "tokenizer")
    with pytest.raises(InputError, match="holds a tokenizer"):
        make(config, place, None, 1)
    image = save(tmp_path / "a.png", picture())
    with pytest.raises(InputError, match="holds a tokenizer"):
        edit(config, place, image=image, box=["0", "0", "8", "8"], label=None)
    found = evaluation.evaluate(config, place, None, [])
    assert sorted(found["numbers"]) == [
        "codebook_perplexity",
        "codebook_usage",
        "mse",
        "psnr",
        "ssim",
    ]
    assert json.loads((place / "evaluation.json").read_text()) == found


class Own:
    """An evaluator that somebody added, which gives `values`."""

    def __init__(self, *values):
        self.values = values

    def run(self, _):
        yield from self.values

    def card(self):
        return Measured("reconstruction", Produced("reconstructions", 3, (8, 8)))


def measured(workdir, config, *values):
    ready = Evaluators({"mine": Own(*values)}, mesh.make(data=1, tensor=-1))
    ((numbers, card),) = evaluation.evaluate_model(load(workdir, config), ready)
    assert card.evaluator == "mine"
    return numbers


def test_evaluate_keeps_all_numbers_and_names_the_pictures_that_it_does_not(
    workdir, config, capsys
):
    picture_too = ("codes", np.zeros((4, 6, 3), np.uint8))
    given = ("mse", np.float32(0.5)), picture_too, ("count", np.zeros((), np.int32))
    assert measured(workdir, config, *given) == {"mse": 0.5, "count": 0}
    line = "pictures are kept in training alone; those of mine are not: codes"
    assert line in capsys.readouterr().out.splitlines()
    with pytest.raises(
        ContractError, match=r"config.evals.mine gave mse as float64 \[3\].*expected"
    ):
        measured(workdir, config, ("psnr", 20.0), ("mse", np.zeros(3)))


def test_evaluate_gives_each_number_its_protocol(workdir, config, capsys):
    place = workdir / "generator"
    found = evaluation.evaluate(config, place, None, [])
    assert json.loads((place / "evaluation.json").read_text()) == found
    numbers, shares = found["numbers"], ("0.25", "0.50", "0.75", "1.00")
    assert set(numbers) == {f"{x}@{s}" for x in ("accuracy", "cross_entropy") for s in shares} | {
        "cross_entropy"
    }
    entropies = [numbers[f"cross_entropy@{s}"] for s in shares]
    assert numbers["cross_entropy"] == pytest.approx(np.mean(entropies))
    assert np.abs(np.array(entropies) - np.log(64)).max() < 0.5  # hardly trained: it guesses
    card = found["protocols"]["generation"]
    assert found["protocols"].keys() == {"generation"} and card["numbers"] == list(numbers)
    assert card["settings"] == {"batch_size": config.get("eval_batch_size", config.batch_size)}
    real, model = card["real"], card["model"]
    assert real["count"] == card["produced"]["count"] > 0 and len(real["digest"]) == 16
    assert card["evaluator"] == "generation" and real["split"] == "validation"
    assert model["workdir"] == "generator" and model["step"] == 6 and card["weights"] == "EMA"
    tokenizer = evaluation.subject_of(load(workdir / "tokenizer", None)).model
    assert model["tokenizer"] == tokenizer.fingerprint != model["fingerprint"]
    assert real["size"] == [32, 32] and real["crop"] == "centre" and card["run"]["code"]
    assert real["source"] == str(config.dataset.folder)
    assert f"{'cross_entropy':32s} {numbers['cross_entropy']:.4g}" in capsys.readouterr().out


def test_numbers_of_what_does_not_run_remain_where_they_are_of_the_same_weights(
    workdir, config, capsys
):
    place = workdir / "generator"
    keys = {"features": ["pixels"], "samples": 2}
    config.evals = ConfigDict({"generation": {}, "distribution": keys})
    first = evaluation.evaluate(config, place, None, ["distribution"])
    del config.evals.distribution
    found = evaluation.evaluate(config, place, None, [])
    assert found["numbers"]["frechet_pixels"] == first["numbers"]["frechet_pixels"]
    assert found["protocols"].keys() == {"distribution", "generation"}
    assert "kept beside these, measured earlier: 1 number\n" in capsys.readouterr().out
    for name in ("distribution", "generation"):
        found["protocols"][name]["model"]["fingerprint"] = "of others"
    found["protocols"]["elsewhere"] = {"numbers": ["x"], "model": {"workdir": "b"}}
    found["numbers"]["x"] = 1.0
    (place / "evaluation.json").write_text(json.dumps(found))
    config.evals = ConfigDict()  # of nothing measured now nothing is known
    assert evaluation.evaluate(config, place, None, []) == found
    config.evals = ConfigDict({"generation": {}})
    found = evaluation.evaluate(config, place, None, [])
    assert found["protocols"].keys() == {"generation", "elsewhere"} and found["numbers"]["x"] == 1
    line = "as distribution measured other weights than those of step 6: frechet_pixels\n"
    told = capsys.readouterr().out
    assert f"no longer there, {line}" in told and told.count("no longer there") == 1
    assert "frechet_pixels" not in found["numbers"]


def test_numbers_of_finished_samples_remain_while_these_are_there(
    workdir, config, monkeypatch, capsys
):
    place = workdir / "generator"
    make(config, place, None, 20)
    file = place / "samples" / "samples.npz"
    with np.load(file) as saved:
        arrays = {**saved, "fingerprint": "of others"}
    np.savez(file, **arrays)
    config.evals = ConfigDict({"generation": {}})
    found = evaluation.evaluate(config, place, None, [])
    assert found["protocols"]["samples"]["model"]["fingerprint"] == "of others"
    assert evaluation.evaluate(config, place, None, []) == found

    def fails(*_):
        raise InputError("a damaged image")

    monkeypatch.setattr(evaluation, "evaluate_samples", fails)
    assert evaluation.evaluate(config, place, None, []) == found
    assert "no longer there" not in capsys.readouterr().out
    file.unlink()
    assert evaluation.evaluate(config, place, None, [])["protocols"].keys() == {"generation"}
    line = "no longer there, as samples measured other weights than those of step 6: "
    assert line in capsys.readouterr().out


def test_of_several_processes_all_end_where_one_cannot_evaluate(workdir, config, monkeypatch):
    """The others would wait for it in what all compute together."""
    model = load(workdir, config)
    reached = []

    class Failing(Own):
        def run(self, _):
            if jax.process_index() == 1:
                raise InputError("cannot read an image")
            reached.append(self)
            yield "mse", 0.5

    def work(index):
        given = {"mine": Failing(), "next": Failing()}
        ready = Evaluators(given, mesh.make(data=1, tensor=-1))
        list(evaluation.evaluate_model(model, ready, ["mine"]))

    one, other = test_cluster.threads_as_processes(monkeypatch, 2, work)
    assert str(other) == "cannot read an image" and len(reached) == 1
    assert str(one) == "process 1 of this run stopped: its own message says why"


def test_of_several_processes_all_end_where_the_first_cannot_compare_samples(
    workdir, config, monkeypatch
):
    make(config, workdir, None, 2)
    parts = evaluation.parts_of(config, workdir)
    samples = workdir / "samples" / "samples.npz"
    *_, task = evaluation.tasks_of(parts, ["samples"], samples, None)
    answers = iter([[False, False], [True, False]])  # loaded, and compared
    monkeypatch.setattr(processes, "this", lambda: (1, 2))
    monkeypatch.setattr(
        processes.multihost_utils, "process_allgather", lambda _: np.array(next(answers))
    )
    with pytest.raises(InputError, match="process 0 of this run stopped"):
        next(evaluation.evaluate_part(task, ["samples"]))
    assert not list(answers)


def test_a_distance_of_samples_has_its_card(workdir, config):
    keys = {"features": ["pixels"], "metrics": ["frechet", "mmd"], "samples": 6, "seed": 3}
    config.evals = ConfigDict({"distribution": keys})
    found = evaluation.evaluate(config, workdir, None, ["distribution"])
    card, numbers = found["protocols"]["distribution"], found["numbers"]
    assert card["numbers"] == list(numbers) == ["frechet_pixels", "mmd_pixels", "mmd_sd_pixels"]
    real, produced = card["real"], card["produced"]
    assert card["protocol"] == "folder" and real["split"] == "train" and real["crop"] == "centre"
    assert produced["count"] == 6 and produced["seed"] == 3 and 0 < real["count"] < 60
    assert card["features"] == [
        {"name": "pixels", "resize": "averaged by area to at most 8x8", "weights": {}}
    ]
    assert produced["sampler"]["steps"] == 8 and len(card["warnings"]) == 2
    # as of the same images, written by the mode sample
    make(config, workdir, None, 6, seed=3)
    images = np.load(workdir / "samples" / "samples.npz")["arr_0"]
    real, _ = evaluation.load_split(Dataset(**config.dataset), "train")
    expected = frechet_distance(*(gaussian(pixels.colours(x)) for x in (images, real)))
    assert numbers["frechet_pixels"] == pytest.approx(expected, rel=0.02)
    # What the config asks for remains beside the numbers of other samples.
    make(config, workdir, None, 6, seed=4, force=True)
    found = evaluation.evaluate(config, workdir, None, [])
    assert found["numbers"]["frechet_pixels"] == numbers["frechet_pixels"]
    assert "frechet_pixels" not in found["protocols"]["samples"]["numbers"]


def test_evaluating_a_quickstarts_workdir_is_both_and_the_samples(
    workdir, config, monkeypatch, capsys
):
    with pytest.raises(
        InputError, match=r"there is no .*samples.npz: make samples first, with --mode=sample"
    ):
        evaluation.evaluate(config, workdir, None, ["samples"])
    assert not (workdir / "evaluation.json").exists()
    make(config, workdir, None, 20, seed=5)
    found = evaluation.evaluate(config, workdir, None, ["samples"])
    card, numbers = found["protocols"]["samples"], found["numbers"]
    assert "psnr" not in numbers and "cross_entropy" not in numbers and "sample_accuracy" in numbers
    by_class = [numbers[f"sample_accuracy@{name}"] for name in workdirs.NAMES]
    assert numbers["sample_accuracy"] == pytest.approx(np.mean(by_class))
    told = capsys.readouterr().out
    assert card["warnings"][0] == (
        "frechet_pixels: 20 samples, 50 training images, 10 held-out images are few, "
        "1,000 would do: it is the larger the fewer there are"
    )
    assert (
        all(f"WARNING {warning}\n" in told for warning in card["warnings"])
        and "sample_accuracy@" not in told
    )
    produced, heldout = card["produced"], card["heldout"]
    assert produced["count"] == 20 and produced["seed"] == 5 and card["model"]["step"] == 6
    assert produced["labels"] == "0,1,2,3,4,5,6,7,8,9" and produced["sampler"]["steps"] == 8
    assert card["real"]["split"] == "train" and heldout["split"] == "validation"
    assert card["real"]["count"] + heldout["count"] == 60
    for metrics, name in ((["reconstruction"], "psnr"), (["generation"], "cross_entropy")):
        before, found = found, evaluation.evaluate(config, workdir, None, metrics)
        for part in ("numbers", "protocols"):
            assert before[part].items() <= found[part].items()
        assert name not in before["numbers"] and name in found["numbers"]
    assert json.loads((workdir / "evaluation.json").read_text()) == found
    assert evaluation.evaluate(config, workdir, None, []) == found
    again = evaluation.evaluate(
        config, workdir, workdir / "small", ["reconstruction"], batch_size=3
    )
    now, card = (some["protocols"]["reconstruction"] for some in (again, found))
    assert card["model"]["workdir"] == "tokenizer" and now == card  # whatever the batches
    assert again["numbers"]["psnr"] == pytest.approx(found["numbers"]["psnr"], rel=1e-4)

    monkeypatch.setattr(against_real, "MOST", 1000)  # what needs all images is left out
    small = evaluation.evaluate(config, workdir, workdir / "elsewhere", ["samples"])
    assert small["numbers"].keys() == {"frechet_pixels", "heldout_frechet_pixels"}
    for name, value in small["numbers"].items():
        assert numbers[name] == pytest.approx(value, rel=1e-9)
    warning = small["protocols"]["samples"]["warnings"][-1]
    assert warning.startswith("no distance to the nearest image, accuracy and spread: ")
    assert warning.endswith("data sets of up to 1,000 bytes; 60 images are more")


def test_numbers_that_another_call_enters_meanwhile_remain(workdir, config, monkeypatch):
    measure, expected = evaluation.evaluate_part, {}

    def slow(task, metrics):
        monkeypatch.setattr(evaluation, "evaluate_part", measure)
        expected.update(evaluation.evaluate(config, workdir, None, ["generation"])["numbers"])
        return measure(task, metrics)

    monkeypatch.setattr(evaluation, "evaluate_part", slow)
    found = evaluation.evaluate(config, workdir, None, ["reconstruction"])
    assert json.loads((workdir / "evaluation.json").read_text()) == found
    assert expected and "psnr" in found["numbers"] and expected.items() <= found["numbers"].items()


@pytest.mark.parametrize(
    "metrics, message",
    [
        (
            ["reconstructoin"],
            "no metric 'reconstructoin' in this workdir: did you mean 'reconstruction'",
        ),
        (
            ["bogus"],
            "reconstruction, samples; of distribution also frechet, spatial_frechet, mmd, rbf_mmd",
        ),
        (["distribution"], "give --metrics=distribution --config.evals.distribution.features=digi"),
        (["mmd"], "=digits --config.evals.distribution.metrics=mmd"),
        (["fid"], "=inception --config.evals.distribution.metrics=frechet"),
        (["samples"], "is not what --mode=sample writes"),
        ([], "is not what --mode=sample writes"),
        (
            ["reconstruction"],
            "evaluation.json is not what evaluate writes: it has no numbers and protocols; move it",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_leaves_the_last_one(workdir, config, metrics, message):
    (workdir / "samples").mkdir()
    (workdir / "samples" / "samples.npz").write_bytes(b"damaged")
    (workdir / "evaluation.json").write_text(
        '{"psnr": {"value": 1.0}}' if metrics == ["reconstruction"] else EMPTY
    )
    before = files_of(workdir)
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, workdir, None, metrics)
    assert files_of(workdir) == before


@pytest.mark.parametrize("names", [("zebra", *workdirs.NAMES[1:]), workdirs.NAMES[:9], ()])
def test_images_of_other_classes_do_not_measure_a_generator(workdir, config, names, tmp_path):
    """A label is a place among the classes, so that numbers would be wrong without a word."""
    for name in names or ("",):
        for i in range(4):
            pictures.save_png(tmp_path / name / f"{i}.png", generated.draw(i, 0, (32, 32)))
    config.dataset.folder = str(tmp_path)
    with pytest.raises(InputError, match=r"the classes of .* are not the model's, .*: where it ha"):
        evaluation.evaluate(config, workdir, None, ["generation"])
    keys = {"features": "pixels", "samples": 4, "split": "all"}
    config.evals = ConfigDict({"distribution": keys})
    found = evaluation.evaluate(config, workdir, None, ["distribution"])
    assert "frechet_pixels" in found["numbers"]


def test_what_the_command_line_changes_reaches_both_parts_of_a_quickstart(
    workdir, config, tmp_path
):
    saved, other = config.copy_and_resolve_references(), str(tmp_path)
    pixels = ["--config.evals.reconstruction.features=pixels"]
    size = "--config.eval_batch_size=3"
    config_files.override(config, [f"--config.dataset.folder={other}", size, *pixels])
    given = config.to_json()
    first, second = (part for part, _ in evaluation_parts.parts_of(config, workdir))
    assert first.dataset.folder == second.dataset.folder == other != saved.dataset.folder
    assert first.eval_batch_size == second.eval_batch_size == 3 != saved.get("eval_batch_size")
    assert first.batch_size == config_files.of_workdir(workdir / "tokenizer")[0].batch_size
    assert first.evals.reconstruction.features == "pixels" and set(first.evals) == {
        "reconstruction"
    }
    assert second.evals.to_dict() == saved.evals.to_dict() and config.to_json() == given
    tokenizer, _ = config_files.of_workdir(workdir / "tokenizer")
    ((first, _), _) = evaluation_parts.parts_of(config, workdir, tokenizer)
    assert first is tokenizer and first.dataset.folder == saved.dataset.folder
    config.evals.reconstruction = {}
    message = "config.evals.reconstruction is of a tokenizer, this is a generator: give the workdir"
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, workdir / "generator", None, [])


@pytest.mark.parametrize(
    "part, name, message",
    [
        (
            "generator",
            "reconstruction",
            "'reconstruction' is measured of a tokenizer's workdir, such as "
            "--workdir=RUN/tokenizer; this workdir has generation, samples",
        ),
        (
            "tokenizer",
            "distribution",
            "'distribution' is measured of a generator's workdir, such as "
            "--workdir=RUN/generator; this workdir has reconstruction, samples",
        ),
    ],
)
def test_a_metric_of_the_other_stage_names_its_workdir(workdir, part, name, message):
    config, place = config_files.of_workdir(workdir / part)
    with pytest.raises(InputError, match=f"^{message}$"):
        evaluation.evaluate(config, place, None, [name])


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"folder": "/nowhere"}, "expects a folder of images, got '/nowhere'"),
        ({"validation": "nothing"}, "has no split 'nothing'"),
    ],
)
def test_data_that_are_not_there_are_said_before_anything_is_measured(
    workdir, config, keys, message, monkeypatch
):
    monkeypatch.setattr(evaluation, "load", None)
    config.dataset.update(keys)
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, workdir, None, [])


def test_a_split_that_there_is_not_is_said_before_the_model_is_loaded(workdir, config, monkeypatch):
    monkeypatch.setattr(evaluation, "load", None)
    config.evals = ConfigDict({"distribution": {"features": "pixels", "split": "foo"}})
    message = r"^config.evals.distribution.split: the folder .* has no split 'foo': expected one of"
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, workdir, None, [])


def test_a_batch_that_no_memory_holds_is_refused(workdir, config):
    message = r"a batch of 1,000,000,000,000 images of 32x32 would take 2,861,022.9 GiB"
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, workdir, None, ["reconstruction"], batch_size=10**12)
    with pytest.raises(InputError, match=message):
        evqgan.load(workdir, batch_size=10**12)


def test_whole_gives_every_image_once(config):
    dataset = Dataset(**config.dataset)
    images, labels = evaluation.load_split(dataset, "all")
    assert images.shape == (60, 32, 32, 3) and sorted(labels) == sorted(list(range(10)) * 6)


@pytest.mark.parametrize(
    "key, message",
    [
        ("generator.positions=axes", "config.generator.positions = 'axes', but the weights in"),
        ("tokenizer.dtype=float16", "config.tokenizer.dtype expects"),
        ("sample=None", "config.sample expects keys of its own"),
        ("generator=None", "config.generator expects keys of its own"),
        ("tokenizer=None", "config.tokenizer expects keys of its own"),
    ],
)
def test_without_a_config_a_mode_takes_no_other_model(workdir, capsys, key, message):
    """Its results would be taken for those of the weights."""
    given = [f"--workdir={workdir}", "--mode=sample", "--num=1", f"--config.{key}"]
    assert main.main(["main", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}"), line


def test_without_a_config_a_mode_takes_what_changes_no_weight(workdir, tmp_path, capsys):
    keys = ("generator.remat=True", "tokenizer.dtype=None", "dtype=bfloat16", "sample.steps=1")
    given = [f"--workdir={workdir}", "--mode=sample", "--num=1", f"--out={tmp_path / 'out'}"]
    assert main.main(["main", *given, *(f"--config.{key}" for key in keys)]) == 0


def test_the_config_of_a_workdir_may_be_given_again(workdir):
    saved, _ = config_files.of_workdir(workdir)
    first, second = workdirs.configs(workdirs.trained() / "images")
    quickstart = ConfigDict(
        {"stage": "quickstart", "tokenizer": first, "generator": second, "samples": 20}
    )
    assert (
        resume_rules.settings(second, workdir)
        == saved
        == resume_rules.settings(quickstart, workdir)
    )
    assert resume_rules.settings(first, workdir / "tokenizer").stage == "stage1"
    assert resume_rules.settings(quickstart, workdir / "tokenizer").stage == "stage1"
    second.sample.temperature = 0.5
    second.evals.generation.show = 4
    changed = resume_rules.settings(second, workdir)
    assert changed.sample.temperature == 0.5 and changed.evals.generation.show == 4
    with second.ignore_type():  # keys may have two types, as RQ-Transformer's sample.top_k
        second.eval_every = 7
    assert saved.eval_every != 7 and resume_rules.settings(second, workdir).eval_every == 7
    second.generator.layers = 7
    with pytest.raises(
        InputError, match=r"holds a run of another config, config.generator.layers: 2 -> 7: "
    ):
        resume_rules.settings(second, workdir)
    with pytest.raises(InputError, match=r"holds a run of another config"):
        resume_rules.settings(first, workdir)
