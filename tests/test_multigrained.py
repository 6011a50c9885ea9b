"""The multi-grained generator: what attends to what, that nothing leaks, and that the cache changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core.errors import InputError
from evqgan.generators import decoding, masking, multigrained
from evqgan.generators.blocks import NOWHERE, blocks_of, grid_of, layout

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


def moved(model):
    """Parameters large enough to see effects."""
    params = jax.jit(lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), params)


@pytest.fixture(scope="module", params=[(a, g) for a in ("joint", "prefix") for g in multigrained.GLOBAL_TOKENS], ids=" ".join)
def small(request):
    """A small model, and inputs for one target an image."""
    model = model_of(attention=request.param[0], global_tokens=request.param[1], classes=3)

    params = moved(model)
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = masking.corrupt(model, ids, jax.random.key(2), "raster", 1)
    ring = ids.reshape(2, 1, 48)[:, 0, jnp.asarray(layout(6, 8, 2, 1)[0])[inputs["block"][:, 0]]]
    ring = jnp.stack([ring[i, i] for i in range(2)])[:, None]
    inputs = {**inputs, "grid": ids, "ring": ring, "label": jnp.array([1, 2])}  # all is known but the targets
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
        ({"classes": 1000}, 184_912_128),
        ({"latent": (32, 32), "classes": 1000}, 185_511_168),
        ({"latent": (64, 64)}, 187_138_560),
        ({"latent": (128, 128), "positions": "axes"}, 184_336_896),
    ],
)
def test_full_size_has_the_papers_185_million_parameters(changes, count):
    assert full_size(**changes) == count
    assert 180e6 < count < 190e6  # paper, Table 6: 185 M


def test_global_token_is_a_convolution_with_kernel_and_stride_of_the_window(small):
    model, params, inputs, _ = small
    name = "global_convolution"
    of_blocks = model.bind({"params": params})._summary(blocks_of(inputs["grid"], 2))
    x = params["codes_and_mask"]["embedding"][inputs["grid"]]
    kernel = params[name]["kernel"].reshape(2, 2, 6, 16)
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = expected.reshape(2, 12, 16) + params[name]["bias"][None, None]
    np.testing.assert_allclose(of_blocks, expected, rtol=1e-5, atol=1e-5)


def token_gradient(small, grid):
    """How strongly the logits depend on the embedding of a token that stands only where `grid` has it."""
    model, params, inputs, _ = small
    marker = CODES - 1
    clean = lambda x: jnp.where(x == marker, 0, x)  # noqa: E731
    inputs = {**inputs, "ring": clean(inputs["ring"]), "target": clean(inputs["target"]), "grid": grid}

    def total(row):
        embedding = params["codes_and_mask"]["embedding"].at[marker].set(row)
        changed = {**params, "codes_and_mask": {"embedding": embedding}}
        return jnp.sum(jnp.square(model.apply({"params": changed}, **inputs)))

    return float(jnp.abs(jax.grad(total)(params["codes_and_mask"]["embedding"][marker])).sum())


def test_a_targets_own_tokens_do_not_leak_through_its_global_token(small):
    """By gradient: put a token nowhere but into the target's block of what the globals summarize."""
    model, _, inputs, _ = small
    marker = CODES - 1
    blocks = blocks_of(jnp.where(inputs["grid"] == marker, 0, inputs["grid"]), 2)
    own = inputs["block"][0, 0]
    only_own = grid_of(blocks.at[0, own].set(marker), 6, 8, 2)
    only_other = grid_of(blocks.at[0, (own + 1) % model.blocks].set(marker), 6, 8, 2)
    assert token_gradient(small, only_own) == 0.0
    assert token_gradient(small, only_other) > 1e-4


def test_ring_positions_outside_the_image_are_ignored(small):
    _, params, inputs, run = small
    corner = {**inputs, "block": jnp.zeros((2, 1), jnp.int32)}
    outside = jnp.asarray(layout(6, 8, 2, 1)[0][0] == NOWHERE)[None, None]
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
        "grid": (inputs["grid"] + 1) % CODES,
        "label": (inputs["label"] + 1) % 3,
        "block": (inputs["block"] + 1) % model.blocks,  # positions say which block is predicted
    }.items():
        assert np.abs(run(params, **{**inputs, name: value}) - before).max() > 1e-4, name


@pytest.mark.parametrize("own", multigrained.OWN)
def test_cached_logits_are_the_uncached_ones(own):
    """To the last bit: the same operations on the same numbers, for one block as for the several of a wavefront."""
    model = model_of(own=own, classes=3)
    params = moved(model)
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    label = jnp.array([1, 3])  # 3: no class
    for number in (1, 3):
        inputs, _, _ = masking.corrupt(model, ids, jax.random.key(number), "matched", number)
        whole = jax.jit(lambda p, i=inputs: model.apply({"params": p}, **i, label=label))(params)
        known = {name: inputs[name] for name in ("grid", "ring", "block")}
        cache = jax.jit(lambda p, k=known: model.apply({"params": p}, **k, label=label, method="context"))(params)
        for _ in range(2):  # the cache serves step after step
            after = jax.jit(
                lambda p, c, i=inputs: model.apply({"params": p}, c, i["target"], i["block"], method="continued")
            )(params, cache)
            np.testing.assert_array_equal(after, whole)


