"""RQ-Transformer: parity with the recorded original (network, losses, sampling).

The rest is what a generator must keep.
"""

import math
import re
import types

import jax
import jax.numpy as jnp
import large_weights
import numpy as np
import pytest
from flax import linen as nn
from golden_files import close, files, load
from jax.extend.core import jaxprs_in_params

from evqgan.convert import rqtransformer as converter
from evqgan.core.errors import InputError
from evqgan.generators import Request
from evqgan.generators import rqtransformer as rq
from evqgan.generators.autoregressive import Autoregressive
from evqgan.generators.sampling import restrict

CODES, LATENT, WIDTH = 11, (2, 3), 8  # of the small models; WIDTH: of the codes
PLACES = LATENT[0] * LATENT[1]
# Keys that their network never reads.
WITHOUT_EFFECT = ("ema", "ar_hierarchy", "use_padding_emb", "scaled_head_emb_vqvae")
BY_PART = ("activation", "attention_bias", "mlp_bias")  # keys that body and head may have apart


def theirs_to_model(theirs, where):
    """The Model of a configuration of theirs; what it leaves out is as in their configs.py."""
    theirs = {key: value for key, value in theirs.items() if key not in WITHOUT_EFFECT}
    assert theirs.pop("type", "rq-transformer") == "rq-transformer", (
        f"{where}: another type of model"
    )
    *latent, depth = theirs.pop("block_size")
    sizes = theirs.pop("vocab_size")
    sizes = [sizes] * depth if isinstance(sizes, int) else sizes
    assert len(set(sizes)) == 1 and len(sizes) == depth, (
        f"{where}: depths with different numbers of codes: {sizes}"
    )
    assert theirs.pop("block_size_cond", 0) <= 1, (
        f"{where}: a condition of several tokens (text) is not built"
    )
    width, classes = theirs.pop("embed_dim"), theirs.pop("vocab_size_cond", 0)
    stacks = []
    for name in ("body", "head"):
        stack = dict(theirs.pop(name))
        block = dict(stack.pop("block"))
        assert block.pop("embed_dim", width) == width, f"{where}: {name} has a width of its own"
        stacks.append(
            {
                "layers": stack.pop("n_layer"),
                "heads": block.pop("n_head"),
                "activation": {"v1": "gelu", "v2": "quick_gelu"}[block.pop("gelu", "v1")],
                "attention_bias": block.pop("attn_bias", True),
                "mlp_bias": block.pop("mlp_bias", True),
                "dropout": block.pop("resid_pdrop", 0.1),
                "attention_dropout": block.pop("attn_pdrop", 0.0),
            }
        )
        assert not stack and not block, (
            f"{where}: nothing of ours stands for {sorted(stack)} {sorted(block)} of {name}"
        )
    body, head = stacks
    for key in ("dropout", "attention_dropout"):
        assert body[key] == head[key], (
            f"{where}: {key} of body and head differ: {body[key]}, {head[key]}"
        )
    model = rq.Model(
        codes=sizes[0],
        latent=tuple(latent),
        depth=depth,
        codebook_width=theirs.pop("input_embed_dim", None) or width,
        classes=classes if classes > 1 else 0,
        width=width,
        head_layers=head.pop("layers"),
        head_heads=head.pop("heads"),
        codebook_input=theirs.pop("input_emb_vqvae", False),
        codebook_head=theirs.pop("head_emb_vqvae", False),
        cumulate=theirs.pop("cumsum_depth_ctx", False),
        shared_words=theirs.pop("shared_tok_emb", False),
        shared_classifier=theirs.pop("shared_cls_emb", False),
        embedding_dropout=theirs.pop("embd_pdrop", 0.0),
        **{key: (body[key], head[key]) if key in BY_PART else body[key] for key in body},
    )
    assert not theirs, f"{where}: nothing of ours stands for {sorted(theirs)}"
    return model


