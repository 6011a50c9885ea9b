"""CLIP's image encoder against NumPy, under the names of the public file; CMMD's embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close

from evqgan.convert import clip as convert
from evqgan.convert import frozen
from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.features.clip import Features
from evqgan.nn import clip

SIZES = {"side": 28, "patch": 7, "width": 16, "layers": 2, "heads": 2, "out": 12}
SMALL = clip.Network(**SIZES)


@pytest.fixture(scope="module")
def theirs():
    """Small random weights under the names of the public file, and others that it has."""
    rng, c, v = np.random.default_rng(0), SIZES["width"], "vision_model"
    shapes = {f"{v}.embeddings.class_embedding": (c,), "visual_projection.weight": (12, c)}
    shapes[f"{v}.embeddings.patch_embedding.weight"] = (c, 3, 7, 7)
    shapes[f"{v}.embeddings.position_embedding.weight"] = (17, c)
    norms = [f"{v}.pre_layrnorm", f"{v}.post_layernorm"]
    for i in range(SIZES["layers"]):
        layer = f"{v}.encoder.layers.{i}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        dense = {f"self_attn.{name}_proj": (c, c) for name in ("q", "k", "v", "out")}
        dense |= {"mlp.fc1": (4 * c, c), "mlp.fc2": (c, 4 * c)}
        for name, shape in dense.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    shapes |= {f"{norm}.{kind}": (c,) for norm in norms for kind in ("weight", "bias")}
    shapes |= {"logit_scale": (), "text_model.embeddings.token_embedding.weight": (5, c)}
    shapes |= {"text_projection.weight": (12, c), f"{v}.embeddings.position_ids": (1, 17)}
    return {k: np.float32(rng.normal(0, 0.4, shape)) for k, shape in shapes.items()}


def in_numpy(image, w):
    """The embeddings of images [B,28,28,3], in float64, from the names of the public file."""
    w = {name.removeprefix("vision_model."): np.float64(x) for name, x in w.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    b = len(image)
    patches = image.reshape(b, 4, 7, 4, 7, 3).transpose(0, 1, 3, 5, 2, 4).reshape(b, 16, -1)
    x = patches @ w["embeddings.patch_embedding.weight"].reshape(16, -1).T
    first = np.tile(w["embeddings.class_embedding"], (b, 1, 1))
    x = np.concatenate([first, x], 1) + w["embeddings.position_embedding.weight"]
    x = norm(x, "pre_layrnorm")
    for i in range(2):
        layer = f"encoder.layers.{i}"
        y = norm(x, f"{layer}.layer_norm1")
        q, k, v = (dense(y, f"{layer}.self_attn.{name}_proj") for name in "qkv")
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            logits = np.exp(q[..., h] @ k[..., h].swapaxes(1, 2) / np.sqrt(8))
            heads.append(logits / logits.sum(-1, keepdims=True) @ v[..., h])
        x = x + dense(np.concatenate(heads, -1), f"{layer}.self_attn.out_proj")
        y = dense(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + dense(y / (1 + np.exp(-1.702 * y)), f"{layer}.mlp.fc2")
    return norm(x[:, 0], "post_layernorm") @ w["visual_projection.weight"].T


def test_embeddings_are_those_of_numpy(theirs):
    ours = to_ours(convert.TABLE, theirs, frozen.shapes(SMALL, 28), convert.IGNORED)
    image = np.random.default_rng(1).normal(size=(3, 28, 28, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(SMALL.apply)(ours, image)
    close(found, in_numpy(np.float64(image), theirs), 1e-4)


def test_weights_arrive_and_return_bit_for_bit(theirs):
    like = frozen.shapes(SMALL, 28)
    ours = to_ours(convert.TABLE, theirs, like, convert.IGNORED)
    again = to_theirs(convert.TABLE, ours)
    assert set(theirs) - set(again) == {
        "logit_scale",
        "text_model.embeddings.token_embedding.weight",
        "text_projection.weight",
        "vision_model.embeddings.position_ids",
    }
    for name, x in again.items():
        np.testing.assert_array_equal(x, theirs[name])
    missing = {k: x for k, x in theirs.items() if k != "visual_projection.weight"}
    with pytest.raises(InputError, match="is missing"):
        to_ours(convert.TABLE, missing, like, convert.IGNORED)


def test_the_default_is_vit_l_14_336():
    like = frozen.NETWORKS["clip"].like()
    assert sum(x.size for x in jax.tree.leaves(like)) == 304_293_888
    assert like["params"]["encoder"]["positions"].shape == (577, 1024)


def test_images_are_cropped_normalized_and_their_embeddings_have_length_1(monkeypatch, theirs):
    white = jnp.full((1, 20, 40, 3), 255, jnp.uint8)
    expected = (1 - np.array(clip.MEAN)) / np.array(clip.STD)
    np.testing.assert_allclose(clip.prepare(white, 28)[0, 5, 5], expected, rtol=1e-4)
    striped = white.at[:, :, :10].set(0).at[:, :, 30:].set(0)  # beside the square in the centre
    np.testing.assert_array_equal(clip.prepare(striped, 28), clip.prepare(white, 28))
    weights = to_ours(convert.TABLE, theirs, frozen.shapes(SMALL, 28), convert.IGNORED)
    monkeypatch.setattr(clip, "Network", lambda **keys: SMALL)
    image = np.random.default_rng(2).integers(0, 256, (2, 20, 40, 3)).astype(np.uint8)
    found = jax.jit(Features().apply)({"frozen": {"network": weights}}, image)["pooled"]
    alone = np.asarray(jax.jit(SMALL.apply)(weights, clip.prepare(image, 28)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        found, alone / np.linalg.norm(alone, axis=-1, keepdims=True), rtol=1e-4, atol=1e-6
    )
