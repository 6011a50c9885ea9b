"""First values drawn leaf by leaf are those of one compiled function.

`test_multidevice` draws them on several devices.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import leafwise_init
from evqgan.nn.attention import Block
from evqgan.nn.layers import scan_layers
from evqgan.nn.spectral import SpectralConv

TABLE = np.arange(6.0, dtype=np.float32)


class Network(nn.Module):
    """Layers in a scan, two that are equal, and one whose first values depend on another."""

    @nn.compact
    def __call__(self, x):
        x, _ = scan_layers(lambda block, x, _: (block(x)[0], None), Block(2, name="blocks"), x, 3)
        for i in range(2):
            x = nn.Dense(8, bias_init=nn.initializers.uniform(0.1), name=f"dense{i}")(x)
        return SpectralConv(8, 1, name="conv")(x[:, None], train=True)


def state():
    variables = Network().init(jax.random.key(7), jnp.zeros((1, 4, 8)))
    more = {"ema": variables["params"], "table": jnp.asarray(TABLE), "weak": jnp.asarray(1.0)}
    return {**variables, **more, "ids": jax.random.randint(jax.random.key(1), (5,), 0, 9)}


def test_the_numbers_are_those_of_one_program(monkeypatch):
    expected, graphs, make = jax.jit(state)(), [], leafwise_init._Graph
    monkeypatch.setattr(
        leafwise_init, "_Graph", lambda *how: graphs.append(make(*how)) or graphs[-1]
    )
    found = leafwise_init.Drawing(state)()
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves = jax.tree.leaves(found)
    for a, b in zip(leaves, jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
        assert not a.weak_type  # with which a step would be compiled twice
    # A state is donated: no leaf is another one.
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves) == 45
    assert len(graphs[0].programs) < 24  # shapes are few: equal layers and averages share them


@pytest.mark.parametrize("shape", [(), (3,), (5000, 3)])
def test_bits_are_those_of_jax(shape):
    keys = jax.random.split(jax.random.key(3), 2)
    expected = [jax.random.bits(key, shape) for key in keys]
    assert np.array_equal(leafwise_init.bits(keys, shape), np.stack(expected))
    assert np.array_equal(leafwise_init.bits(keys[0], shape), expected[0])
