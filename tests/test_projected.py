"""Projected GAN's critic against recordings of the original, and what must hold of any critic."""

import functools
import math
import re

import flax
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import projected_gan_table
import pytest
from golden_files import close_but_for_many_kinks, files, load

from evqgan.convert.mapping import to_ours, to_theirs
from evqgan.core.errors import InputError
from evqgan.losses import augment
from evqgan.losses.projected import PRETRAINED, Critic, Head, doubled, init_projections, mix
from evqgan.nn import efficientnet

# Compiles in half the time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = {"im_res": 128, "num_discs": 2, "interp224": False}  # heads of images with 64 pixels
close = functools.partial(golden_files.close, tolerance=1e-4)
IMAGE = np.float32(np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)))


def length(x):
    return np.linalg.norm(np.ravel(x))


def channels_first(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


@functools.cache
def shapes(critic, side=64):
    rngs = {name: jax.random.key(0) for name in ("params", "augment")}
    image, label = jnp.zeros((2, side, side, 3)), jnp.zeros(2, jnp.int32)
    return jax.eval_shape(lambda rngs: critic.init(rngs, image, label, train=True), rngs)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


class Recording:
    """A recording, our critic of its configuration, and its weights under our names."""

    def __init__(self, path):
        self.config, self.weights, inputs, self.outputs = load(path)
        assert not self.config["diffaug"], (
            "with augmentation there is nothing to compare: its draws are not recorded"
        )
        # Not used there.
        keys = {k: v for k, v in self.config["backbone_kwargs"].items() if k != "im_res"}
        keys |= {
            "cond": bool(keys.get("cond")),
            "diffaug": (),
            "interp224": self.config["interp224"],
        }
        if keys["cond"]:
            keys["classes"] = len(self.weights["discriminator.mini_discs.0.embed.weight"])
        self.critic = Critic(**keys)
        self.real, self.fake = (inputs[name].transpose(0, 2, 3, 1) for name in ("real", "fake"))
        self.label = np.int32(inputs["c"].argmax(1))
        self.table = projected_gan_table.table(self.critic)
        like = shapes(self.critic, self.real.shape[1])
        self.variables = to_ours(self.table, self.weights, like, projected_gan_table.IGNORED)


@pytest.fixture(scope="module", params=files("projected_gan_D*.npz"), ids=lambda path: path.stem)
def recording(request):
    return Recording(request.param)


def test_every_recorded_output_is_compared(recording):
    known = (
        {"channels", "resolutions", "interp224_sub"}
        | {"logits_eval_real", "logits_train_fake_1", "logits_train_fake_2", "logits_train_real_3"}
        | {"g_loss", "grad_fake", "d_loss_gen", "d_loss_real", "grad_norm_disc"}
    )
    # The first one: tests of EfficientNet.
    prefixes = ("backbone_layer", "proj", "logits_eval_disc", "after3/")
    rest = {
        name for name in recording.outputs if name not in known and not name.startswith(prefixes)
    }
    assert not rest, "outputs that no test here compares: build what they record"


def test_maps_and_logits_of_evaluation_equal_the_original(recording):
    critic, outputs = recording.critic, recording.outputs

    @jax.jit
    def call(variables, image, label):
        return *critic.apply(variables, image, method="features"), critic.apply(
            variables, image, label
        )

    _, mixed, logits = call(recording.variables, recording.real, recording.label)
    close(logits, outputs["logits_eval_real"])
    start = 0
    for i, widths in enumerate(critic.widths()):
        part = outputs[f"logits_eval_disc{i}"]
        close(logits[:, start : start + part[0].size], part.reshape(len(part), -1))
        assert mixed[i].shape[-1] == outputs["channels"][i]
        # Our heads go down to 8 from what the original takes the resolution for.
        assert outputs["resolutions"][i] == 8 * 2 ** len(widths) or critic.patch
        start += part[0].size
    assert start == logits.shape[1]
    for i, x in enumerate(map(channels_first, mixed)):
        if f"proj{i}_mean" not in outputs:
            assert i >= critic.num_discs
            continue
        close(x.mean((2, 3)), outputs[f"proj{i}_mean"], name=f"proj{i}_mean")
        step = max(x.shape[2] // 8, 1)
        close(x[:1, :, ::step, ::step], outputs[f"proj{i}_sub"], name=f"proj{i}_sub")


def test_resizing_equals_the_original(recording):
    if "interp224_sub" not in recording.outputs:
        return
    resized = jax.image.resize(
        recording.real, (len(recording.real), 224, 224, 3), "bilinear", antialias=False
    )
    expected = recording.outputs["interp224_sub"]
    step = 224 // expected.shape[-1]
    close(channels_first(resized)[:, :, ::step, ::step], expected, tolerance=2e-6)


def test_training_equals_the_original(recording):
    """Its sequence: the generator's forward and backward pass, then the critic's.

    The critic's are on a fake and on a real batch.
    """
    critic, outputs, variables = recording.critic, recording.outputs, recording.variables

    def value(params, image, variables, sign, hinge):
        given = {**variables, "params": params}
        logits, changed = critic.apply(
            given, image, recording.label, train=True, mutable=["batch_stats"]
        )
        signed = sign * logits
        return jnp.mean(jnp.where(hinge, jax.nn.relu(1 + signed), signed)), (logits, changed)

    call = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True), compiler_options=QUICK)

    def step(name, image, variables, sign, hinge):
        (loss, (logits, changed)), grads = call(variables["params"], image, variables, sign, hinge)
        close([loss], outputs[name], name=name)
        return logits, {**variables, **changed}, grads

    fake, real = recording.fake, recording.real
    logits, after1, (_, grad) = step("g_loss", fake, variables, -1.0, False)
    close(logits, outputs["logits_train_fake_1"])
    close_but_for_many_kinks(channels_first(grad), outputs["grad_fake"])
    logits, after2, (of_fake, _) = step("d_loss_gen", fake, after1, 1.0, True)
    close(logits, outputs["logits_train_fake_2"])
    logits, after3, (of_real, _) = step("d_loss_real", real, after2, -1.0, True)
    close(logits, outputs["logits_train_real_3"])
    grads = [
        np.ravel(a + b) for a, b in zip(*map(jax.tree.leaves, (of_fake, of_real)), strict=True)
    ]
    close([length(np.concatenate(grads))], outputs["grad_norm_disc"], tolerance=1e-3)
    theirs = to_theirs(recording.table, after3)
    for name, expected in outputs.items():
        if name.startswith("after3/"):
            close(theirs[name.removeprefix("after3/")], expected, name=name)


