"""Distances of generated from real images: every image counts once, however batches are cut.

The children: this file in two processes with four devices each.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_features
from ml_collections import ConfigDict
from PIL import Image

from evqgan.benchmark import reference
from evqgan.core import limits, mesh, npz
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals import distribution, kept_references, protocols, sample_labels
from evqgan.evals.batches import Batches
from evqgan.evals.distribution import Evaluator
from evqgan.evals.feature_metrics import METRICS
from evqgan.features.extractor import Extractor
from evqgan.generators.requests import request_of, seeds_of
from evqgan.metrics import pixels
from evqgan.metrics.frechet import Gaussian, frechet_distance, gaussian
from evqgan.metrics.manifold import precision_recall
from evqgan.metrics.references import Reference, save_reference

TESTS = pathlib.Path(__file__).parent
NUMBER = 37  # of images, which no batch divides
DATA = Dataset(name="generated", size=16, classes=NUMBER, num_examples=NUMBER)
CONFIG = ConfigDict({"generator": {"classes": NUMBER}})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The generator is a function of the test, and a network of features is quick."""
    tiny_features.install(monkeypatch)
    monkeypatch.setattr(distribution.models, "of_stage2", of_stage2)


def of_stage2(config):
    quantizer = types.SimpleNamespace(depth=3)
    network = types.SimpleNamespace(quantizer=quantizer)
    return types.SimpleNamespace(tokenizer=types.SimpleNamespace(grid=(2, 4), network=network))


def batches(size=8, dataset=DATA, device_mesh=None):
    device_mesh = device_mesh or mesh.make()
    return Batches(dataset, size, mesh.rows(device_mesh, size), device_mesh)


def all_images(split="train"):
    parts = [(np.asarray(x["image"]), np.asarray(x["valid"])) for x in batches()(split)]
    return np.concatenate([images[valid] for images, valid in parts])


def noise(state, request):
    """Images that depend on their random keys alone."""
    made = jax.vmap(lambda key: jax.random.bits(key, (16, 16, 3), np.uint8))(request.keys)
    return made * jnp.asarray(state["contrast"], jnp.uint8)


def copies(images):
    """Images of data, whose number is the class."""
    return lambda state, request: images[np.asarray(request.label)]


def run(sample, size=8, state=None, dataset=DATA, **keys):
    given = {"samples": NUMBER, "features": ("pixels",), **keys}
    evaluator = Evaluator(None, batches(size, dataset), CONFIG, sample, **given)
    return dict(evaluator.run(state or {"contrast": 1})), evaluator


def test_real_images_are_at_no_distance_from_themselves():
    every = tuple(name for name in METRICS if name not in ("spatial_frechet", "score"))
    found, _ = run(copies(all_images()), metrics=every)
    assert found["frechet_pixels"] == 0 and found["rbf_mmd_pixels"] == 0
    ones = {found[f"{name}_pixels"] for name in ("precision", "recall", "coverage")}
    assert ones == {1.0}
    # the polynomial MMD of a set and itself, without the pairs of a row and itself
    assert found["mmd_pixels"] < 0
    assert set(found) == {
        f"{name}_pixels"
        for name in (
            *("frechet", "mmd", "mmd_sd", "rbf_mmd", "precision", "recall"),
            *("density", "coverage"),
        )
    }


def test_metrics_of_too_few_images_are_left_out_and_without_any_nothing_is_generated():
    metrics = ("frechet", "precision_recall")
    found, evaluator = run(noise, samples=3, metrics=metrics)
    assert found.keys() == {"frechet_pixels"}
    line = "no precision_recall_pixels: it needs 4 or more, got 3 generated images"
    assert line in evaluator.card().warnings
    with pytest.raises(InputError, match=f"^{line}$"):
        run("not called", samples=3, metrics=metrics[1:])


def saved_samples(tmp_path, images, **changes):
    """A samples.npz as --mode=sample writes it."""
    file = tmp_path / "samples.npz"
    sampler = json.dumps({"steps": 3})
    said = {"labels": np.arange(len(images)), "sampler": sampler, "step": 7, "seed": 5}
    npz.save(file, arr_0=images, **{**said, "acceptance": 0.5, "classifier": "a:b", **changes})
    return str(file)