def recorded_codebook(model, inputs, wanted):
    """[K,V,c]: that of the recorded tokenizer with the recorded vectors, or made from these.

    wanted: ids that the codebook has to have vectors for.
    """
    vectors = inputs.get("code_emb_with_depth")
    if vectors is None:
        assert not (model.codebook_input or model.codebook_head), (
            "the vectors of the codes are not recorded"
        )
        return np.zeros((1, model.codes, model.codebook_width), np.float32)
    depths = np.arange(model.depth)
    for path in files("rqvae*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            names = [f"w/quantizer.codebooks.{d}.weight" for d in depths]
            # The last row is a padding.
            tables = [stored[name][:-1] for name in names if name in stored.files]
        if len({table.shape for table in tables}) == 1 and tables[0].shape == (
            model.codes,
            model.codebook_width,
        ):
            codebook = np.stack(
                tables[:1] if all(np.array_equal(x, tables[0]) for x in tables) else tables
            )
            if np.array_equal(codebook[depths % len(codebook), inputs["codes"]], vectors):
                return codebook
    codebook, known = np.zeros((model.depth, model.codes, model.codebook_width), np.float32), set()
    for d in depths:
        codebook[d, inputs["codes"][..., d]] = vectors[..., d, :]
        known |= {(d, i) for i in inputs["codes"][..., d].ravel()}
    unknown = {(d, i) for d in depths for i in wanted[..., d].ravel()} - known
    assert not unknown, (
        "no recorded tokenizer has this codebook, "
        f"and the vectors of (depth, id) {unknown} are missing"
    )
    return codebook


@pytest.fixture(scope="module", params=files("rqtransformer*.npz"), ids=lambda path: path.stem)
def recording(request):
    """The model and everything of a file, and its compiled logits of ids."""
    config, weights, inputs, outputs = load(request.param)
    model = theirs_to_model(config["transformer"], request.param.name)
    like = jax.eval_shape(
        lambda: {"params": rq.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32))}
    )
    params = jax.tree.map(jnp.asarray, converter.to_ours(weights, like, model)["params"])
    codebook = jnp.asarray(recorded_codebook(model, inputs, outputs["greedy_sample"]))
    label = (
        jnp.asarray(inputs["cond"]).reshape(-1)
        if "cond" in inputs
        else jnp.zeros(len(inputs["codes"]), jnp.int32)
    )
    run = jax.jit(lambda ids: model.apply({"params": params}, ids, codebook, label))
    return types.SimpleNamespace(**locals())


COMPARED = (
    *("logits", "loss_ce", "codebook_loss", "loss_soft", "grad_norm_all", r"grad/.+"),
    *("greedy_sample", "greedy_sample_cached_equals_uncached", "cached_vs_full_maxabs"),
    *(r"topk\d+_logits_kept", r"topp[\d.]+_probs"),
)


def test_every_recorded_output_is_compared(recording):
    assert [name for name in recording.outputs if not re.fullmatch("|".join(COMPARED), name)] == []


def test_logits_are_the_recorded_ones_cached_or_not(recording):
    codes, outputs = recording.inputs["codes"], recording.outputs
    full = recording.run(codes)
    close(full, outputs["logits"])
    cached = cached_logits(
        recording.model, recording.params, codes, recording.label, recording.codebook
    )
    close(cached, outputs["logits"])
    theirs = outputs.get("cached_vs_full_maxabs", np.zeros(1)).max()
    assert np.abs(cached - full).max() <= max(theirs, 1e-5 * np.abs(full).max())