def test_weights_go_to_the_original_and_back(recording):
    back = to_theirs(recording.table, recording.variables)
    assert back.keys() == {
        name for name in recording.weights if not name.endswith("num_batches_tracked")
    }
    for name, array in back.items():
        np.testing.assert_array_equal(array, recording.weights[name], err_msg=name)


@pytest.mark.parametrize("cond, trained", [(False, 10_331_328), (True, 12_940_736)])
def test_exact_number_of_parameters(cond, trained):
    variables = shapes(Critic(cond=cond))
    frozen = variables["frozen"]
    assert count(variables["params"]) == trained
    assert count(frozen["projections"]) == 376_768
    assert count(frozen["backbone"]["params"]) == 2_958_848
    assert trained + count(frozen) - count(frozen["backbone"]["batch_stats"]) == (
        16_276_352 if cond else 13_666_944
    )


@pytest.mark.parametrize(
    "shape, logits",
    [
        ((64, 64), 64),
        ((128, 128), 64),
        ((256, 256), 4 * 25),
        ((1024, 1024), 3364),
        ((256, 320), 140),
        ((250, 250), 91),
    ],
)
def test_any_size_from_64_pixels_on(shape, logits):
    critic = Critic()
    y = jax.eval_shape(critic.apply, shapes(critic), jnp.zeros((2, *shape, 3)))
    assert y.shape == (2, logits) and y.dtype == jnp.float32


def filled(shapes):
    """Random variables of moderate size, without the time that a compiled initialization takes."""
    rng = np.random.default_rng(0)

    def fill(path, x):
        noise, name = rng.standard_normal(x.shape), path[-1].key
        if name in ("u", "v"):
            return np.float32(noise / length(noise))
        if name == "kernel":
            return np.float32(noise * math.sqrt(2 / np.prod(x.shape[:-1])))
        return np.float32(0.5 + rng.random(x.shape) if name in ("var", "scale") else 0.1 * noise)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def small():
    """A small critic and its variables."""
    critic = Critic(**SMALL)
    return critic, filled(shapes(critic))


@pytest.fixture(scope="module")
def trained(small):
    """Its training pass as one program.

    (variables, image, key) -> logits, changed variables, gradients.
    """
    critic, _ = small

    def loss(params, frozen, image, stats, key):
        given = {"params": params, "frozen": frozen, "batch_stats": stats}
        logits, changed = critic.apply(
            given, image, train=True, rngs={"augment": key}, mutable=["batch_stats"]
        )
        return jnp.mean(jnp.sin(logits)), (logits, changed)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def call(variables, image, key):
        given = variables["params"], variables["frozen"], image, variables["batch_stats"], key
        grads, (logits, changed) = jax.grad(loss, (0, 1, 2), has_aux=True)(*given)
        return logits, changed, grads

    return call


