"""What a command line and the Python API do with the settings of JAX that a user has."""

import concurrent.futures

import jax
import jax.numpy as jnp
import pytest

from evqgan.core import jax_settings

OTHERS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_transfer_guard": "log",
    "jax_disable_jit": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
}


@pytest.mark.parametrize("name", jax_settings.NEEDED)
def test_a_command_line_sets_back_what_it_cannot_run_with(name, capsys):
    before = getattr(jax.config, name)
    jax_settings.require()
    assert not capsys.readouterr().out
    jax.config.update(name, OTHERS[name])
    try:
        jax_settings.require()
        assert getattr(jax.config, name) == jax_settings.NEEDED[name][0]
    finally:
        jax.config.update(name, before)
    said = f"WARNING {name.upper()}={OTHERS[name]} is not heeded: this command runs with "
    assert capsys.readouterr().out.startswith(said)


def test_each_thread_has_its_own():
    @jax_settings.ours()
    def inside(_):
        return jnp.zeros(1, float).dtype.name

    def outside(_):
        with jax.enable_x64(True):
            return inside(_), jnp.zeros(1, float).dtype.name

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(outside, range(32))) == {("float32", "float64")}
