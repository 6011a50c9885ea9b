"""Which GPUs of its node a task of Slurm takes."""

import re
from collections.abc import Mapping
from typing import Any

from evqgan.core.errors import InputError


def gpus(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return {"local_device_ids": an even share, in order, of the GPUs that this task sees}.

    JAX has each task take the one of its number on the node, even where the others then lie idle.
    [] is all that it sees: it is alone on its node, or Slurm shows each task GPUs of its own. {}
    leaves it to JAX. Raises InputError where the tasks of a node cannot share alike.
    """
    tasks, local = tasks_here(environment), environment.get("SLURM_LOCALID", "")
    if not tasks or not local.isdecimal() or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return {}
    if tasks == 1:
        return {"local_device_ids": []}
    seen = seen_here(environment)
    if not seen:
        return {}
    on_node = environment.get("SLURM_GPUS_ON_NODE") or str(seen)
    if environment.get("SLURM_GPUS_PER_TASK") or on_node != str(seen) or seen < tasks:
        return {"local_device_ids": []}
    share, left = divmod(seen, tasks)
    if left:
        raise InputError(
            f"{tasks} tasks cannot share the {seen} GPUs of their node alike: give "
            f"--ntasks-per-node=1, one for all of them, or --ntasks-per-node={seen}"
        )
    return {"local_device_ids": [*range(int(local) * share, (int(local) + 1) * share)]}


def tasks_here(environment: Mapping[str, str]) -> int:
    """Return the number of tasks on this node, of a text such as "8(x2),4"; 0: not known."""
    given, node = (environment.get(f"SLURM_{x}", "") for x in ("STEP_TASKS_PER_NODE", "NODEID"))
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", given)
    each_node = [int(tasks) for tasks, times in found for _ in range(int(times or 1))]
    return each_node[int(node)] if node.isdecimal() and int(node) < len(each_node) else 0


def seen_here(environment: Mapping[str, str]) -> int:
    """Return the number of GPUs that this task sees; 0: none, or not known."""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        number = environment.get("SLURM_GPUS_ON_NODE", "")
        return int(number) if number.isdecimal() else 0
    return len([x for x in shown.split(",") if x.strip() and x != "NoDevFiles"])
