"""The comparison of all systems: what is equal for all, what a row says, a small run of two."""

import json
import re
import shutil
import types

import numpy as np
import pytest
import tiny_features
import workdirs
from ml_collections import ConfigDict
from PIL import Image
from test_configs import load, parameters

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import comparison, comparison_tokenizers, printing, real_images, runs
from evqgan.core import config_files
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals import against_real
from evqgan.evals.against_real import Colours
from evqgan.features import extractor
from evqgan.inference import evaluation
from evqgan.inference.mode_inputs import load_model
from evqgan.metrics.frechet import frechet_distance, gaussian
from evqgan.training import stage2

OF_REAL = {name: name for name in ("protocol", "real", "heldout", "features", "settings", "run")}
NUMBERS = {
    "card": {"reconstruction": {"step": 1}, "samples": {**OF_REAL, "model": "m"}},
    "parameters": {"tokenizer": 3, "generator": 4},
    "heldout_accuracy": 0.99,
    "heldout_frechet_pixels": 0.01,
}


@pytest.mark.parametrize("variant", ["digits", "photographs"])
def test_all_systems_have_equal_budgets(variant):
    systems = load("comparison", variant).systems
    assert set(systems) == {
        "efficient_vqgan",
        "vqgan",
        "vit_vqgan",
        "rq_vae",
        "maskgit",
        "efficient_vqgan_on_vqgan",
        "maskgit_on_vqgan",
    }
    for part, most, least in (("tokenizer", 380_000, 170_000), ("generator", 920_000, 800_000)):
        configs = [system[part] for system in systems.values()]
        for key in ("batch_size", "duration", "seed", "dataset", "optimizer"):
            assert len({str(config[key]) for config in configs}) == 1, key
        for system in systems.values():
            config = system[part]
            if part == "generator":
                config.tokenizer.model = system.tokenizer.tokenizer
                config = stage2.with_classes(config, 10)
            assert least < parameters(config) < most
            quantizer = system.tokenizer.tokenizer.quantizer
            assert quantizer.codes == 64 and quantizer.decay == 0.9
    size = systems.vqgan.tokenizer.dataset.size
    ids = {name: tokens(system.tokenizer, size) for name, system in systems.items()}
    assert set(ids.values()) == {64}, ids  # codes an image


def test_windows_and_the_whole_map_differ_in_nothing_else():
    systems = load("comparison", "attention").systems
    windows, whole = systems.windows, systems.whole_map
    for part in ("encoder", "decoder"):
        assert windows.tokenizer.tokenizer[part].window == 4
        assert whole.tokenizer.tokenizer[part].window == 16
        whole.tokenizer.tokenizer[part].window = 4
    assert windows.to_json() == whole.to_json()
    assert tokens(windows.tokenizer, windows.tokenizer.dataset.size) == 64


@pytest.mark.parametrize("variant, steps", [("drawings", 600), ("drawings_long", 4000)])
def test_generators_on_the_drawings_differ_in_nothing_else(variant, steps):
    systems = load("comparison", variant).systems
    assert set(systems) == {"prefix", "joint", "gpt", "maskgit"}
    configs = [system.generator for system in systems.values()]
    for key in ("batch_size", "duration", "seed", "dataset", "optimizer"):
        assert len({str(config[key]) for config in configs}) == 1, key
    for name, system in systems.items():
        comparison_tokenizers.check(name, system)
        config = system.generator
        assert system.tokenizer == "drawings" and config.generator.dropout == 0.2
        assert config.duration == f"{steps} steps"
        config.tokenizer.model = comparison_tokenizers.network_of(system)
        assert config.tokenizer.model.quantizer.codes == 512
        assert 880_000 < parameters(config) < 960_000, name
    prefix, joint = systems.prefix.generator.generator, systems.joint.generator.generator
    assert (prefix.attention, joint.attention) == ("prefix", "joint")
    prefix.attention = "joint"
    assert prefix.to_json() == joint.to_json()


