"""GPT: parity with the recorded original of VQGAN.

The rest is what a causal generator and its cache must keep.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_files import close, files, load, recorded

from evqgan.convert import gpt as names
from evqgan.convert import mapping
from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.generators import Request, gpt, sliding
from evqgan.generators.sampling import restrict
from evqgan.models import GIVEN_TO_LOSS
from evqgan.nn.linear import in_dtype

CODES = 31  # of the small models


@functools.cache
def recording(path):
    """-> model, our parameters, weights, inputs, outputs of a file."""
    config, weights, inputs, outputs = load(path)
    theirs = dict(config["gpt"])
    unmasked, positions = theirs.pop("n_unmasked", 0), theirs.pop("block_size")
    conditions = max(1, unmasked)  # the first tokens of a sequence of words
    model = gpt.Model(
        codes=theirs.pop("vocab_size"),
        latent=(1, positions - conditions + 1),
        condition_tokens=conditions,
        unmasked=unmasked,
        layers=theirs.pop("n_layer"),
        width=theirs.pop("n_embd"),
        heads=theirs.pop("n_head"),
        positions=positions,
        dropout=theirs.pop("resid_pdrop", 0.0),
        embedding_dropout=theirs.pop("embd_pdrop", 0.0),
        attention_dropout=theirs.pop("attn_pdrop", 0.0),
    )
    assert not theirs, f"{path}: nothing of ours stands for {sorted(theirs)}"
    return (
        model,
        mapping.to_ours(names.TABLE, weights, like(model), names.IGNORED)["params"],
        weights,
        inputs,
        outputs,
    )


def like(model):
    words = jnp.zeros((1, model.conditions), jnp.int32)
    return jax.eval_shape(lambda: {"params": gpt.init(model, jax.random.key(0), words)})


@functools.cache
def whole(path):
    """The model of a file without a cache, compiled."""
    model, params, _, _, _ = recording(path)
    return jax.jit(functools.partial(model.apply, {"params": params}))


@functools.cache
def begun(path, count, step=False):
    """What a cache of `count` words holds; if `step`, logits and the cache one word later."""
    model, params, _, inputs, _ = recording(path)
    shorter = model.clone(
        condition_tokens=count,
        unmasked=min(model.unmasked, count),
        latent=(1, model.positions - count + 1),
    )
    ours, idx = functools.partial(shorter.apply, {"params": params}), inputs["idx"]

    @jax.jit
    def run():
        logits, cache = ours(idx[:, :count], method="begin")
        return ours(cache, idx[:, count], 1, method="step") if step else (logits, cache)

    return run()


@functools.cache
def greedy(path, count, number, cached=False):
    """`count` words of a file and the `number` likeliest ones after them -> [B,count+number].

    If `cached`, only what is given sees what comes after it: what is made changes nothing of that.
    """
    model, params, _, inputs, _ = recording(path)
    words = inputs["idx"][:, :count]
    if cached or model.unmasked <= count:
        model = model.clone(
            unmasked=min(model.unmasked, count), condition_tokens=count, latent=(1, number)
        )
        ids = jnp.zeros((len(words), 1, number, 1), jnp.int32)
        mask = jnp.ones((len(words), 1, number), bool)
        request = Request(ids, mask, words, jax.random.split(jax.random.key(0), len(words)))
        run = jax.jit(lambda p: gpt.sample(model, p, request, gpt.Settings(temperature=0.0)).tokens)
        return np.concatenate([words, run(params)[:, 0, :, 0]], axis=1)
    # What was made changes what the first tokens see: no cache can be right.
    for _ in range(number):
        logits = whole(path)(words[:, :1], words[:, 1:])
        words = np.concatenate([words, np.argmax(logits[:, -1:], axis=-1)], axis=1)
    return words


@functools.cache
def gradients(path):
    model, params, _, inputs, _ = recording(path)

    def value(params):
        logits = model.apply({"params": params}, inputs["idx"][:, :1], inputs["idx"][:, 1:])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, inputs["targets"]))

    value, grads = jax.jit(jax.value_and_grad(value))(params)
    return value, mapping.to_theirs(names.TABLE, {"params": grads})


@pytest.mark.parametrize(
    "path, name", recorded("taming_gpt*.npz"), ids=lambda x: getattr(x, "stem", x)
)
def test_output_is_the_recorded_one(path, name):
    _, _, _, inputs, outputs = recording(path)
    idx, wanted, run = inputs["idx"], outputs[name], whole(path)

    def present(cache, part):
        return jnp.einsum("lbtkhd->lkbhtd", cache["kv"][:, :, part])

    if name in ("logits", "logits_with_embeddings"):
        close(
            run(idx[:, :1], idx[:, 1:], inputs["embeddings"] if "emb" in name else None),
            wanted,
            1e-5,
        )
    elif name == "loss":
        close(gradients(path)[0][None], wanted, 1e-5)
    elif match := re.fullmatch(r"past_(logits|present)_(prefill|step)(\d+)", name):
        what, how, count = match[1], match[2], int(match[3])
        logits, cache = (
            begun(path, count) if how == "prefill" else begun(path, count - 1, step=True)
        )
        if what == "present":
            close(
                present(cache, slice(count) if how == "prefill" else slice(count - 1, count)),
                wanted,
                1e-5,
            )
        elif how == "prefill":
            close(logits, wanted[:, -1], 1e-5)
            close(run(idx[:, :1], idx[:, 1:count]), wanted, 1e-5)
        else:
            close(logits[:, None], wanted, 1e-5)
    elif match := re.fullmatch(r"greedy_sample_prefix(\d+)_steps(\d+)", name):
        np.testing.assert_array_equal(greedy(path, int(match[1]), int(match[2])), wanted)
    elif match := re.fullmatch(r"greedy_sample_with_past_prefix(\d+)_steps(\d+)", name):
        count = int(match[1])
        found = greedy(path, count, int(match[2]), cached=True)
        np.testing.assert_array_equal(found[:, count:], wanted)
    elif name.startswith("greedy_topk"):  # the likeliest is among the k likeliest
        (count,) = {int(m[1]) for x in outputs if (m := re.match(r"greedy_sample_prefix(\d+)", x))}
        np.testing.assert_array_equal(greedy(path, count, wanted.shape[1] - count), wanted)
    elif match := re.fullmatch(r"topk(\d+)_topp(\d)(\d*)_kept", name):
        logits = run(idx[:, :1], idx[:, 1:])[:, -1]
        kept = restrict(logits, int(match[1]), float(f"{match[2]}.{match[3]}")) > -jnp.inf
        np.testing.assert_array_equal(kept, wanted)
    elif match := re.fullmatch(r"grad[_/](.+)", name):
        grads = gradients(path)[1]
        close(grads.get(match[1], grads.get(f"{match[1]}.weight")), wanted, 1e-4)
    else:
        pytest.fail(f"{path}: nothing compares {name}")


@pytest.mark.parametrize("path", files("taming_gpt*.npz"), ids=lambda x: x.stem)
def test_the_way_back_to_their_names_is_exact(path):
    model, params, weights, _, _ = recording(path)
    theirs = mapping.to_theirs(names.TABLE, {"params": params})
    theirs |= names.masks(model.layers, model.positions, model.unmasked)
    buffers = {name for name in theirs if re.fullmatch(names.MASK, name)}
    assert set(theirs) - buffers == {name for name in weights if not re.fullmatch(names.MASK, name)}
    for name, array in weights.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)


@pytest.mark.parametrize("path", files("taming_gpt*.npz"), ids=lambda x: x.stem)
def test_the_config_is_read_from_the_weights(path):
    model, _, weights, _, _ = recording(path)
    for unmasked in (0, 4):
        theirs = weights | names.masks(model.layers, model.positions, unmasked)
        config = names.generator_config(theirs, model.heads, classes=7)
        assert config.pop("name") == "gpt"
        made = gpt.Model(**config, condition_tokens=4, latent=(1, model.positions - 3))
        assert made.unmasked == unmasked
        same = ("codes", "layers", "width", "heads", "mlp_ratio", "positions")
        assert [getattr(made, name) for name in same] == [getattr(model, name) for name in same]
        mapping.to_ours(names.TABLE, theirs, like(made), names.IGNORED)
    if any(re.fullmatch(names.MASK, name) for name in weights):
        assert names.unmasked_of(weights) in (model.unmasked, model.unmasked - 1)  # 1 is as 0
    theirs["blocks.1.attn.mask"] = np.ones_like(theirs["blocks.1.attn.mask"])
    with pytest.raises(InputError, match=r"expected blocks.1.attn.mask to be causal"):
        names.generator_config(theirs, model.heads)


@pytest.mark.parametrize(
    "changes, count",
    [
        # class-ImageNet
        ({"codes": 16384, "classes": 1000, "layers": 48, "width": 1536}, 1_410_640_896),
        ({"codes": 1024, "condition": "coordinates", "positions": 512}, 304_932_864),  # FacesHQ
    ],
)
def test_parameters_are_counted_as_in_the_original(changes, count):
    model = gpt.Model(latent=(16, 16), **changes)
    shapes = jax.eval_shape(lambda: gpt.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


SMALL = {"codes": CODES, "latent": (3, 4), "layers": 2, "width": 16, "heads": 2, "dropout": 0.0}
VIM = {"tables": "separate", "time_shift": True, "activation": "squared_relu"}
VARIANTS = {
    "class": {"classes": 3},
    "unconditional": {},
    "coordinates": {"condition": "coordinates"},
    "vim": {"classes": 3, **VIM},
    "vim_coordinates": {"condition": "coordinates", "unmasked": 12, **VIM},
}


def model_of(variant="class", **changes):
    return gpt.Model(**{**SMALL, **VARIANTS[variant], **changes})


def with_effects(model):
    """Parameters large enough to see effects."""
    params = jax.jit(lambda: gpt.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([x + np.float32(0.5 * rng.standard_normal(x.shape)) for x in leaves])


def compiled(model):
    """`gpt.sample` of a model, compiled once for each temperature."""

    @functools.partial(jax.jit, static_argnames="temperature")
    def run(params, ids, mask, label, keys, temperature=1.0):
        settings = gpt.Settings(temperature=temperature)
        return gpt.sample(model, params, Request(ids, mask, label, keys), settings).tokens

    return run


@pytest.fixture(scope="module", params=VARIANTS)
def small(request):
    return parts(request.param)


@pytest.fixture(scope="module")
def one():
    return parts("class")


@functools.cache
def parts(variant):
    """A small model, parameters, a batch of ids and labels.

    With them come, compiled, logits of all codes, and samples.
    """
    model = model_of(variant)
    ids = jax.random.randint(jax.random.key(1), (2, 3, 4, 1), 0, CODES)

    @jax.jit
    def run(params, ids, label):
        words = gpt.condition_of(model, label, len(ids)), ids.reshape(len(ids), -1)[:, :-1]
        return model.apply({"params": params}, *words, skip=model.conditions - 1)

    return model, with_effects(model), ids, jnp.array([1, 2]), run, compiled(model)


def test_a_code_sees_exactly_those_before_it(small):
    """By gradient, with a word for each token: exactly zero at and after it, never before it."""
    model, params, _, _, run, _ = small
    label = jnp.array([2])
    condition = np.asarray(gpt.condition_of(model, label, 1))[0]
    shared = model.tables == "shared"
    free = np.setdiff1d(np.arange(CODES), condition if shared else [])[: model.tokens]
    assert len(free) == model.tokens
    direction = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, CODES)), jnp.float32)
    jacobian = jax.jit(
        jax.jacrev(lambda p: jnp.sum(run(p, free.reshape(1, 3, 4, 1), label) * direction, (0, 2)))
    )
    grads = jacobian(params)
    seen = np.abs(np.asarray(grads["words"])[:, free]).sum(-1)  # [code,code]
    order = np.arange(model.tokens)
    np.testing.assert_array_equal(seen > 0, order[:, None] > order[None])
    of_condition = grads["words"] if shared else grads["condition_words"]
    assert (np.abs(np.asarray(of_condition)[:, condition]).sum(-1) > 0).all()


def test_cached_logits_equal_uncached_ones(small):
    model, params, ids, label, run, _ = small
    words = ids.reshape(2, -1)

    @jax.jit
    def follow(params):
        place, carry = gpt.cached(model, params, words, label)
        before = jnp.pad(words, ((0, 0), (1, 0)))[:, :-1]
        inputs = jnp.arange(model.tokens), before.T[..., None]
        return jnp.swapaxes(jax.lax.scan(lambda carry, x: place(carry, *x), carry, inputs)[1], 0, 1)

    close(follow(params), np.asarray(run(params, ids, label)), 1e-5)


def test_cached_greedy_samples_equal_uncached_ones(one):
    model, params, ids, label, run, fill = one
    mask = jnp.ones((2, 3, 4), bool).at[0, 0].set(False)
    words, hidden = np.asarray(ids).reshape(2, -1).copy(), np.asarray(mask).reshape(2, -1)
    for n in range(model.tokens):
        made = np.argmax(run(params, words.reshape(ids.shape), label)[:, n], axis=-1)
        words[:, n] = np.where(hidden[:, n], made, words[:, n])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(
        fill(params, ids, mask, label, keys, temperature=0.0).reshape(2, -1), words
    )


@pytest.mark.parametrize("factor, latent", [(16, (16, 16)), (8, (3, 5)), (1, (4, 4))])
def test_coordinates_are_means_over_pixels(factor, latent):
    h, w = (side * factor for side in latent)
    share = np.arange(h * w).reshape(h, w) / (h * w)
    means = share.reshape(latent[0], factor, latent[1], factor).mean((1, 3))
    np.testing.assert_array_equal(sliding.coordinates(latent, factor, 1024), np.round(1024 * means))
    assert sliding.coordinates((30, 30), 1, 100).max() == 99  # not a word that is not there


def by_the_script(at, whole, own=16):
    """Where a place lies in its window, as taming-transformers' sample_conditional.py has it."""
    half = own // 2
    return at if at <= half else own - (whole - at) if whole - at < own - half else half


