"""The benchmark of sampling: what it counts is what the programs do."""

import json

import jax
import jax.numpy as jnp
import pytest

from evqgan.benchmark import __main__ as benchmark
from evqgan.benchmark import sampling
from evqgan.generators import multigrained


def model(attention="prefix", tokens="masked", latent=64, **keys):
    """The model of the cost table, narrow."""
    keys = {"codes": 64, "window": 8, "extend": 2, "layers": 2, "width": 96, "heads": 2, **keys}
    keys["global_tokens"] = tokens
    return multigrained.Model(latent=(latent, latent), attention=attention, **keys)


def test_token_passes_are_those_of_the_cost_table():
    """64 x 64 tokens, W_s 8, E_s 2, T 8.

    nB T (nB + (W_s + 2 E_s)^2), nB (nB + ring + T W_s^2), nB (2 + ring + ...).
    """
    assert sampling.work(model("joint"), 8, "raster")[0] == 64 * 8 * (64 + 144) == 106_496
    assert sampling.work(model("prefix"), 8, "raster")[0] == 64 * (64 + 80 + 8 * 64) == 41_984
    assert (
        sampling.work(model("prefix", "ordered"), 8, "raster")[0]
        == 64 * (2 + 80 + 8 * 64)
        == 38_016
    )


def test_a_wavefront_has_fewer_steps_and_no_fewer_tokens():
    steps, rows = sampling.decoding_order(64, 64, 8, 2, "wavefront").shape
    assert steps < 64 and rows > 1
    passes, flops = sampling.work(model("prefix", "ordered"), 8, "wavefront")
    assert passes == 64 + steps * rows * (1 + 80 + 8 * 64)
    assert flops > 0


@pytest.mark.parametrize(
    "attention, tokens, rows",
    [("joint", "masked", 1), ("prefix", "masked", 1), ("prefix", "ordered", 3)],
)
def test_flops_are_those_of_the_compiled_programs(attention, tokens, rows):
    """XLA counts the body of a loop once, so that a model of two layers counts as one."""
    net = model(attention, tokens, latent=32)
    one = net.clone(layers=1)
    inputs = {
        "grid": jnp.zeros((1, 1, 32, 32), jnp.int32),
        "ring": jnp.zeros((1, rows, 80), jnp.int32),
        "block": jnp.arange(rows, dtype=jnp.int32)[None],
        "rank": jnp.ones((1, 16), jnp.int32) if tokens == "ordered" else None,
    }
    target = jnp.zeros((1, rows, 64), jnp.int32)
    params = jax.eval_shape(
        lambda: multigrained.init(net, jax.random.key(0), jnp.zeros((1,), jnp.int32))
    )

    def apply(params, *args, method=None, **inputs):
        return net.apply({"params": params}, *args, **inputs, method=method)

    if attention == "joint":
        counted = counts(lambda p, i, t: apply(p, **i, target=t), params, inputs, target)
        assert sampling.joint_flops(one, rows) == pytest.approx(counted, rel=0.1)
        return
    counted = counts(lambda p, i: apply(p, **i, method="context"), params, inputs)
    both = sampling.globals_flops(one, 16, 16) + sampling.ring_flops(one, rows)
    assert both == pytest.approx(counted, rel=0.1)
    context = jax.eval_shape(lambda p: apply(p, **inputs, method="context"), params)
    counted = counts(
        lambda p, c, t, b: apply(p, c, t, b, method="continued"),
        params,
        context,
        target,
        inputs["block"],
    )
    assert sampling.continued_flops(one, rows) == pytest.approx(counted, rel=0.1)
    if tokens == "ordered":
        known = inputs["grid"][:, 0], inputs["rank"]
        pair = jax.eval_shape(lambda p: apply(p, *known, method="begin"), params)
        front = jnp.arange(rows)
        counted = counts(
            lambda p, c: apply(p, c, known[0], front, known[1], method="complete"), params, pair
        )
        assert sampling.globals_flops(one, rows, 16 + rows) == pytest.approx(counted, rel=0.1)


def counts(function, *args):
    """XLA's count of the FLOPs of a function."""
    found = jax.jit(function).lower(*args).compile().cost_analysis()
    return (found[0] if isinstance(found, list) else found)["flops"]


def test_the_command_prints_and_writes_rows(tmp_path, capsys):
    file = tmp_path / "rows.json"
    small = [
        "--layers=1",
        "--width=128",
        "--latent=8",
        "--window=4",
        "--extend=1",
        "--steps=2",
        "--batch=2",
        "--rounds=1",
    ]
    assert benchmark.main(["sampling", *small, f"--json={file}"]) == 0
    found = json.loads(file.read_text())
    names = [
        "system",
        "latent",
        "window",
        "batch",
        "seconds_per_image",
        "attention",
        "global_tokens",
        "order",
    ]
    assert [list(row)[:8] for row in found["rows"]] == [names] * 4
    assert [
        (row["attention"], row["global_tokens"], row["order"]) for row in found["rows"]
    ] == list(sampling.ROWS)
    assert all(row["seconds_per_image"] > 0 and row["gflops"] > 0 for row in found["rows"])
    joint, prefix, ordered, wavefront = (row["token_passes"] for row in found["rows"])
    assert joint == 4 * 2 * (4 + 9 + 16) and prefix == 4 * (4 + 9 + 2 * 16)
    assert ordered == 4 * (2 + 9 + 2 * 16) and wavefront >= ordered
    text = capsys.readouterr().out
    assert "1 layers of width 128" in text and "token_passes" in text and "wavefront" in text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--width=50"], "expected --width as a multiple of 128, got 50"),
        (["--steps=0"], "--steps=0: expected a positive integer"),
        (["--attention=full"], "--attention=full: value should be one of <joint|prefix>"),
        (["--order=spiral", "--attention=prefix"], "--order=spiral: value should be one of"),
        (["--window=7"], "does not divide the 64 x 64 token grid"),
        (["--dtype=float16"], "--dtype=float16: value should be one of <bfloat16|float32>"),
        (["--stepps=8"], "there is no flag --stepps: did you mean '--steps'?"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys):
    assert benchmark.main(["sampling", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")