def tokens(config, size):
    from evqgan.tokenizers import tokenizer

    model = tokenizer.make(config.tokenizer)
    return (size // model.factor) ** 2 * model.quantizer.depth


def test_a_row_is_of_all_seeds():
    of_seeds = [
        {
            **NUMBERS,
            "psnr": 20.0,
            "codebook_usage": 1.0,
            "sample_accuracy": 0.5,
            "frechet_pixels": 1.0,
            "per_class": [1, 0.5],
        },
        {
            **NUMBERS,
            "psnr": 22.0,
            "codebook_usage": 0.5,
            "sample_accuracy": 0.7,
            "frechet_pixels": 3.0,
            "per_class": [0, None],
        },
    ]
    row = comparison.row("vqgan", of_seeds, {"training_seconds": 7.0}, "frechet_pixels")
    assert row["seeds"] == 2 and row["psnr"] == 21
    assert row["frechet_pixels_sd"] == pytest.approx(2**0.5)
    assert (
        row["accuracy_by_class"] == "50 25"
        and row["training_seconds"] == 7
        and row["seconds_per_image"] is None
    )
    assert (row["tokenizer_parameters"], row["generator_parameters"]) == (3, 4)
    last = comparison.real({"vqgan": of_seeds}, "frechet_pixels")
    assert (
        list(last) == list(row)
        and last["sample_accuracy"] == 0.99
        and last["frechet_pixels"] == 0.01
    )
    assert row["card"] == NUMBERS["card"] and last["card"] == OF_REAL
    others = [
        {"frechet_tiny" if name == "frechet_pixels" else name: x for name, x in numbers.items()}
        for numbers in of_seeds
    ]
    other = comparison.row("vqgan", others, {}, "frechet_tiny")
    assert other["frechet_tiny"] == row["frechet_pixels"] and "frechet_pixels" not in other


def test_numbers_made_in_another_way_are_not_taken(tmp_path):
    file = tmp_path / "numbers.json"
    assert runs.known(file, samples=5) is None
    file.write_text(
        json.dumps({**NUMBERS, "step": 7, "samples": 5, "real": {"views": 1, "colour": False}})
    )
    assert (
        runs.known(file, samples=5, step=7, real={"colour": False, "views": 1})["heldout_accuracy"]
        == 0.99
    )
    assert runs.known(file, samples=6) is None and runs.known(file, absent=1) is None
    file.write_text(json.dumps({"samples": 5}))
    assert runs.known(file, samples=5) is None  # without a card
    file.write_text('{"samples": 5')
    with pytest.raises(InputError, match="is not what a benchmark keeps of a run: .* remove it to"):
        runs.known(file, samples=5)


def test_numbers_by_other_features_are_measured_anew(tmp_path, monkeypatch):
    tiny_features.install(monkeypatch)
    given = types.SimpleNamespace(features="tiny", weights="random")
    network, file = runs.features_of(given), tmp_path / "numbers.json"
    card = network.card()
    file.write_text(json.dumps({**NUMBERS, "samples": 5, "features": card}))
    assert runs.known(file, samples=5, features=card)
    assert runs.known(file, samples=5, features=None) is None
    other = {**card, "weights": {tiny_features.NETWORK: "0123456789abcdef"}}
    assert runs.known(file, samples=5, features=other) is None
    given.features = "pixels"
    colours = runs.features_of(given)
    assert colours.name_of("frechet") == "frechet_pixels" and colours.card()["name"] == "pixels"


def test_features_of_a_network_take_the_place_of_colours(monkeypatch):
    """On all images, whatever their number: the Gaussians are those of the features in NumPy."""
    tiny_features.install(monkeypatch)
    monkeypatch.setattr(extractor, "EACH", 10)  # of 64 images, so that the last piece is filled up
    network = runs.features_of(types.SimpleNamespace(features="tiny", weights="random"))
    config = load("comparison", "tiny").systems.vqgan.generator.dataset
    config.flip = False
    images, labels = evaluation.load_split(Dataset(**config), "train")
    noise = np.random.default_rng(0).integers(0, 64, images.shape)
    samples = (images // 2 + noise).astype(np.uint8)
    found = real_images.against(config, 1, True, network).against.numbers_of(samples, labels)
    gaussians = [gaussian(network(some)["pooled"]) for some in (samples, images)]
    expected = frechet_distance(*gaussians)
    assert found["frechet_tiny_untrained"] == pytest.approx(expected, rel=1e-3) and expected > 0
    assert found["heldout_frechet_tiny_untrained"] == pytest.approx(0, abs=1e-9)  # the same images
    assert (
        not {"frechet_pixels", "heldout_frechet_pixels"} & found.keys()
        and "sample_accuracy" in found
    )


def test_samples_are_measured_against_all_views_of_real_images(monkeypatch):
    config, colours = load("comparison", "tiny").systems.vqgan.generator.dataset, Colours()
    images, labels = evaluation.load_split(Dataset(**config), "train")
    config.flip = False
    found = real_images.against(config, 1, True, colours).against.numbers_of(images, labels)
    assert (
        found["frechet_pixels"] < 1e-6
        and found["sample_accuracy"] == found["heldout_accuracy"] == 1
    )
    config.flip = True
    of_split = real_images.views_of(Dataset(**config), "train", 8)
    monkeypatch.setattr(real_images, "BATCH", 100)
    parts = list(of_split.batches())
    assert [len(some) for some, _ in parts] == [100] * 5 + [12] and of_split.number == 8 * 64
    views, classes = (np.concatenate(some) for some in zip(*parts, strict=True))
    monkeypatch.setattr(real_images, "BATCH", 1000)
    ((at_once, classes_at_once),) = of_split.batches()
    np.testing.assert_array_equal(views, at_once)
    np.testing.assert_array_equal(classes, classes_at_once)
    kinds = {image.tobytes() for image in views}
    assert {image.tobytes() for image in images} < kinds  # mirrored, too
    seen = []

    def stand_in(*given, **keys):
        seen.append((given, keys))
        return types.SimpleNamespace(cards=[], settings={})

    monkeypatch.setattr(real_images, "AgainstReal", stand_in)
    with pytest.MonkeyPatch.context() as patch:  # nothing is read, so there is nothing to hash
        patch.setattr(real_images.Hashed, "image_set", lambda self: None)
        for _ in range(2):
            real_images.against(config, 8, False, colours)
    (((train, heldout, *_), keys),) = seen  # once
    assert (train.number, heldout.number, keys) == (8 * 64, 8 * 64, {"colour": False})
    monkeypatch.setattr(against_real, "MOST", 1000)
    with pytest.raises(InputError, match=r"of up to 1,000 bytes; 1,024 images are more"):
        real_images.against(config, 8, True, colours)


@pytest.mark.slow
def test_the_best_sampler_of_a_run_is_chosen_by_other_seeds_than_its_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "SCAN_SEEDS", 1)
    folder = workdirs.copy(tmp_path / "vqgan_0")
    config, _ = config_files.of_workdir(folder)
    how = {"samples": 20, "real": {"views": 1, "colour": False}, "scan": 2}
    taken, words = comparison.best_sampler(folder, config, how, Colours())
    measured = json.loads((folder / "scan.json").read_text())["measured"]
    assert {json.loads(key)["seed"] for key in measured} - {1_001} == {1_000}
    assert {json.loads(key)["steps"] for key in measured} == {8, 1}  # the preset, the first other
    assert (words, taken["steps"]) in (("the preset", 8), ("steps=1", 1))
    numbers = {**NUMBERS, "per_class": [1], "sampler": taken, "sampler_in_words": words}
    row = comparison.row("vqgan", [numbers] * 2, {}, "frechet_pixels")
    assert row["sampler"] == f"{words}; {words}"


def test_a_given_tokenizer_is_not_trained_and_is_measured_once(tmp_path, monkeypatch):
    """The generator is one that is trained already, so that nothing is trained at all."""
    given = workdirs.trained() / "tokenizer"
    shutil.rmtree(workdirs.copy(tmp_path / "ours_0") / "tokenizer")
    of_tokenizer, config = workdirs.configs(workdirs.trained() / "images")
    system = ConfigDict({"tokenizer": str(given), "generator": config})
    trained, evaluated, evaluate = [], [], evaluation.evaluate_model

    def train(config, workdir):
        trained.append((config.tokenizer.weights, workdir))
        stage2.with_model(config)
        model = load_model(None, workdir)
        return {**model.state, "params": model.state["ema"], "step": model.step}

    def counted(*given):
        evaluated.append(given)
        return evaluate(*given)

    monkeypatch.setattr(comparison, "train", train)
    monkeypatch.setattr(evaluation, "evaluate_model", counted)
    comparison_tokenizers.check("ours", system)
    how = {"samples": 20, "real": {"views": 1, "colour": False}, "scan": None, "features": {}}
    for _ in range(2):
        (tmp_path / "ours_0" / "numbers.json").unlink(missing_ok=True)
        numbers = comparison.finished(system, tmp_path, "ours", 0, how, Colours())
    assert trained == [(str(given), tmp_path / "ours_0" / "generator")] * 2
    assert len(evaluated) == 1 and not (tmp_path / "ours_0" / "tokenizer").exists()
    assert numbers["parameters"]["tokenizer"] == parameters(of_tokenizer)
    assert numbers["card"]["reconstruction"]["model"]["step"] == 6
    row = comparison.row("ours", [numbers], {}, "frechet_pixels")
    assert row["tokenizer"] == str(given) and row["psnr"] == numbers["psnr"] > 0


def test_times_of_other_training_or_another_device_are_taken_again(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(comparison, "step_seconds", lambda *given: timed.append(given) or 2.0)
    monkeypatch.setattr(comparison.comparison_tokenizers, "network_of", lambda system: None)
    model = types.SimpleNamespace(sample=lambda num, **changes: None)
    monkeypatch.setattr(comparison, "load_model", lambda *_: model)
    stage = {"duration": "4 steps", "batch_size": 2}
    system = ConfigDict({"tokenizer": dict(stage), "generator": dict(stage)})

    def times(sampler=None):
        timed.clear()
        found = comparison.timing(system, tmp_path, "ours", sampler)
        assert found["training_seconds"] == 4 and found["seconds_per_image"] >= 0
        return len(timed)

    (tmp_path / "ours_0").mkdir()
    assert [times(), times(), times({"steps": 1}), times({"steps": 1})] == [2, 0, 0, 0]
    system.generator.duration = "8 steps"
    assert [times({"steps": 1}), times({"steps": 1})] == [2, 0]
    monkeypatch.setattr(comparison.versions, "code", lambda: "another")
    assert [times({"steps": 1}), times({"steps": 1})] == [2, 0]
    device = types.SimpleNamespace(device_kind="another")
    monkeypatch.setattr(comparison.jax, "devices", lambda: [device])
    assert [times({"steps": 1}), times({"steps": 1})] == [2, 0]


def test_a_tokenizer_that_is_given_to_some_is_a_column_of_all(tmp_path, monkeypatch):
    numbers = {**NUMBERS, "psnr": 1.0, "codebook_usage": 1.0, "sample_accuracy": 1.0}
    numbers |= {"frechet_pixels": 1.0, "per_class": [1]}
    found = {"own": [numbers], "given": [{**numbers, "tokenizer": "drawings"}]}
    config = ConfigDict({"real": {}, "systems": {name: {} for name in found}})
    monkeypatch.setattr(comparison, "chosen", lambda given: (config, list(found)))
    monkeypatch.setattr(comparison.runs, "each", lambda *_: found)
    monkeypatch.setattr(comparison, "picture", lambda *_: None)
    given = {"part": "1/1", "features": "pixels", "weights": "", "out": tmp_path, "samples": 2}
    given |= {"scan": 0, "config": "a", "seeds": 2}  # so that nothing is timed
    _, rows = comparison.run(types.SimpleNamespace(**given), [])
    assert [row["tokenizer"] for row in rows] == [None, "drawings", None]
    assert "drawings" in printing.table(printing.numbered(rows)[0])


@pytest.mark.parametrize("classes", [0, 1, 2])
def test_data_without_two_classes_are_refused_before_anything_is_trained(classes, tmp_path):
    for name in "abc"[: max(1, classes)]:
        place = tmp_path / name if classes else tmp_path
        place.mkdir(exist_ok=True)
        for number in range(20):
            image = np.full((8, 8, 3), number, np.uint8)
            Image.fromarray(image).save(place / f"{number}{name}.png")
    system = {"generator": {"dataset": {"folder": str(tmp_path), "size": 8}}}
    config = ConfigDict({"systems": {"ours": system}})
    if classes == 2:
        comparison.check_classes(config, ["ours"])
        return
    with pytest.raises(InputError, match=rf"of which .* has {classes or 'none'}: give data of two"):
        comparison.check_classes(config, ["ours"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("drawing", "systems.ours.tokenizer = 'drawing': drawing is no workdir: "),
        ("drawings", "of 64x64 images, and those of the generator's data set are 32x32: "),
    ],
)
def test_a_given_tokenizer_that_does_not_fit_is_refused(given, message):
    system = ConfigDict({"tokenizer": given, "generator": {"dataset": {"name": "digits"}}})
    system.generator.dataset.size = 32
    with pytest.raises(InputError, match=re.escape(message)):
        comparison_tokenizers.check("ours", system)


def call(*args):
    return benchmark.main(["comparison", "--config=configs/comparison.py:tiny", *map(str, args)])


@pytest.mark.slow
def test_two_systems_side_by_side(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(comparison.pathlib.Path(__file__).parent.parent)
    monkeypatch.setattr(comparison, "TIMED", 4)
    monkeypatch.setattr(comparison, "STEPS", 2)
    only = ["--only=vqgan", "--only=efficient_vqgan_on_vqgan"]
    command = [
        f"--out={tmp_path}",
        "--seeds=1",
        "--samples=20",
        *only,
        f"--json={tmp_path / 'rows.json'}",
    ]
    assert call(*command) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["system"] for row in rows] == ["vqgan", "efficient_vqgan_on_vqgan", "real images"]
    assert all(
        np.isfinite(row[key])
        for row in rows[:2]
        for key in (*comparison.NUMBERS, "frechet_pixels", *comparison.TIMES)
    )
    assert rows[0]["psnr"] == rows[1]["psnr"]  # one tokenizer
    first, second, real = (row["card"] for row in rows)
    assert first["reconstruction"] == second["reconstruction"]
    assert first["samples"]["model"]["step"] == 2 and first["samples"]["produced"]["count"] == 20
    assert real["real"] == second["samples"]["real"] and real["real"]["digest"]
    assert not (tmp_path / "efficient_vqgan_on_vqgan_0" / "tokenizer").exists()
    assert (tmp_path / "comparison.png").is_file()
    before = {path: path.stat().st_mtime for path in tmp_path.rglob("numbers.json")}
    assert len(before) == 2
    capsys.readouterr()
    assert call(*command) == 0  # nothing is done again
    assert {path: path.stat().st_mtime for path in before} == before
    assert "compiled in" not in capsys.readouterr().out
    assert call(*command, "--scan=2") == 0  # the networks stay; the samplers are others
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(row["sampler"] for row in rows[:2]) and rows[2]["sampler"] is None
    tiny_features.install(monkeypatch)
    assert call(*command, "--features=tiny", "--weights=random") == 0
    assert all(path.stat().st_mtime > time for path, time in before.items())
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(row["frechet_tiny_untrained"] > 0 for row in rows[:2])
    # Held-out images are the training images of this data set.
    assert rows[2]["frechet_tiny_untrained"] == pytest.approx(0, abs=1e-6)
    assert not any("frechet_pixels" in row for row in rows)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only=vqgam"], "there is no system 'vqgam': did you mean 'vqgan'"),
        (["--seeds=0"], "--seeds=0: expected a positive integer"),
        (["--part=3/2"], "expected --part=I/N"),
        (["--config.seed=1"], "there is no flag --config.seed: "),
        (["--features=pixel"], "--features names 'pixel', no module with Features"),
        (
            ["--features=efficientnet", "--weights=none"],
            "there are no weights of efficientnet_lite0",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(comparison.pathlib.Path(__file__).parent.parent)
    assert call(f"--out={tmp_path}", *args) == 2
    assert message in capsys.readouterr().err


def test_a_system_that_is_named_twice_is_run_once():
    file = config_files.SHIPPED / "configs" / "comparison.py"
    given = types.SimpleNamespace(config=f"{file}:tiny", only=["vqgan", "rq_vae", "vqgan"])
    assert comparison.chosen(given)[1] == ["vqgan", "rq_vae"]


def test_only_its_own_config_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(comparison.pathlib.Path(__file__).parent.parent)
    assert (
        benchmark.main(["comparison", "--config=configs/quickstart.py", f"--out={tmp_path}"]) == 2
    )
    assert "is of quickstart" in capsys.readouterr().err