@pytest.mark.parametrize("latent", [(16, 16), (16, 21), (24, 40)])
def test_windows_lie_as_in_the_original(latent):
    for n in range(0, latent[0] * latent[1], 3):
        (y, x), local = sliding.window_around(n, latent, (16, 16))
        i, j = divmod(n, latent[1])
        assert divmod(int(local), 16) == (by_the_script(i, latent[0]), by_the_script(j, latent[1]))
        assert (y, x) == (i - by_the_script(i, latent[0]), j - by_the_script(j, latent[1]))


def test_a_window_as_large_as_the_grid_changes_nothing(monkeypatch):
    model, params, ids, label, _, fill = parts("vim_coordinates")
    mask = jnp.ones((2, 3, 4), bool).at[0, 0].set(False)
    keys = jax.random.split(jax.random.key(0), 2)
    out = fill(params, ids, mask, label, keys)
    monkeypatch.setattr(gpt, "cached", gpt.slide)
    np.testing.assert_array_equal(
        compiled(model.clone(window=(3, 4)))(params, ids, mask, label, keys), out
    )


@pytest.fixture(scope="module", params=["coordinates", "vim"])
def large(request):
    """A model with a window of 3 x 4 on a grid of 4 x 6, parameters, and its compiled samples."""
    model = model_of(request.param, codes=60, latent=(4, 6), window=(3, 4))
    return model, with_effects(model), compiled(model)


