"""MaskGIT: parity with the recorded original (network, losses, decoding).

The rest is what a generator must keep.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, files, load

from evqgan.convert import mapping
from evqgan.convert.maskgit import TRANSFORMER
from evqgan.core.errors import InputError
from evqgan.generators import Request, maskgit, squeeze_depth
from evqgan.generators.mask_predict import MaskPredict, mask_predict
from evqgan.generators.mask_schedule import gamma, lowest

CODES = 23  # of the small models
MASK = -1  # MaskGIT's mask id while decoding


@pytest.fixture(
    scope="module", params=files("maskgit_transformer*.npz"), ids=lambda path: path.stem
)
def recording(request):
    """-> config, model, our parameters, inputs, outputs."""
    config, weights, inputs, outputs = load(request.param)
    theirs = dict(config["transformer"])
    vocabulary, positions = theirs.pop("vocab_size"), theirs.pop("max_position_embeddings")
    width = theirs.pop("hidden_size")
    model = maskgit.Model(
        codes=config["codebook_size"],
        latent=(1, positions - 1),
        classes=vocabulary - config["codebook_size"] - 1,
        layers=theirs.pop("num_hidden_layers"),
        width=width,
        heads=theirs.pop("num_attention_heads"),
        mlp_ratio=theirs.pop("intermediate_size") / width,
    )
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"):
        theirs.pop(key, None)  # of training alone
    assert not theirs, f"{request.param}: nothing of ours stands for {sorted(theirs)}"
    like = jax.eval_shape(
        lambda: {"params": maskgit.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))}
    )
    return config, model, mapping.to_ours(TRANSFORMER, weights, like)["params"], inputs, outputs


def test_logits_are_the_recorded_ones(recording):
    _, model, params, inputs, outputs = recording
    run = jax.jit(lambda words: model.apply({"params": params}, words))
    close(run(inputs["input_ids"]), outputs["logits"], 1e-5)
    close(run(inputs["input_ids_mask_minus1"]), outputs["logits_mask_minus1"], 1e-5)


def test_sequence_is_the_recorded_input(recording):
    _, model, _, inputs, _ = recording
    tokens = jnp.where(inputs["mask"][:, 1:] == 1, model.codes, inputs["ids"][:, 1:])
    np.testing.assert_array_equal(
        maskgit.sequence(model, tokens, inputs["label"]), inputs["input_ids"]
    )


def test_losses_and_gradients_are_the_recorded_ones(recording):
    _, model, params, inputs, outputs = recording
    # Never the class.
    is_masked = (inputs["mask"] == 1) & (np.arange(inputs["mask"].shape[1]) > 0)[None]

    def value(params, label_smoothing, is_masked=is_masked):
        logits = model.apply({"params": params}, inputs["input_ids"])
        return maskgit.cross_entropy(logits, inputs["ids"], is_masked, label_smoothing)

    smoothed, grads = jax.jit(jax.value_and_grad(value), static_argnums=1)(params, 0.1)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(grads)))
    close(smoothed, outputs["weighted_ce_ls01"][0], 1e-5)
    close(value(params, 0.0), outputs["weighted_ce"][0], 1e-5)
    close(value(params, 0.0, np.ones_like(is_masked)), outputs["ce"][0], 1e-5)
    close(norm, outputs["grad_norm_all"][0], 1e-4)
    grads = mapping.to_theirs(TRANSFORMER, {"params": grads})
    recorded = [name for name in outputs if name.startswith("grad/")]
    assert recorded
    for name in recorded:
        close(grads[name.removeprefix("grad/")], outputs[name], 1e-4)


def test_the_way_back_to_their_names_is_exact(recording):
    config, _, params, _, _ = recording
    theirs = mapping.to_theirs(TRANSFORMER, {"params": params})
    assert {name: list(array.shape) for name, array in theirs.items()} == {
        name: shape for name, (shape, _) in config["shapes"].items()
    }
    for name, (total, _) in config["checksum"].items():
        np.testing.assert_allclose(
            np.sum(theirs[name], dtype=np.float64), total, rtol=1e-6, atol=1e-5, err_msg=name
        )


def schedule_of(method):
    """A schedule of MaskGIT's code by our name."""
    return {"uniform": "linear"}.get(method, method)


