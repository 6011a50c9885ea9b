"""MaskGIT: parity with the recorded original (network, losses, decoding), and what a generator must keep."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import workdirs
from golden_files import close, files, load
from ml_collections import ConfigDict

import evqgan
from evqgan.convert import mapping
from evqgan.convert.maskgit import TRANSFORMER
from evqgan.core.errors import InputError
from evqgan.generators import decoding, maskgit
from evqgan.training import loop

pytestmark = pytest.mark.usefixtures("quick_to_compile")

CODES = 23  # of the small models
MASK = -1  # MaskGIT's mask id while decoding


@pytest.fixture(scope="module", params=files("maskgit_transformer*.npz"), ids=lambda path: path.stem)
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
    like = jax.eval_shape(lambda: {"params": maskgit.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))})
    return config, model, mapping.to_ours(TRANSFORMER, weights, like)["params"], inputs, outputs


def test_logits_are_the_recorded_ones(recording):
    _, model, params, inputs, outputs = recording
    run = jax.jit(lambda words: model.apply({"params": params}, words))
    close(run(inputs["input_ids"]), outputs["logits"], 1e-5)
    close(run(inputs["input_ids_mask_minus1"]), outputs["logits_mask_minus1"], 1e-5)


def test_sequence_is_the_recorded_input(recording):
    _, model, _, inputs, _ = recording
    tokens = jnp.where(inputs["mask"][:, 1:] == 1, model.codes, inputs["ids"][:, 1:])
    np.testing.assert_array_equal(maskgit.sequence(model, tokens, inputs["label"]), inputs["input_ids"])


def test_losses_and_gradients_are_the_recorded_ones(recording):
    _, model, params, inputs, outputs = recording
    is_masked = (inputs["mask"] == 1) & (np.arange(inputs["mask"].shape[1]) > 0)[None]  # never the class

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
        np.testing.assert_allclose(np.sum(theirs[name], dtype=np.float64), total, rtol=1e-6, atol=1e-5, err_msg=name)


def schedule_of(method):
    """A schedule of MaskGIT's code by our name."""
    return {"uniform": "linear"}.get(method, method)