def window_of(n, grid, model):
    """The window of place n, and n's place in it, by the original's rule."""
    (i, j), (h, w) = divmod(n, model.latent[1]), model.window
    local_i, local_j = by_the_script(i, model.latent[0], h), by_the_script(j, model.latent[1], w)
    return grid[
        ..., i - local_i : i - local_i + h, j - local_j : j - local_j + w
    ], local_i * w + local_j


def test_a_code_sees_exactly_those_before_it_in_its_window(large):
    model, params, _ = large
    label = jnp.array([2])
    coords = sliding.coordinates(model.latent, model.factor, 60)
    free = np.setdiff1d(np.arange(60), coords if model.condition == "coordinates" else range(3))[
        :24
    ]
    direction = jnp.asarray(np.random.default_rng(0).standard_normal((1, 60)), jnp.float32)

    @jax.jit
    @jax.grad
    def grad(params, n):
        return jnp.sum(
            gpt.window_logits(model, params, jnp.asarray(free)[None], label, n) * direction
        )

    for n in range(24):
        seen = np.abs(np.asarray(grad(params, n)["words"])[free]).sum(-1) > 0
        inside, local = window_of(n, np.arange(24).reshape(4, 6), model)
        wanted = inside.reshape(-1)[:local]
        assert (wanted < n).all()
        np.testing.assert_array_equal(np.flatnonzero(seen), np.sort(wanted))


