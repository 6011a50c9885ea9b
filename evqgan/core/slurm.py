"""Which GPUs of its node a task of Slurm takes."""

import re
from collections.abc import Mapping
from typing import Any

from evqgan.core.errors import InputError


def gpus(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return which GPUs this task takes, as a keyword of `jax.distributed.initialize`.

    That is {"local_device_ids": an even share, in order, of the GPUs that it sees}. Left to itself,
    JAX gives task n of a node GPU n alone, and further GPUs lie idle. An empty list means no
    restriction, to JAX: the task takes all that it sees, as it is alone on its node, or as Slurm
    shows each task its own GPUs alone. {} leaves it to JAX: the number of tasks or of GPUs is not
    known, or JAX_LOCAL_DEVICE_IDS is set. Raises InputError where the tasks of a node cannot share
    alike.
    """
    tasks, local = tasks_here(environment), environment.get("SLURM_LOCALID", "")
    if not tasks or not local.isdecimal() or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return {}
    if tasks == 1:
        return {"local_device_ids": []}
    seen = seen_here(environment)
    if not seen:
        return {}
    on_node = environment.get("SLURM_GPUS_ON_NODE")
    # Slurm shows this task fewer than its node has, or none that another one could see, too.
    of_its_own = on_node not in (None, "", str(seen)) or (not on_node and seen < tasks)
    if environment.get("SLURM_GPUS_PER_TASK") or of_its_own:
        return {"local_device_ids": []}
    share, left = divmod(seen, tasks)
    if left or not share:
        raise InputError(
            f"{tasks} tasks cannot share the {seen} GPUs of their node alike: give "
            f"--ntasks-per-node=1, one for all of them, or --ntasks-per-node={seen}"
        )
    return {"local_device_ids": [*range(int(local) * share, (int(local) + 1) * share)]}


def tasks_here(environment: Mapping[str, str]) -> int:
    """Return the number of tasks on this node; 0: not known.

    SLURM_STEP_TASKS_PER_NODE is such as "8(x2),4": 8 on each of two nodes, 4 on the third.
    """
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
