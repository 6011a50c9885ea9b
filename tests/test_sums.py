"""Gradients in bfloat16: sums over tokens and images are computed in float32, in every model."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from evqgan.core import build
from evqgan.nn.attention import kernel_init

IMAGE, LATENT = jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 8, 8, 8))
LABEL, RNG = jnp.zeros(2, jnp.int32), jax.random.key(0)
VIT = {
    "size": 32,
    "patch": 4,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "head_dim": 16,
    "mlp_width": 64,
}
CODERS = {
    "swin": {"width": 32, "depths": (2, 1), "head_dim": 16, "window": 4},
    "cnn": {"width": 32, "multipliers": (1, 2), "attention": (2,), "z_width": 8},
    "vit": {**VIT, "learned_positions": True},
}
SMALL = {"layers": 2, "width": 32, "heads": 2}
VIM = {"tables": "separate", "time_shift": True, "activation": "squared_relu"}
RQ = {**SMALL, "depth": 4, "codebook_width": 8, "head_layers": 1}
WORDS = {**RQ, "codebook_input": False, "codebook_head": False}
GENERATORS = {
    "multigrained": ("multigrained", {**SMALL, "window": 4, "extend": 1, "code_width": 8}, {}),
    "maskgit": ("maskgit", SMALL, {}),
    "gpt": ("gpt", SMALL, {}),
    "vim": ("gpt", {**SMALL, **VIM}, {}),
    "rqtransformer": ("rqtransformer", RQ, {"codebook": jnp.zeros((1, 16, 8))}),
    "rqtransformer, words": ("rqtransformer", WORDS, {"codebook": jnp.zeros((1, 16, 8))}),
}

CRITICS = {
    "projected": {"cond": True, "classes": 3},
    "patchgan": {},
    "patchgan, act": {"norm": "act"},
    "stylegan": {"channel_multiplier": 0.25},
    "maskgit": {"channel_multiplier": 0.25},
    "blurpool": {"width": 32},
}


def narrow_sums(jaxpr):
    """The sums and additions into tables that a jaxpr computes in bfloat16, as text.

    Sums are those of more than one term.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("reduce_sum", "scatter-add") and equation.outvars[0].aval.dtype == jnp.bfloat16:
            sizes = [math.prod(x.aval.shape) for x in (equation.invars[0], equation.outvars[0])]
            if name == "scatter-add" or sizes[0] > sizes[1]:
                yield f"{name} of {equation.invars[0].aval}"
        for inner in jaxprs_in_params(equation.params):
            yield from narrow_sums(inner)


def in_the_gradient(function, params, *rest):
    def total(params, *rest):
        return jnp.sum(jnp.square(function(params, *rest).astype(jnp.float32)))

    return list(narrow_sums(jax.make_jaxpr(jax.grad(total))(params, *rest).jaxpr))


@pytest.mark.parametrize("entry", ["Encoder", "Decoder"])
@pytest.mark.parametrize("name", CODERS)
def test_of_tokenizers(name, entry):
    coder = build.build(
        "tokenizers", entry, {"name": name, **CODERS[name]}, "coder", dtype="bfloat16"
    )
    x = IMAGE if entry == "Encoder" else LATENT
    assert not in_the_gradient(
        lambda params: coder.apply(params, x), jax.eval_shape(coder.init, RNG, x)
    )


@pytest.mark.parametrize("name", GENERATORS)
def test_of_generators(name):
    module, keys, loss = GENERATORS[name]
    generator = build.module("generators", module, "generator")
    model = generator.Model(codes=16, latent=(8, 8), classes=3, dtype="bfloat16", **keys)
    ids = jnp.zeros((2, 8, 8, keys.get("depth", 1)), jnp.int32)
    params = jax.eval_shape(lambda: generator.init(model, RNG, LABEL[:1]))
    assert not in_the_gradient(
        lambda params: generator.loss(model, params, ids, LABEL, RNG, **loss)[0], params
    )


@pytest.mark.parametrize("name", CRITICS)
def test_of_critics(name):
    critic = build.build(
        "losses", "Critic", {"name": name.split(",")[0], **CRITICS[name]}, "c", dtype="bfloat16"
    )
    rngs = {"params": RNG, "augment": RNG}
    variables = dict(jax.eval_shape(lambda: critic.init(rngs, IMAGE, LABEL, train=True)))

    def logits(params, others):
        given = {"params": params, **others}
        return critic.apply(given, IMAGE, LABEL, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    assert not in_the_gradient(logits, variables.pop("params"), variables)


def test_a_table_that_is_cast_before_it_is_read_would_be_found():
    table = kernel_init(RNG, (5, 3))
    early = in_the_gradient(
        lambda table: table.astype(jnp.bfloat16)[jnp.zeros(7, jnp.int32)], table
    )
    late = in_the_gradient(lambda table: table[jnp.zeros(7, jnp.int32)].astype(jnp.bfloat16), table)
    assert len(early) == 1 and not late
    assert in_the_gradient(
        lambda bias: jnp.zeros((7, 3), jnp.bfloat16) + bias.astype(jnp.bfloat16), table[:1]
    )
