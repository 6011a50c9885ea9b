"""Dropout by the generator of an accelerator, drawn here on CPUs."""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import mesh
from evqgan.nn.dropout import Dropout

X = jnp.ones((8, 30, 64))


@pytest.fixture
def elsewhere(monkeypatch):
    """What is traced is for another device than a CPU."""
    monkeypatch.setattr(mesh, "platform", lambda: "tpu")


def dropped(rate, seed=0, x=X, module=Dropout):
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(module(rate, deterministic=False).apply({}, x, rngs=rngs))


def test_on_a_cpu_it_is_that_of_linen_to_the_bit():
    np.testing.assert_array_equal(dropped(0.3), dropped(0.3, module=nn.Dropout))


def test_elsewhere_a_share_is_zero_and_the_mean_stays(elsewhere):
    y = dropped(0.3)
    assert (dropped(0.3, module=nn.Dropout) != y).any()
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-4)  # a rate counts to 2^-16
    for axis in range(3):  # everywhere, but for five deviations
        others = tuple({0, 1, 2} - {axis})
        share = (y == 0).mean(axis=others)
        assert np.abs(share - 0.3).max() < 5 * (0.3 * 0.7 * X.shape[axis] / X.size) ** 0.5
    flat = (y == 0).reshape(8, -1).astype(float)
    between = np.corrcoef(flat) - np.eye(8)
    assert np.abs(between).max() < 5 * flat.shape[1] ** -0.5  # no row is another one's
    np.testing.assert_array_equal(dropped(0.3), y)
    assert (dropped(0.3, seed=1) != y).mean() > 0.3
    assert dropped(0.3, x=X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    x = jax.random.uniform(jax.random.key(2), X.shape, jnp.bfloat16)  # 1 / 0.9 is none of it
    y, kept = dropped(0.1, x=x).astype(np.float32), np.asarray(x, np.float32)
    np.testing.assert_allclose(y.sum() / kept[y > 0].sum(), 1 / 0.9, rtol=3e-4)
    assert not dropped(1.0).any() and (dropped(0.0) == 1).all()


def test_what_the_backward_pass_draws_again_is_the_same(elsewhere):
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.remat(Dropout)(0.5, deterministic=False)(x)

    @jax.jit
    def slopes(x):
        run = lambda x: Twice().apply({}, x, rngs={"dropout": jax.random.key(0)})  # noqa: E731
        return run(x), jax.grad(lambda x: jnp.sum(run(x)))(x)

    np.testing.assert_array_equal(*slopes(X))


def on_eight_devices():
    """What test_each_device_makes_its_own runs, in a process that has eight."""
    devices = mesh.make(data=2, fsdp=2, tensor=2)
    x, odd = mesh.put(np.asarray(X), devices), jax.device_put(X[:3], mesh.replicated(devices))
    draw = jax.jit(mesh.over(dropped_here, devices))
    text, y = draw.lower(x).compile().as_text(), np.asarray(draw(x))
    parts = (y == 0).reshape(4, -1).astype(float)  # of data x fsdp
    assert np.abs(parts.mean(axis=1) - 0.3).max() < 5 * (0.21 / parts.shape[1]) ** 0.5
    assert np.abs(np.corrcoef(parts) - np.eye(4)).max() < 5 * parts.shape[1] ** -0.5
    assert "all-reduce" not in text and "all-gather" not in text
    np.testing.assert_array_equal(np.asarray(draw(x)), y)
    assert abs((np.asarray(draw(odd)) == 0).mean() - 0.3) < 0.05  # of 3 rows: made whole


def dropped_here(x):
    rngs = {"dropout": jax.random.key(0)}
    return mesh.spread(Dropout(0.3, deterministic=False).apply({}, x, rngs=rngs))


def test_each_device_makes_its_own():
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from evqgan.core import mesh; mesh.platform = lambda: 'tpu'\n"
        "import test_dropout; test_dropout.on_eight_devices()"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
