"""The multi-grained generator: what attends to what. Nothing leaks.

The cache changes nothing.
"""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import large_weights
import numpy as np
import pytest
from test_block_decoding import FromContext

from evqgan.core.errors import InputError
from evqgan.generators import Request, masking, multigrained
from evqgan.generators.block_decoding import block_by_block
from evqgan.generators.blocks import (
    NOWHERE,
    Layout,
    blocks_of,
    grid_of,
    ring_and_target,
    step_of_block,
)
from evqgan.generators.multigrained_network import OwnGlobal

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
    "global_tokens": "ordered",
}


def model_of(**changes):
    return multigrained.Model(**{**SMALL, "dropout": 0.0, **changes})


@functools.cache
def moved(model):
    """Parameters large enough to see effects."""
    return large_weights.drawn(
        jax.eval_shape(lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    )


# Compiled whole: operation by operation takes many small compilations.
corrupt = jax.jit(masking.corrupt, static_argnums=(0, 3, 4))
apply = jax.jit(
    lambda model, params, inputs: model.apply({"params": params}, **inputs), static_argnums=0
)


KINDS = [("joint", "masked"), ("prefix", "masked"), ("prefix", "ordered")]
# For what is the same program text in all kinds: that of our configs always, the others slow.
ONE_QUICK = pytest.mark.parametrize(
    "small",
    [*(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:-1]), KINDS[-1]],
    indirect=True,
    ids=" ".join,
)


@pytest.fixture(scope="module", params=KINDS, ids=" ".join)
def small(request):
    """A small model, and inputs for one target an image: all is known but the targets."""
    model = model_of(attention=request.param[0], global_tokens=request.param[1], classes=3)
    params = moved(model)
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = corrupt(model, ids, jax.random.key(2), "raster", 1)
    block = jnp.array([[5], [7]])
    ring = jnp.stack(
        [
            ids[i].reshape(-1)[jnp.asarray(ring_and_target(6, 8, 2, 1)[0])[block[i]]]
            for i in range(2)
        ]
    )
    inputs = {
        **inputs,
        "grid": ids[:, None],
        "block": block,
        "ring": ring,
        "label": jnp.array([1, 2]),
    }
    run = jax.jit(lambda params, **inputs: model.apply({"params": params}, **inputs))
    return model, params, inputs, run


def full_size(**changes):
    keys = {"codes": 1024, "latent": (16, 16), "window": 8, "extend": 4, **changes}
    model = multigrained.Model(**keys)
    shapes = jax.eval_shape(
        lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))
    )
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
    of_blocks = model.bind({"params": params})._summary(blocks_of(inputs["grid"][:, 0], 2))
    x = params["codes_and_mask"]["embedding"][inputs["grid"][:, 0]]
    kernel = params[name]["kernel"].reshape(2, 2, 6, 16)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = expected.reshape(2, 12, 16) + params[name]["bias"][None, None]
    np.testing.assert_allclose(of_blocks, expected, rtol=1e-5, atol=1e-5)


def token_gradient(small):
    """grid -> how much the logits depend on the embedding of a token that is nowhere but there."""
    model, params, inputs, _ = small
    marker = CODES - 1
    clean = lambda x: jnp.where(x == marker, 0, x)  # noqa: E731
    inputs = {**inputs, "ring": clean(inputs["ring"]), "target": clean(inputs["target"])}

    def total(row, grid):
        embedding = params["codes_and_mask"]["embedding"].at[marker].set(row)
        changed = {**params, "codes_and_mask": {"embedding": embedding}}
        return jnp.sum(jnp.square(model.apply({"params": changed}, **{**inputs, "grid": grid})))

    gradient = jax.jit(jax.grad(total))
    row = params["codes_and_mask"]["embedding"][marker]
    return lambda grid: float(jnp.abs(gradient(row, grid)).sum())