def test_finished_samples_have_the_numbers_that_the_same_images_have_when_generated(tmp_path):
    keys = {"metrics": ("frechet", "precision_recall"), "seed": 3}
    generated, evaluator = run(noise, **keys)
    evaluator_labels = evaluator.card().produced.labels
    images = noise({"contrast": 1}, types.SimpleNamespace(keys=request_keys(range(NUMBER), 3)))
    file = saved_samples(tmp_path, np.asarray(images))
    found, evaluator = run("not called", file=file, **keys)
    assert found == pytest.approx(generated, rel=1e-6)
    card = evaluator.card()
    assert (card.made_by.step, card.produced.count, card.produced.seed) == (7, NUMBER, 5)
    assert card.produced.labels == evaluator_labels == "all classes in turn"
    assert card.produced.sampler == {"steps": 3, "acceptance": 0.5, "classifier": "a:b"}


def test_files_that_are_no_samples_of_this_model_are_refused(tmp_path):
    file = saved_samples(tmp_path, np.zeros((4, 8, 16, 3), np.uint8))
    with pytest.raises(InputError, match="is of 16x8 .*, expected 16x16, as config.dataset says$"):
        run("not called", file=file)
    file = saved_samples(tmp_path, np.zeros((4, 16, 16, 3), np.uint8), labels=np.zeros(3))
    with pytest.raises(InputError, match="--mode=sample writes: it has 4 images and 3 labels"):
        run("not called", file=file)
    for changes, said in (
        (
            {"labels": np.full(4, NUMBER)},
            f"has labels up to {NUMBER}, generator.classes is {NUMBER} here",
        ),
        (
            {"images": np.zeros((1, 16, 16, 3), np.uint8)},
            "holds 1 image: give a file of two or more",
        ),
    ):
        images = changes.pop("images", np.zeros((4, 16, 16, 3), np.uint8))
        with pytest.raises(InputError, match=said):
            run("not called", file=saved_samples(tmp_path, images, **changes))
    with pytest.raises(InputError, match=r"there is no file .*none\.npz: make it by"):
        run("not called", file=str(tmp_path / "none.npz"))


@pytest.mark.parametrize("size", [1, 8, 37, 64])
def test_every_image_counts_once_however_batches_are_cut(size):
    """The last batch is filled up, of generated and of real images."""
    found, evaluator = run(noise, size, metrics=("frechet", "precision_recall"))
    keys = request_keys(range(NUMBER))
    made = noise({"contrast": 1}, types.SimpleNamespace(keys=keys))
    sets = [pixels.colours(np.asarray(x)) for x in (made, all_images())]
    expected = frechet_distance(*map(gaussian, sets))
    assert found["frechet_pixels"] == pytest.approx(expected, rel=1e-5)
    shares = precision_recall(*sets)
    assert found["precision_pixels"] == pytest.approx(shares.precision)
    assert found["recall_pixels"] == pytest.approx(shares.recall)
    card = evaluator.card()
    assert (card.real.count, card.produced.count) == (NUMBER, NUMBER)
    digests = b"".join(hashlib.sha256(image).digest() for image in all_images())
    assert card.real.digest == hashlib.sha256(digests).hexdigest()[:16]


def test_statistics_that_are_kept_are_not_computed_again(monkeypatch, tmp_path):
    monkeypatch.setenv("EVQGAN_REFERENCES", str(tmp_path))
    expected, before = run(noise)
    network, dataset = before.networks[0], before.batches.dataset
    file = kept_references.file_of(dataset, "train", network.card())
    request = reference.Request(dataset, "train", "pixels", "", batch=8)
    save_reference(file, reference.statistics(request, network))
    monkeypatch.setattr(distribution, "features_of_split", None)
    found, evaluator = run(noise)
    assert found == pytest.approx(expected, rel=1e-9) and evaluator.card() == before.card()
    other = dataclasses.replace(DATA, crop="adm")
    for keys in ({"split": "train[:9]"}, {"dataset": other}, {"metrics": ("frechet", "mmd")}):
        with pytest.raises(TypeError, match="not callable"):
            run(noise, **keys)


def request_keys(numbers, seed=0):
    numbers = np.array(numbers, np.uint32)
    return request_of(None, None, None, seeds_of(seed, len(numbers)), numbers).keys


