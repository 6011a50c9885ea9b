"""Training runs in processes of their own, which a fault may end and which are started again."""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evqgan.core import checkpoint, config_files, files, metric_lines, pictures
from evqgan.core.errors import InputError
from evqgan.data import generated

STEPS, SAVED, EVALUATED, LOGGED = 60, 20, 30, 5  # ours: enough for three saves in a few seconds
IMAGES, SIDE = 48, 32
PATIENCE = 600.0  # ours: seconds after which a run counts as hanging
STALL = 20.0  # ours: config.stall of these runs
# A program whose clock jumps by argv[1] seconds after argv[2] of them.
JUMPING = """
import runpy, sys, time
real, began, jump, after = time.time, time.monotonic(), float(sys.argv[1]), float(sys.argv[2])
time.time = lambda: real() + (jump if time.monotonic() - began > after else 0.0)
sys.argv = ["evqgan.main", *sys.argv[3:]]
runpy.run_module("evqgan.main", run_name="__main__")
"""


@dataclasses.dataclass
class Case:
    """A stage that is trained by so many processes.

    place: where its runs are. seconds: that a run takes which nothing interrupts. running: the
    workdir of the run that was started last.
    """

    stage: int
    processes: int
    place: pathlib.Path
    seconds: float = 0.0
    running: pathlib.Path = pathlib.Path()

    @property
    def config(self) -> pathlib.Path:
        """The file of the config."""
        return self.place / "config.py"

    @property
    def straight(self) -> pathlib.Path:
        """The workdir of the run that nothing interrupted."""
        return self.place / "straight"

    def start(
        self, workdir: pathlib.Path, clock: tuple[float, float] | None = None
    ) -> list[subprocess.Popen]:
        """Start the processes of a run, whose output goes to WORKDIR.log.

        clock: by how many seconds the clock jumps, and after how many.
        """
        self.running = workdir
        program = ["-c", JUMPING, *map(str, clock)] if clock else ["-m", "evqgan.main"]
        command = [sys.executable, *program, f"--config={self.config}", f"--workdir={workdir}"]
        places = self._places()
        with open(f"{workdir}.log", "a") as log:
            return [
                subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
                for env in places
            ]

    def _places(self) -> list[dict[str, str]]:
        """Return the environments of the processes, all on this host."""
        plain = {name: x for name, x in os.environ.items() if not name.startswith("SLURM_")}
        if self.processes == 1:
            return [plain]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        run = {
            "EVQGAN_DISTRIBUTED": "1",
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(self.processes),
        }
        return [
            {**plain, **run, "JAX_PROCESS_ID": str(i), "JAX_LOCAL_DEVICE_IDS": str(i)}
            for i in range(self.processes)
        ]

    def finish(self, workdir: pathlib.Path) -> float:
        """Run to the end without a fault; return the seconds. Raises InputError if it fails."""
        began = time.monotonic()
        codes = ends(self.start(workdir), PATIENCE)
        if any(codes):
            raise InputError(f"a run that nothing interrupts ended with {codes}: see {workdir}.log")
        return time.monotonic() - began


def made(stage: int, processes: int, out: pathlib.Path) -> Case:
    """Return a case, with its config and its images written."""
    case = Case(stage, processes, out / f"stage{stage}_{processes}")
    with files.writable(case.place):
        (case.place / "images" / "one").mkdir(parents=True, exist_ok=True)
    for i in range(IMAGES):
        image = case.place / "images" / "one" / f"{i:03d}.png"
        if not image.is_file():  # an earlier command may have been ended while one was hidden
            pictures.save_png(image, np.asarray(generated.draw(i, 0, (SIDE, SIDE))))
    text = config_of(stage, case.place / "images").to_json()
    with files.atomic(case.config) as file:
        file.write(
            "import json\n\nfrom ml_collections import ConfigDict\n\n\n"
            f"def get_config():\n    return ConfigDict(json.loads({text!r}))\n".encode()
        )
    return case


def config_of(stage: int, images: pathlib.Path) -> ConfigDict:
    """Return the config of a stage: small, with all that a state can hold."""
    both = config_files.read_file("configs/quickstart.py:tiny")
    config = both.tokenizer if stage == 1 else both.generator
    model = both.tokenizer.tokenizer.copy_and_resolve_references()
    with config.unlocked():
        config.dataset = ConfigDict(
            {"folder": str(images.absolute()), "size": SIDE, "flip": True, "max_bad": 0.0}
        )
        config.batch_size, config.duration, config.stall = 8, f"{STEPS} steps", STALL
        config.log_every, config.eval_every = f"{LOGGED} steps", f"{EVALUATED} steps"
        config.checkpoint_every = f"{SAVED} steps"
        if stage == 1:
            critic = {"name": "patchgan", "layers": 1, "width": 4}
            config.adversarial = ConfigDict(
                {"critic": critic, "start": "10 steps", "optimizer": {"learning_rate": 1e-3}}
            )
        else:
            config.tokenizer = ConfigDict({"weights": "random", "model": model})
            config.generator.classes = 0
    return config


def ends(started: Sequence[subprocess.Popen], seconds: float) -> list[int | None]:
    """Return the exit codes of processes; None of one that had not ended in so many seconds.

    All are gone when this returns, or when this command is stopped meanwhile.
    """
    until, codes = time.monotonic() + seconds, list[int | None]()
    try:
        for process in started:
            try:
                codes.append(process.wait(max(0.0, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                codes.append(None)
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return codes


def bits(workdir: pathlib.Path) -> dict[str, Any]:
    """Return the checksums of all arrays of a workdir's latest checkpoint, and its step."""
    step = checkpoint.latest(workdir)
    file = workdir / "checkpoints" / str(step) / "manifest" / "metadata"
    return {"step": step, **(files.read_json(file) if step else {})}


def metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what depends on the machine's speed."""
    rows = metric_lines.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def left_over(workdir: pathlib.Path) -> list[str]:
    """Return files that a finished run should not leave."""
    names = (".part", "orbax-checkpoint-tmp", ".owner", ".lock")
    return [path.name for path in workdir.rglob("*") if any(name in path.name for name in names)]