def test_sliding_makes_each_code_in_its_window(large):
    model, params, fill = large
    rng = np.random.default_rng(3)
    ids, label = jnp.asarray(rng.integers(0, 60, (2, 4, 6, 1)), jnp.int32), jnp.array([1, 2])
    mask = jnp.ones((2, 4, 6), bool).at[0, :2].set(False)
    keys, hidden = jax.random.split(jax.random.key(0), 2), np.asarray(mask)
    part = model.clone(latent=model.window, window=None)
    run = jax.jit(
        lambda words, codes: part.apply({"params": params}, words, codes, skip=part.conditions - 1)
    )
    grid = np.where(hidden, 0, ids[..., 0])
    coords = sliding.coordinates(model.latent, model.factor, 60)
    for n in range(24):
        inside, local = window_of(n, grid, model)
        words = np.asarray(label)[:, None]
        if model.condition == "coordinates":
            words = np.repeat(window_of(n, coords, model)[0].reshape(1, -1), 2, axis=0)
        made = np.argmax(run(words, inside.reshape(2, -1)[:, :-1])[:, local], axis=-1)
        at = np.index_exp[:, *divmod(n, 6)]
        grid[at] = np.where(hidden[at], made, grid[at])
    np.testing.assert_array_equal(
        fill(params, ids, mask, label, keys, temperature=0.0)[..., 0], grid
    )
    out = fill(params, ids, mask, label, keys)
    np.testing.assert_array_equal(
        fill(params, jnp.where(hidden[..., None], 7, ids), mask, label, keys), out
    )
    assert (np.asarray(out)[..., 0] == np.asarray(ids)[..., 0])[~hidden].all()