def test_losses_and_gradients_are_the_recorded_ones(recording):
    inputs, outputs = recording.inputs, recording.outputs
    quiet = recording.model.clone(dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0)

    def value(params, soft=None):
        given = {"codebook": recording.codebook, "soft_targets": soft}
        return rq.loss(quiet, params, inputs["codes"], recording.label, jax.random.key(0), **given)

    (total, metrics), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(recording.params)
    close(total[None], outputs["loss_ce"])
    close(
        np.stack([metrics[f"loss_depth{d + 1}"] for d in range(quiet.depth)]),
        outputs["codebook_loss"],
    )
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(grads)))
    close(norm[None], outputs["grad_norm_all"], 1e-4)
    theirs = converter.to_theirs({"params": grads}, quiet)
    recorded = {name: grad for name, grad in outputs.items() if name.startswith("grad/")}
    assert recorded
    least = 1e-4 * norm  # those of the keys' biases are zero but for rounding
    for name, grad in recorded.items():
        close(theirs[name.removeprefix("grad/")], grad, 1e-4, least=least)
    if "loss_soft" in outputs:
        close(
            jax.jit(value)(recording.params, inputs["soft_targets"])[0][None], outputs["loss_soft"]
        )


def test_greedy_samples_are_the_recorded_ones_cached_or_not(recording):
    model, outputs = recording.model, recording.outputs
    number, shape = len(recording.label), (len(recording.label), *model.latent)
    keys = jax.random.split(jax.random.key(0), number)
    blank = jnp.zeros((*shape, model.depth), jnp.int32)
    request = Request(blank, jnp.ones(shape, bool), recording.label, keys)
    given = model, recording.params, request, rq.Settings(top_k=1)
    made = jax.jit(lambda: rq.sample(*given, codebook=recording.codebook).tokens)()
    np.testing.assert_array_equal(made, outputs["greedy_sample"])

    ids = np.zeros(blank.shape, np.int32)
    for at in np.ndindex(ids.shape[1:]):
        ids[:, *at] = np.argmax(recording.run(ids)[:, *at], axis=-1)
    assert outputs.get("greedy_sample_cached_equals_uncached", np.ones(1)).all()
    np.testing.assert_array_equal(ids, made)


def test_what_may_be_drawn_is_as_recorded(recording):
    outputs, done = recording.outputs, 0
    logits = outputs["logits"].reshape(-1, recording.model.codes)
    for name, recorded in outputs.items():
        rows = jnp.asarray(logits[: len(recorded)])
        if match := re.fullmatch(r"topk(\d+)_logits_kept", name):
            np.testing.assert_array_equal(restrict(rows, top_k=int(match[1])) > -np.inf, recorded)
        elif match := re.fullmatch(r"topp([\d.]+)_probs", name):
            close(jax.nn.softmax(restrict(rows, top_p=float(match[1]))), recorded)
            np.testing.assert_array_equal(
                restrict(rows, top_p=float(match[1])) > -np.inf, recorded > 0
            )
        else:
            continue
        done += 1
    assert done


def test_weights_go_back_bit_for_bit(recording):
    theirs = converter.to_theirs({"params": recording.params}, recording.model)
    weights = recording.weights
    assert theirs.keys() == weights.keys() == recording.config["shapes"].keys()
    for name, array in weights.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)


def test_the_config_is_found_in_the_weights(recording):
    model = recording.model
    found = converter.generator_config(recording.weights, model.heads, model.head_heads)
    assert found.pop("name") == "rqtransformer"
    for key, value in found.items():
        if key != "shared_words" or "words" in recording.params:
            assert rq.pair_of(value) == rq.pair_of(getattr(model, key)), key
    grid = {key: getattr(model, key) for key in ("codes", "latent", "depth", "codebook_width")}
    shapes = jax.eval_shape(
        lambda: rq.init(rq.Model(**found, **grid), jax.random.key(0), jnp.zeros(1, jnp.int32))
    )
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, recording.params)


def test_what_is_not_built_is_refused(recording):
    weights = recording.weights
    text = {**weights, "pos_emb_cond": np.repeat(weights["pos_emb_cond"], 32, axis=1)}
    with pytest.raises(InputError, match="32 tokens of text, which is not built here"):
        converter.generator_config(text)
    with pytest.raises(InputError, match=r"cond_emb.weight is missing"):
        converter.generator_config(
            {name: x for name, x in weights.items() if name != "cond_emb.weight"}
        )
    theirs = dict(recording.config["transformer"])
    for change, words in (
        ({"vocab_size": [64] * recording.model.depth + [32]}, "different numbers of codes"),
        ({"block_size_cond": 32}, r"several tokens \(text\) is not built"),
        ({"new_branch": True}, "nothing of ours stands for .*new_branch"),
    ):
        with pytest.raises(AssertionError, match=words):
            theirs_to_model({**theirs, **change}, "file")


