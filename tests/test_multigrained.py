"""The multi-grained generator: what attends to what, what is masked, and that nothing leaks."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators import decoding, multigrained

CODES = 23
SMALL = {
    "codes": CODES,
    "latent": (6, 8),
    "window": 2,
    "extend": 1,
    "layers": 2,
    "width": 16,
    "heads": 2,
    "code_width": 6,
}


def model_of(**changes):
    return multigrained.Model(**{**SMALL, "dropout": 0.0, **changes})


@pytest.fixture(scope="module", params=["joint", "prefix"])
def small(request):
    """A small model with parameters large enough to see effects, and inputs for one target an image."""
    model = model_of(attention=request.param, classes=3)

    @jax.jit
    def init():
        params = multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))
        return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), params)

    params = init()
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = multigrained.corrupt(model, ids, jax.random.key(2), "matched", 1)
    inputs["visible"] = jnp.ones_like(inputs["visible"])
    inputs["label"] = jnp.array([1, 2])
    run = jax.jit(lambda params, **inputs: model.apply({"params": params}, **inputs))
    return model, params, inputs, run


def full_size(**changes):
    keys = {"codes": 1024, "latent": (16, 16), "window": 8, "extend": 4, **changes}
    model = multigrained.Model(**keys)
    shapes = jax.eval_shape(lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    "changes, count",
    [
        ({}, 184_143_360),
        ({"classes": 1000}, 184_911_360),
        ({"latent": (32, 32), "classes": 1000}, 185_510_400),
        ({"latent": (64, 64)}, 187_138_560),
    ],
)
def test_full_size_has_the_papers_185_million_parameters(changes, count):
    assert full_size(**changes) == count
    assert 180e6 < count < 190e6  # paper, Table 6: 185 M


def test_layout_is_the_extended_window():
    ring, target = multigrained.layout(6, 8, 2, 1)
    assert ring.shape == (12, 12) and target.shape == (12, 4)
    np.testing.assert_array_equal(target[5], [18, 19, 26, 27])
    np.testing.assert_array_equal(ring[5], [9, 10, 11, 12, 17, 20, 25, 28, 33, 34, 35, 36])
    assert (ring[0] == multigrained.NOWHERE).sum() == 7  # a corner: one row and one column outside


def test_global_token_is_a_convolution_with_kernel_and_stride_of_the_window(small):
    model, params, inputs, _ = small
    name = "global_convolution"
    _, seen = model.apply({"params": params}, **inputs, capture_intermediates=lambda m, _: m.name == name)
    of_blocks = seen["intermediates"][name]["__call__"][0]
    x = params["codes_and_mask"]["embedding"][inputs["ids"]]
    kernel = params[name]["kernel"].reshape(2, 2, 6, 16)
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = expected.reshape(2, 12, 16) + params[name]["bias"][None, None]
    np.testing.assert_allclose(of_blocks, expected, rtol=1e-5, atol=1e-5)


def token_gradient(small, ids):
    """How strongly the logits depend on the embedding of a token that stands only where `ids` has it."""
    model, params, inputs, _ = small
    marker = CODES - 1
    clean = lambda x: jnp.where(x == marker, 0, x)  # noqa: E731
    inputs = {**inputs, "ring": clean(inputs["ring"]), "target": clean(inputs["target"]), "ids": ids}

    def total(row):
        embedding = params["codes_and_mask"]["embedding"].at[marker].set(row)
        changed = {**params, "codes_and_mask": {"embedding": embedding}}
        return jnp.sum(jnp.square(model.apply({"params": changed}, **inputs)))

    return float(jnp.abs(jax.grad(total)(params["codes_and_mask"]["embedding"][marker])).sum())


def test_a_targets_own_tokens_do_not_leak_through_its_global_token(small):
    """By gradient: put a token nowhere but into the target's block of what the globals summarize."""
    model, _, inputs, _ = small
    marker = CODES - 1
    blocks = decoding.blocks_of(jnp.where(inputs["ids"] == marker, 0, inputs["ids"]), 2)
    own = inputs["block"][0, 0]
    only_own = decoding.grid_of(blocks.at[0, own].set(marker), 6, 8, 2)
    only_other = decoding.grid_of(blocks.at[0, (own + 1) % model.blocks].set(marker), 6, 8, 2)
    assert token_gradient(small, only_own) == 0.0
    assert token_gradient(small, only_other) > 1e-4


