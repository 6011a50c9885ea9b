"""Feature networks: what they say of images, by which weights; what their numbers are called."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_features

from evqgan.core import build, mesh, weights
from evqgan.core.errors import InputError
from evqgan.evals.feature_metrics import METRICS
from evqgan.features import efficientnet, extractor, inception
from evqgan.features.extractor import Extractor, extractors
from evqgan.features.names import OF_INCEPTION, name_of
from evqgan.metrics import pixels

NETWORKS = build.having("features", ["Features", "PRETRAINED"])


@pytest.fixture
def tiny(monkeypatch):
    tiny_features.install(monkeypatch)


def images(number, shape=(16, 24), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, *shape, 3)).astype(np.uint8)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fid_is_of_inceptions_trained_features_alone(network):
    """And every name says whose features it is of, and whether these are untrained."""
    numbers = [*OF_INCEPTION, "rbf_mmd", "precision", "recall", "density", "coverage"]
    for prefix in ("", "r"):
        for untrained in (False, True):
            names = [name_of(number, network, untrained, prefix) for number in numbers]
            assert len(set(names)) == len(names)
            assert all(f"_{network}" in name for name in names)
            assert all(name.endswith("_untrained") == untrained for name in names)
            fields = [name.removeprefix(prefix).split("_")[0] for name in names]
            is_proper = network == "inception" and not untrained
            assert bool({"fid", "sfid", "kid", "is"} & set(fields)) == is_proper


def test_names_are_those_of_the_field():
    assert [
        name_of(one, "inception") for one in ("frechet", "spatial_frechet", "mmd", "score")
    ] == [
        "fid_inception",
        "sfid_inception",
        "kid_inception",
        "is_inception",
    ]
    assert name_of("precision", "efficientnet") == "precision_efficientnet"
    assert name_of("frechet", "inception", prefix="r") == "rfid_inception"
    assert name_of("frechet", "efficientnet", prefix="r") == "rfrechet_efficientnet"
    assert name_of("rbf_mmd", "clip") == "cmmd_clip"
    assert name_of("rbf_mmd", "efficientnet") == "rbf_mmd_efficientnet"
    assert name_of("rbf_mmd", "clip", untrained=True) == "rbf_mmd_clip_untrained"
    assert name_of("frechet", "inception", untrained=True) == "frechet_inception_untrained"
    assert {name for name in OF_INCEPTION if not name.endswith("_sd")} <= set(METRICS)


@pytest.mark.parametrize("shape", [(16, 24), (8, 8), (5, 30)])
def test_pixels_are_those_of_numpy(shape):
    found = Extractor("pixels", "random", "key")(images(3, shape))
    expected = pixels.colours(images(3, shape))
    assert found.keys() == {"pooled"} and found["pooled"].dtype == np.float32
    np.testing.assert_allclose(found["pooled"], expected, rtol=1e-5)


@pytest.mark.parametrize("each", [64, 4, 1])
def test_features_do_not_depend_on_the_batch(tiny, monkeypatch, each):
    """Nor on how many images a device takes at a time."""
    given = images(12)
    alone = Extractor("tiny", "random", "key")
    expected = np.concatenate([alone(given[i : i + 1])["pooled"] for i in range(12)])
    monkeypatch.setattr(extractor, "EACH", each)
    network = Extractor("tiny", "random", "key")
    over = mesh.make(devices=jax.local_devices()[:1])
    for batch in (given, jnp.asarray(given), mesh.put(given, over)):
        found = network(batch)
        assert {name: x.shape for name, x in found.items()} == {
            "pooled": (12, 4),
            "spatial": (12, 6),
            "logits": (12, 5),
        }
        np.testing.assert_allclose(found["pooled"], expected, rtol=1e-5)
    assert network.widths == {"pooled": 4, "spatial": 6, "logits": 5}


def test_weights_are_arguments_of_the_program(tiny):
    network = Extractor("tiny", "random", "key")
    text = network._run.lower(network._frozen, images(2)).as_text()
    arguments = text.split("@main(")[1].split(") ->")[0]
    assert "tensor<6x4xf32>" in arguments and "tensor<6x5xf32>" in arguments


def test_weights_are_those_of_a_file_whose_hash_stands_on_the_card(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    random = Extractor({"name": "tiny", "power": 2.0}, "random", "key")
    assert random.name_of("frechet") == "frechet_tiny_untrained"
    assert random.card()["weights"] == {tiny_features.NETWORK: "random"}
    with pytest.raises(InputError, match="there are no weights of tiny_network"):
        Extractor("tiny", str(tmp_path), "key")
    ones = {"params": {"pooled": np.ones((6, 4), np.float32), "k": np.ones((6, 5), np.float32)}}
    file = weights.path(tmp_path, tiny_features.NETWORK)
    weights.save(file, ones, {})
    network = Extractor({"name": "tiny", "power": 2.0}, str(tmp_path), "key")
    found, x = network(images(2)), (images(2) / 255.0) ** 2
    sums = x[:, :, :12].mean((1, 2)).sum(-1) + x[:, :, 12:].mean((1, 2)).sum(-1)
    np.testing.assert_allclose(found["pooled"], np.repeat(sums[:, None], 4, 1), rtol=1e-5)
    assert network.name_of("mmd", "r") == "rmmd_tiny"
    assert network.card() == {
        "name": "tiny",
        "resize": "none",
        "weights": {tiny_features.NETWORK: weights.digest(tmp_path, tiny_features.NETWORK)},
    }


def test_the_hash_of_weights_is_of_the_arrays_wherever_they_came_from(tmp_path):
    hashes, ones = set(), np.ones((2, 3), np.float32)
    for tree, source in (({"a": ones}, "x"), ({"a": ones}, "y"), ({"b": ones}, "x")):
        weights.save(weights.path(tmp_path, "n"), tree, {"source": source})
        hashes.add(weights.digest(tmp_path, "n"))
    assert len(hashes) == 2 and all(len(x) == 16 for x in hashes)


def test_what_cannot_be_is_one_line(tiny):
    with pytest.raises(InputError, match=r"names 'incepton', no module .* 'inception'"):
        Extractor("incepton", "random", "config.evals.x.features")
    with pytest.raises(InputError, match="has no key 'powr': did you mean 'power'"):
        Extractor({"name": "tiny", "powr": 1.0}, "random", "key")
    with pytest.raises(InputError, match="one of tf1, torch, got 'bicubic'"):
        Extractor({"name": "inception", "prepare": "bicubic"}, "random", "key")
    with pytest.raises(InputError, match="names 'tiny' twice"):
        extractors(["tiny", {"name": "tiny", "power": 2.0}], "random", "key", None)


class Seen(nn.Module):
    """Stands for a network: what it is given, and what of it is taken."""

    @nn.compact
    def __call__(self, image):
        means = jnp.mean(image, (1, 2, 3))[:, None]
        names = ("2048", "spatial", "logits", "logits_unbiased")
        return {name: (i + 1) * means for i, name in enumerate(names)}


@pytest.mark.parametrize("prepare", ["tf1", "torch"])
def test_inception_sees_images_as_one_of_two_codes_prepares_them(monkeypatch, prepare):
    monkeypatch.setattr(inception.inception, "Network", Seen)
    model, image = inception.Features(prepare=prepare), images(2)
    found = model.apply({"frozen": {"network": {}}}, image)
    ours = inception.PREPARE[prepare](image)
    means = np.asarray(ours).mean((1, 2, 3))[:, None]
    for name, factor in (("pooled", 1), ("spatial", 2), ("logits", 4)):
        np.testing.assert_allclose(found[name], factor * means, rtol=1e-4, atol=1e-6)
    assert ours.shape == (2, 299, 299, 3)
    others = [inception.Features(prepare=one).resize for one in ("tf1", "torch")]
    assert model.resize in others and len(set(others)) == 2


def test_efficientnet_sees_images_from_minus_one_to_one(monkeypatch):
    class Maps(nn.Module):
        @nn.compact
        def __call__(self, image):
            return image[:, :2], image  # the last one counts

    monkeypatch.setattr(efficientnet.efficientnet, "Network", Maps)
    image = np.stack([np.full((16, 24, 3), level, np.uint8) for level in (0, 51, 255)])
    found = efficientnet.Features().apply({"frozen": {"network": {}}}, image)
    expected = np.repeat([[-1.0], [-0.6], [1.0]], 3, axis=1)
    np.testing.assert_allclose(found["pooled"], expected, rtol=1e-5)