def test_gradients_reach_the_image_and_the_heads_and_nothing_frozen(small, trained):
    _, _, (params, frozen, image) = trained(small[1], IMAGE, jax.random.key(0))
    assert all(np.all(x == 0) for x in jax.tree.leaves(frozen))
    assert np.all(np.isfinite(image)) and np.mean(image != 0) > 0.5
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        no_effect = jax.tree_util.keystr(path).endswith("['conv']['bias']")  # before batch norm
        assert no_effect or np.abs(x).max() > 0, path


def test_training_augments_and_moves_the_statistics(small, trained):
    critic, variables = small
    logits, changed, _ = trained(variables, IMAGE, jax.random.key(0))
    assert np.any(trained(variables, IMAGE, jax.random.key(1))[0] != logits)
    same = jax.tree.map(np.array_equal, dict(changed["batch_stats"]), variables["batch_stats"])
    last = {f"['head_{i}']['out']['u']" for i in range(2)}  # of length 1, and one number
    kept = {
        jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(same) if x
    }
    assert kept <= last
    with pytest.raises(flax.errors.InvalidRngError, match="augment"):
        jax.eval_shape(lambda v: critic.apply(v, IMAGE, train=True), variables)
    plain = Critic(**SMALL, diffaug=())
    jax.eval_shape(lambda v: plain.apply(v, IMAGE, train=True), variables)  # wants no key


def test_evaluation_draws_nothing_keeps_all_statistics_and_ignores_labels(small):
    critic, variables = small
    apply = jax.jit(lambda variables, *x: critic.apply(variables, *x, mutable=["batch_stats"]))
    logits, changed = apply(variables, IMAGE, np.array([0, 1]))
    assert logits.shape == (2, 1 + 1)
    jax.tree.map(
        np.testing.assert_array_equal, dict(changed["batch_stats"]), variables["batch_stats"]
    )
    swapped, _ = apply(variables, IMAGE[::-1].copy(), np.array([5, 5]))
    close(swapped[::-1], logits)  # no image sees the other one


def test_conditional_heads_see_the_label():
    head = Head((16, 8), False, False, 5, "float32")
    x = np.float32(np.random.default_rng(0).standard_normal((2, 16, 16, 6)))
    labels = [np.array(x, np.int32) for x in ((0, 1), (0, 4))]
    variables = filled(
        jax.eval_shape(lambda key: head.init(key, x, labels[0], False), jax.random.key(0))
    )
    assert variables["params"]["embedding"]["embedding"].shape == (5, 128)
    first, second = (
        jax.jit(head.apply, static_argnums=3)(variables, x, label, False) for label in labels
    )
    assert first.shape == (2, 1, 1)
    np.testing.assert_array_equal(first[0], second[0])
    assert np.all(first[1] != second[1])
    with pytest.raises(InputError, match="cond=True, but there are no labels"):
        jax.eval_shape(Critic(cond=True).apply, shapes(Critic(cond=True)), IMAGE)