def cached_logits(model, params, ids, label, codebook):
    """The logits of all codes [B,h,w,D,V].

    One position and one depth come after the other, as in sampling.
    """

    def run(ids):
        next_position, next_depth, carry = rq.cached(model, params, label, codebook, len(ids))

        def one_position(loop, inputs):
            (carry, before), (n, given) = loop, inputs
            carry, state = next_position(carry, n, before)

            def one_depth(loop, inputs):
                (state, before), (d, code) = loop, inputs
                state, logits = next_depth(state, d, before)
                return (state, code), logits

            _, logits = jax.lax.scan(
                one_depth, (state, jnp.zeros_like(given[:, 0])), (jnp.arange(depths), given.T)
            )
            return (carry, given), logits

        depths, tokens = model.depth, ids.reshape(len(ids), -1, model.depth)
        positions = jnp.arange(tokens.shape[1]), jnp.swapaxes(tokens, 0, 1)
        _, logits = jax.lax.scan(one_position, (carry, jnp.zeros_like(tokens[:, 0])), positions)
        return jnp.moveaxis(logits, 2, 0).reshape(*ids.shape, -1)  # from [N,D,B,V]

    return jax.jit(run)(jnp.asarray(ids))


VARIANTS = {  # of the network; tables: of the codebook
    "published": {"classes": 3, "depth": 3},
    "words": {
        "depth": 2,
        **{"codebook_input": False, "codebook_head": False},
        **{"shared_words": False, "shared_classifier": False},
        **{"activation": "quick_gelu", "attention_bias": False, "mlp_bias": False},
    },
    "words in the body": {"depth": 2, "tables": 2, "codebook_input": False, "cumulate": False},
    "words in the head": {
        **{"classes": 3, "depth": 3, "tables": 3},
        **{"codebook_head": False, "head_heads": 4, "head_layers": 1},
        "activation": ("gelu", "quick_gelu"),
        "attention_bias": (True, False),
        "mlp_bias": (False, True),
    },
    "one depth": {"classes": 3, "depth": 1, "codebook_input": False},
}


def model_of(tables=1, **changes):
    del tables
    small = {
        "layers": 2,
        "head_layers": 2,
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
        "codebook_width": WIDTH,
    }
    return rq.Model(**{"codes": CODES, "latent": LATENT, **small, **changes})