def test_a_target_sees_no_global_of_its_own_block_and_of_none_after_it(small):
    """By gradient: put a token nowhere but into one block of what the globals summarize."""
    model, _, inputs, _ = small
    marker = CODES - 1
    blocks = blocks_of(jnp.where(inputs["grid"] == marker, 0, inputs["grid"])[:, 0], 2)
    gradient = token_gradient(small)

    def sees(block):
        return gradient(grid_of(blocks.at[0, block].set(marker), 6, 8, 2)[:, None])

    own = 5
    assert sees(own) == 0.0 and sees(own - 1) > 1e-4
    assert (sees(own + 1) == 0.0) == (model.global_tokens == "ordered")


def test_an_ordered_global_sees_those_up_to_its_own_step():
    """A wavefront has several blocks a step, and an edit some that were given: rank 0."""
    model = model_of(layers=2)
    params, ids = moved(model), jax.random.randint(jax.random.key(1), (1, 6, 8), 0, CODES)
    rank = jnp.array([[0, 1, 2, 3, 3, 0, 5, 6, 6, 7, 8, 9]])
    run = jax.jit(lambda p, grid: model.apply({"params": p}, grid, rank, method="begin"))
    before = run(params, ids)
    for block in range(12):
        changed = grid_of(blocks_of(ids, 2).at[0, block].add(1), 6, 8, 2) % CODES
        differs = (
            np.abs(np.asarray(run(params, changed) - before)).max(axis=(0, 1, 2, 4, 5, 6)) > 1e-6
        )
        np.testing.assert_array_equal(differs, rank[0] >= rank[0, block])


def test_ring_positions_outside_the_image_are_ignored(small):
    _, params, inputs, run = small
    corner = {**inputs, "block": jnp.zeros((2, 1), jnp.int32)}
    outside = jnp.asarray(ring_and_target(6, 8, 2, 1)[0][0] == NOWHERE)[None, None]
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


@pytest.mark.parametrize(
    "tokens, own",
    [
        ("ordered", "masked"),
        ("ordered", "partial"),
        *(("masked", own) for own in get_args(OwnGlobal)),
    ],
)
def test_cached_logits_are_the_uncached_ones(tokens, own):
    """The same operations on the same numbers, for one block as for several.

    It does not matter whether globals came before.
    """
    model = model_of(global_tokens=tokens, own=own, classes=3)
    params = moved(model)
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    label = jnp.array([1, 3])  # 3: no class
    apply = jax.jit(
        lambda p, *a, method=None, **k: model.apply({"params": p}, *a, method=method, **k),
        static_argnames="method",
    )
    for number in (1, 3) if own == "masked" else (3,):
        inputs, _, _ = corrupt(model, ids, jax.random.key(number), "matched", number)
        whole = apply(params, **inputs, label=label)
        known = {name: value for name, value in inputs.items() if name != "target"} | {
            "label": label
        }
        caches = [apply(params, **known, method="context")]
        if tokens == "ordered":
            pair = apply(params, ids, inputs["rank"], label, method="begin")
            caches.append(apply(params, **known, globals_kv=pair, method="context"))
        for cache in caches:
            after = apply(params, cache, inputs["target"], inputs["block"], method="continued")
            np.testing.assert_allclose(after, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["grid", "axes"])
def test_the_same_tokens_in_another_block_have_other_logits(positions):
    """Positions say which block is predicted: neither row nor column alone."""
    model = model_of(positions=positions, extend=0)
    params, run = moved(model), jax.jit(lambda p, **i: model.apply({"params": p}, **i))
    same = {"grid": jnp.full((1, 1, 6, 8), CODES), "ring": jnp.zeros((1, 12, 0), jnp.int32)}
    same["rank"] = jnp.ones((1, 12), jnp.int32)  # no global is in sight
    target = jnp.full((1, 12, 4), CODES)
    logits = run(params, **same, target=target, block=jnp.arange(12)[None])[0]
    apart = jnp.abs(logits[:, None] - logits[None]).max(axis=(2, 3)) + jnp.eye(12)
    assert apart.min() > 1e-4


