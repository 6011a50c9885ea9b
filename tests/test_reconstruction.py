"""Numbers about reconstructions against NumPy and scikit-image, whatever their batches."""

import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_features
from ml_collections import ConfigDict
from PIL import Image
from skimage.metrics import structural_similarity

from evqgan.core import mesh, pictures, weights
from evqgan.core.errors import InputError
from evqgan.data.dataset import Dataset
from evqgan.evals import batches, reconstruction
from evqgan.evals.reconstruction import Evaluator, distances
from evqgan.losses import lpips
from evqgan.metrics import pixels
from evqgan.metrics.frechet import frechet_distance, gaussian

CODES = 32
# of the digests that `evaluator` gives images, image i that of eight numbers i
ROWS = np.repeat(np.arange(20)[:, None], 8, axis=1).astype("<u4")
TALLIED = hashlib.sha256(ROWS.tobytes()).hexdigest()[:16]
CODER = {"name": "swin", "depths": (1,), "width": 8, "head_dim": 8}
CONFIG = ConfigDict(
    {"tokenizer": {"encoder": CODER, "decoder": CODER, "quantizer": {"name": "vq", "codes": CODES}}}
)


@pytest.fixture(scope="module")
def images():
    """20 images, and the same with an error that grows from image to image."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (20, 16, 24, 3)).astype(np.uint8)
    noise = rng.normal(size=a.shape) * np.linspace(1, 90, 20)[:, None, None, None]
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def ids():
    """Tokens [20,2,3,2] of two depths: image i has code i, in the second only codes 0 and 1."""
    first = np.broadcast_to(np.arange(20)[:, None, None], (20, 2, 3))
    second = np.broadcast_to(np.array([[0, 0, 0], [0, 0, 1]]), (20, 2, 3))
    return np.stack([first, second], axis=-1).astype(np.int32)


class Distance(nn.Module):
    """Stands in for LPIPS: the mean difference, times a frozen number."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, a, b):
        scale = self.variable(
            "frozen", "scale", lambda: {"params": {"scale": jnp.full((1,), 3.0)}}
        ).value
        return jnp.mean(jnp.abs(a - b), (1, 2, 3)) * scale["params"]["scale"]


class Batches:
    """What an evaluator reads its images by."""

    device_mesh = None  # the devices of this process

    def __init__(self, number, size):
        self.number, self.size = number, size
        self.dataset = Dataset(name="generated", size=(16, 24))

    def __call__(self):
        for i in range(0, self.number, self.size):
            rows = np.arange(i, i + self.size)
            yield {"rows": np.minimum(rows, self.number - 1), "valid": rows < self.number}


def evaluator(images, ids, batch_size, show=4, garbage=0, **keys):
    """An evaluator with batches of one size.

    The last one is filled up with rows that do not count.
    """
    a, b = images

    def predict(state, batch, rng):
        def filled(x):
            return np.where(
                batch["valid"].reshape(-1, *[1] * (x.ndim - 1)), x[batch["rows"]], garbage
            ).astype(x.dtype)

        return {
            "image": filled(a),
            "reconstruction": filled(b),
            "ids": filled(ids),
            "valid": batch["valid"],
            "digest": np.repeat(batch["rows"][:, None], 8, axis=1).astype(np.uint32),
        }

    return Evaluator(predict, Batches(len(a), batch_size), CONFIG, show=show, **keys)


def run(*given, **keys):
    """The numbers of an `evaluator`."""
    return dict(evaluator(*given, **keys).run({}))