def with_effects(model):
    """Parameters large enough to see effects."""
    shapes = jax.eval_shape(lambda: rq.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    return large_weights.drawn(shapes, 0.4)


def codebook_of(tables=1):
    return jax.random.normal(jax.random.key(4), (tables, CODES, WIDTH))


@pytest.fixture(scope="module", params=VARIANTS)
def small(request):
    """A small model, parameters, codebook, two images' ids and labels, and compiled: `run`."""
    options = VARIANTS[request.param]
    model, codebook = model_of(**options), codebook_of(options.get("tables", 1))
    params = with_effects(model)
    ids = np.asarray(jax.random.randint(jax.random.key(1), (2, *LATENT, model.depth), 0, CODES))
    label = jnp.array([1, 2])

    @jax.jit
    def run(ids):
        """-> logits, and what goes into body_input and head_input."""
        seen = {}

        def noted(method, args, kwargs, context):
            if context.module.name in ("body_input", "head_input"):
                seen[context.module.name] = args[0]
            return method(*args, **kwargs)

        with nn.intercept_methods(noted):
            return model.apply({"params": params}, ids, codebook, label), seen

    logits, inputs = run(ids)
    return types.SimpleNamespace(**locals())


def test_no_code_sees_itself_or_a_later_one(small):
    """By gradient, in both directions.

    It is exactly zero from a code and all after it, not zero from any before it.
    """
    model, depth = small.model, small.model.depth
    weights = jax.random.normal(jax.random.key(7), (CODES,))

    def outputs(change):
        def changed(method, args, kwargs, context):
            x = method(*args, **kwargs)
            of_words = context.method_name == "embed" and args[0] is None
            return (
                x + change["words" if of_words else "vectors"][None]
                if of_words or vectors(context)
                else x
            )

        with nn.intercept_methods(changed):
            logits = model.apply(
                {"params": small.params}, small.ids[:1], small.codebook, small.label[:1]
            )
        return (logits @ weights).reshape(-1)

    def vectors(context):
        return context.method_name == "vectors"

    change = {
        "vectors": jnp.zeros((PLACES, depth, WIDTH)),
        "words": jnp.zeros((PLACES, depth, model.width)),
    }
    effects = jax.tree.leaves(jax.jit(jax.jacrev(outputs))(change))
    number = PLACES * depth
    # [of the logits at, code]
    effect = sum(np.abs(x).reshape(number, number, -1).max(-1) for x in effects)
    before = np.tri(number, number, -1, dtype=bool)
    assert (effect[~before] == 0).all() and (effect[before] > 1e-6).all()


def test_cached_logits_are_the_uncached_ones(small):
    cached = cached_logits(small.model, small.params, small.ids, small.label, small.codebook)
    close(cached, np.asarray(small.logits))


def test_the_head_reads_sums_of_vectors_in_the_order_of_depths(small):
    """What goes into both projections, from the codes themselves.

    Another order of depths gives other logits.
    """
    model, ids, codebook = small.model, small.ids, np.asarray(small.codebook)
    vectors = np.stack(
        [codebook[d % len(codebook), ids[..., d]] for d in range(model.depth)], axis=-2
    )
    vectors = vectors.reshape(2, PLACES, model.depth, WIDTH)
    assert len(small.inputs) == model.codebook_input + model.codebook_head
    if model.codebook_input:
        close(small.inputs["body_input"], vectors)
    if model.codebook_head:
        close(
            small.inputs["head_input"], np.cumsum(vectors, axis=-2) if model.cumulate else vectors
        )
    if model.depth > 1:
        ids, exchanged = ids.copy(), ids.copy()
        ids[:, 0, 0, :2], exchanged[:, 0, 0, :2] = [3, 4], [4, 3]
        effect = np.abs(small.run(ids)[0] - small.run(exchanged)[0]).max(axis=(0, -1))[0, 0]
        assert effect[0] == 0 and (effect[1:] > 1e-4).all()


def test_losses_are_those_of_the_logits(small):
    """Hard and soft ones, by depth, over all codes; what is evaluated adds up to them."""
    model, ids, depth = small.model, small.ids, small.model.depth
    one_hot = jax.nn.one_hot(ids, CODES)
    soft = jax.nn.softmax(jax.random.normal(jax.random.key(2), one_hot.shape))

    @jax.jit
    def run():
        given = model, small.params, ids, small.label, jax.random.key(0)
        losses = [
            rq.loss(*given, codebook=small.codebook, soft_targets=x) for x in (None, one_hot, soft)
        ]
        return *losses, rq.evaluate(*given, codebook=small.codebook)

    (value, metrics), (of_one_hot, _), (of_soft, _), evaluated = run()
    log_p = np.asarray(jax.nn.log_softmax(small.logits))
    nll = -np.take_along_axis(log_p, ids[..., None], -1)[..., 0]
    right = np.argmax(log_p, -1) == ids
    close(value, nll.mean())
    close(of_one_hot, nll.mean())
    close(of_soft, -np.sum(np.asarray(soft) * log_p, -1).mean())
    np.testing.assert_allclose(metrics.pop("accuracy"), right.mean(), rtol=1e-6)
    assert metrics.keys() == {f"loss_depth{d + 1}" for d in range(depth)}
    assert len(evaluated) == 2 * depth
    for d in range(depth):
        close(metrics[f"loss_depth{d + 1}"], nll[..., d].mean())
        for name, value in (("cross_entropy", nll), ("accuracy", right)):
            sums = np.asarray(value[..., d].sum((1, 2)), np.float32)
            close(evaluated[f"{name}@depth{d + 1}"], np.stack([sums, np.full(2, PLACES)], -1))


@pytest.mark.parametrize("soft", [False, True])
def test_never_the_logits_of_all_depths_at_once(soft):
    """Neither the loss nor its gradient makes an array larger than the logits of one depth."""
    codes, depth = 5003, 4
    model = model_of(codes=codes, depth=depth)
    ids, codebook = jnp.zeros((3, *LATENT, depth), jnp.int32), jnp.zeros((1, codes, WIDTH))
    params = jax.eval_shape(lambda: rq.init(model, jax.random.key(0), None))
    chances = jax.ShapeDtypeStruct((*ids.shape, codes), jnp.float32) if soft else None

    def value(params, chances):
        return rq.loss(
            model, params, ids, None, jax.random.key(0), codebook=codebook, soft_targets=chances
        )[0]

    made = jax.make_jaxpr(jax.grad(value))(params, chances)
    sizes = [math.prod(shape) for shape in made_shapes(made.jaxpr)]
    assert max(sizes) == 3 * PLACES * codes


def made_shapes(jaxpr):
    """The shapes of all that a jaxpr and those inside it compute."""
    for equation in jaxpr.eqns:
        yield from (x.aval.shape for x in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from made_shapes(inner)


def test_the_codebook_is_frozen_and_dropout_is_of_training_alone():
    model, codebook = model_of(**VARIANTS["published"]), codebook_of()
    params = with_effects(model)
    label = jnp.zeros(2, jnp.int32)
    ids = jnp.ones((2, *LATENT, 3), jnp.int32)
    kinds = "dropout", "attention_dropout", "embedding_dropout"

    @jax.jit
    def run(seed, codebook):
        given = params, ids, label, jax.random.key(seed)
        losses = [
            rq.loss(model.clone(**{kind: 0.3}), *given, codebook=codebook)[0] for kind in kinds
        ]
        return losses, rq.evaluate(
            model.clone(**dict.fromkeys(kinds, 0.3)), *given, codebook=codebook
        )

    (losses, evaluated), (others, again) = run(0, codebook), run(1, codebook)
    assert all(a != b for a, b in zip(losses, others, strict=True)), (losses, others)
    jax.tree.map(np.testing.assert_array_equal, evaluated, again)
    assert not np.any(jax.jit(jax.grad(lambda codebook: run(0, codebook)[0][0]))(codebook))
    assert run(0, 2 * codebook)[0] != losses  # it is read


def test_cached_logits_in_bfloat16_are_close():
    model = model_of(**VARIANTS["published"], dtype="bfloat16")
    params, codebook, label = with_effects(model), codebook_of(), jnp.array([1, 2])
    ids = jax.random.randint(jax.random.key(1), (2, *LATENT, 3), 0, CODES)
    logits = jax.jit(lambda: model.apply({"params": params}, ids, codebook, label))()
    assert logits.dtype == jnp.float32
    close(cached_logits(model, params, ids, label, codebook), np.asarray(logits), 0.05)


def test_what_is_drawn_can_be_restricted_by_depth():
    settings = rq.Settings(0.5, top_k=(2, 0), top_p=0.9)
    assert settings.at_depths(2) == [Autoregressive(0.5, 2, 0.9), Autoregressive(0.5, 0, 0.9)]
    assert rq.Settings(top_k=(3,)).at_depths(2) == [Autoregressive(1.0, 3)] * 2
    assert rq.Settings(top_k=3).at_depths(2) == [Autoregressive(1.0, 3)] * 2
    assert rq.Settings(top_p=(1.0, 0.5)).at_depths(2)[1] == Autoregressive(top_p=0.5)
    with pytest.raises(InputError, match="one number or 2, one a depth"):
        rq.Settings(top_k=(1, 2, 3)).at_depths(2)
    with pytest.raises(InputError, match="top_p expects a number above 0 to 1"):
        rq.Settings(top_p=(0.5, 0.0))

    model, codebook = model_of(**VARIANTS["published"]), codebook_of()
    params, label = with_effects(model), jnp.array([1, 2])
    mask, keys = jnp.ones((2, *LATENT), bool), jax.random.split(jax.random.key(0), 2)
    request = Request(jnp.zeros((*mask.shape, 3), jnp.int32), mask, label, keys)
    given = model, params, request, rq.Settings(top_k=(1, 3, 0))

    @jax.jit
    def run():
        out = rq.sample(*given, codebook=codebook).tokens
        return out, model.apply({"params": params}, out, codebook, label)

    out, logits = map(np.asarray, run())
    chosen = np.take_along_axis(logits, out[..., None], axis=-1)
    rank = np.sum(logits > chosen + 1e-5, axis=-1).reshape(-1, 3)
    assert (rank[:, 0] == 0).all() and (rank[:, 1] < 3).all() and (rank > 0).any()


# configs/*/stage2/*.yaml: codes, classes, width, heads, layers, head_layers, and what their code
# counts.
SIZES = [
    ("ImageNet 480M", 16384, 1000, 1536, 24, 12, 4, 480_921_088),
    ("ImageNet 800M", 16384, 1000, 1536, 24, 24, 4, 820_899_328),
    ("ImageNet 1400M", 16384, 1000, 1536, 24, 42, 6, 1_387_529_728),
    ("ImageNet 3800M", 16384, 1000, 2560, 40, 42, 6, 3_822_488_064),
    ("FFHQ 350M", 2048, 0, 1024, 16, 24, 4, 355_393_536),
]


@pytest.mark.parametrize(
    "codes, classes, width, heads, layers, head_layers, count", [x[1:] for x in SIZES]
)
def test_parameters_are_counted_as_in_the_original(
    codes, classes, width, heads, layers, head_layers, count
):
    model = rq.Model(
        codes=codes,
        latent=(8, 8),
        depth=4,
        codebook_width=256,
        classes=classes,
        layers=layers,
        head_layers=head_layers,
        width=width,
        heads=heads,
    )
    shapes = jax.eval_shape(lambda: rq.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_errors_are_told():
    with pytest.raises(ValueError, match="needs labels"):
        jax.eval_shape(lambda: rq.init(model_of(classes=2), jax.random.key(0), None))
    with pytest.raises(
        InputError, match=r"generator.width = 16 is no multiple of generator.head_heads = 3"
    ):
        model_of(head_heads=3)


def test_tables_of_each_depth_go_back_with_where_they_begin():
    """The branches of the weights that a recording may not have.

    Other offsets are other sizes, and refused.
    """
    for name, options in VARIANTS.items():
        model = model_of(**options)
        tree = {"params": with_effects(model)}
        theirs = converter.to_theirs(tree, model)
        assert (converter.OFFSETS in theirs) == (
            "words" in tree["params"] and not model.shared_words
        ), name
        found = converter.to_ours(theirs, tree, model)
        jax.tree.map(np.testing.assert_array_equal, found, tree)
        config = converter.generator_config(theirs, model.heads, model.head_heads)
        for key in (
            *("layers", "head_layers", "classes", "attention_bias", "mlp_bias"),
            *("codebook_input", "codebook_head", "shared_classifier"),
        ):
            assert config[key] == getattr(model, key), (name, key)
        if converter.OFFSETS in theirs:
            np.testing.assert_array_equal(theirs[converter.OFFSETS], CODES * np.arange(model.depth))
            theirs[converter.OFFSETS] = theirs[converter.OFFSETS] + 1
            with pytest.raises(
                InputError, match=f"expected {CODES} codes at each of {model.depth} depths"
            ):
                converter.to_ours(theirs, tree, model)
