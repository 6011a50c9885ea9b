"""VIM is the GPT with other arguments: parity with the recorded port.

Its time shift and its way of sampling are tested, too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import close, files, load, recorded
from test_gpt import like

from evqgan.convert import mapping
from evqgan.convert import vim as names
from evqgan.generators import Request, gpt


@functools.cache
def recording(path):
    """-> model, our parameters, weights, inputs, outputs of a file."""
    config, weights, inputs, outputs = load(path)
    theirs = dict(config["gpt"])
    conditions = theirs.pop("cond_num_tokens")
    model = gpt.Model(
        codes=theirs.pop("vocab_img_size"),
        latent=(1, theirs.pop("img_num_tokens")),
        classes=theirs.pop("vocab_cond_size"),
        condition_tokens=conditions,
        unmasked=conditions,
        layers=theirs.pop("n_layers"),
        width=theirs.pop("embed_dim"),
        heads=theirs.pop("n_heads"),
        attention_bias=theirs.pop("attn_bias", True),
        mlp_bias=theirs.pop("mlp_bias", True),
        tables="separate",
        time_shift=True,
        activation="squared_relu",
        dropout=0.0,
    )
    assert not theirs, f"{path}: nothing of ours stands for {sorted(theirs)}"
    return (
        model,
        mapping.to_ours(names.TABLE, weights, like(model))["params"],
        weights,
        inputs,
        outputs,
    )


def grid(codes):
    return codes.reshape(len(codes), 1, -1, 1)


@functools.cache
def passes(path):
    """-> loss, gradients by their names, all logits of a file."""
    model, params, _, inputs, _ = recording(path)
    ids, label, rng = grid(inputs["codes"]), inputs["cond"], jax.random.key(0)

    @jax.jit
    def run(params):
        (value, _), grads = jax.value_and_grad(
            lambda p: gpt.loss(model, p, ids, label, rng), has_aux=True
        )(params)
        return value, grads, gpt.predict(model, params, ids, label, rng)[0]

    value, grads, logits = run(params)
    return value, mapping.to_theirs(names.TABLE, {"params": grads}), logits


def steps(model, params, inputs):
    """Logits [B,V] of the first code and of the second one, from the cache."""
    first, cache = model.apply({"params": params}, inputs["cond"], method="begin")
    return first, model.apply({"params": params}, cache, inputs["codes"][:, 0], 1, method="step")[0]


def greedy(model, params, inputs):
    """The likeliest codes [B,h*w], made with the cache."""
    ids, label = jnp.zeros_like(grid(inputs["codes"])), inputs["cond"]
    keys = jax.random.split(jax.random.key(0), len(ids))
    request = Request(ids, jnp.ones(ids.shape[:3], bool), label, keys)
    run = jax.jit(lambda p: gpt.sample(model, p, request, gpt.Settings(temperature=0.0)).tokens)
    return run(params).reshape(len(ids), -1)


@pytest.mark.parametrize(
    "path, name", recorded("vitvqgan_gpt*.npz"), ids=lambda x: getattr(x, "stem", x)
)
def test_output_is_the_recorded_one(path, name):
    model, params, _, inputs, outputs = recording(path)
    as_recorded, wanted = model.clone(forgetful_time_shift=True), outputs[name]
    if name == "logits":
        close(passes(path)[2], wanted, 1e-5)
    elif name == "loss":
        close(passes(path)[0][None], wanted, 1e-5)
    elif name in ("sample_logits0", "sample_logits1"):
        logits = jax.jit(lambda params: steps(as_recorded, params, inputs))(params)
        close(logits[int(name[-1])], wanted, 1e-5)
    elif name == "greedy_sample":
        np.testing.assert_array_equal(greedy(as_recorded, params, inputs), wanted)
    elif name.startswith(("grad_", "grad/")):
        grads, key = passes(path)[1], name[5:]
        close(grads.get(key, grads.get(f"{key}.weight")), wanted, 1e-4)
    else:
        pytest.fail(f"{path}: nothing compares {name}")


@pytest.mark.parametrize("path", files("vitvqgan_gpt*.npz"), ids=lambda x: x.stem)
def test_the_way_back_to_their_names_is_exact(path):
    _, params, weights, _, _ = recording(path)
    theirs = mapping.to_theirs(names.TABLE, {"params": params})
    assert set(theirs) == set(weights)
    for name, array in weights.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)


@pytest.mark.parametrize("path", files("vitvqgan_gpt*.npz"), ids=lambda x: x.stem)
def test_the_config_is_read_from_the_weights(path):
    model, _, weights, _, _ = recording(path)
    config = names.generator_config(weights, model.heads)
    assert config.pop("name") == "gpt"
    made = gpt.Model(**config, latent=model.latent, dropout=0.0)
    changed = {
        "classes": model.classes if model.classes > 1 else 0,  # one word is no class
        "unmasked": model.unmasked if model.unmasked > 1 else 0,  # one token always sees itself
    }
    assert made == model.clone(**changed)
    mapping.to_ours(names.TABLE, weights, like(made))


@pytest.mark.parametrize("path", files("vitvqgan_gpt*.npz"), ids=lambda x: x.stem)
def test_our_cache_does_not_forget(path):
    """With the token before kept in the cache, samples are of the model that was trained.

    The port's are not.
    """
    model, params, _, inputs, outputs = recording(path)
    close(
        jax.jit(lambda params: steps(model, params, inputs))(params)[1],
        outputs["logits"][:, 1],
        1e-5,
    )
    made = np.asarray(greedy(model, params, inputs))
    logits = jax.jit(
        lambda params: gpt.predict(model, params, grid(made), inputs["cond"], jax.random.key(0))[0]
    )
    np.testing.assert_array_equal(np.argmax(logits(params), axis=-1), made)


def test_a_new_token_mixes_more_of_itself_in_later_channels():
    model = gpt.Model(
        codes=7, latent=(2, 2), layers=3, width=5, heads=1, tables="separate", time_shift=True
    )
    params = jax.jit(lambda: gpt.init(model, jax.random.key(0), jnp.zeros(1, jnp.int32)))()
    mix = params["blocks"]["time_mix"]
    np.testing.assert_allclose(
        mix, np.broadcast_to([0, 0.25, 0.5, 0.75, 1], (3, 1, 1, 5)), rtol=1e-6
    )