@pytest.mark.parametrize("positions", ["grid", "axes"])
def test_the_same_tokens_in_another_block_have_other_logits(positions):
    """Positions say which block is predicted: neither row nor column alone."""
    model = model_of(positions=positions, extend=0)
    params, run = moved(model), jax.jit(lambda p, **i: model.apply({"params": p}, **i))
    same = {"grid": jnp.full((1, 6, 8), CODES), "ring": jnp.zeros((1, 12, 0), jnp.int32)}
    target = jnp.full((1, 12, 4), CODES)
    logits = run(params, **same, target=target, block=jnp.arange(12)[None])[0]
    apart = jnp.abs(logits[:, None] - logits[None]).max(axis=(2, 3)) + jnp.eye(12)
    assert apart.min() > 1e-4


def test_the_cached_context_does_not_depend_on_the_target(small):
    """Of "prefix" by gradient; "joint" has no such context: there the target's tokens change what surrounds them."""
    model, params, inputs, _ = small

    def context_states(embedding, only_target):
        """The last layer's input of the groups to the left, with one token's embedding changed in the target."""
        marker = CODES - 1
        clean = lambda x: jnp.where(x == marker, 0, x)  # noqa: E731
        now = {name: clean(inputs[name]) for name in ("grid", "ring", "target")}
        now["target"] = jnp.full_like(now["target"], marker) if only_target else now["target"]
        changed = params["codes_and_mask"]["embedding"].at[marker].set(embedding)
        bound = {"params": {**params, "codes_and_mask": {"embedding": changed}}}
        _, seen = model.apply(bound, **{**inputs, **now}, capture_intermediates=lambda m, _: m.name == "transformer")
        groups, _ = seen["intermediates"]["transformer"]["__call__"][0]
        left = groups[:-1] if model.attention == "prefix" else [groups[0][:, :, :-4]]
        return sum(jnp.sum(jnp.sin(x)) for x in left)

    gradient = jax.grad(context_states)(jnp.ones(6), True)
    assert np.all(np.asarray(gradient) == 0) == (model.attention == "prefix")


@pytest.mark.parametrize("attention", ["joint", "prefix"])
@pytest.mark.parametrize("own", ["dropped", "partial"])
def test_variants_of_the_own_global_token_do_not_leak_and_say_what_they_say(attention, own):
    model = model_of(attention=attention, own=own)
    params, masked = moved(model), moved(model_of(attention=attention))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, masked)  # equal parameters
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = masking.corrupt(model, ids, jax.random.key(0), "raster", 1)
    run = jax.jit(lambda p, **i: model.apply({"params": p}, **i))
    logits = run(params, **inputs)
    blocks = blocks_of(inputs["grid"], 2)
    own_block = jnp.arange(12)[None, :, None] == inputs["block"][..., None]
    revealed = grid_of(jnp.where(own_block, (blocks + 1) % CODES, blocks), 6, 8, 2)
    np.testing.assert_array_equal(run(params, **{**inputs, "grid": revealed}), logits)
    same = model_of(attention=attention).apply({"params": params}, **inputs)
    assert np.abs(same - logits).max() > 1e-4


@pytest.mark.parametrize("attention", ["joint", "prefix"])
def test_sampling_sees_what_the_uncached_model_says(attention):
    """Every step's logits in `sample` are `Model.__call__`'s for the grid as it stands, whatever was cached."""
    model = model_of(attention=attention, classes=3)
    params, label, keys = moved(model), jnp.array([1, 0]), jax.random.split(jax.random.key(0), 2)
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8, 1), 0, CODES)
    mask = jnp.zeros((2, 6, 8), bool).at[:, 2:5, 3:8].set(True)
    out = jax.jit(lambda p: multigrained.sample(model, p, ids, mask, label, keys, steps=3))(params)
    uncached = jax.jit(lambda p: plain_sample(model, p, ids[..., 0], mask, label, keys))(params)
    np.testing.assert_array_equal(out[..., 0], uncached)


def plain_sample(model, params, ids, mask, label, keys):
    """Block by block without any cache: the model is run on the whole context for every logit."""
    ring_index = jnp.asarray(layout(6, 8, 2, 1)[0])

    def context(grid, blocks):
        block = jnp.broadcast_to(blocks[None], (2, 1))
        ring = grid.reshape(2, 1, 48)[:, 0, ring_index[blocks]]
        return lambda tokens: model.apply(
            {"params": params}, grid=grid, ring=ring, target=tokens[:, None], block=block, label=label
        )[:, 0]

    return decoding.block_by_block(context, ids, mask, keys, window=2, extend=1, codes=CODES, steps=3)