def test_schedules_are_the_recorded_ones(recording):
    _, _, _, inputs, outputs = recording
    recorded = [name for name in outputs if name.startswith("schedule/")]
    assert recorded
    for name in recorded:
        _, method, number = name.split("/")
        share = decoding.gamma(schedule_of(method), jnp.asarray(inputs["schedule_ratio"]), int(number))
        np.testing.assert_allclose(share, outputs[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_what_is_masked_again_is_the_recorded_choice(recording):
    _, _, _, inputs, outputs = recording
    recorded = [name for name in outputs if name.startswith("topk_masking_T")]
    assert recorded
    for name in recorded:
        temperature = float(name.removeprefix("topk_masking_T"))
        confidence = np.log(inputs["topk_probs"]) + temperature * inputs["topk_gumbel_noise"]
        again = decoding.lowest(jnp.asarray(confidence), jnp.asarray(inputs["topk_mask_len"][:, 0]))
        np.testing.assert_array_equal(again, outputs[name].astype(bool), err_msg=name)


def original_noise(config, shape, codes):
    """What MaskGIT draws from one chain of keys: Gumbel noise for the codes [T,B,S,V] and for the choice [T,B,S]."""
    rng, steps = jax.random.PRNGKey(config["seed"]), []
    for _ in range(config["decode"]["num_iter"]):
        rng, rng_codes = jax.random.split(rng)
        rng, rng_choice = jax.random.split(rng)
        steps.append((jax.random.gumbel(rng_codes, (*shape, codes)), jax.random.gumbel(rng_choice, shape)))
    return [jnp.stack(parts) for parts in zip(*steps, strict=True)]


@pytest.mark.parametrize("start, wanted", [("start", "decode"), ("start_edit", "decode_edit")])
def test_decoding_gives_every_recorded_sequence(recording, start, wanted):
    config, model, params, inputs, outputs = recording
    options, start, recorded = config["decode"], inputs[start], outputs[f"{wanted}_final_seqs"]
    steps = options["num_iter"]
    first = int((recorded != start[:, None]).any(axis=(0, 2)).argmax())  # edits began later: nothing is done before
    with jax.threefry_partitionable(config["jax_threefry_partitionable"]):
        of_codes, of_choice = original_noise(config, start.shape, model.codes)
    np.testing.assert_allclose(of_codes[0], inputs["trace_logits_gumbel_step0_noise"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(of_choice, inputs["trace_choice_gumbel_noise"], rtol=1e-6, atol=1e-6)

    label = jnp.asarray(start[:, 0] - model.codes)
    tokens = jnp.where(start[:, 1:] == MASK, model.codes, start[:, 1:])
    tokens_to_logits = maskgit.codes_of(model, params, label)
    seen = []

    def noted(tokens):
        logits = tokens_to_logits(tokens)
        jax.debug.callback(lambda *x: seen.append([np.asarray(i) for i in x]), tokens, logits, ordered=True)
        return logits

    out = jax.jit(
        lambda tokens: decoding.mask_predict(
            noted, tokens, jax.random.split(jax.random.key(0), len(start)), codes=model.codes, steps=steps,
            first=first, choice_temperature=options["choice_temperature"], schedule=schedule_of(options["method"]),
            noise=lambda t: (of_codes[t - first][:, 1:], of_choice[t - first][:, 1:]),
        )
    )(tokens)  # fmt: skip
    jax.effects_barrier()
    assert first + len(seen) == steps == recorded.shape[1]
    for t, (before, logits) in enumerate(seen, first):
        drawn = np.argmax(logits + np.asarray(of_codes[t - first][:, 1:]), axis=-1)
        np.testing.assert_array_equal(np.where(before == model.codes, drawn, before), recorded[:, t, 1:])
        if t > first and wanted == "decode":
            np.testing.assert_array_equal((before == model.codes).sum(1), outputs["trace_masked_after"][t - 1])
            np.testing.assert_array_equal((before == model.codes).sum(1), outputs["trace_mask_len"][t - 1])
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
    """A small model, parameters, a batch of ids and labels, and compiled: logits of a sequence; masked predictions."""
    model = model_of(classes=request.param)
    ids = jax.random.randint(jax.random.key(1), (2, 4, 6, 1), 0, CODES)
    run = jax.jit(lambda params, words: model.apply({"params": params}, words))
    predict = jax.jit(functools.partial(maskgit.predict, model), static_argnames=("schedule", "train"))
    return model, with_effects(model), ids, jnp.array([1, 2]), run, predict


def test_every_token_sees_every_token(small):
    model, params, ids, label, run, _ = small
    words = maskgit.sequence(model, maskgit.single(ids).reshape(2, 24), label)[:1]
    number = words.shape[1]
    changed = jnp.where(jnp.eye(number, dtype=bool), (words + 1) % CODES, words.repeat(number, 0))  # one in each row
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


@pytest.mark.parametrize("schedule, mean", [("cosine", 2 / np.pi), ("linear", 1 / 2), ("pow3", 3 / 4)])
def test_the_share_follows_the_schedule(small, schedule, mean):
    _, params, ids, label, _, predict = small
    ids, label = jnp.repeat(ids, 300, 0), jnp.repeat(label, 300)
    _, _, is_masked = predict(params, ids, label, jax.random.key(0), schedule=schedule)
    shares = is_masked.mean(1)
    assert abs(shares.mean() - mean - 0.5 / 24) < 0.03 and shares.min() > 0  # half a token: rounded up


def test_loss_is_over_masked_tokens_only(small):
    model, params, ids, label, _, predict = small
    rng = jax.random.key(5)
    run = jax.jit(lambda smoothing: maskgit.loss(model, params, ids, label, rng, label_smoothing=smoothing))
    value, metrics = run(0.0)
    logits, target, is_masked = predict(params, ids, label, rng)
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(target)[..., None], -1)[..., 0]
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
    np.testing.assert_allclose(blind["cross_entropy@1.00"][:, 0] / 24, np.log(CODES), rtol=1e-5)  # codes alone


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


def test_dropout_is_of_training_alone():
    model = model_of(dropout=0.5)
    params, words = with_effects(model), jnp.arange(25)[None] % CODES

    @functools.partial(jax.jit, static_argnames="deterministic")
    def run(seed, deterministic=True):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply({"params": params}, words, deterministic, rngs=rngs)

    np.testing.assert_array_equal(run(0), run(1))
    assert (run(0, deterministic=False) != run(1, deterministic=False)).any()


def test_remat_and_bfloat16_change_little():
    model = model_of()
    params, words = with_effects(model), jnp.arange(25)[None] % CODES

    def gradient(**changes):
        changed = model.clone(**changes)
        return jax.jit(jax.grad(lambda p: jnp.mean(changed.apply({"params": p}, words) ** 2)))(params)

    for a, b in zip(jax.tree.leaves(gradient()), jax.tree.leaves(gradient(remat=True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    exact, rough = (model.clone(dtype=dtype).apply({"params": params}, words) for dtype in ("float32", "bfloat16"))
    assert rough.dtype == jnp.float32
    close(rough, exact, 0.05)


def test_sample_keeps_what_is_known_and_fills_the_rest(small):
    model, params, ids, label, _, _ = small
    mask = jnp.zeros((2, 4, 6), bool).at[0, 1:3, 2:5].set(True).at[1].set(True)
    hidden = np.asarray(mask)
    run = jax.jit(lambda ids, keys: maskgit.sample(model, params, ids, mask, label, keys, steps=4))
    keys = jax.random.split(jax.random.key(0), 2)
    out = np.asarray(run(ids, keys))
    assert out.shape == ids.shape and out.dtype == np.int32
    np.testing.assert_array_equal(out[~hidden], np.asarray(ids)[~hidden])
    assert ((out >= 0) & (out < CODES)).all()
    assert (np.asarray(run(ids, jax.random.split(jax.random.key(1), 2))) != out)[hidden].any()
    np.testing.assert_array_equal(run(jnp.where(mask[..., None], (ids + 5) % CODES, ids), keys), out)  # nothing leaks


def test_the_trace_ends_in_the_sample(small):
    model, params, ids, label, _, _ = small
    mask, keys = jnp.ones((2, 4, 6), bool).at[0, 0].set(False), jax.random.split(jax.random.key(0), 2)
    run = jax.jit(
        lambda first, trace: maskgit.sample(
            model, params, ids, mask, label, keys, steps=5, first=first, trace=trace
        ),
        static_argnums=(0, 1),
    )  # fmt: skip
    for first in (0, 2):
        states, out = np.asarray(run(first, True)), run(first, False)
        assert states.shape == (5 - first, *ids.shape) and states.dtype == np.int32
        np.testing.assert_array_equal(states[-1], out)
        for before, after in itertools.pairwise(states):
            known = before != CODES
            np.testing.assert_array_equal(after[known], before[known])  # once filled, a token stays
            assert (after != CODES).sum() > known.sum()


def test_guidance_sharpens_the_class():
    model = model_of(class_dropout=0.1)
    params, label = with_effects(model), jnp.array([0, 1, 2])
    tokens = jnp.full((3, 24), CODES)
    both = jax.jit(lambda: maskgit.codes_of(model, params, label, guided=True)(tokens))()
    alone = jax.jit(lambda label: maskgit.codes_of(model, params, label)(tokens))
    for pair, single in zip(both, (alone(label), alone(jnp.full(3, 3))), strict=True):
        np.testing.assert_allclose(pair, single, rtol=1e-5, atol=1e-5)
    ids, mask = jnp.zeros((3, 4, 6, 1), jnp.int32), jnp.ones((3, 4, 6), bool)
    keys = jax.random.split(jax.random.key(0), 3)
    run = jax.jit(
        lambda guidance: maskgit.sample(model, params, ids, mask, label, keys, steps=3, guidance=guidance),
        static_argnums=0,
    )
    assert (run(0.0) != run(3.0)).any()
    with pytest.raises(InputError, match="trained without generator.class_dropout"):
        maskgit.sample(model_of(), params, ids, mask, label, keys, guidance=1.0)


def test_loss_falls_and_a_pattern_is_learned():
    model = model_of(latent=(4, 4), classes=2, width=32)
    params = jax.jit(lambda: maskgit.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    label = jnp.arange(16) % 2
    ids = ((jnp.arange(16)[None] % 3 + 5 * label[:, None]) % CODES).reshape(16, 4, 4, 1)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, rng):
        grad = jax.value_and_grad(lambda p: maskgit.loss(model, p, ids, label, rng, label_smoothing=0.0)[0])
        value, grads = grad(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for i in range(150):
        params, state, value = step(params, state, jax.random.key(i))
    assert value < 0.1
    keys = jax.random.split(jax.random.key(9), 2)
    start, mask, wanted = jnp.zeros_like(ids[:2]), jnp.ones((2, 4, 4), bool), jnp.array([1, 0])
    out = jax.jit(lambda p: maskgit.sample(model, p, start, mask, wanted, keys, steps=4))(params)
    np.testing.assert_array_equal(out, np.asarray(ids)[[1, 0]])


def test_stage_2_trains_samples_and_edits(tmp_path):
    """The loop with this generator in the config, on a trained tokenizer, and what is loaded from its workdir."""
    place = workdirs.trained()
    _, config = workdirs.configs(place / "images")
    config.tokenizer.weights = str(place / "tokenizer")
    config.generator = ConfigDict({"name": "maskgit", "classes": 10, "layers": 2, "width": 32, "heads": 2})
    config.loss = ConfigDict({"label_smoothing": 0.1})
    config.sample = ConfigDict({"steps": 3})
    config.evals.generation = ConfigDict({"show": 2})
    loop.train(config, tmp_path / "maskgit")
    loaded = evqgan.load(tmp_path / "maskgit")
    images = loaded.generate(2, labels=["bee", 3])
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(loaded.generate(2, labels=["bee", 3]), images)
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:20] = True
    edited = loaded.edit(images[0], mask, label="cat", num=2)
    assert edited.shape == (2, 32, 32, 3) and (edited[:, mask] != images[0][mask][None]).any()
    np.testing.assert_array_equal(edited[:, 24:], images[:1, 24:].repeat(2, 0))
    with pytest.raises(InputError, match="order"):
        loaded.generate(1, order="wavefront")


def test_errors_say_what_was_expected():
    with pytest.raises(InputError, match=r"generator.width = 16 is no multiple of generator.heads = 3"):
        model_of(heads=3)
    with pytest.raises(InputError, match=r"class_dropout is a share in \[0, 1\), and 0 without classes, not 0.1"):
        model_of(classes=0, class_dropout=0.1)
    with pytest.raises(InputError, match="depth 1, not 4"):
        maskgit.single(jnp.zeros((1, 2, 2, 4)))
    with pytest.raises(ValueError, match="needs labels"):
        maskgit.sequence(model_of(), jnp.zeros((1, 24), jnp.int32))