def test_schedules_are_the_recorded_ones(recording):
    _, _, _, inputs, outputs = recording
    recorded = [name for name in outputs if name.startswith("schedule/")]
    assert recorded
    for name in recorded:
        _, method, number = name.split("/")
        share = gamma(schedule_of(method), jnp.asarray(inputs["schedule_ratio"]), int(number))
        np.testing.assert_allclose(share, outputs[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_what_is_masked_again_is_the_recorded_choice(recording):
    _, _, _, inputs, outputs = recording
    recorded = [name for name in outputs if name.startswith("topk_masking_T")]
    assert recorded
    for name in recorded:
        temperature = float(name.removeprefix("topk_masking_T"))
        confidence = np.log(inputs["topk_probs"]) + temperature * inputs["topk_gumbel_noise"]
        again = lowest(jnp.asarray(confidence), jnp.asarray(inputs["topk_mask_len"][:, 0]))
        np.testing.assert_array_equal(again, outputs[name].astype(bool), err_msg=name)


def original_noise(config, shape, codes):
    """What MaskGIT draws from one chain of keys.

    It is Gumbel noise for the codes [T,B,S,V] and for the choice [T,B,S].
    """
    rng, steps = jax.random.PRNGKey(config["seed"]), []
    for _ in range(config["decode"]["num_iter"]):
        rng, rng_codes = jax.random.split(rng)
        rng, rng_choice = jax.random.split(rng)
        steps.append(
            (jax.random.gumbel(rng_codes, (*shape, codes)), jax.random.gumbel(rng_choice, shape))
        )
    return [jnp.stack(parts) for parts in zip(*steps, strict=True)]


@pytest.mark.parametrize("start, wanted", [("start", "decode"), ("start_edit", "decode_edit")])
def test_decoding_gives_every_recorded_sequence(recording, start, wanted):
    config, model, params, inputs, outputs = recording
    options, start, recorded = config["decode"], inputs[start], outputs[f"{wanted}_final_seqs"]
    steps = options["num_iter"]
    # Edits began later: nothing is done before.
    first = int((recorded != start[:, None]).any(axis=(0, 2)).argmax())
    with jax.threefry_partitionable(config["jax_threefry_partitionable"]):
        of_codes, of_choice = original_noise(config, start.shape, model.codes)
    np.testing.assert_allclose(
        of_codes[0], inputs["trace_logits_gumbel_step0_noise"], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(of_choice, inputs["trace_choice_gumbel_noise"], rtol=1e-6, atol=1e-6)

    label = jnp.asarray(start[:, 0] - model.codes)
    tokens = jnp.where(start[:, 1:] == MASK, model.codes, start[:, 1:])
    tokens_to_logits = maskgit.tokens_to_logits(model, params, label)
    seen = []

    def noted(tokens):
        logits = tokens_to_logits(tokens)
        jax.debug.callback(
            lambda *x: seen.append([np.asarray(i) for i in x]), tokens, logits, ordered=True
        )
        return logits

    settings = MaskPredict(
        steps=steps,
        choice_temperature=options["choice_temperature"],
        schedule=schedule_of(options["method"]),
    )

    @jax.jit
    def run(tokens):
        keys = jax.random.split(jax.random.key(0), len(start))
        noise = lambda t: (of_codes[t - first][:, 1:], of_choice[t - first][:, 1:])  # noqa: E731
        given = noted, tokens, keys, settings
        return mask_predict(*given, codes=model.codes, first=first, noise=noise).tokens

    out = run(tokens)
    jax.effects_barrier()
    assert first + len(seen) == steps == recorded.shape[1]
    for t, (before, logits) in enumerate(seen, first):
        drawn = np.argmax(logits + np.asarray(of_codes[t - first][:, 1:]), axis=-1)
        np.testing.assert_array_equal(
            np.where(before == model.codes, drawn, before), recorded[:, t, 1:]
        )
        if t > first and wanted == "decode":
            np.testing.assert_array_equal(
                (before == model.codes).sum(1), outputs["trace_masked_after"][t - 1]
            )
            np.testing.assert_array_equal(
                (before == model.codes).sum(1), outputs["trace_mask_len"][t - 1]
            )
    np.testing.assert_array_equal(out, recorded[:, -1, 1:])
    if wanted == "decode":
        np.testing.assert_array_equal(outputs["trace_seqs"], recorded)


@pytest.mark.parametrize("side, count", [(16, 172_457_193), (32, 173_047_017)])
def test_parameters_are_counted_as_in_the_original(side, count):
    model = maskgit.Model(codes=1024, latent=(side, side), classes=1000)
    shapes = jax.eval_shape(lambda: maskgit.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


SMALL = {"codes": CODES, "latent": (4, 6), "layers": 2, "width": 16, "heads": 2}


def model_of(**changes):
    return maskgit.Model(**{**SMALL, "classes": 3, "dropout": 0.0, **changes})


def with_effects(model):
    """Parameters large enough to see effects."""
    params = jax.jit(lambda: maskgit.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([x + np.float32(0.2 * rng.standard_normal(x.shape)) for x in leaves])


@pytest.fixture(scope="module", params=[3, 0], ids=["classes", "unconditional"])
def small(request):
    """A small model, parameters, a batch of ids and labels.

    With them come, compiled, logits of a sequence, and masked predictions.
    """
    model = model_of(classes=request.param)
    ids = jax.random.randint(jax.random.key(1), (2, 4, 6, 1), 0, CODES)
    run = jax.jit(lambda params, words: model.apply({"params": params}, words))
    predict = jax.jit(
        functools.partial(maskgit.predict, model), static_argnames=("schedule", "train")
    )
    return model, with_effects(model), ids, jnp.array([1, 2]), run, predict


def test_every_token_sees_every_token(small):
    model, params, ids, label, run, _ = small
    words = maskgit.sequence(model, ids.reshape(2, 24), label)[:1]
    number = words.shape[1]
    # One in each row.
    changed = jnp.where(jnp.eye(number, dtype=bool), (words + 1) % CODES, words.repeat(number, 0))
    effect = np.abs(run(params, changed) - run(params, words)).max(axis=-1)
    assert effect.shape == (number, number) and (effect > 1e-5).all()


def test_what_is_masked_does_not_reach_the_logits(small):
    _, params, ids, label, _, predict = small
    logits, _, is_masked = predict(params, ids, label, jax.random.key(3), share=0.5)
    grid = is_masked.reshape(ids.shape)
    for where, same in ((grid, True), (~grid, False)):
        other = jnp.where(where, (ids + 1) % CODES, ids)
        again, _, _ = predict(params, other, label, jax.random.key(3), share=0.5)
        assert bool((again == logits).all()) == same


@pytest.mark.parametrize("share, number", [(0.01, 1), (0.25, 6), (0.5, 12), (1.0, 24)])
def test_exactly_the_share_is_masked(small, share, number):
    _, params, ids, label, _, predict = small
    _, target, is_masked = predict(params, ids, label, jax.random.key(0), share=share)
    np.testing.assert_array_equal(is_masked.sum(1), number)
    np.testing.assert_array_equal(target, ids.reshape(2, 24))


@pytest.mark.parametrize(
    "schedule, mean", [("cosine", 2 / np.pi), ("linear", 1 / 2), ("pow3", 3 / 4)]
)
def test_the_share_follows_the_schedule(small, schedule, mean):
    _, params, ids, label, _, predict = small
    ids, label = jnp.repeat(ids, 300, 0), jnp.repeat(label, 300)
    _, _, is_masked = predict(params, ids, label, jax.random.key(0), schedule=schedule)
    shares = is_masked.mean(1)
    # Half a token: rounded up.
    assert abs(shares.mean() - mean - 0.5 / 24) < 0.03 and shares.min() > 0


def test_loss_is_over_masked_tokens_only(small):
    model, params, ids, label, _, predict = small
    rng = jax.random.key(5)
    run = jax.jit(
        lambda smoothing: maskgit.loss(model, params, ids, label, rng, label_smoothing=smoothing)
    )
    value, metrics = run(0.0)
    logits, target, is_masked = predict(params, ids, label, rng)
    nll = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(target)[..., None], -1
    )[..., 0]
    each = [row[masked].mean() for row, masked in zip(nll, np.asarray(is_masked), strict=True)]
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(metrics["masked"], is_masked.mean(), rtol=1e-6)
    assert run(0.1)[0] != value


def test_evaluate_counts_and_sums(small):
    model, params, ids, label, _, _ = small
    run = jax.jit(lambda params: maskgit.evaluate(model, params, ids, label, jax.random.key(0)))
    out, blind = run(params), run(jax.tree.map(np.zeros_like, params))
    for share in ("0.25", "0.50", "0.75", "1.00"):
        total, number = out[f"cross_entropy@{share}"].T
        np.testing.assert_array_equal(number, 24 * float(share))
        assert (total > 0).all() and (out[f"accuracy@{share}"][:, 0] <= number).all()
    # Codes alone.
    np.testing.assert_allclose(blind["cross_entropy@1.00"][:, 0] / 24, np.log(CODES), rtol=1e-5)


def test_the_class_matters(small):
    model, params, ids, label, _, predict = small
    one, other = (predict(params, ids, x, jax.random.key(3))[0] for x in (label, 1 - label % 2))
    assert (one != other).any() == bool(model.classes)


def test_the_class_is_dropped_in_training():
    model = model_of(class_dropout=0.5)
    params, rng, number = with_effects(model), jax.random.key(3), 200
    ids = jnp.arange(24, dtype=jnp.int32).reshape(1, 4, 6, 1).repeat(number, 0) % CODES

    @functools.partial(jax.jit, static_argnames="train")
    def run(label, train=False):
        return maskgit.predict(model, params, ids, jnp.full(number, label), rng, train=train)[0]

    hidden = np.all(run(1, train=True) == run(3), axis=(1, 2))  # `classes` stands for none
    shown = np.all(run(1, train=True) == run(1), axis=(1, 2))
    assert (hidden ^ shown).all() and 0.35 < hidden.mean() < 0.65


def test_guidance_sharpens_the_class():
    model = model_of(class_dropout=0.1)
    params, label = with_effects(model), jnp.array([0, 1, 2])
    tokens = jnp.full((3, 24), CODES)
    logits_of = functools.partial(maskgit.tokens_to_logits, model, params)
    both = jax.jit(lambda: logits_of(label, guided=True)(tokens))()
    alone = jax.jit(lambda label: logits_of(label)(tokens))
    for pair, single in zip(both, (alone(label), alone(jnp.full(3, 3))), strict=True):
        np.testing.assert_allclose(pair, single, rtol=1e-5, atol=1e-5)
    ids, mask = jnp.zeros((3, 4, 6, 1), jnp.int32), jnp.ones((3, 4, 6), bool)
    request = Request(ids, mask, label, jax.random.split(jax.random.key(0), 3))

    @functools.partial(jax.jit, static_argnums=0)
    def run(guidance):
        settings = maskgit.Settings(steps=3, guidance=guidance)
        return maskgit.sample(model, params, request, settings).tokens

    assert (run(0.0) != run(3.0)).any()
    with pytest.raises(InputError, match="trained without generator.class_dropout"):
        maskgit.sample(model_of(), params, request, maskgit.Settings(guidance=1.0))


def test_editing_may_begin_at_a_later_step():
    model = model_of()
    params = with_effects(model)
    ids = jnp.zeros((2, 4, 6, 1), jnp.int32)
    mask = jnp.ones((2, 4, 6), bool)
    request = Request(ids, mask, jnp.array([1, 2]), jax.random.split(jax.random.key(0), 2))
    settings = maskgit.Settings(steps=5, first=2)
    made = jax.jit(lambda: maskgit.sample(model, params, request, settings, keep_history=True))()
    assert [int((state == CODES).sum()) // 2 for state in made.history] == [14, 7, 0]
    wrong = {-1: "a whole number from 0", 1.5: "a whole", 5: "less than config.sample.steps = 5"}
    for first, expected in wrong.items():
        with pytest.raises(InputError, match=f"first expects {expected}.*, got {first}"):
            maskgit.Settings(steps=5, first=first)


def test_errors_say_what_was_expected():
    with pytest.raises(InputError, match="class_dropout = 0.1, but .* no classes"):
        model_of(classes=0, class_dropout=0.1)
    with pytest.raises(
        InputError, match="the maskgit generator needs a quantizer of depth 1, not 4"
    ):
        squeeze_depth(jnp.zeros((1, 2, 2, 4)), "maskgit")
    with pytest.raises(ValueError, match="needs labels"):
        maskgit.sequence(model_of(), jnp.zeros((1, 24), jnp.int32))
