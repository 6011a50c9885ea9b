"""Swin blocks against recordings of the originals; properties of stages, encoder and decoder."""

import functools

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import files, load

from evqgan.core.errors import InputError
from evqgan.nn.attention import Attention
from evqgan.nn.windows import WindowBlock, layout, partition, relative_index
from evqgan.tokenizers.swin import (
    Decoder,
    Encoder,
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
    Stage,
    UpsampledConv,
)

pytestmark = pytest.mark.usefixtures("optimized")

close = functools.partial(golden_files.close, tolerance=2e-5)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def init(module, x):
    """Parameters that are all different from 0 and 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), shapes)


def apply(module, params, *x, **keys):
    return jax.jit(lambda params, *x: module.apply({"params": params}, *x, **keys))(params, *x)


class Recording:
    """A recording, its weights under our names, and its inputs as maps."""

    def __init__(self, path):
        self.config, self.weights, self.inputs, self.outputs = load(path)
        self.sides = self.config["resolution"]
        self.heads, self.depth = self.config["heads"], self.config["depth"]
        self.x = self.inputs["x"].reshape(-1, *self.sides, self.config["dim"])

    def norm(self, name):
        return {"scale": self.weights[f"{name}.weight"], "bias": self.weights[f"{name}.bias"]}

    def dense(self, name):
        bias = {"bias": self.weights[f"{name}.bias"]} if f"{name}.bias" in self.weights else {}
        return {"kernel": self.weights[f"{name}.weight"].T, **bias}

    def attention(self, name):
        qkv, width = self.dense(f"{name}.qkv"), self.config["dim"]
        heads = {
            k: v.reshape(*v.shape[:-1], 3, self.heads, width // self.heads) for k, v in qkv.items()
        }
        out = self.dense(f"{name}.proj")
        return {
            "query": {k: v[..., 0, :, :] for k, v in heads.items()},
            "key_value": {k: v[..., 1:, :, :] for k, v in heads.items()},
            "out": {**out, "kernel": out["kernel"].reshape(self.heads, -1, width)},
        }

    def block(self, name):
        return {
            "relative_bias": self.weights[f"{name}.attn.relative_position_bias_table"],
            "attention": self.attention(f"{name}.attn"),
            "norm1": self.norm(f"{name}.norm1"),
            "norm2": self.norm(f"{name}.norm2"),
            "mlp": {"hidden": self.dense(f"{name}.mlp.fc1"), "out": self.dense(f"{name}.mlp.fc2")},
        }

    def stage(self, name):
        """The parameters of a `Stage` of the blocks under `name`."""
        blocks = [self.block(f"{name}.blocks.{i}") for i in range(self.depth)]
        whole = self.depth - self.depth % 2
        stacked = {
            kind: jax.tree.map(lambda *x: np.stack(x), *blocks[start:whole:2])
            for start, kind in enumerate(("plain", "shifted"))
            if whole
        }
        return {
            **({"pairs": stacked} if whole else {}),
            **({"last": blocks[-1]} if self.depth % 2 else {}),
        }

    def window(self, name):
        return (
            round(len(self.weights[f"{name}.attn.relative_position_bias_table"]) ** 0.5) + 1
        ) // 2

    def keys(self, name):
        return {
            "heads": self.heads,
            "window": self.window(name),
            "qkv_bias": self.config["qkv_bias"],
        }


@pytest.fixture(scope="module", params=files("swin_blocks*.npz"), ids=lambda path: path.stem)
def recording(request):
    return Recording(request.param)


def tokens(x):
    return np.asarray(x).reshape(len(x), -1, x.shape[-1])


def test_every_recorded_output_is_compared(recording):
    compared = (
        {f"block{i}" for i in range(recording.depth)}
        | {"grad_x_of_sumsq", "grad_relbias0", "windows0", "attn0_windows", "shift_mask1"}
        | {"relative_position_index", "small_block", "layer_up"}
        | {"patch_merging", "patch_embed", "patch_expand", "final_expand_x4"}
    )
    assert set(recording.outputs) <= compared, (
        "outputs that no test here compares: build what they record"
    )


def test_blocks_equal_the_originals(recording):
    x = recording.x
    for i in range(recording.depth):
        name = f"layer.blocks.{i}"
        block = WindowBlock(shifted=i % 2 == 1, **recording.keys(name))
        x = apply(block, recording.block(name), x)
        close(tokens(x), recording.outputs[f"block{i}"])


def test_window_attention_equals_the_original(recording):
    name = "layer.blocks.0"
    size = (recording.window(name),) * 2
    index = relative_index(size, size[0])
    np.testing.assert_array_equal(index, recording.outputs["relative_position_index"])
    x = apply(nn.LayerNorm(1e-5), recording.norm(f"{name}.norm1"), recording.x)
    windows = np.asarray(partition(x, size)).reshape(recording.outputs["windows0"].shape)
    close(windows, recording.outputs["windows0"])
    bias = recording.block(name)["relative_bias"][index].transpose(2, 0, 1)
    attention = Attention(recording.heads, qkv_bias=recording.config["qkv_bias"])
    ours, _ = apply(attention, recording.attention(f"{name}.attn"), windows, bias=bias)
    close(ours, recording.outputs["attn0_windows"])


def test_shift_mask_equals_the_original(recording):
    if "shift_mask1" not in recording.outputs:
        assert min(recording.sides) <= recording.window("layer.blocks.0") or recording.depth < 2
        return
    mask = layout(*recording.sides, recording.window("layer.blocks.1"), shifted=True).mask
    np.testing.assert_array_equal(mask, recording.outputs["shift_mask1"] == 0)


def test_stage_and_its_gradients_equal_the_original(recording):
    stage = Stage(recording.depth, **recording.keys("layer.blocks.0"))
    params = recording.stage("layer")

    def loss(params, x):
        y = stage.apply({"params": params}, x)
        return jnp.sum(jnp.square(y)), y

    (_, y), (grads, grad_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        params, recording.x
    )
    close(tokens(y), recording.outputs[f"block{recording.depth - 1}"])
    close(tokens(grad_x), recording.outputs["grad_x_of_sumsq"], tolerance=2e-4)
    first = (
        grads["pairs"]["plain"]["relative_bias"][0]
        if recording.depth > 1
        else grads["last"]["relative_bias"]
    )
    close(first, recording.outputs["grad_relbias0"], tolerance=2e-4)


def test_a_map_not_larger_than_the_window_equals_the_original(recording):
    window, params = recording.window("small"), recording.block("small")
    x = recording.inputs["x_small"].reshape(-1, window, window, recording.config["dim"])
    block = WindowBlock(shifted=True, **recording.keys("small"))
    close(tokens(apply(block, params, x)), recording.outputs["small_block"])
    # The same block with a larger window: its larger table holds these offsets in its middle.
    table = params["relative_bias"].reshape(2 * window - 1, 2 * window - 1, -1)
    table = np.pad(table, ((2, 2), (2, 2), (0, 0)), constant_values=9.0).reshape(
        -1, recording.heads
    )
    larger = WindowBlock(shifted=True, **{**recording.keys("small"), "window": window + 2})
    y = apply(larger, {**params, "relative_bias": table}, x)
    close(tokens(y), recording.outputs["small_block"])


def test_patch_layers_equal_the_originals(recording):
    weights, width = recording.weights, recording.config["dim"]
    x = recording.inputs["x_merge"].reshape(-1, *recording.config["merge_resolution"], width)
    params = {"norm": recording.norm("merge.norm"), "linear": recording.dense("merge.reduction")}
    close(tokens(apply(PatchMerging(), params, x)), recording.outputs["patch_merging"])

    kernel = weights["embed.proj.weight"]  # [c,3,patch,patch]
    linear = {
        "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)),
        "bias": weights["embed.proj.bias"],
    }
    embed = PatchEmbedding(len(kernel), kernel.shape[-1])
    params = {"norm": recording.norm("embed.norm"), "linear": linear}
    image = recording.inputs["img"].transpose(0, 2, 3, 1)
    close(tokens(apply(embed, params, image)), recording.outputs["patch_embed"])

    for name, scale, output in (("expand", 2, "patch_expand"), ("final4", 4, "final_expand_x4")):
        params = {
            "norm": recording.norm(f"{name}.norm"),
            "linear": recording.dense(f"{name}.expand"),
        }
        layer = PatchExpanding(len(params["norm"]["scale"]), scale)
        close(tokens(apply(layer, params, recording.x)), recording.outputs[output])

    x = apply(
        Stage(recording.depth, **recording.keys("layer_up.blocks.0")),
        recording.stage("layer_up"),
        recording.x,
    )
    params = {
        "norm": recording.norm("layer_up.upsample.norm"),
        "linear": recording.dense("layer_up.upsample.expand"),
    }
    layer = PatchExpanding(len(params["norm"]["scale"]))
    close(tokens(apply(layer, params, x)), recording.outputs["layer_up"])


@pytest.mark.parametrize("depth", [1, 4, 5])
def test_scan_equals_blocks_one_by_one(depth):
    x = normal((2, 6, 8, 16))
    stage = Stage(depth, heads=2, window=4)
    params = init(stage, x)["params"]
    y = x
    for i in range(depth - depth % 2):
        one = jax.tree.map(lambda p, i=i: p[i // 2], params["pairs"][("plain", "shifted")[i % 2]])
        y = apply(WindowBlock(2, 4, i % 2 == 1), one, y)
    if depth % 2:
        y = apply(WindowBlock(2, 4), params["last"], y)
    close(apply(stage, params, x), y)


def test_how_blocks_are_compiled_changes_nothing():
    x = normal((1, 8, 8, 16))
    params = init(Stage(4, 2, 4), x)

    def grads(**changes):
        stage = Stage(4, 2, 4, **changes)
        found = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(stage.apply(p, x)))))(params)
        return jax.tree.leaves(found)

    plain = grads()
    for changes in ({"remat": True}, {"unroll": 0, "remat": True}):
        for a, b in zip(plain, grads(**changes), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max())


def test_unroll_reaches_the_loop_of_every_stage():
    x, whole = jnp.zeros((1, 64, 64, 3)), {}
    for unroll in (1, 0):
        coder = Encoder(16, (2, 6), 8, unroll=unroll)
        params = jax.eval_shape(coder.init, jax.random.key(0), x)
        whole[unroll] = str(jax.make_jaxpr(coder.apply)(params, x))
    assert "unroll=3" in whole[0] and "unroll=3" not in whole[1]


def test_program_does_not_grow_with_depth():
    x = normal((1, 8, 8, 16))

    def length(depth):
        stage = Stage(depth, 2, 4)
        params = jax.eval_shape(stage.init, jax.random.key(0), x)
        return len(jax.jit(stage.apply).lower(params, x).as_text())

    assert length(20) < 1.02 * length(4)


def test_upsampled_convolution_equals_its_literal_form():
    layer, x = UpsampledConv(3), normal((2, 3, 5, 4))
    params = init(layer, x)["params"]
    larger = x.repeat(2, axis=1).repeat(2, axis=2)
    axes = ("NHWC", "HWIO", "NHWC")
    literal = jax.lax.conv_general_dilated(
        larger, params["kernel"], (1, 1), "SAME", dimension_numbers=axes
    )
    literal += params["bias"].reshape(1, 1, 1, 3)
    np.testing.assert_allclose(apply(layer, params, x), literal, atol=1e-5)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_factor_and_channels_by_number_of_stages(stages):
    keys = {"width": 8, "head_dim": 4, "depths": (1,) * stages, "window": 4}
    f = 2 * 2**stages
    image = jnp.zeros((1, 2 * f, 3 * f, 3))
    z, _ = jax.eval_shape(Encoder(**keys).init_with_output, jax.random.key(0), image)
    assert Encoder(**keys).factor == Decoder(**keys).factor == f
    assert z.shape == (1, 2, 3, 8 * 2 ** (stages - 1))
    y, variables = jax.eval_shape(Decoder(**keys).init_with_output, jax.random.key(0), z)
    assert y.shape == image.shape
    assert variables["params"]["to_rgb"]["kernel"].shape == (3, 3, 4, 3)


def test_computation_in_bfloat16_keeps_float32_parameters_and_images():
    keys = {"width": 8, "head_dim": 4, "depths": (1,), "window": 4, "dtype": "bfloat16"}
    z, variables = jax.eval_shape(
        Encoder(**keys).init_with_output, jax.random.key(0), jnp.zeros((1, 16, 16, 3))
    )
    assert z.dtype == jnp.bfloat16
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
    assert (
        jax.eval_shape(Decoder(**keys).init_with_output, jax.random.key(0), z)[0].dtype
        == jnp.float32
    )


def test_width_that_heads_do_not_divide():
    with pytest.raises(InputError, match="a multiple of its head_dim, 32, not 48"):
        Encoder(width=48, depths=(1,)).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
