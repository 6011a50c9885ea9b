"""Evaluators of a config that are ready to measure its model, before it is loaded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evqgan import models
from evqgan.core import limits, mesh
from evqgan.data.dataset import Dataset
from evqgan.evals import Evaluator, build_all


def chosen(evals: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """Return those of config.evals that `metrics` names, all if it names none."""
    return {name: keys for name, keys in evals.items() if not metrics or name in metrics}


class Evaluators(NamedTuple):
    """Evaluators that are ready to measure a model, and the devices they do it on."""

    by_name: dict[str, Evaluator]
    device_mesh: Mesh


def evaluators_of(
    config: ConfigDict, dataset: Dataset, evals: Mapping[str, Any], batch_size: int | None = None
) -> Evaluators:
    """Return the evaluators of a config's model, which need not be loaded yet.

    All devices of all processes will work. Batches are as large as the config says on any number of
    them, for random masks depend on the batch: devices that cannot divide it compute what others
    do.

    evals: {name of an evaluator: its keys}.
    batch_size: images a device at a time (default: as the config says).

    Raises InputError for settings that cannot be, and for weights or a file that are not there.
    """
    config = config.copy_and_resolve_references()
    devices = jax.device_count()
    limits.require_batch(batch_size or 1, dataset.shape)
    size = config.get("eval_batch_size") or config.batch_size
    size = batch_size * devices if batch_size else size
    device_mesh = mesh.make(data=math.gcd(size, devices), tensor=-1)
    with config.unlocked():  # no pictures
        config.evals = ConfigDict({name: {**keys, "show": 0} for name, keys in evals.items()})
        config.eval_batch_size = size
    return Evaluators(build_all(config, models.of(config), dataset, device_mesh), device_mesh)


def on_every_device(state: Any, device_mesh: Mesh) -> Any:
    """Return arrays, which every local device holds in full, as arrays of all devices of a mesh."""
    replicated = mesh.replicated(device_mesh)

    def of_mesh(x: jax.Array) -> jax.Array:
        shards = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, replicated, shards)

    return jax.tree.map(of_mesh, state)