def test_projections_follow_the_seed_within_pytorchs_bounds():
    def draw(seed):
        return jax.jit(init_projections, static_argnums=(1, 2, 3))(
            jax.random.key(seed), 64, True, 2
        )

    first, again, other = draw(0), draw(0), draw(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    seen = set()
    for name, layer in first.items():
        bound = 1 / math.sqrt(layer["kernel"].shape[2])
        for x, y in zip(jax.tree.leaves(layer), jax.tree.leaves(other[name]), strict=True):
            assert 0.9 * bound < np.abs(x).max() <= bound and np.any(x != y)
            seen.add(float(x.ravel()[0]))
    assert len(seen) == 16, "each layer has its own draws"


@pytest.mark.parametrize(
    "proj_type, expand, layers, channels",
    [
        (0, True, 0, (24, 40, 112, 320)),
        (1, True, 4, (16, 32, 64, 128)),
        (1, False, 4, (16,) * 4),
        (2, True, 8, (16, 16, 32, 64)),
        (2, False, 8, (16,) * 4),
    ],
)
def test_kinds_of_projection(proj_type, expand, layers, channels):
    projections = jax.eval_shape(
        lambda key: init_projections(key, 16, expand, proj_type), jax.random.key(0)
    )
    assert len(projections) == layers
    maps = [jnp.zeros((1, 64 // 2**i, 64 // 2**i, c)) for i, c in enumerate(efficientnet.CHANNELS)]
    mixed = jax.eval_shape(lambda *x: mix(*x, proj_type, jnp.float32), projections, maps)
    sides = [(128 if proj_type == 2 else 64) // 2**i for i in range(4)]
    assert [x.shape[1:] for x in mixed] == [(n, n, c) for n, c in zip(sides, channels, strict=True)]
    # All heads end at the same resolution: 8, which is less than the first maps' and not more than
    # the last one's.
    widths = Critic(proj_type=proj_type, expand=expand).widths()
    assert [n >> len(w) for n, w in zip(sides, widths, strict=True)] == [8] * 4


@pytest.mark.parametrize(
    "separable, patch", [(False, False), (True, False), (False, True), (True, True)]
)
def test_kinds_of_heads(separable, patch):
    widths = Critic(separable=separable, patch=patch).widths()
    assert [len(w) for w in widths] == ([1, 1, 1, 1] if patch else [4, 3, 2, 1])
    head, x = Head(widths[2], separable, patch, 0, "float32"), jnp.zeros((2, 32, 32, 128))
    logits, variables = jax.eval_shape(
        lambda key: head.init_with_output(key, x, None, True), jax.random.key(0)
    )
    assert logits.shape == ((2, 13, 13) if patch else (2, 5, 5))
    convolutions = {"depthwise", "pointwise"} if separable else {"conv"}
    norms = {"norm", "norm2"} if patch else {"norm"}
    assert variables["params"]["down0"].keys() == convolutions | norms | (
        {"conv2"} if patch else set()
    )


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("axis", [1, 2])
def test_doubling_interpolates_between_the_first_and_the_last(n, axis):
    x = np.float32(np.random.default_rng(0).standard_normal((2, n, n, 3)))
    at = np.linspace(0, n - 1, 2 * n)
    expected = np.apply_along_axis(lambda y: np.interp(at, np.arange(n), y), axis, x)
    np.testing.assert_allclose(doubled(x, axis), expected, atol=1e-6)


def test_maps_of_odd_sides_are_cut_to_the_finer_one():
    maps = [
        jnp.ones((1, side, side + 1, c)) for side, c in ((25, 24), (13, 40), (7, 112), (4, 320))
    ]
    maps = [x[:, :, : -(-26 // 2**i)] for i, x in enumerate(maps)]
    projections = jax.eval_shape(lambda key: init_projections(key, 8, True, 2), jax.random.key(0))
    mixed = jax.eval_shape(lambda *x: mix(*x, 2, jnp.float32), projections, maps)
    assert [x.shape[1] for x in mixed] == [50, 26, 14, 8]


def test_bfloat16_is_for_the_convolutions_alone(small):
    low = Critic(**SMALL, dtype="bfloat16")
    variables = shapes(low)
    assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
    program = str(jax.make_jaxpr(low.apply)(variables, IMAGE))
    convolutions = re.findall(r":(\w+)\[[\d,]+\] = conv_general_dilated", program)
    assert len(convolutions) > 30 and set(convolutions) == {"bf16"}
    assert jax.eval_shape(low.apply, variables, IMAGE).dtype == jnp.float32


def test_heads_in_bfloat16_are_nearly_the_same():
    x = np.float32(np.random.default_rng(0).standard_normal((2, 32, 32, 6)))
    high, low = (Head((16, 8), False, False, 0, dtype) for dtype in ("float32", "bfloat16"))
    variables = filled(
        jax.eval_shape(lambda key: high.init(key, x, None, False), jax.random.key(0))
    )
    expected, logits = (
        jax.jit(head.apply, static_argnums=(2, 3))(variables, x, None, True) for head in (high, low)
    )
    assert logits.dtype == jnp.float32
    close(logits, expected, tolerance=0.05)


def test_small_images_are_enlarged_unless_forbidden():
    critic = Critic()
    features = jax.eval_shape(
        lambda v, image: critic.apply(v, image, method="features"),
        shapes(critic),
        jnp.zeros((1, 223, 300, 3)),
    )
    assert features[0][0].shape[1:3] == (56, 56)
    forbidden = Critic(interp224=False)
    with pytest.raises(
        InputError, match=r"larger images than \[2, 64, 64, 3\]: use interp224=None"
    ):
        shapes(forbidden)
    shapes(forbidden, 128)


def test_pretrained_parts_are_frozen_ones():
    assert PRETRAINED.keys() < shapes(Critic())["frozen"].keys()
    assert Critic().diffaug == augment.POLICY