def test_the_cached_context_does_not_depend_on_the_target(small):
    """Of "prefix" by gradient.

    "joint" has no such context: there the target's tokens change what surrounds them.
    """
    model, params, inputs, _ = small

    def context_states(embedding, only_target):
        """The last layer's input of the segments to the left.

        One token's embedding is changed in the target.
        """
        marker = CODES - 1
        clean = lambda x: jnp.where(x == marker, 0, x)  # noqa: E731
        now = {name: clean(inputs[name]) for name in ("grid", "ring", "target")}
        now["target"] = jnp.full_like(now["target"], marker) if only_target else now["target"]
        changed = params["codes_and_mask"]["embedding"].at[marker].set(embedding)
        bound = {"params": {**params, "codes_and_mask": {"embedding": changed}}}
        _, seen = model.apply(
            bound, **{**inputs, **now}, capture_intermediates=lambda m, _: m.name == "transformer"
        )
        segments, _ = seen["intermediates"]["transformer"]["__call__"][0]
        left = segments[:-1] if model.attention == "prefix" else [segments[0][:, :, :-4]]
        return sum(jnp.sum(jnp.sin(x)) for x in left)

    gradient = jax.jit(jax.grad(context_states), static_argnums=1)(jnp.ones(6), True)
    assert np.all(np.asarray(gradient) == 0) == (model.attention == "prefix")


@pytest.mark.parametrize("attention", ["joint", "prefix"])
@pytest.mark.parametrize("own", ["dropped", "partial"])
def test_variants_of_the_own_global_token_do_not_leak_and_say_what_they_say(attention, own):
    model = model_of(attention=attention, global_tokens="masked", own=own)
    params, masked = moved(model), moved(model_of(attention=attention))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, masked)  # equal parameters
    ids = jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = corrupt(model, ids, jax.random.key(0), "raster", 1)
    run = jax.jit(lambda p, **i: model.apply({"params": p}, **i))
    logits = run(params, **inputs)
    blocks = blocks_of(inputs["grid"][:, 0], 2)
    own_block = jnp.arange(12)[None, :, None] == inputs["block"][..., None]
    revealed = grid_of(jnp.where(own_block, (blocks + 1) % CODES, blocks), 6, 8, 2)[:, None]
    np.testing.assert_array_equal(run(params, **{**inputs, "grid": revealed}), logits)
    same = apply(model_of(attention=attention, global_tokens="masked"), params, inputs)
    assert np.abs(same - logits).max() > 1e-4


@pytest.mark.parametrize(
    "attention, tokens, order, how",
    [
        ("joint", "masked", "raster", {}),
        ("joint", "masked", "raster", {"unroll": 0}),
        ("joint", "ordered", "wavefront", {}),
        ("prefix", "masked", "wavefront", {}),
        ("prefix", "ordered", "raster", {}),
        ("prefix", "ordered", "raster", {"unroll": 0, "remat": True}),
        ("prefix", "ordered", "wavefront", {}),
    ],
)
def test_sampling_sees_what_the_uncached_model_says(attention, tokens, order, how):
    """Every step's logits in `sample` are `Model.__call__`'s for the grid as it stands.

    This is so whatever was cached, in a loop over layers or without one. In one batch a box, a
    corner and a whole image: blocks that one image generates are given in another.
    """
    model = model_of(attention=attention, global_tokens=tokens, classes=3)
    sampled, request = model.clone(**how), box_and_others()
    settings = multigrained.Settings(steps=3, order=order)
    run = jax.jit(lambda p: multigrained.sample(sampled, p, request, settings).tokens)
    found = np.asarray(run(moved(model)))[..., 0]
    # A draw on a knife's edge of rounding may fall the other way, and all of its image after it.
    assert np.mean(np.all(found == sampled_plainly(model, order), axis=(1, 2))) >= 2 / 3


