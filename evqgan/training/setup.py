"""What a run is made of, but for its state: data, stage, length, device mesh, compiled step."""

import dataclasses
import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from evqgan import evals
from evqgan.data.dataset import Dataset
from evqgan.training import stage as stages
from evqgan.training.run_length import RunLength


class Compiled(NamedTuple):
    """The functions of a stage over a device mesh; see `prepare.jitted`."""

    abstract_state: Any  # shapes with shardings
    init: Callable[[], dict]
    update: Any  # jitted: (state, batch) -> state, metrics


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What a run is made of, but for its state; made by `prepare.prepare`."""

    config: Any  # with what training notes in it, see `core.schema.Experiment`
    workdir: pathlib.Path
    module: ModuleType  # of the stage
    stage: stages.Stage
    dataset: Dataset
    data: str  # a line about the training set
    length: RunLength
    every: dict[str, int]  # {"log", "eval", "checkpoint": every how many steps it is due}
    device_mesh: jax.sharding.Mesh
    rows: np.ndarray  # of a batch, that this process reads
    compiled: Compiled
    early_update: Any  # jitted, as `compiled.update`: of the first `stage.early_steps` steps
    evaluators: dict[str, evals.Evaluator]
    flops: tuple[float, float]  # of an early step, and of others; 0: unknown

    def update_at(self, step: int) -> Any:
        """Return the jitted update after `step` steps."""
        return self.compiled.update if step >= self.stage.early_steps else self.early_update

    def flops_at(self, step: int) -> float:
        """Return the FLOPs of the update after `step` steps on each device; 0 if not known."""
        return self.flops[step >= self.stage.early_steps] / self.device_mesh.size

    def due(self, step: int) -> set[str]:
        """Return which of "log", "eval" and "checkpoint" are due after `step` steps."""
        last = step == self.length.total
        return {name for name, number in self.every.items() if last or step % number == 0}