def test_an_image_is_of_its_number_and_seed_as_samples_are():
    seen = []

    def sample(state, request):
        seen.append(request)
        return np.zeros((len(request.label), 16, 16, 3), np.uint8)

    run(sample, size=16, seed=5)
    ids, mask, labels, keys = (
        np.concatenate([np.asarray(jax.random.key_data(x) if i == 3 else x) for x in parts])
        for i, parts in enumerate(zip(*seen, strict=True))
    )
    assert ids.shape == (48, 2, 4, 3) and mask.shape == (48, 2, 4) and mask.all()
    np.testing.assert_array_equal(labels[:NUMBER], np.arange(NUMBER))
    expected = jax.random.key_data(request_keys(range(NUMBER), seed=5))
    np.testing.assert_array_equal(keys[:NUMBER], expected)
    assert len(np.unique(keys, axis=0)) == NUMBER  # the batch is filled up with the last one


def test_labels_are_as_often_as_real_images_have_them():
    labels = sample_labels.labels_as_often(10, np.array([30_000, 0, 10_000, 0]))
    np.testing.assert_array_equal(np.bincount(labels, minlength=4), [8, 0, 2, 0])
    np.testing.assert_array_equal(labels, [0, 0, 2, 0, 0, 0, 0, 2, 0, 0])  # spread over all
    for counts in ([1, 1, 1], [5, 1, 3, 3], [1300] * 1000):
        for number in (1, 2, 7, 1000):
            labels = sample_labels.labels_as_often(number, np.array(counts))
            assert len(labels) == number and labels.dtype == np.int32
            each = np.bincount(labels, minlength=len(counts))
            assert np.abs(each - number * np.array(counts) / sum(counts)).max() < 1