def box_and_others():
    """A request for a box, a whole image and a corner."""
    ids = jax.random.randint(jax.random.key(1), (3, 6, 8, 1), 0, CODES)
    mask = (
        jnp.zeros((3, 6, 8), bool).at[0, 2:5, 3:8].set(True).at[1].set(True).at[2, :3, :3].set(True)
    )
    return Request(ids, mask, jnp.array([1, 0, 2]), jax.random.split(jax.random.key(0), 3))


@functools.cache
def sampled_plainly(model, order):
    """What `plain_sample` makes of `box_and_others` [3,6,8], once for each model and order."""
    request = box_and_others()
    run = jax.jit(lambda p: plain_sample(model, p, request, order))
    return np.asarray(run(moved(model)))


def test_sampling_has_no_loop_over_layers_where_training_has_none():
    model = model_of(layers=5, classes=3)
    shapes = jax.eval_shape(lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, int)))
    ids, mask = jnp.zeros((1, 6, 8, 1), jnp.int32), jnp.ones((1, 6, 8), bool)
    request = Request(ids, mask, jnp.zeros(1, jnp.int32), jax.random.split(jax.random.key(0), 1))

    def loops(unroll):
        settings, m = multigrained.Settings(steps=3), model.clone(unroll=unroll)
        traced = jax.make_jaxpr(lambda p: multigrained.sample(m, p, request, settings).tokens)
        return str(traced(shapes)).count("length=5")

    assert loops(1) > 0 == loops(0)


def plain_sample(model, params, request, order):
    """Block by block without any cache: the model is run on the whole context for every logit."""
    ids, mask, label, keys = request.ids[..., 0], request.mask, request.label, request.keys
    ring_index = jnp.asarray(ring_and_target(6, 8, 2, 1)[0])
    step = jnp.asarray(step_of_block(6, 8, 2, 1, order))[None]
    rank = masking.rank_blocks(mask, step, 2) if model.global_tokens == "ordered" else None

    def context(_, grid, blocks):
        block = jnp.broadcast_to(blocks[None], (len(ids), len(blocks)))
        known = {
            "grid": grid[:, None],
            "ring": grid.reshape(len(ids), 1, 48)[:, 0, ring_index[blocks]],
            "rank": rank,
        }

        def tokens_to_logits(tokens):
            tokens = tokens.reshape(*block.shape, -1)
            logits = model.apply(
                {"params": params}, **known, target=tokens, block=block, label=label
            )
            return logits.reshape(-1, *logits.shape[2:])

        return tokens_to_logits

    uncached = FromContext(context, model.layout, CODES)
    given = uncached, ids, mask, keys, multigrained.Settings(steps=3)
    return block_by_block(*given, order=order).tokens


def test_guidance_is_the_difference_of_two_samplers_logits_and_needs_class_dropout():
    model = model_of(classes=3, class_dropout=0.2)
    params, label = moved(model), jnp.array([1, 0])
    keys, ids = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 6, 8, 1), jnp.int32)
    request = Request(ids, jnp.ones((2, 6, 8), bool), label, keys)

    @functools.partial(jax.jit, static_argnums=1)
    def run(params, guidance):
        settings = multigrained.Settings(steps=2, guidance=guidance)
        return multigrained.sample(model, params, request, settings).tokens

    plain, much = run(params, 0.0), run(params, 5.0)
    assert (plain != much).any() and ((np.asarray(much) >= 0) & (np.asarray(much) < CODES)).all()
    with pytest.raises(InputError, match=r"without generator\.class_dropout"):
        multigrained.sample(
            model_of(classes=3), params, request, multigrained.Settings(guidance=1.0)
        )


def test_class_dropout_trains_the_row_without_a_class():
    ids = jax.random.randint(jax.random.key(1), (8, 6, 8, 1), 0, CODES)
    label = jnp.zeros(8, jnp.int32)

    def gradient(share):
        model = model_of(classes=3, class_dropout=share)
        grads = jax.jit(
            jax.grad(lambda p: multigrained.loss(model, p, ids, label, jax.random.key(0))[0])
        )(moved(model))
        return np.abs(grads["label"]["embedding"]).sum(axis=1) > 0

    assert gradient(0.0).tolist() == [True, False, False, False]
    assert gradient(0.5).tolist() == [True, False, False, True]


