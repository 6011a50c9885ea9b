"""How the arrays of a training state lie on devices, as a table; nothing is compiled."""

from typing import Any

import jax
import numpy as np

from evqgan.aot import programs, topology
from evqgan.core import build, files
from evqgan.core.mesh import path_name
from evqgan.core.space import gib


def run(config: Any, name: str, json: str) -> None:
    """Print which array of the training state is split how on the devices of `name`.

    json: a file for the rows; "" for none. Raises InputError for a config that cannot be built.
    """
    target, config = topology.target(name), programs.completed(config)
    with build.one_line("no training step can be built from this config"):
        (program,) = programs.training(config, target.devices)
    rows = rows_of(program.given[0])
    sizes = " x ".join(f"{axis} {number}" for axis, number in program.device_mesh.shape.items())
    print(f"state of a training step on {target.name}: {program.device_mesh.size} devices, {sizes}")
    print(table(rows), flush=True)
    if json:
        files.save_json(json, {"name": "layout", "mesh": sizes, "rows": rows})


def rows_of(state: Any) -> list[dict[str, Any]]:
    """Return a row for each array of a state of shapes with shardings.

    name; shape; dtype; split: the axes of the mesh that split each dimension, "-" for none; bytes:
    of all of it; device_bytes: of what a device holds.
    """
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        axes = [*leaf.sharding.spec, *[None] * leaf.ndim][: leaf.ndim]
        held = leaf.sharding.shard_shape(leaf.shape)
        rows.append(
            {
                "name": path_name(path),
                "shape": list(leaf.shape),
                "dtype": np.dtype(leaf.dtype).name,
                "split": [in_words(axis) for axis in axes],
                "bytes": int(np.prod(leaf.shape)) * leaf.dtype.itemsize,
                "device_bytes": int(np.prod(held)) * leaf.dtype.itemsize,
            }
        )
    return rows


def in_words(axis: Any) -> str:
    """Return the axis, or the axes, of a mesh that split a dimension: "fsdp", "-" for none."""
    return "-" if axis is None else "+".join([axis] if isinstance(axis, str) else axis)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as text, and below them what a device holds of all."""
    cells = [("array", "shape", "dtype", "split over", "a device")]
    for row in rows:
        shape, split = (", ".join(map(str, row[key])) for key in ("shape", "split"))
        held = gib(row["device_bytes"])
        cells.append((row["name"], f"[{shape}]", row["dtype"], split or "-", held))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    whole, held = (sum(row[key] for row in rows) for key in ("bytes", "device_bytes"))
    lines.append(f"all: {gib(whole)}, of which a device holds {gib(held)}")
    return "\n".join(lines)