def test_where_classes_are_uneven_generated_labels_may_be_so(tmp_path):
    for name, number in (("cat", 12), ("dog", 4)):
        (tmp_path / name).mkdir()
        for i in range(number):
            image = np.full((16, 16, 3), 9 * i + 40 * len(name), np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{name}{i}.png")
    (tmp_path / "cat" / "cat0.png").write_bytes(b"no image")
    dataset = Dataset(folder=str(tmp_path), train="all", validation="all", size=16, max_bad=0.1)
    made, config = [], ConfigDict({"generator": {"classes": 2}})

    def evaluated(classes=2, **keys):
        made.clear()

        def sample(state, request):
            made.extend(np.asarray(request.label))
            return noise(state, request)

        config.generator.classes = classes
        given = {"samples": 8, "features": ("pixels",), **keys}
        evaluator = Evaluator(None, batches(8, dataset), config, sample, **given)
        list(evaluator.run({"contrast": 1}))
        return evaluator.card()

    card = evaluated()
    assert made == [0, 1] * 4 and card.produced.labels == "all classes in turn"
    assert card.real.count == 15  # one of the files that are counted does not decode
    warning = "generated images are of all classes in turn, and there are 12 files of 'cat' and 4 "
    assert [line for line in card.warnings if line.startswith(f"{warning}of 'dog': ")]
    card = evaluated(labels="data")
    assert sorted(made) == [0] * 6 + [1] * 2 and not any("in turn" in x for x in card.warnings)
    assert card.produced.labels == "as often as in the split 'all'"
    assert not any("in turn" in line for line in evaluated(3).warnings)  # not these classes
    with pytest.raises(InputError, match="labels = 'data' needs real images of the model's class"):
        evaluated(3, labels="data")
    assert evaluated(0, labels="data").produced.labels == "none" and set(made) == {0}


def test_no_more_is_generated_at_a_time_than_there_are_samples(monkeypatch):
    """How far it is, a heartbeat tells."""
    sizes, told = [], []

    @contextlib.contextmanager
    def heartbeat(what, say):
        yield lambda *at: told.append((what, *at))

    def sample(state, request):
        sizes.append(len(request.label))
        return noise(state, request)

    monkeypatch.setattr(distribution, "heartbeat", heartbeat)
    run(sample, size=64, samples=3)
    assert sizes == [3]
    run(noise, size=2, samples=3)
    assert told[1:] == [("generating 3 images", 2, 3), ("generating 3 images", 3, 3)]


def test_real_images_are_read_once_and_a_state_changes_the_number(monkeypatch):
    found, evaluator = run(noise)
    monkeypatch.setattr(Batches, "__call__", None)
    assert dict(evaluator.run({"contrast": 0})) != found
    assert dict(evaluator.run({"contrast": 1})) == found


def test_networks_have_the_metrics_that_their_features_allow():
    metrics = ("frechet", "spatial_frechet", "score")
    found, evaluator = run(noise, features=("pixels", "tiny"), metrics=metrics, weights="random")
    assert set(found) == {
        "frechet_pixels",
        "frechet_tiny_untrained",
        "spatial_frechet_tiny_untrained",
        "score_tiny_untrained",
        "score_sd_tiny_untrained",
    }
    card = evaluator.card()
    assert [one["name"] for one in card.features] == ["pixels", "tiny"]
    assert card.real.split == "train" and card.produced.seed == 0 and card.protocol == "folder"
    few = "frechet_pixels: 37 generated images, 37 real images are few, 1,000 would do"
    assert card.warnings[0].startswith(few) and len(card.warnings) == 4


def test_scores_alone_need_no_real_images(monkeypatch):
    monkeypatch.setattr(Batches, "__call__", None)
    found, evaluator = run(noise, features=("tiny",), metrics=("score",), weights="random")
    assert found["score_tiny_untrained"] >= 1 and evaluator.card().real is None


def made_reference(file, dataset=DATA, split="train", features="pixels"):
    """A reference file as `python -m evqgan.benchmark reference` writes it."""
    request = reference.Request(dataset, split, features, "random", 8)
    network = Extractor(features, "random", "features")
    save_reference(file, reference.statistics(request, network))
    return str(file)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("crop", ["resize", "adm"])
def test_a_reference_file_stands_for_its_images(tmp_path, split, crop):
    """Its number, and its card, are those of the images themselves."""
    dataset = dataclasses.replace(DATA, num_examples=8 * NUMBER, crop=crop)
    file = made_reference(tmp_path / "ours.npz", dataset, split)
    protocol = {"protocol": "adm" if crop == "adm" else "folder"}
    expected, direct = run(noise, dataset=dataset, split=split, **protocol)
    found, by_file = run(noise, dataset=dataset, reference=file, **protocol)
    assert found == pytest.approx(expected, rel=1e-6)
    cards = [dataclasses.replace(x.card().real, source="") for x in (direct, by_file)]
    assert cards[0] == cards[1] and cards[0].count == (NUMBER if split != "train" else 8 * NUMBER)
    warned = any(
        "published numbers of the protocol 'adm' are of 50,000" in x
        for x in by_file.card().warnings
    )
    assert warned == (crop == "adm")


def test_a_model_that_has_learned_another_crop_than_the_protocols_is_warned_of():
    learned = "the model has learned images with config.dataset.crop = 'resize'"
    told = [f"real images have the crop 'adm', {learned}"]
    assert protocols.warnings(protocols.ADM, 50_000, DATA) == told
    alike = dataclasses.replace(DATA, crop="adm")
    assert protocols.warnings(protocols.ADM, 50_000, alike) == []
    assert protocols.warnings(protocols.FOLDER, 7, DATA) == []


def test_a_reference_of_other_images_or_features_is_refused(tmp_path):
    file = made_reference(tmp_path / "ours.npz")
    with pytest.raises(InputError, match="has no images, which mmd need"):
        run(noise, reference=file, metrics=("frechet", "mmd"))
    with pytest.raises(InputError, match=r"192 features \(of pixels, as its card says\), tiny "):
        run(noise, reference=file, features=("tiny",), weights="random")
    save_reference(tmp_path / "48.npz", Reference(Gaussian(np.zeros(48), np.eye(48))))
    with pytest.raises(InputError, match=r"48 features \(likely of digits\), pixels has 192: set"):
        run(noise, reference=str(tmp_path / "48.npz"))
    with pytest.raises(InputError, match="is of one network"):
        run(noise, reference=file, features=("pixels", "tiny"), weights="random")
    with pytest.raises(InputError, match="with the crop 'centre', the protocol 'adm' has 'adm'"):
        run(noise, reference=file, protocol="adm")
    larger = made_reference(tmp_path / "l.npz", dataclasses.replace(DATA, size=24))
    with pytest.raises(InputError, match="l.npz is of images of 24x24, samples are of 16x16"):
        run(noise, reference=larger)
    of_tiny = made_reference(tmp_path / "tiny.npz", features="tiny")
    with np.load(of_tiny) as saved:
        card = json.loads(saved["card"].item())
        card["features"]["weights"] = {tiny_features.NETWORK: "another hash"}
        np.savez(tmp_path / "old.npz", **{**saved, "card": json.dumps(card)})
    with pytest.raises(InputError, match="is of other features than tiny's here, weights"):
        run(noise, reference=str(tmp_path / "old.npz"), features=("tiny",), weights="random")
    save_reference(tmp_path / "theirs.npz", Reference(gaussian(pixels.colours(all_images()))))
    with pytest.raises(InputError, match="are of Inception's, not of pixels's"):
        run(noise, reference=str(tmp_path / "theirs.npz"))


def test_images_of_a_file_as_adm_has_them_are_a_reference(tmp_path):
    """Of any network and metric; batches of 8 and a last one of 5."""
    images, file = all_images(), tmp_path / "samples.npz"
    np.savez_compressed(file, arr_0=images)
    keys = {"metrics": ("frechet", "precision_recall"), "features": ("pixels", "tiny")}
    expected, _ = run(noise, weights="random", **keys)
    found, evaluator = run(noise, weights="random", reference=str(file), **keys)
    assert found == pytest.approx(expected, rel=1e-6)
    real = evaluator.card().real
    assert (real.count, real.size, real.digest_of) == (NUMBER, (16, 16), "file")
    np.savez(file, arr_0=images[:, :8])
    with pytest.raises(
        InputError, match=r"is of images of 16x8 \(width x height\), samples are of 16x16"
    ):
        run(noise, reference=str(file))
    np.savez(file, arr_0=images.astype(np.float32))
    with pytest.raises(InputError, match="expected images uint8"):
        run(noise, reference=str(file))
    np.savez(file, arr_0=images[:1])
    with pytest.raises(InputError, match=r"samples.npz holds 1 image in arr_0: give .* two or mor"):
        run(noise, reference=str(file))
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InputError, match="is not a reference .*: it is no .npz file, or one that"):
        run(noise, reference=str(file))


