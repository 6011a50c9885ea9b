"""Windows on maps of any size: partition, shift, padding, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.nn.windows import WindowBlock, layout, merge, partition, relative_index


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def random_params(module, x):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), shapes)


def apply(module, params, x):
    return jax.jit(lambda params, x: module.apply(params, x))(params, x)


def test_merge_is_the_inverse_of_partition():
    x = normal((2, 6, 8, 3))
    windows = partition(x, (3, 2))
    assert windows.shape == (2, 8, 6, 3)
    np.testing.assert_array_equal(windows[1, 4], x[1, 3:6, 0:2].reshape(6, 3))  # raster order
    np.testing.assert_array_equal(merge(windows, (3, 2), 6, 8), x)


@pytest.mark.parametrize("window", [4, 5])
def test_relative_index_is_a_function_of_the_offset(window):
    size = (3, 4)
    index = relative_index(size, window)
    places = np.stack(np.unravel_index(np.arange(12), size), axis=-1)
    offsets = places[:, None] - places[None]
    rows, columns = np.unravel_index(index, (2 * window - 1,) * 2)
    np.testing.assert_array_equal(np.stack([rows, columns], -1) - (window - 1), offsets)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (8, 12), (10, 13), (5, 9), (3, 9), (3, 2)])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_token_sees_exactly_the_real_tokens_of_its_shifted_window(h, w, shifted):
    """Against the definition: cells of a grid that starts half a window earlier.

    There is no wrapping and no padding.
    """
    window = 4
    plan = layout(h, w, window, shifted)
    assert plan.shift == (2 if shifted and min(h, w) > window else 0)
    cells = np.indices((h, w)).transpose(1, 2, 0)  # the window of each token
    cells = (cells + np.subtract(plan.size, plan.shift) * (plan.shift > 0)) // np.array(plan.size)
    number = np.arange(h * w).reshape(h, w)
    padded = np.pad(number, ((0, plan.pad[0]), (0, plan.pad[1])), constant_values=-1)
    rolled = np.roll(padded, (-plan.shift, -plan.shift), (0, 1))
    tokens = np.asarray(partition(rolled[None, :, :, None], plan.size))[0, :, :, 0]
    mask = np.ones((*tokens.shape, tokens.shape[-1]), bool) if plan.mask is None else plan.mask
    assert mask.any(axis=-1).all()
    seen = {
        int(q): set(t[m].tolist())
        for t, ms in zip(tokens, mask, strict=True)
        for q, m in zip(t, ms, strict=True)
    }
    cells = cells.reshape(-1, 2)
    for query in range(h * w):
        assert seen[query] == set(np.flatnonzero((cells == cells[query]).all(axis=-1)).tolist())


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("h", "w"), [(8, 12), (6, 9), (3, 3), (2, 7)])
def test_jit_and_shapes(h, w, shifted):
    block, x = WindowBlock(2, 4, shifted), normal((2, h, w, 8))
    params = random_params(block, x)
    y = apply(block, params, x)
    assert y.shape == x.shape and np.isfinite(y).all()


def test_parameters_do_not_depend_on_the_map():
    block = WindowBlock(2, 8, True)
    shapes = [
        jax.tree.map(
            lambda a: a.shape,
            jax.eval_shape(block.init, jax.random.key(0), jnp.zeros((1, h, w, 8))),
        )
        for h, w in ((16, 16), (4, 4), (24, 10))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("shifted", [False, True])
def test_tokens_outside_the_window_have_no_influence(shifted):
    block, x = WindowBlock(1, 4, shifted), normal((1, 10, 9, 4))
    params = random_params(block, x)
    influence = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(block.apply(params, x)[0, 9, 8]))))(x)
    influence = np.abs(influence[0]).max(axis=-1) > 0
    first = (6, 6) if shifted else (8, 8)  # the last window, cut short by the border
    expected = np.zeros((10, 9), bool)
    expected[first[0] :, first[1] :] = True
    np.testing.assert_array_equal(influence, expected)


def test_values_of_padding_do_not_matter(monkeypatch):
    block, x = WindowBlock(2, 4, True), normal((1, 6, 7, 8))
    params = random_params(block, x)
    zeros = apply(block, params, x)
    pad = jnp.pad
    monkeypatch.setattr(jnp, "pad", lambda x, widths: pad(x, widths, constant_values=1e3))
    np.testing.assert_array_equal(apply(block, params, x), zeros)


def test_a_map_of_whole_windows_can_be_cropped_from_a_larger_one():
    """Locality: without a shift, a window's output depends on nothing but the window."""
    block, x = WindowBlock(2, 4), normal((1, 12, 8, 8))
    params = random_params(block, x)
    np.testing.assert_allclose(
        apply(block, params, x)[:, 4:8], apply(block, params, x[:, 4:8]), atol=1e-5
    )