def test_several_targets_equal_one_at_a_time(small):
    """Each target is in a state of its own, whatever other targets its image has."""
    model, params, inputs, run = small
    label = inputs["label"]
    many, _, _ = corrupt(model, inputs["grid"][:, 0], jax.random.key(4), "matched", 4)
    together = run(params, **many, label=label)
    for k in (0, 3):
        one = {
            name: value if name == "rank" else value[:, k : k + 1] for name, value in many.items()
        }
        one["grid"] = many["grid"] if model.global_tokens == "ordered" else one["grid"]
        alone = run(params, **one, label=label)
        np.testing.assert_allclose(alone, together[:, k : k + 1], rtol=2e-4, atol=2e-5)


def test_loss_is_over_masked_target_tokens_only(small):
    model, params, inputs, _ = small
    ids, label = inputs["grid"][:, 0, ..., None], inputs["label"]
    rng = jax.random.key(3)
    value, metrics = jax.jit(lambda p: multigrained.loss(model, p, ids, label, rng, targets=0))(
        params
    )
    likelihood = jax.jit(
        lambda p: multigrained.likelihood(model, p, ids, label, rng, "matched", 0, train=True)
    )
    nll, right, masked = likelihood(params)
    masked = np.asarray(masked)
    np.testing.assert_allclose(value, np.asarray(nll)[masked].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.asarray(right)[masked].mean(), rtol=1e-5)
    # A wrong answer at a token that is not masked changes nothing: its logits get no gradient.
    assert nll.shape == (2, model.blocks, 4)


class OfBlocks:
    """In the place of a model: the likelihood of a block's tokens depends on its number alone."""

    codes, latent, blocks, classes, class_dropout = CODES, (6, 8), 12, 0, 0.0
    layout = Layout(6, 8, window=2, extend=1)

    def __init__(self, global_tokens):
        self.global_tokens = global_tokens

    def apply(self, params, block, target, **_):
        logits = (
            jnp.zeros((*target.shape, CODES)).at[..., 0].set(params["params"][block][..., None])
        )
        return logits


@pytest.mark.parametrize(
    "tokens, masks", [("ordered", "raster"), ("masked", "raster"), ("masked", "paper")]
)
def test_some_blocks_estimate_the_loss_of_all(tokens, masks):
    """Blocks of very unequal losses: the loss of k random ones has the mean of that of all.

    So none comes too often.
    """
    model, ids = OfBlocks(tokens), jnp.zeros((120, 6, 8, 1), jnp.int32)
    of_blocks = -(jnp.arange(12.0) ** 2) / 10
    nll = jax.nn.logsumexp(jnp.zeros((12, CODES)).at[:, 0].set(of_blocks), axis=-1) - of_blocks

    @jax.jit
    def estimates(rng):
        def run(k):
            labels, keys = ids[:, 0, 0, 0], {"masks": masks, "targets": k}
            return multigrained.loss(model, of_blocks, ids, labels, rng, **keys)[0]

        return jnp.stack([run(k) for k in (0, 1, 5)])

    means = np.mean([estimates(jax.random.key(seed)) for seed in range(20)], axis=0)
    # Blocks come equally often, so that only the random numbers of masked tokens make a difference.
    np.testing.assert_allclose(means, nll.mean(), rtol=0.04)