def test_what_cannot_be_is_one_line(monkeypatch):
    with pytest.raises(InputError, match=r"score is of logits ones, which no network in config"):
        run(noise, metrics=("score",))
    with pytest.raises(
        InputError, match="distribution.features and .*metrics: one of each is needed"
    ):
        run(noise, features=(), metrics=())
    with pytest.raises(
        InputError, match=r"samples\), which are more than 20,000,000: ask for less$"
    ):
        run(noise, samples=900_000_000)
    with pytest.raises(InputError, match="split and reference both say which real images: give"):
        run(noise, split="train", reference="statistics.npz")
    monkeypatch.setattr(limits, "of_machine", lambda: 2 * 4 * 192 * (NUMBER + NUMBER) - 1)
    run(noise)  # Gaussians are small
    with pytest.raises(InputError, match="features of 37 generated and 37 real images would take"):
        run(noise, metrics=("mmd",))


def as_one_of_two(index, port, place):
    """Note as JSON what a process of two finds, together with the other."""
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(index))
    sys.modules.setdefault("evqgan.features.tiny", types.ModuleType("evqgan.features.tiny"))
    sys.modules["evqgan.features.tiny"].Features = tiny_features.Features
    sys.modules["evqgan.features.tiny"].PRETRAINED = {"network": tiny_features.NETWORK}
    distribution.models.of_stage2 = of_stage2
    found = on_all_devices()
    (pathlib.Path(place) / f"{index}.json").write_text(json.dumps(found))


def on_all_devices():
    """The numbers of 37 samples and 37 real images, over all devices of a run, and their hash."""
    everywhere = mesh.replicated(batches().device_mesh)

    def sample(state, request):
        return noise(state, mesh.split(request, batches().device_mesh))

    metrics = ("frechet", "precision_recall", "mmd")
    keys = {"features": ("pixels", "tiny"), "weights": "random", "metrics": metrics}
    numbers, evaluator = run(jax.jit(sample, out_shardings=everywhere), **keys)
    real = evaluator.card().real
    assert real.count == NUMBER
    return {**numbers, "digest": real.digest, "devices": jax.device_count()}


def test_two_processes_of_four_devices_count_as_one(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    ours = {"PYTHONPATH": str(TESTS.parent), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    code = "import sys, conftest, test_distribution as t; t.as_one_of_two(*sys.argv[1:])"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i), str(port), tmp_path],
            cwd=TESTS,
            env={**os.environ, **ours},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        one = on_all_devices()
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert first == second and (first.pop("devices"), one.pop("devices")) == (8, 1)
    assert first.pop("digest") == one.pop("digest")
    assert first == pytest.approx(one, rel=1e-6, abs=1e-9)
