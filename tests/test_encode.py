"""From a data set to stored ids to a generator.

The ids, losses and states are the same as from the images themselves.
"""

import json
import shutil

import jax
import numpy as np
import pytest
import workdirs
from test_configs import load
from test_pipeline import take
from test_train import metrics_of, state_of

import evqgan
from evqgan import main
from evqgan.core import build, config_files
from evqgan.core.errors import InputError
from evqgan.data import pipeline, stored_ids, stored_split
from evqgan.data.dataset import Dataset
from evqgan.data.views import numbered_view, validation_view
from evqgan.inference import evaluation, mode_encode
from evqgan.training import loop, resume_rules, stage2
from evqgan.training.stopping import Stopped


def config_of(folder=None):
    """The generator's config of the trained workdir, with stored ids where `folder` says."""
    _, config = workdirs.configs(workdirs.trained() / "images")
    config.tokenizer.weights = str(workdirs.trained() / "tokenizer")
    config.dataset.update(
        {"flip": True, "validation": "all", **({"codes": str(folder)} if folder else {})}
    )
    return config


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder of stored ids, three views of each image, in shards of twenty."""
    folder, before = tmp_path_factory.mktemp("stored") / "ids", stored_ids.ROWS
    stored_ids.ROWS = 20
    config = config_of()
    config.dtype = "bfloat16"  # the generator's: the tokenizer encodes in its own
    mode_encode.encode(
        config, workdirs.trained(), folder, mode_encode.EncodeRequest(views=3, seed=7)
    )
    stored_ids.ROWS = before
    return folder


def dataset_of(config):
    return build.call(Dataset, config.dataset, "config.dataset")


def test_stored_ids_are_those_of_the_same_crops(stored):
    model = evqgan.load(workdirs.trained() / "tokenizer")
    dataset = dataset_of(config_of())
    for split, views in (("train", 3), ("all", 1)):
        reader = stored_split.StoredSplit(stored, "train" if split == "train" else "validation")
        source = pipeline.DecodedImages(pipeline.open_split(dataset, split), 0)
        assert (
            len(reader) == len(source)
            and reader.views == views
            and reader.class_names == workdirs.NAMES
        )
        pairs = [(i, v) for i in range(len(source)) for v in range(views)]
        images = [
            numbered_view(source[i]["image"], dataset, 7, i, v)
            if split == "train"
            else validation_view(source[i]["image"], dataset)
            for i, v in pairs
        ]
        found = [reader.load(i, v)["ids"] for i, v in pairs]
        np.testing.assert_array_equal(np.stack(found), model.encode(np.stack(images)))
        np.testing.assert_array_equal(
            reader.labels, [source[i]["label"] for i in range(len(source))]
        )


def test_a_slip_of_views_is_told_before_anything_is_encoded(tmp_path):
    with pytest.raises(
        InputError,
        match="this takes 50,000,000,000 images to encode, which are more than 20,000,000",
    ):
        mode_encode.encode(
            config_of(),
            workdirs.trained(),
            tmp_path / "ids",
            mode_encode.EncodeRequest(views=10**9),
        )
    assert not (tmp_path / "ids").exists()


def test_losses_and_steps_are_those_of_the_same_crops(stored):
    config = stage2.resolve(config_of(stored))
    stage, dataset = stage2.make(config, 54, 10), dataset_of(config)
    state = stage.load(jax.jit(stage.init)())
    (of_ids,) = take(pipeline.train_batches(dataset, 4, config.seed), 1)
    (order,) = take(pipeline.train_batches(dataset.of_images(), 4, config.seed), 1)
    source = pipeline.DecodedImages(pipeline.open_split(dataset.of_images(), "train"), 0)
    which = [find(source, image) for image in order["image"]]
    images = np.stack([numbered_view(source[i]["image"], dataset, 7, i, 0) for i in which])
    update = jax.jit(stage.update)
    one, other = update(state, of_ids), update(state, {"image": images, "label": of_ids["label"]})
    assert float(one[1]["loss"]) == pytest.approx(float(other[1]["loss"]), rel=1e-5)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-4, atol=2e-5)


def find(source, image):
    """The example of which `image` is the picture or its mirror image."""
    for i in range(len(source)):
        if any(np.array_equal(image, x) for x in (source[i]["image"], source[i]["image"][:, ::-1])):
            return i
    raise AssertionError("this image is of no example")


@pytest.mark.slow
def test_a_run_from_stored_ids_goes_on_with_the_same_bits(stored, tmp_path, capsys):
    config = config_of(stored)
    config.checkpoint_every = config.eval_every = "3 steps"
    loop.train(config.copy_and_resolve_references(), tmp_path / "straight")
    # As a run that was killed after the checkpoint of step 3 left it, in a place where the ids have
    # moved meanwhile.
    shutil.copytree(stored, tmp_path / "moved")
    first = config.copy_and_resolve_references()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "stop_now", lambda stopping, checkpoints, step: step == 3)
        with pytest.raises(Stopped):
            loop.train(first, tmp_path / "stopped")
    config.dataset.codes = str(tmp_path / "moved")
    loop.train(config, tmp_path / "stopped")
    assert "steps 3 to 6" in capsys.readouterr().out
    config.dataset.num_examples = 54
    one, other = (state_of(config, tmp_path / name) for name in ("straight", "stopped"))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "stopped")
    saved, _ = config_files.of_workdir(tmp_path / "stopped")
    assert saved.class_names == list(workdirs.NAMES) and saved.stored_ids.startswith(
        "3 views of each example, "
    )


def test_a_workdir_from_stored_ids_is_used_without_them(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "ids")
    config = config_of(tmp_path / "ids")
    given = config.copy_and_resolve_references()
    loop.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "ids")
    numbers = metrics_of(tmp_path / "run")[-1]
    config = resume_rules.settings(given, tmp_path / "run")
    found = evaluation.evaluate(config, tmp_path / "run", None, [])
    assert found["numbers"]["cross_entropy"] == pytest.approx(
        numbers["val/cross_entropy"], rel=1e-5
    )
    images, _ = evaluation.load_split(dataset_of(config), "all")
    assert images.shape == (60, 32, 32, 3)


def test_a_run_keeps_to_its_ids(stored, tmp_path):
    config = config_of(stored)
    claimed = stage2.resolve(config.copy_and_resolve_references())
    resume_rules.claim(tmp_path / "run", claimed)
    other = config_of()
    with pytest.raises(InputError, match="config.stored_ids: 3 views of each example, .* -> None"):
        resume_rules.check_claim(tmp_path / "run", stage2.resolve(other))
    info = json.loads((stored / "info.json").read_text())
    assert stored_ids.summary(info) == claimed.stored_ids
    assert stored_ids.summary({**info, "seed": 8}) != claimed.stored_ids


def change(config, stored, place, **changes):
    """A copy of the stored ids, with another info."""
    shutil.copytree(stored, place)
    info = json.loads((place / "info.json").read_text())
    (place / "info.json").write_text(json.dumps(info | changes))
    config.dataset.codes = str(place)


def test_ids_of_another_tokenizer_are_refused_before_the_workdir_is_taken(stored, tmp_path):
    config = config_of(stored)
    shutil.copytree(workdirs.trained() / "tokenizer", tmp_path / "tokenizer")
    fingerprint = {**stored_ids.read_info(stored)["tokenizer"], "fingerprint": "another"}
    change(config, stored, tmp_path / "other", tokenizer=fingerprint)
    with pytest.raises(
        InputError,
        match="was made with other tokenizer weights: use the tokenizer .* it was made with",
    ):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    for changes, message in (
        ({"latent": [16, 16]}, r"was made with latent = \[16, 16\], now it is \[8, 8\]"),
        ({"codes": 65}, "was made with codes = 65, now it is 64"),
        ({"depth": 2}, "was made with depth = 2, now it is 1"),
    ):
        change(config, stored, tmp_path / next(iter(changes)), **changes)
        with pytest.raises(InputError, match=message):
            stage2.resolve(config)
    config = config_of(stored)
    config.tokenizer.dtype = "bfloat16"
    with pytest.raises(
        InputError, match="was made with tokenizer.dtype = 'float32', now it is 'bfloat16'"
    ):
        stage2.resolve(config)
    config = config_of(stored)
    config.tokenizer.model = config_files.of_workdir(workdirs.trained() / "tokenizer")[0].tokenizer
    config.tokenizer.weights = "random"
    with pytest.raises(InputError, match="there are no stored ids of an untrained tokenizer"):
        loop.train(config, tmp_path / "run")


def test_the_command_line_encodes_for_a_generator(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = workdirs.trained()
    for workdir in (place, place / "tokenizer"):
        out = tmp_path / "ids" / workdir.name
        arguments = [
            f"--workdir={workdir}",
            "--batch_size=5",
            f"--out={out}",
            "--config.dataset.train=train[:12]",
            "--seed=3",
        ]
        assert main.main(["main", "--mode=encode", *arguments]) == 0
        said = capsys.readouterr().out
        assert f"{out}: 12 x 1 + 10 images" in said and "encode 22/22  " in said
        assert (
            f"22 images encoded. To train a new run from them: --config.dataset.codes={out}" in said
        )
    first, second = (
        stored_ids.read_info(tmp_path / "ids" / w.name) for w in (place, place / "tokenizer")
    )
    assert first == second and first["seed"] == 3 and first["dataset"]["train"] == "train[:12]"
    assert main.main(["main", "--mode=encode", *arguments]) == 0
    assert "all shards were there already" in capsys.readouterr().out
    assert main.main(["main", "--mode=encode", *arguments, "--views=2"]) == 2
    error = capsys.readouterr().err
    assert (
        "holds other ids, splits.train.views: 1 -> 2: give another --out" in error
        and error.count("\n") == 1
    )
    assert main.main(["main", "--mode=encode", f"--workdir={place}/generator"]) == 2
    assert f"holds a generator of the tokenizer {place}/tokenizer: give" in capsys.readouterr().err
    assert main.main(["main", "--mode=encode"]) == 2
    assert "--workdir=DIR is needed to encode" in capsys.readouterr().err


def test_a_generators_config_says_which_tokenizer_encodes():
    file = f"--config={loop.__file__.rsplit('/', 3)[0]}/configs/imagenet_stage2.py"
    values, config = main.parse(["--mode=encode", file])
    assert values.workdir == "workdirs/imagenet_stage1" and config.dataset.crop == "adm"
    values, _ = main.parse(["--mode=encode", file, "--config.tokenizer.weights=elsewhere"])
    assert values.workdir == "elsewhere"
    assert main.parse([file])[0].workdir == "workdirs/imagenet_stage2"


def test_a_quickstarts_config_encodes_what_its_generator_sees(tmp_path):
    config = load("quickstart", "tiny")
    config.generator.dataset.update({"num_examples": 6, "size": 32})
    mode_encode.encode(config, workdirs.trained(), tmp_path / "ids")
    assert stored_ids.read_info(tmp_path / "ids")["dataset"]["name"] == "generated"
    assert len(stored_split.StoredSplit(tmp_path / "ids", "train")) == 6