def test_an_invisible_block_does_not_reach_the_target(small):
    model, params, inputs, run = small
    hidden = (inputs["block"][0, 0] + 5) % model.blocks
    blocks = decoding.blocks_of(inputs["ids"], 2)
    changed = decoding.grid_of(blocks.at[:, hidden].set((blocks[:, hidden] + 1) % CODES), 6, 8, 2)
    visible = inputs["visible"].at[:, :, hidden].set(False)
    before = run(params, **{**inputs, "visible": visible})
    after = run(params, **{**inputs, "visible": visible, "ids": changed})
    np.testing.assert_array_equal(before, after)
    assert np.abs(run(params, **{**inputs, "ids": changed}) - run(params, **inputs)).max() > 1e-4


def test_ring_positions_outside_the_image_are_ignored(small):
    _, params, inputs, run = small
    corner = {**inputs, "block": jnp.zeros((2, 1), jnp.int32)}
    outside = jnp.asarray(multigrained.layout(6, 8, 2, 1)[0][0] == multigrained.NOWHERE)[None, None]
    changed = jnp.where(outside, (inputs["ring"] + 1) % CODES, inputs["ring"])
    np.testing.assert_array_equal(run(params, **corner), run(params, **{**corner, "ring": changed}))
    inside = jnp.where(outside, inputs["ring"], (inputs["ring"] + 1) % CODES)
    assert np.abs(run(params, **corner) - run(params, **{**corner, "ring": inside})).max() > 1e-4


def test_ring_globals_label_and_block_number_all_matter(small):
    model, params, inputs, run = small
    before = run(params, **inputs)
    assert before.shape == (2, 1, 4, CODES) and before.dtype == jnp.float32
    for name, value in {
        "ring": (inputs["ring"] + 1) % CODES,
        "target": (inputs["target"] + 1) % CODES,
        "ids": (inputs["ids"] + 1) % CODES,
        "label": (inputs["label"] + 1) % 3,
        "block": (inputs["block"] + 1) % model.blocks,  # positions say which block is predicted
    }.items():
        assert np.abs(run(params, **{**inputs, name: value}) - before).max() > 1e-4, name


def test_in_prefix_the_context_does_not_depend_on_the_target(small):
    """What makes a cache exact: states of class, globals and ring are the same whatever the target holds."""
    model, params, inputs, _ = small

    def states(target, ring):
        inputs_now = {**inputs, "target": target, "ring": ring}
        _, seen = model.apply(
            {"params": params}, **inputs_now, capture_intermediates=lambda m, _: m.name == "transformer"
        )
        return np.asarray(flax.traverse_util.flatten_dict(seen["intermediates"])["transformer", "__call__"][0])

    base = states(inputs["target"], inputs["ring"])
    other_target = states((inputs["target"] + 1) % CODES, inputs["ring"])
    other_ring = states(inputs["target"], (inputs["ring"] + 1) % CODES)
    context, start_of_ring = base.shape[1] - 4, 1 + model.blocks
    if model.attention == "prefix":
        np.testing.assert_array_equal(base[:, :context], other_target[:, :context])
        np.testing.assert_array_equal(base[:, :start_of_ring], other_ring[:, :start_of_ring])
    else:
        assert (np.abs(base[:, :context] - other_target[:, :context]).max(axis=(0, 2)) > 1e-6).sum() > context // 2
    assert np.abs(base[:, context:] - other_ring[:, context:]).max() > 1e-4