def test_training_sees_every_window_with_its_coordinates():
    model, number = model_of("coordinates", codes=60, latent=(4, 6), window=(3, 4)), 100
    params = with_effects(model)
    grid = jnp.arange(24, dtype=jnp.int32).reshape(1, 4, 6, 1).repeat(number, 0)
    predict = jax.jit(functools.partial(gpt.predict, model))
    logits, target = predict(params, grid, jnp.ones(number, jnp.int32), jax.random.key(0))
    assert logits.shape == (number, 12, 60)
    part = model.clone(latent=model.window, window=None)
    found = {}
    for row, words in zip(np.asarray(logits), np.asarray(target), strict=True):
        y, x = corner = divmod(int(words[0]), 6)
        np.testing.assert_array_equal(
            words.reshape(3, 4), np.arange(24).reshape(4, 6)[y : y + 3, x : x + 4]
        )
        found.setdefault(corner, (row, words))
    assert set(found) == set(itertools.product(range(2), range(3)))
    run = jax.jit(
        lambda words, codes: part.apply({"params": params}, words, codes, skip=part.conditions - 1)
    )
    coords = sliding.coordinates(model.latent, model.factor, 60)
    for (y, x), (row, words) in found.items():
        close(run(coords[y : y + 3, x : x + 4].reshape(1, -1), words[None, :-1])[0], row, 1e-5)