def test_values_are_those_of_numpy_and_scikit_image(images, ids):
    found = run(images, ids, 5)
    a, b = (x.astype(np.float64) / 255 for x in images)
    mse = np.square(a - b).mean(axis=(1, 2, 3))
    assert found["mse"] == pytest.approx(4 * mse.mean(), rel=1e-5)  # in [-1, 1], twice as wide
    assert found["psnr"] == pytest.approx((-10 * np.log10(mse)).mean(), rel=1e-5)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = [
        structural_similarity(x, y, data_range=1, channel_axis=-1, **gaussian)
        for x, y in zip(a, b, strict=True)
    ]
    assert found["ssim"] == pytest.approx(np.mean(ssim), rel=1e-4)
    assert found["codebook_usage"] == pytest.approx((20 + 2) / 2 / CODES)
    share = np.array([5 / 6, 1 / 6])
    assert found["codebook_perplexity"] == pytest.approx(
        (20 + np.exp(-(share * np.log(share)).sum())) / 2, rel=1e-5
    )


@pytest.mark.parametrize("batch_size", [1, 3, 20, 64])
def test_neither_the_batches_nor_what_fills_them_up_matters(images, ids, batch_size):
    expected = run(images, ids, 5)
    for garbage in (0, 31):
        found = run(images, ids, batch_size, garbage=garbage)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_identical_images_have_the_best_values(images):
    a = images[0]
    mse, psnr, ssim = (np.asarray(x) for x in distances(a, a))
    assert (mse == 0).all()
    np.testing.assert_allclose(psnr, 100)
    np.testing.assert_allclose(ssim, 1, rtol=1e-6)


def test_the_picture_shows_image_reconstruction_and_error(images, ids):
    a, b = images
    shown = run(images, ids, 3, show=7)["reconstructions"]
    assert shown.shape == (3 * 16 + 2 * 2, 7 * 24 + 6 * 2, 3) and shown.dtype == np.uint8
    for i in range(7):
        column = shown[:, i * 26 : i * 26 + 24]
        np.testing.assert_array_equal(column[:16], a[i])
        np.testing.assert_array_equal(column[18:34], b[i])
        np.testing.assert_array_equal(column[36:], pictures.error_map(a[i], b[i]))


@pytest.mark.parametrize("batch_size, pixels", [(5, 10**6), (7, 16 * 24 * 3), (20, 1)])
def test_a_perceptual_distance_is_measured_a_few_images_at_a_time(
    images, ids, monkeypatch, batch_size, pixels
):
    monkeypatch.setattr(lpips, "Distance", Distance)
    monkeypatch.setattr(reconstruction, "PIXELS", pixels)
    found = run(images, ids, batch_size, perceptual="lpips", weights="random")
    a, b = (x.astype(np.float64) / 127.5 - 1 for x in images)
    assert found["lpips_untrained"] == pytest.approx(3 * np.abs(a - b).mean(), rel=1e-5)
    assert "lpips" not in found


def test_its_weights_are_read_and_asked_for_at_once(images, ids, monkeypatch, tmp_path):
    monkeypatch.setattr(lpips, "Distance", Distance)
    monkeypatch.setattr(lpips, "PRETRAINED", {"scale": "lpips"})
    with pytest.raises(InputError, match="python -m evqgan.convert lpips --download"):
        run(images, ids, 5, perceptual="lpips", weights=str(tmp_path))
    weights.save(
        weights.path(tmp_path, "lpips"), {"params": {"scale": np.full((1,), 5, np.float32)}}, {}
    )
    made = evaluator(images, ids, 5, perceptual="lpips", weights=str(tmp_path))
    found = dict(made.run({}))
    assert made.card().settings == {"lpips": {"lpips": weights.digest(tmp_path, "lpips")}}
    a, b = (x.astype(np.float64) / 127.5 - 1 for x in images)
    assert found["lpips"] == pytest.approx(5 * np.abs(a - b).mean(), rel=1e-5)


def test_an_unknown_distance_is_named(images, ids):
    with pytest.raises(InputError, match=r"names 'gan', no module with Distance in evqgan/losses/"):
        run(images, ids, 5, perceptual="gan")


def test_no_picture_is_made_with_show_0(images, ids):
    assert all(np.ndim(value) == 0 for value in run(images, ids, 5, show=0).values())


