"""Meshes and rules; what runs over several devices is in test_multidevice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from evqgan.core import mesh
from evqgan.core.errors import InputError

EIGHT = AbstractMesh((2, 2, 2), mesh.AXES, axis_types=(AxisType.Auto,) * 3)


def spec(path, shape):
    tree = jnp.zeros(shape)
    for name in reversed(path.split("/")):
        tree = {name: tree}
    return jax.tree.leaves(mesh.shardings(tree, EIGHT))[0].spec


def test_rules_split_the_last_dimensions_and_leave_scanned_layers_whole():
    none, fsdp, tensor = None, "fsdp", "tensor"
    assert spec("params/blocks/attention/query/kernel", (5, 8, 2, 4)) == PartitionSpec(none, fsdp, tensor, none)
    assert spec("params/blocks/attention/key_value/kernel", (5, 8, 2, 2, 4)) == PartitionSpec(
        none, fsdp, none, tensor, none
    )
    assert spec("params/blocks/attention/out/kernel", (5, 2, 4, 8)) == PartitionSpec(none, tensor, none, fsdp)
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
    with pytest.raises(InputError, match=r"'fsdp': 3.* does not fit 1 devices"):
        mesh.make(fsdp=3, devices=devices)
    with pytest.raises(InputError, match="leave one axis open"):
        mesh.make(data=-1, fsdp=-1, devices=devices)


def test_put_keeps_values_and_dtypes():
    one = mesh.make(devices=jax.devices()[:1])
    batch = {"image": np.arange(12, dtype=np.uint8).reshape(2, 6), "label": np.array([1, 2], np.int32)}
    placed = mesh.put(batch, one)
    assert placed["image"].dtype == jnp.uint8
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