def test_gradients_of_tables_and_of_the_head_survive_bfloat16():
    """[MASK] is taken some 60,000 times a step: a sum in bfloat16 would lose a third."""

    def gradient(dtype):
        keys = {
            "latent": (16, 16),
            "window": 8,
            "extend": 4,
            "layers": 1,
            "codes": 256,
            "code_width": 8,
        }
        model = model_of(**keys, dtype=dtype)
        params = jax.jit(
            lambda: multigrained.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))
        )()
        ids = jax.random.randint(jax.random.key(1), (256, 16, 16, 1), 0, 256)

        def loss(p):
            labels, key = ids[:, 0, 0, 0], jax.random.key(2)
            return multigrained.loss(model, p, ids, labels, key, masks="raster")[0]

        return jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))

    exact, rounded = gradient("float32"), gradient("bfloat16")

    def apart(of):
        return np.linalg.norm(of(rounded) - of(exact)) / np.linalg.norm(of(exact))

    assert apart(lambda g: g["codes_and_mask"]["embedding"][-1]) < 0.02
    assert apart(lambda g: g["logits"]["bias"]) < 0.02
    for name in ("position", "position_global", "kind"):
        assert apart(lambda g, name=name: g[name]) < 0.05, name


def test_logits_are_not_rounded():
    """Sampling draws from float32 numbers: products are bfloat16, sums and the bias are not."""
    model = model_of(dtype="bfloat16", global_tokens="masked")
    inputs, _, _ = corrupt(model, jnp.zeros((2, 6, 8), jnp.int32), jax.random.key(0), "raster", 1)
    logits = np.asarray(apply(model, moved(model), inputs))
    assert (
        logits.dtype == np.float32
        and (np.asarray(logits.astype(jnp.bfloat16), np.float32) != logits).mean() > 0.9
    )


@ONE_QUICK
def test_remat_and_chunks_change_nothing(small):
    model, params, inputs, _ = small
    inputs, _, _ = corrupt(model, inputs["grid"][:, 0], jax.random.key(4), "matched", 4)
    inputs["label"] = jnp.array([1, 2])
    again = model.clone(remat=True, chunk=3)  # 3 does not divide 4: two at a time

    def grad(m):
        of_squares = jax.grad(lambda p: jnp.sum(m.apply({"params": p}, **inputs) ** 2))
        return jax.jit(of_squares)(params)

    for a, b in zip(jax.tree.leaves(grad(model)), jax.tree.leaves(grad(again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@ONE_QUICK
def test_layers_without_a_loop_change_nothing_in_training(small):
    """With dropout, which draws the same; `remat` recomputes there, too."""
    model, params, inputs, _ = small
    inputs, _, _ = corrupt(model, inputs["grid"][:, 0], jax.random.key(4), "matched", 4)
    given = {**inputs, "label": jnp.array([1, 2]), "deterministic": False}

    def grad(**changed):
        m = model.clone(dropout=0.3, **changed)
        rngs = {"dropout": jax.random.key(5)}
        of_squares = jax.grad(lambda p: jnp.sum(m.apply({"params": p}, **given, rngs=rngs) ** 2))
        traced = jax.jit(of_squares).trace(params)
        return str(traced.jaxpr), jax.tree.leaves(traced.lower().compile()(params))

    (loop, expected), (whole, found), (again, recomputed) = (
        grad(),
        grad(unroll=0),
        grad(unroll=0, remat=True),
    )
    assert "unroll=1" in loop and f"unroll={model.layers}" in whole
    assert "prevent_cse=True" in again  # or XLA would keep what is to be computed again
    for a, b, c in zip(expected, found, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)


def test_jit_changes_nothing():
    model = model_of(classes=3)
    params, ids = moved(model), jax.random.randint(jax.random.key(1), (2, 6, 8), 0, CODES)
    inputs, _, _ = corrupt(model, ids, jax.random.key(4), "matched", 4)
    inputs["label"] = jnp.array([1, 2])
    by_operation = model.apply({"params": params}, **inputs)
    np.testing.assert_allclose(apply(model, params, inputs), by_operation, rtol=1e-4, atol=1e-4)


def test_errors_say_what_was_expected():
    with pytest.raises(InputError, match=r"window = 4 does not divide the 6 x 8"):
        model_of(window=4)
    with pytest.raises(InputError, match='is of global_tokens = "masked" alone'):
        model_of(own="dropped")
    with pytest.raises(
        InputError, match=r"class_dropout = 0.1, but the generator has no classes: set it to 0"
    ):
        model_of(class_dropout=0.1)
