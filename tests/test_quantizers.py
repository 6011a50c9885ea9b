"""Quantizers: what is chosen, which way gradients go, moving averages, revival."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.tokenizers.quantizers import (
    ema,
    gumbel,
    maskgit,
    residual,
    revived,
    vitvqgan,
    vq,
    vqgan,
)
from evqgan.tokenizers.quantizers.codebooks import codebook_statistics
from evqgan.tokenizers.quantizers.revival import replace_dead

SMALL = {"codes": 16, "width": 4}
KINDS = {
    "vq": vq.Quantizer(**SMALL),
    "normalized": vq.Quantizer(**SMALL, l2_normalize=True),
    "ema": ema.Quantizer(**SMALL, decay=0.9),
    "revived": revived.Quantizer(**SMALL, revive=0.5),
    "ema, revived": ema.Quantizer(**SMALL, decay=0.9, revive=0.5),
    "ema, revived by error": ema.Quantizer(**SMALL, decay=0.9, revive=0.5, revive_by="error"),
    "residual": residual.Quantizer(**SMALL, depth=3, decay=0.0),
    "residual, own codebooks": residual.Quantizer(
        **SMALL, depth=3, shared=False, decay=0.9, revive=0.5
    ),
    "gumbel": gumbel.Quantizer(**SMALL),
}
kinds = pytest.mark.parametrize("quantizer", KINDS.values(), ids=KINDS.keys())
vq_kinds = pytest.mark.parametrize("quantizer", list(KINDS.values())[:-1], ids=list(KINDS)[:-1])


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@functools.cache
def first(quantizer, channels):
    return jax.jit(quantizer.init)(jax.random.key(0), jnp.zeros((1, 1, 1, channels)))


@pytest.mark.parametrize(
    ("quantizer", "deviation"),
    [
        (vq.Quantizer(codes=1024, width=32), 1 / 1024 / 3**0.5),  # within +-1/V
        (vq.Quantizer(codes=1024, width=32, l2_normalize=True), 1.0),
        (vitvqgan.Quantizer(codes=1024, width=32), 1.0),
        (maskgit.Quantizer(codes=1024, width=32), 1 / 1024**0.5),  # of variance 1/V
    ],
)
def test_codes_before_training_are_as_long_as_the_originals(quantizer, deviation):
    (codes,) = first(quantizer, 32)["params"].values()
    assert np.std(codes) == pytest.approx(deviation, rel=0.02)


def init(quantizer, z):
    """Variables with the codebook spread like z."""
    variables = jax.tree.map(lambda x: x, first(quantizer, z.shape[-1]))  # a copy
    if "codebook" in variables.get("params", {}):
        variables["params"]["codebook"] = normal(variables["params"]["codebook"].shape, 1)
    else:
        codes = normal(variables["codebook"]["codes"].shape, 1)
        variables["codebook"].update(codes=codes, total=codes)
    return variables


@functools.partial(jax.jit, static_argnums=0)
def evaluate(quantizer, variables, z):
    return quantizer.apply(variables, z)


@functools.partial(jax.jit, static_argnums=0)
def train(quantizer, variables, z, seed=0):
    """Return z_q, ids, aux, variables after the step.

    The parameter, if it is one, is changed by revival alone.
    """
    rngs = {"codebook": jax.random.key(seed)}
    out, changed = quantizer.apply(variables, z, train=True, rngs=rngs, mutable=["codebook"])
    tree = {"quantizer": variables.get("params", {})}
    part = {"params": tree, "ema": tree, "opt": {"mu": tree, "nu": tree}}
    part, changed = replace_dead(part, {"quantizer": changed.get("codebook", {})})
    return *out, {"params": part["params"]["quantizer"], "codebook": changed["quantizer"]}


def codebook(quantizer, variables):
    return np.asarray(quantizer.apply(variables, method="codebook"))


@vq_kinds
def test_each_depth_takes_the_code_nearest_to_what_is_left(quantizer):
    z = normal((2, 3, 5, 4))
    variables = init(quantizer, z)
    z_q, ids, _ = evaluate(quantizer, variables, z)
    assert ids.shape == (2, 3, 5, quantizer.depth) and ids.dtype == jnp.int32
    book, rest = codebook(quantizer, variables), np.asarray(z)
    if getattr(quantizer, "l2_normalize", False):
        rest = rest / np.linalg.norm(rest, axis=-1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(book, axis=-1), 1, rtol=1e-5)
    total = 0
    for d in range(quantizer.depth):
        codes = book[d % len(book)]
        distances = np.sum((rest[..., None, :] - codes) ** 2, axis=-1)
        code = codes[ids[..., d]]
        np.testing.assert_allclose(
            np.sum((rest - code) ** 2, -1), distances.min(-1), rtol=1e-4, atol=1e-5
        )
        total, rest = total + code, rest - code
    np.testing.assert_allclose(z_q, total, atol=1e-6)


@kinds
def test_embed_equals_quantized_bit_for_bit(quantizer):
    z = normal((2, 3, 5, 4))
    variables = init(quantizer, z)
    *_, variables = train(quantizer, variables, z)
    embed = jax.jit(functools.partial(quantizer.apply, method="embed"))
    z_q, ids, _ = evaluate(quantizer, variables, z)
    np.testing.assert_array_equal(embed(variables, ids), z_q)
    z_q, ids, *_ = train(quantizer, variables, z, seed=3)
    np.testing.assert_array_equal(embed(variables, ids), z_q)


@pytest.mark.parametrize("name", ["vq", "ema", "residual", "revived"])
def test_straight_through_is_identity(name):
    z, weight = normal((1, 2, 3, 4)), normal((1, 2, 3, 4), 5)
    variables = init(KINDS[name], z)
    grad = jax.jit(jax.grad(lambda z: jnp.sum(weight * KINDS[name].apply(variables, z)[0])))(z)
    np.testing.assert_allclose(grad, weight, rtol=1e-6)


@pytest.mark.parametrize("name", ["vq", "residual", "ema", "normalized", "revived"])
def test_codebook_learns_from_the_codebook_loss_alone_and_the_encoder_from_the_commitment_loss(
    name,
):
    quantizer, z = KINDS[name], normal((2, 3, 3, 4))
    variables = init(quantizer, z)
    params = variables.get("params", {})

    def grads(term):
        def loss(params, z):
            z_q, _, aux = quantizer.apply({**variables, "params": params}, z)
            return jnp.sum(z_q) if term == "z_q" else aux[term]

        return jax.jit(jax.grad(loss, (0, 1)))(params, z)

    by_codebook, by_commitment = grads("codebook_loss"), grads("commitment_loss")
    assert np.all(by_codebook[1] == 0) and np.any(by_commitment[1] != 0)
    expected = 0.25 * by_commitment[1]
    np.testing.assert_allclose(grads("quantizer_loss")[1], expected, rtol=1e-4, atol=1e-7)
    if params:
        assert np.all(by_commitment[0]["codebook"] == 0) and np.any(by_codebook[0]["codebook"] != 0)
        assert np.all(grads("z_q")[0]["codebook"] == 0)
        total = grads("quantizer_loss")[0]["codebook"]
        np.testing.assert_allclose(total, by_codebook[0]["codebook"], rtol=1e-5)


def test_gradients_equal_the_formula():
    quantizer, z = vq.Quantizer(codes=4, width=2, commitment=0.7), normal((1, 5, 5, 2))
    variables = init(quantizer, z)

    def loss(params, z):
        return quantizer.apply({"params": params}, z)[2]["quantizer_loss"]

    by_params, by_z = jax.jit(jax.grad(loss, (0, 1)))(variables["params"], z)
    codes, ids = codebook(quantizer, variables)[0], evaluate(quantizer, variables, z)[1][..., 0]
    difference = np.asarray(z) - codes[ids]
    np.testing.assert_allclose(by_z, 0.7 * 2 * difference / z.size, rtol=1e-5, atol=1e-7)
    expected = np.stack([-2 * difference[ids == v].sum(axis=0) / z.size for v in range(4)])
    np.testing.assert_allclose(by_params["codebook"][0], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("depth", [1, 2])
def test_moving_average_equals_the_formula(depth):
    """VQ-VAE, appendix A.1, over two steps.

    N = g N + (1 - g) n, m = g m + (1 - g) sum z, e = m / N.
    """
    keys = {"codes": 4, "width": 3, "decay": 0.8}
    quantizer = ema.Quantizer(**keys) if depth == 1 else residual.Quantizer(**keys, depth=depth)
    variables = init(quantizer, normal((1, 1, 1, 3)))
    codes = codebook(quantizer, variables)[0]
    tokens = 4 * 5 * 6 * depth
    # Starts as if every code had been used equally often.
    count, total = np.full(4, tokens / 4), codes * tokens / 4
    for step in range(2):
        z = normal((4, 5, 6, 3), 10 + step)
        rest, n, m = np.asarray(z).reshape(-1, 3), np.zeros(4), np.zeros((4, 3))
        for _ in range(depth):
            ids = np.argmin(np.sum((rest[:, None] - codes[None]) ** 2, axis=-1), axis=-1)
            n += np.bincount(ids, minlength=4)
            np.add.at(m, ids, rest)
            rest = rest - codes[ids]
        count, total = 0.8 * count + 0.2 * n, 0.8 * total + 0.2 * m
        codes = total / count[:, None]
        *_, variables = train(quantizer, variables, z)
        np.testing.assert_allclose(codebook(quantizer, variables)[0], codes, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("train_flag", [False, True])
def test_statistics_change_only_in_training_and_only_if_mutable(train_flag):
    quantizer, z = KINDS["ema, revived"], normal((2, 3, 3, 4))
    variables = init(quantizer, z)
    rngs = {"codebook": jax.random.key(0)}
    # Not mutable: allowed, and nothing is returned.
    quantizer.apply(variables, z, train=True, rngs=rngs)
    _, changed = quantizer.apply(variables, z, train=train_flag, rngs=rngs, mutable=["codebook"])
    same = jax.tree.map(
        lambda a, b: bool(np.all(a == b)), changed["codebook"], variables["codebook"]
    )
    assert all(jax.tree.leaves(same)) != train_flag


@pytest.mark.parametrize(
    "name", ["revived", "ema, revived", "ema, revived by error", "residual, own codebooks"]
)
def test_first_step_seeds_every_code_from_the_batch(name):
    quantizer, z = KINDS[name], normal((4, 5, 5, 4)) + 100  # where no initial code is
    variables = init(quantizer, z)
    _, _, aux, variables = train(quantizer, variables, z)
    book = codebook(quantizer, variables)
    assert aux["revived"] == book.shape[0] * 16
    vectors = np.asarray(z).reshape(-1, 4)
    distance = np.abs(book[0][:, None] - vectors[None]).max(axis=-1)
    np.testing.assert_allclose(distance.min(axis=-1), 0, atol=1e-4)
    assert len(set(distance.argmin(axis=-1).tolist())) == 16  # no vector twice


@pytest.mark.parametrize("module", [revived, ema])
def test_only_unused_codes_are_revived_and_their_statistics_start_anew(module):
    quantizer = module.Quantizer(codes=4, width=2, revive=0.5)
    z = jnp.array([[[[-1.0, 0.0], [1.0, 0.0]] * 8]])
    variables = init(quantizer, z)
    *_, variables = train(quantizer, variables, z)  # seeds
    places = np.array([[-1.0, 0.0], [1.0, 0.0], [50.0, 0.0], [60.0, 0.0]], np.float32)[None]
    state = {**variables["codebook"], "usage": np.array([[1.0, 1.0, 0.51, 0.5]], np.float32)}
    if module is ema:
        variables["codebook"] = {**state, "codes": places, "total": places}
    else:
        variables = {"params": {"codebook": places}, "codebook": state}
    steps = 0
    for step in range(3):
        _, _, aux, variables = train(quantizer, variables, z, seed=step)
        steps += aux["revived"]
        book, usage = codebook(quantizer, variables)[0], variables["codebook"]["usage"][0]
        np.testing.assert_allclose(book[:2], places[0, :2], atol=1e-3)
        assert (np.abs(book[3]) < 1.1).all() and usage[3] > 0.9
        # 0.51 falls below the threshold in the third step at the latest.
        assert (book[2, 0] > 40) == (step == 0)
    assert steps == 2


@pytest.mark.parametrize("module", [revived, ema])
def test_by_error_codes_become_vectors_that_no_code_is_near(module):
    """Fourteen of sixteen vectors lie on a code."""
    quantizer = module.Quantizer(codes=4, width=2, revive=0.5, revive_by="error")
    z = np.zeros((1, 1, 16, 2), np.float32)
    z[0, 0, [3, 11]] = [[5, 5], [-5, 5]]
    variables = init(quantizer, z)
    places = np.array([[[0, 0], [50, 0], [60, 0], [70, 0]]], np.float32)
    state = {**variables["codebook"], "usage": np.array([[1.0, 0, 0, 0]], np.float32)}
    if module is ema:
        variables["codebook"] = {**state, "codes": places, "total": places}
    else:
        variables = {"params": {"codebook": places}, "codebook": state}
    _, _, aux, variables = train(quantizer, variables, z)
    book = np.round(codebook(quantizer, variables)[0], 3)
    assert aux["revived"] == 3 and {*map(tuple, book[1:])} == {(5.0, 5.0), (-5.0, 5.0)}


def test_codes_of_a_revived_codebook_still_learn():
    quantizer, z = KINDS["revived"], normal((4, 5, 5, 4))
    *_, variables = train(quantizer, init(quantizer, z), z)
    params = variables["params"]

    def loss(params):
        return quantizer.apply({**variables, "params": params}, z)[2]["codebook_loss"]

    before, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert loss(jax.tree.map(lambda p, g: p - 5.0 * g, params, grads)) < before


def test_the_dead_of_all_parts_of_a_batch_are_noted():
    quantizer = revived.Quantizer(codes=2, width=2, revive=0.5)
    parts = [np.float32(x).reshape(1, 1, 2, 2) for x in ([1] * 4, [2] * 4)]
    variables = init(quantizer, parts[0])
    noted = {
        **variables["codebook"],
        "dead": np.array([[True, False]]),
        "seeds": np.full((1, 2, 2), 5, np.float32),
    }
    for seed, part in enumerate(parts):
        usage = np.float32([[1.0, 0.0 if seed else 1.0]])  # the other code dies in the second part
        rngs = {"codebook": jax.random.key(seed)}
        given = {**variables, "codebook": {**noted, "usage": usage}}
        noted = quantizer.apply(given, part, train=True, rngs=rngs, mutable=["codebook"])[1][
            "codebook"
        ]
        np.testing.assert_array_equal(noted["dead"], [[True, bool(seed)]])
    np.testing.assert_array_equal(noted["seeds"], [[[5, 5], [2, 2]]])


@pytest.mark.parametrize(
    "name", ["revived", "ema, revived", "ema, revived by error", "residual, own codebooks"]
)
def test_vectors_of_the_batch_are_gathered_only_if_a_code_is_dead(name):
    """On many devices that gather is communication: it stands in a branch."""
    quantizer, z = KINDS[name], normal((2, 3, 5, 4))
    jaxpr = jax.make_jaxpr(lambda variables: train(quantizer, variables, z))(
        init(quantizer, z)
    ).jaxpr

    def gathers(jaxpr, branch=False):
        """Whether each gather of all vectors of the batch stands in a branch."""
        for equation in jaxpr.eqns:
            if equation.primitive.name == "gather" and equation.invars[0].aval.shape[1:] == (30, 4):
                yield branch
            for inner in jaxprs_in_params(equation.params):
                yield from gathers(inner, branch or equation.primitive.name == "cond")

    assert list(gathers(jaxpr)) == [True]


def test_more_codes_than_vectors_can_be_revived():
    quantizer, z = revived.Quantizer(codes=64, width=2, revive=0.5), normal((1, 3, 3, 2))
    *_, variables = train(quantizer, init(quantizer, z), z)
    assert np.isfinite(codebook(quantizer, variables)).all()


@kinds
def test_usage_and_perplexity_of_a_batch_in_bfloat16(quantizer):
    z = normal((2, 3, 5, 4)).astype(jnp.bfloat16)
    z_q, ids, aux = evaluate(quantizer, init(quantizer, z), z)
    counts = np.stack([np.bincount(x.reshape(-1), minlength=16) for x in np.moveaxis(ids, -1, 0)])
    expected = codebook_statistics(counts)
    np.testing.assert_allclose([aux["usage"], aux["perplexity"]], expected, rtol=1e-5)
    assert all(np.shape(x) == () and np.isfinite(x) for x in aux.values())
    assert z_q.dtype == aux["quantizer_loss"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "maskgit", "depth": 2}, "has no key 'depth'"),
        (
            {"name": "maskgit", "entropy_target": "argmin"},
            "entropy_target expects one of softmax, argmax",
        ),
        ({"name": "ema", "decay": 0.0}, "decay expects a number above 0 to below 1"),
        ({"name": "rqvae", "decay": 0.0}, "rqvae has a codebook by moving average, got decay = 0"),
        ({"name": "vq", "revive": 0.1}, "has no key 'revive'"),
        (
            {"name": "vqq"},
            "no module with Quantizer in evqgan/tokenizers/quantizers/: did you mean",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        quantizer = build.build(
            "tokenizers.quantizers", "Quantizer", wrong, "config.tokenizer.quantizer"
        )
        quantizer.init(jax.random.key(0), jnp.zeros((1, 1, 1, 256)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("swapped", [False, True])
def test_swapped_commitment_weighs_the_other_term(swapped):
    quantizer = (vqgan if swapped else vq).Quantizer(**SMALL, commitment=0.3)
    z = normal((2, 3, 3, 4))
    variables = init(quantizer, z)

    def losses(params, z):
        aux = quantizer.apply({"params": params}, z)[2]
        return jnp.stack([aux["quantizer_loss"], aux["codebook_loss"], aux["commitment_loss"]])

    by_codes, by_z = jax.jit(jax.jacrev(losses, (0, 1)))(variables["params"], z)
    by_codes, weights = by_codes["codebook"], (0.3, 1.0) if swapped else (1.0, 0.3)
    np.testing.assert_allclose(by_codes[0], weights[0] * by_codes[1], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(by_z[0], weights[1] * by_z[2], rtol=1e-5, atol=1e-8)
    assert np.any(by_codes[1] != 0) and np.all(by_codes[2] == 0)
    assert np.all(by_z[1] == 0) and np.any(by_z[2] != 0)


@pytest.mark.parametrize("past", [False, True])
def test_gradient_goes_past_the_normalization_if_so_said(past):
    quantizer = (vitvqgan if past else vq).Quantizer(**SMALL, l2_normalize=True)
    z, weight = normal((1, 2, 3, 4)), normal((1, 2, 3, 4), 5)
    variables = init(quantizer, z)
    grad = jax.jit(jax.grad(lambda z: jnp.sum(weight * quantizer.apply(variables, z)[0])))(z)
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    direction = z / length
    through = (weight - direction * np.sum(direction * weight, axis=-1, keepdims=True)) / length
    np.testing.assert_allclose(grad, weight if past else through, rtol=1e-5, atol=1e-6)
