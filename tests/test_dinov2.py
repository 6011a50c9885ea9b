"""DINOv2's features against a recording of the original, from its file to the numbers' name."""

from functools import partial

import jax
import numpy as np
import pytest
from golden_files import close, files, load
from PIL import Image
from safetensors.numpy import save_file

from evqgan.convert import dinov2 as convert
from evqgan.convert import frozen
from evqgan.convert.__main__ import main
from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.features.extractor import Extractor
from evqgan.nn import bicubic, dinov2, vision_transformer

SMALL = partial(dinov2.Network, width=32, layers=3, heads=4)


@pytest.fixture(scope="module")
def recording():
    """The weights of a small network under the names of the public file, images, features."""
    (path,) = files("dinov2.npz")
    _, weights, given, found = load(path)
    return weights, given, found


@pytest.fixture
def small(monkeypatch):
    """The small network in the place of ViT-L/14."""
    monkeypatch.setattr(dinov2, "Network", SMALL)
    like = frozen.shapes(SMALL(), dinov2.SIDE)
    source = frozen.NETWORKS["dinov2"]._replace(like=lambda: like)
    monkeypatch.setitem(frozen.NETWORKS, "dinov2", source)
    return source


def read(source, theirs):
    return to_ours(source.table, source.split(theirs), source.like(), source.ignored)


def test_features_of_a_converted_file_equal_the_original(
    recording, small, monkeypatch, tmp_path, capsys
):
    """In the original too, images come as dgm-eval transforms them."""
    weights, given, expected = recording
    monkeypatch.setenv("EVQGAN_WEIGHTS", str(tmp_path))
    file = tmp_path / "mine.safetensors"
    save_file(weights, file)
    assert not main(["dinov2", str(file)])
    said = capsys.readouterr().out
    assert "another file than the published dinov2_vitl14_pretrain.pth" in said
    assert "Apache-2.0" in said
    network = Extractor("dinov2", "", "features")
    for name in ("small", "large"):
        close(network(given[name])["pooled"], expected[name])
    assert network.name_of("frechet") == "frechet_dinov2"
    assert network.card()["resize"] == "Pillow's bicubic, antialiased, 8 bits, to 224x224"
    assert Extractor("dinov2", "random", "key").name_of("frechet") == "frechet_dinov2_untrained"


def test_weights_arrive_and_return_bit_for_bit(recording, small):
    weights, _, _ = recording
    again = convert.fuse(to_theirs(small.table, read(small, weights)))
    assert weights.keys() - again.keys() == {"mask_token"}
    for name, x in again.items():
        np.testing.assert_array_equal(x, weights[name])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"blocks.1.attn.qkv.bias": None},
            "key_value/bias has the parts 0,0, 0,1, 2,0, 2,1",
        ),
        ({"norm.weight": None}, "params/norm_after/scale is missing"),
        ({"register_tokens": (1, 4, 32)}, "register_tokens is no name of a weight of it"),
        ({"blocks.3.ls1.gamma": (32,)}, r"scale1 has the parts 0, 1, 2, 3, \[3, 32\] was expected"),
        ({"blocks.0.attn.qkv.weight": (95, 32)}, "attn.qkv.weight is no name of a weight of it"),
        ({"pos_embed": (1, 257, 32)}, r"positions is \[257, 32\] there, \[1370, 32\] here"),
    ],
)
def test_other_weights_are_refused_in_one_line(recording, small, tmp_path, capsys, change, message):
    weights = {name: x for name, x in recording[0].items() if change.get(name, "") is not None}
    weights |= {name: np.zeros(shape, np.float32) for name, shape in change.items() if shape}
    with pytest.raises(InputError, match=message):
        read(small, weights)
    file = tmp_path / "other.safetensors"
    save_file(weights, file)
    assert main(["dinov2", str(file), str(tmp_path / "to")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is not a file of dinov2 such as" in error
    assert not (tmp_path / "to").exists()


def test_the_default_is_vit_l_14():
    like = frozen.NETWORKS["dinov2"].like()
    assert sum(x.size for x in jax.tree.leaves(like)) == 304_367_616
    shapes = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), like)
    theirs = convert.fuse(to_theirs(convert.TABLE, shapes))
    assert len(theirs) == 6 + 24 * 14
    assert theirs["pos_embed"].shape == (1, 1370, 1024)
    assert theirs["patch_embed.proj.weight"].shape == (1024, 3, 14, 14)
    assert theirs["blocks.23.attn.qkv.weight"].shape == (3072, 1024)


def in_numpy(x, made, scale):
    """PyTorch's bicubic of maps [n,n,c], place by place, in float64."""

    def kernel(t):
        t = abs(t)
        if t <= 1:
            return 1.25 * t**3 - 2.25 * t**2 + 1
        return -0.75 * t**3 + 3.75 * t**2 - 6 * t + 3 if t < 2 else 0.0

    n, out = len(x), np.zeros((made, made, x.shape[-1]))
    for i, j in np.ndindex(made, made):
        v, u = ((place + 0.5) / scale - 0.5 for place in (i, j))
        for a in range(int(np.floor(v)) - 1, int(np.floor(v)) + 3):
            for b in range(int(np.floor(u)) - 1, int(np.floor(u)) + 3):
                value = x[min(max(a, 0), n - 1), min(max(b, 0), n - 1)]
                out[i, j] += kernel(v - a) * kernel(u - b) * value
    return out


@pytest.mark.parametrize("known, made", [(7, 3), (4, 6), (37, 16)])
def test_positions_are_resized_as_the_original_does(recording, known, made):
    if known == 37:
        positions = recording[0]["pos_embed"][0]
        expected = recording[2]["positions"][0]
    else:
        positions = np.random.default_rng(0).normal(size=(1 + known**2, 2)).astype(np.float32)
        maps = positions[1:].reshape(known, known, 2)
        expected = in_numpy(maps, made, (made + 0.1) / known).reshape(-1, 2)
        expected = np.concatenate([positions[:1], expected])
    close(vision_transformer.resized(positions, made), expected, 1e-5)


def test_positions_of_the_same_grid_are_as_they_are(recording):
    positions = recording[0]["pos_embed"][0]
    assert vision_transformer.resized(positions, 37) is positions


def test_layer_scale_is_of_each_channel_of_a_branch(recording, small):
    """Where it is 0 nothing of the image reaches the class token."""
    ours = read(small, recording[0])
    run = jax.jit(SMALL().apply)
    image = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    blocks = ours["params"]["blocks"]
    for name in ("scale1", "scale2"):
        blocks[name] = np.zeros_like(blocks[name])
    x = np.float64(ours["params"]["class_embedding"] + ours["params"]["positions"][0])
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    norm = ours["params"]["norm_after"]
    close(run(ours, image), np.tile(x * norm["scale"] + norm["bias"], (2, 1)), 1e-5)
    blocks["scale1"][-1, 5] = 1.0  # of the last layer, one channel
    reached = np.asarray(run(ours, image))
    assert np.abs(reached[0] - reached[1]).argmax() == 5


@pytest.mark.parametrize("shape", [(20, 30), (32, 32), (224, 224), (17, 200), (28, 28)])
def test_images_are_resized_as_pillow_does_bit_for_bit(shape):
    image = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.uint8)
    found = np.asarray(bicubic.pillow(image, 28))
    expected = np.stack(
        [Image.fromarray(one).resize((28, 28), Image.Resampling.BICUBIC) for one in image]
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    prepared = dinov2.prepare(image, 28)
    np.testing.assert_allclose(
        prepared, (found / 255 - np.array(dinov2.MEAN)) / np.array(dinov2.STD), atol=1e-5
    )
