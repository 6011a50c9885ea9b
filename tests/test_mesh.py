"""Meshes and rules; what runs over several devices is in test_multidevice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from ml_collections import ConfigDict

from evqgan.core import mesh
from evqgan.core.errors import InputError
from evqgan.training import prepare

EIGHT = AbstractMesh((2, 2, 2), mesh.AXES, axis_types=(AxisType.Auto,) * 3)


def spec(path, shape):
    tree = jnp.zeros(shape)
    for name in reversed(path.split("/")):
        tree = {name: tree}
    return jax.tree.leaves(mesh.shardings(tree, EIGHT))[0].spec


def test_rules_split_the_last_dimensions_and_leave_scanned_layers_whole():
    none, fsdp, tensor = None, "fsdp", "tensor"
    assert spec("params/blocks/attention/query/kernel", (5, 8, 2, 4)) == PartitionSpec(
        none, fsdp, tensor, none
    )
    assert spec("params/blocks/attention/key_value/kernel", (5, 8, 2, 2, 4)) == PartitionSpec(
        none, fsdp, none, tensor, none
    )
    assert spec("params/blocks/attention/out/kernel", (5, 2, 4, 8)) == PartitionSpec(
        none, tensor, none, fsdp
    )
    assert spec("ema/blocks/mlp/hidden/kernel", (5, 8, 32)) == PartitionSpec(none, fsdp, tensor)
    assert spec("params/codes/embedding", (10, 8)) == PartitionSpec(fsdp, none)
    assert spec("params/words", (10, 8)) == PartitionSpec(fsdp, none)
    assert spec("params/norm/scale", (8,)) == PartitionSpec()


def test_a_dimension_that_does_not_divide_stays_whole():
    assert spec("params/codes/embedding", (11, 8)) == PartitionSpec()
    assert spec("params/attention/query/kernel", (8, 3, 4)) == PartitionSpec("fsdp", None, None)


def test_optimizer_state_follows_its_parameters():
    import optax

    params = {"mlp": {"hidden": {"kernel": jnp.zeros((8, 32))}}}
    state = jax.eval_shape(optax.adamw(1e-3).init, params)
    specs = {s.spec for s in jax.tree.leaves(mesh.shardings(state, EIGHT))}
    assert PartitionSpec("fsdp", "tensor") in specs


def test_sizes_that_do_not_fit_are_named():
    devices = jax.devices()[:1]
    assert mesh.make(devices=devices).shape == {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(InputError, match=r"'fsdp': 3.* needs .* devices, not 1"):
        mesh.make(fsdp=3, devices=devices)
    with pytest.raises(InputError, match="leave one axis open"):
        mesh.make(data=-1, fsdp=-1, devices=devices)


def test_rows_are_those_of_all_devices_of_a_process(monkeypatch):
    """A process of several, whose devices hold slices that are no neighbours, two the same."""

    class Sharding:
        def addressable_devices_indices_map(self, shape):
            assert shape == (8,)
            return {0: (slice(6, 8),), 1: (slice(0, 2),), 2: (slice(6, 8),)}

    one = mesh.make(devices=jax.devices()[:1])
    np.testing.assert_array_equal(mesh.rows(one, 8), np.arange(8))
    monkeypatch.setattr(mesh, "batch_sharding", lambda _: Sharding())
    np.testing.assert_array_equal(mesh.rows(one, 8), [0, 1, 6, 7])


def test_a_batch_that_cannot_be_split_is_named():
    message = (
        r"config.eval_batch_size = 6 cannot be split in 4 ways .*data 2 x fsdp 2\): "
        "give a positive multiple of 4"
    )
    with pytest.raises(InputError, match=message):
        mesh.rows(EIGHT, 6, "config.eval_batch_size")
    with pytest.raises(InputError, match="config.batch_size = 0 cannot be split in 1 way"):
        mesh.rows(mesh.make(devices=jax.devices()[:1]), 0)


def test_a_batch_that_cannot_be_split_is_told_what_would_do():
    with pytest.raises(InputError, match=r"such as 8, or --config.mesh.tensor=4"):
        mesh.rows(EIGHT, 6)  # 8 devices: 6 = 2 ways of 3
    one = AbstractMesh((256, 1, 1), mesh.AXES, axis_types=(AxisType.Auto,) * 3)
    with pytest.raises(InputError, match=r"such as 256, or --config.mesh.tensor=2"):
        mesh.rows(one, 128)


def test_each_part_of_a_batch_is_split_too():
    config = ConfigDict({"batch_size": 16, "optimizer": {"accumulate": 4}})
    np.testing.assert_array_equal(
        prepare.rows_of(config, mesh.make(devices=jax.devices()[:1])), np.arange(16)
    )
    config.optimizer.accumulate = 8
    with pytest.raises(InputError, match=r"batch_size / config.optimizer.accumulate = 2 cannot"):
        prepare.rows_of(config, EIGHT)


def test_activations_stay_where_the_batch_is():
    """Only within `over`, and only where data x fsdp divides them."""

    def step(x, y):
        return mesh.spread({"x": x, "y": y})["x"] * 2 + jnp.sum(y)

    given = jnp.zeros((8, 3)), jnp.zeros((6, 3))
    text = str(jax.make_jaxpr(mesh.over(step, EIGHT))(*given))
    assert text.count("sharding_constraint[") == 1 and "('data', 'fsdp')" in text
    assert "sharding_constraint" not in str(jax.make_jaxpr(step)(*given))
    one = mesh.make(devices=jax.devices()[:1])
    assert "sharding_constraint" not in str(jax.make_jaxpr(mesh.over(step, one))(*given))


def test_a_program_is_of_the_platform_of_its_mesh(monkeypatch):
    one = mesh.make(devices=jax.devices()[:1])
    here = jax.devices()[0].platform
    monkeypatch.setattr(jax, "default_backend", lambda: "another")
    assert mesh.platform() == "another"
    assert mesh.over(mesh.platform, one)() == here


def test_put_keeps_values_and_dtypes():
    one = mesh.make(devices=jax.devices()[:1])
    batch = {
        "image": np.arange(12, dtype=np.uint8).reshape(2, 6),
        "label": np.array([1, 2], np.int32),
    }
    placed = mesh.put(batch, one)
    assert placed["image"].dtype == jnp.uint8
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
    with pytest.raises(ValueError, match="expected 4 rows of a batch of 4, got 2"):
        mesh.put(batch, one, 4)