def test_several_targets_equal_one_at_a_time(small):
    model, params, inputs, run = small
    ids, label = inputs["ids"], inputs["label"]
    many, _, _ = multigrained.corrupt(model, ids, jax.random.key(4), "paper", 0)
    together = run(params, **many, label=label)
    for k in (0, 7):
        one = {name: value[:, k : k + 1] for name, value in many.items() if name != "ids"}
        np.testing.assert_allclose(
            run(params, ids=ids, **one, label=label), together[:, k : k + 1], rtol=2e-4, atol=2e-5
        )


def test_matched_masks_are_what_inference_sees():
    model = model_of()
    ids = jax.random.randint(jax.random.key(0), (400, 6, 8), 0, CODES)
    inputs, target, is_masked = multigrained.corrupt(model, ids, jax.random.key(1), "matched", 2)
    visible, block = np.asarray(inputs["visible"]), np.asarray(inputs["block"])
    assert not np.take_along_axis(visible, block[..., None], -1).any()
    assert (block[:, 0] != block[:, 1]).all()
    np.testing.assert_allclose(np.bincount(block.ravel(), minlength=12) / block.size, 1 / 12, atol=0.03)

    # Half of the targets see exactly the blocks before them.
    raster = (visible == (np.arange(12) < block[..., None])).all(-1)
    assert 0.45 < raster.mean() < 0.65
    # Ring tokens follow their block; the target is masked by exactly ceil(gamma n), at least one token.
    ring_index = multigrained.layout(6, 8, 2, 1)[0][block]
    ring_block = (ring_index // 8 // 2) * 4 + ring_index % 8 // 2
    inside = ring_index != multigrained.NOWHERE
    known = np.take_along_axis(visible, ring_block, -1)
    truth = np.take_along_axis(np.asarray(ids).reshape(400, 1, 48), ring_index, -1)
    np.testing.assert_array_equal(np.asarray(inputs["ring"])[inside], np.where(known, truth, CODES)[inside])
    np.testing.assert_array_equal(inputs["target"], np.where(is_masked, CODES, target))
    count = np.asarray(is_masked).sum(-1)
    assert count.min() >= 1
    # ceil(4 cos(pi r / 2)), r uniform: 4 where cos > 3/4, and so on.
    edges = np.arccos(np.array([1, 0.75, 0.5, 0.25, 0])) * 2 / np.pi
    np.testing.assert_allclose(np.bincount(count.ravel(), minlength=5)[:0:-1] / count.size, np.diff(edges), atol=0.05)


def test_paper_masks_are_one_uniform_mask_and_independent_blocks():
    model = model_of()
    ids = jax.random.randint(jax.random.key(0), (300, 6, 8), 0, CODES)
    inputs, target, is_masked = multigrained.corrupt(model, ids, jax.random.key(1), "paper", 0)
    masked = decoding.grid_of(jnp.asarray(is_masked), 6, 8, 2)
    total = np.asarray(masked).sum((1, 2))
    assert total.min() >= 1 and total.max() == 48
    np.testing.assert_allclose(total.mean() / 48, 2 / np.pi, atol=0.05)  # the mean of cos(pi r / 2)
    # The same token is masked in the target and in its neighbours' rings.
    grid = np.where(masked, CODES, np.asarray(decoding.grid_of(target, 6, 8, 2))).reshape(300, 48)
    for block, index in enumerate(multigrained.layout(6, 8, 2, 1)[0]):
        inside = index != multigrained.NOWHERE
        np.testing.assert_array_equal(np.asarray(inputs["ring"])[:, block, inside], grid[:, index[inside]])
    hidden = (~np.asarray(inputs["visible"])).mean(-1)
    assert (np.asarray(inputs["visible"]) == np.asarray(inputs["visible"])[:, :1]).all()
    assert abs(np.corrcoef(hidden[:, 0], total)[0, 1]) < 0.2


def test_loss_is_over_masked_target_tokens_only(small):
    model, params, inputs, _ = small
    ids, label = inputs["ids"][..., None], inputs["label"]
    rng = jax.random.key(3)
    value, metrics = multigrained.loss(model, params, ids, label, rng, targets=0)
    nll, right, masked = multigrained.likelihood(model, params, ids, label, rng, "matched", 0, train=True)
    masked = np.asarray(masked)
    np.testing.assert_allclose(value, np.asarray(nll)[masked].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.asarray(right)[masked].mean(), rtol=1e-5)
    # A wrong answer at a token that is not masked changes nothing: its logits get no gradient.
    assert nll.shape == (2, model.blocks, 4)


def test_some_blocks_estimate_the_loss_of_all(small):
    model, params, inputs, _ = small
    ids, label = jnp.repeat(inputs["ids"], 100, 0), jnp.repeat(inputs["label"], 100)

    def mean(targets, seeds):
        run = jax.jit(lambda key: multigrained.loss(model, params, ids[..., None], label, key, targets=targets)[0])
        return float(np.mean([run(jax.random.key(seed)) for seed in seeds]))

    every, some = mean(0, [0]), mean(2, range(4))
    assert abs(some - every) < 0.1 * every


def test_loss_falls_and_a_pattern_is_learned():
    import optax

    model = model_of(latent=(4, 4), classes=2)
    params = jax.jit(lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    label = jnp.arange(16) % 2
    ids = ((jnp.arange(16)[None] % 3 + 5 * label[:, None]) % CODES).reshape(16, 4, 4, 1)
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, rng):
        (value, _), grads = jax.value_and_grad(
            lambda p: multigrained.loss(model, p, ids, label, rng, targets=2), has_aux=True
        )(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    for i in range(150):
        params, state, value = step(params, state, jax.random.key(i))
    assert value < 0.1
    keys = jax.random.split(jax.random.key(9), 2)
    start, mask, wanted = jnp.zeros_like(ids[:2]), jnp.ones((2, 4, 4), bool), jnp.array([1, 0])
    out = jax.jit(lambda p: multigrained.sample(model, p, start, mask, wanted, keys, steps=4))(params)
    np.testing.assert_array_equal(out, np.asarray(ids)[[1, 0]])


def test_sample_keeps_what_is_known_and_fills_the_rest(small):
    model, params, inputs, _ = small
    ids = inputs["ids"][..., None]
    mask = jnp.zeros((2, 6, 8), bool).at[:, 1:5, 2:7].set(True)
    keys = jax.random.split(jax.random.key(0), 2)
    out = jax.jit(lambda p: multigrained.sample(model, p, ids, mask, inputs["label"], keys, steps=3))(params)
    np.testing.assert_array_equal(np.asarray(out)[~np.asarray(mask)], np.asarray(ids)[~np.asarray(mask)])
    assert ((np.asarray(out) >= 0) & (np.asarray(out) < CODES)).all()


def test_remat_and_jit_change_nothing(small):
    model, params, inputs, run = small
    again = multigrained.Model(**{**SMALL, "dropout": 0.0, "attention": model.attention, "classes": 3, "remat": True})
    grad = lambda m: jax.jit(jax.grad(lambda p: jnp.sum(m.apply({"params": p}, **inputs) ** 2)))(params)  # noqa: E731
    for a, b in zip(jax.tree.leaves(grad(model)), jax.tree.leaves(grad(again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(params, **inputs), model.apply({"params": params}, **inputs), rtol=1e-4, atol=1e-4)


def test_errors_say_what_was_expected():
    with pytest.raises(InputError, match=r"window = 4 does not divide the 6 x 8"):
        model_of(window=4)
    with pytest.raises(InputError, match="'joint' or 'prefix'"):
        model_of(attention="global")
    with pytest.raises(InputError, match="depth 1, not 4"):
        multigrained.single(jnp.zeros((1, 2, 2, 4)))
    with pytest.raises(InputError, match="'matched' or 'paper'"):
        multigrained.corrupt(model_of(), jnp.zeros((1, 6, 8), jnp.int32), jax.random.key(0), "cosine", 1)