def test_loss_is_the_mean_over_codes(one):
    model, params, ids, label, run, _ = one
    loss = jax.jit(functools.partial(gpt.loss, model), static_argnames=("label_smoothing", "pkeep"))
    value, metrics = loss(params, ids, label, jax.random.key(0))
    log_p = np.asarray(jax.nn.log_softmax(run(params, ids, label)))
    target = np.asarray(ids).reshape(2, -1)
    nll = -np.take_along_axis(log_p, target[..., None], -1)[..., 0]
    np.testing.assert_allclose(value, nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (log_p.argmax(-1) == target).mean(), rtol=1e-6)
    smoothed = loss(params, ids, label, jax.random.key(0), label_smoothing=0.1)[0]
    np.testing.assert_allclose(smoothed, 0.9 * nll.mean() - 0.1 * log_p.mean(), rtol=1e-5)
    found = jax.jit(functools.partial(gpt.evaluate, model))(params, ids, label, jax.random.key(0))
    np.testing.assert_allclose(
        found["cross_entropy@next"], [[x, 12] for x in nll.sum(1)], rtol=1e-5
    )
    np.testing.assert_allclose(
        found["accuracy@next"], [[x, 12] for x in (log_p.argmax(-1) == target).sum(1)]
    )


def test_a_share_of_the_codes_is_kept(one):
    (model, params, *_), number = one, 400
    ids, label = jnp.full((number, 3, 4, 1), 7), jnp.ones(number, jnp.int32)
    predict = jax.jit(functools.partial(gpt.predict, model), static_argnames="pkeep")
    right, _ = predict(params, ids, label, jax.random.key(0))
    for pkeep in (0.0, 0.6):
        logits, target = predict(params, ids, label, jax.random.key(0), pkeep=pkeep)
        np.testing.assert_array_equal(target, 7)
        np.testing.assert_allclose(logits[:, 0], right[:, 0], rtol=1e-4, atol=1e-5)
        # Sees the first code alone.
        same = np.isclose(logits[:, 1], right[:, 1], rtol=1e-4, atol=1e-5).all(-1).mean()
        assert abs(same - pkeep - (1 - pkeep) / CODES) < 0.08
    with pytest.raises(InputError, match="config.loss.pkeep expects a number from 0 to 1, got 1.5"):
        build.check(gpt.loss, {"pkeep": 1.5}, "config.loss", GIVEN_TO_LOSS)


def test_each_dropout_is_of_training(one):
    """All in one program; that there is none in evaluation is tested over all generators."""
    model, params, ids, label, _, _ = one
    kinds = "dropout", "embedding_dropout", "attention_dropout"
    models = [model.clone(**dict.fromkeys(kinds, 0.0) | {kind: 0.5}) for kind in kinds]

    @jax.jit
    def run(seed):
        given = params, ids, label, jax.random.key(seed)
        return [gpt.predict(one, *given, train=True)[0] for one in models]

    for a, b in zip(run(0), run(1), strict=True):
        assert (a != b).any()


def test_kernels_cast_once_give_the_same_numbers():
    model, params, ids, label, _, _ = parts("vim")
    model = model.clone(dtype="bfloat16")

    @jax.jit
    def logits(params):
        words = label[:, None], ids.reshape(2, -1)[:, :-1]
        return model.apply({"params": params}, *words)

    kernels = in_dtype(params, "bfloat16")  # as in sampling
    assert {str(x.dtype) for x in jax.tree.leaves(kernels)} == {"float32", "bfloat16"}
    np.testing.assert_array_equal(logits(kernels), logits(params))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"condition": "coordinates"}, r"'coordinates' or a class, but classes = 3: drop one"),
        (
            {"classes": 32},
            r"generator.classes = 32, but the words are 31 codes: .*tables = 'separate'",
        ),
        (
            {"window": (4, 4)},
            r"generator.window = \(4, 4\) is no part of the grid of \(3, 4\) tokens",
        ),
        ({"unmasked": 2}, r"generator.unmasked is 0 to 1, .* not 2: codes must not see later ones"),
        ({"positions": 11}, r"generator.positions = 11: shared tables need 12 or more"),
    ],
)
def test_errors_say_what_was_expected(changes, message):
    with pytest.raises(InputError, match=message):
        model_of(**changes)


def test_what_a_program_gets_wrong_is_told():
    model = model_of()
    with pytest.raises(ValueError, match="needs labels"):
        gpt.condition_of(model, None, 1)
    vim, one = model_of("vim"), jnp.zeros((1, 1), jnp.int32)
    with pytest.raises(ValueError, match="no positions"):
        jax.eval_shape(lambda: vim.init(jax.random.key(0), one, one, jnp.zeros((1, 1, 16))))