def test_the_histogram_shows_the_most_frequent_code_first(images, ids):
    shown = run(images, ids, 5)["codebook"]
    assert shown.dtype == np.uint8 and shown.shape[2] == 3
    # A depth each.
    heights = [(half < 128).all(axis=-1).sum(axis=0) for half in (shown[:96], shown[-96:])]
    for height in heights:
        assert (np.diff(height) <= 0).all()
    used = [np.mean(height > 0) for height in heights]
    np.testing.assert_allclose(used, [20 / CODES, 2 / CODES], atol=0.02)


@pytest.mark.parametrize("batch_size", [7, 20, 32])
def test_rfid_and_its_kin_are_of_all_images_and_reconstructions(
    images, ids, monkeypatch, batch_size
):
    tiny_features.install(monkeypatch)
    keys = {"features": ("pixels", {"name": "tiny"}), "weights": "random"}
    made = evaluator(images, ids, batch_size, garbage=31, show=0, **keys)
    found = dict(made.run({}))
    expected = frechet_distance(*(gaussian(pixels.colours(x)) for x in images))
    assert found["rfrechet_pixels"] == pytest.approx(expected, rel=1e-5)
    assert found["rfrechet_tiny_untrained"] > 0 and "rfrechet_tiny" not in found
    card = made.card()
    assert card.real.count == card.produced.count == 20 and card.protocol == "reconstruction"
    assert card.real.digest == TALLIED and card.real.split == "validation"
    assert [one["name"] for one in card.features] == ["pixels", "tiny"]
    assert card.warnings == [
        f"rfrechet_{name}: 20 validation images are few, 1,000 would do: "
        "it is the larger the fewer there are"
        for name in ("pixels", "tiny_untrained")
    ]


def test_one_image_has_all_numbers_but_its_distance(images, ids):
    one = [x[:1] for x in images]
    made = evaluator(one, ids[:1], 1, show=0, features=("pixels",))
    found = dict(made.run({}))
    assert {"psnr", "ssim", "codebook_usage"} <= found.keys() and "rfrechet_pixels" not in found
    line = "no rfrechet_pixels: it needs 2 or more, got 1 validation image"
    assert made.card().warnings == [line]


def test_identical_reconstructions_are_at_no_distance(images, ids):
    found = run((images[0], images[0]), ids, 7, features=("pixels",), show=0)
    assert found["rfrechet_pixels"] == 0 and found["psnr"] == pytest.approx(100)


def test_a_config_that_says_it_has_no_perceptual_loss_names_no_weights():
    made = Evaluator(None, Batches(2, 2), ConfigDict({**CONFIG, "perceptual": None}))
    assert list(made.names())[:3] == ["mse", "psnr", "ssim"]


def test_a_folder_of_photographs_of_two_sizes_against_itself(tmp_path):
    """Decoded, cropped, scaled and counted as in training; an identity in the tokenizer's place."""
    rng = np.random.default_rng(0)
    for k, (width, height) in enumerate([(300, 200), (640, 480)] * 3):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        coarse.resize((width, height)).save(tmp_path / f"{k}.jpg")
    dataset = Dataset(folder=str(tmp_path), size=64, validation="train")
    read = batches.Batches(dataset, 4, np.arange(4), mesh.make(devices=jax.devices()[:1]))

    def predict(state, batch, rng):
        codes = jnp.zeros((4, 2, 3, 1), jnp.int32)
        return {**batch, "reconstruction": batch["image"], "ids": codes}

    made = Evaluator(predict, read, CONFIG, show=0, features=("pixels", "digits"))
    found = dict(made.run({}))
    assert found["psnr"] == pytest.approx(100) and found["ssim"] == pytest.approx(1)
    assert abs(found["rfrechet_pixels"]) < 0.005 and abs(found["rfrechet_digits"]) < 0.005
    assert made.card().real.count == read.number("train") > 4  # more than one batch


def test_features_are_those_there_are(images, ids):
    with pytest.raises(InputError, match=r"config.evals.reconstruction.features names 'fid'"):
        run(images, ids, 5, features=("fid",))