def test_guidance_is_the_difference_of_two_samplers_logits_and_needs_class_dropout():
    model = model_of(classes=3, class_dropout=0.2)
    params, label = moved(model), jnp.array([1, 0])
    keys, ids = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 6, 8, 1), jnp.int32)
    mask = jnp.ones((2, 6, 8), bool)
    run = jax.jit(
        lambda p, **k: multigrained.sample(model, p, ids, mask, label, keys, steps=2, **k), static_argnames="guidance"
    )
    plain, much = run(params), run(params, guidance=5.0)
    assert (plain != much).any() and ((np.asarray(much) >= 0) & (np.asarray(much) < CODES)).all()
    with pytest.raises(InputError, match=r"without generator\.class_dropout"):
        multigrained.sample(model_of(classes=3), params, ids, mask, label, keys, guidance=1.0)


def test_class_dropout_trains_the_row_without_a_class():
    ids, label = jax.random.randint(jax.random.key(1), (8, 6, 8, 1), 0, CODES), jnp.zeros(8, jnp.int32)

    def gradient(share):
        model = model_of(classes=3, class_dropout=share)
        grads = jax.jit(jax.grad(lambda p: multigrained.loss(model, p, ids, label, jax.random.key(0))[0]))(moved(model))
        return np.abs(grads["label"]["embedding"]).sum(axis=1) > 0

    assert gradient(0.0).tolist() == [True, False, False, False]
    assert gradient(0.5).tolist() == [True, False, False, True]


def test_every_order_and_setting_gives_codes_of_the_codebook():
    model = model_of(classes=3)
    params = moved(model)
    ids, mask = jnp.zeros((2, 6, 8, 1), jnp.int32), jnp.ones((2, 6, 8), bool)
    keys, label = jax.random.split(jax.random.key(0), 2), jnp.array([0, 2])
    for keywords in ({"order": "wavefront"}, {"top_k": 3, "top_p": 0.5, "final_temperature": 0.1, "schedule": "exp"}):
        run = jax.jit(lambda p, k=keywords: multigrained.sample(model, p, ids, mask, label, keys, steps=2, **k))
        out = np.asarray(run(params))
        assert out.shape == ids.shape and ((out >= 0) & (out < CODES)).all()
    states = np.asarray(multigrained.sample(model, params, ids, mask, label, keys, steps=2, trace=True))
    assert states.shape == (12, 2, 6, 8, 1) and (states[0] == CODES).sum() == 2 * 44


def test_several_targets_equal_one_at_a_time(small):
    model, params, inputs, run = small
    ids, label = inputs["grid"], inputs["label"]
    many, _, _ = masking.corrupt(model, ids, jax.random.key(4), "paper", 4)
    together = run(params, **many, label=label)
    blocks = blocks_of(many["grid"], 2)
    hidden = (jnp.arange(12)[None, :, None] == many["block"][:, None]).any(-1)  # one target hides itself alone
    grid = grid_of(jnp.where(hidden[..., None], CODES, blocks), 6, 8, 2)
    for k in (0, 3):
        one = {name: value[:, k : k + 1] for name, value in many.items() if name != "grid"}
        alone = run(params, grid=grid, **one, label=label)
        np.testing.assert_allclose(alone, together[:, k : k + 1], rtol=2e-4, atol=2e-5)


def test_loss_is_over_masked_target_tokens_only(small):
    model, params, inputs, _ = small
    ids, label = inputs["grid"][..., None], inputs["label"]
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
    ids, label = jnp.repeat(inputs["grid"], 100, 0), jnp.repeat(inputs["label"], 100)

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
    ids = inputs["grid"][..., None]
    mask = jnp.zeros((2, 6, 8), bool).at[:, 1:5, 2:7].set(True)
    keys = jax.random.split(jax.random.key(0), 2)
    out = jax.jit(lambda p: multigrained.sample(model, p, ids, mask, inputs["label"], keys, steps=3))(params)
    np.testing.assert_array_equal(np.asarray(out)[~np.asarray(mask)], np.asarray(ids)[~np.asarray(mask)])
    assert ((np.asarray(out) >= 0) & (np.asarray(out) < CODES)).all()


def test_remat_chunks_and_jit_change_nothing(small):
    model, params, inputs, run = small
    inputs, _, _ = masking.corrupt(model, inputs["grid"], jax.random.key(4), "matched", 4)
    inputs["label"] = jnp.array([1, 2])
    again = model.clone(remat=True, chunk=3)  # 3 does not divide 4: two at a time
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
    with pytest.raises(InputError, match="masked, dropped, partial"):
        model_of(own="seen")
    with pytest.raises(InputError, match="0 without classes, not 0.1"):
        model_of(class_dropout=0.1)
    with pytest.raises(InputError, match="'grid' or 'axes'"):
        model_of(positions="rows")
