"""What would make a training step fit: computed or compiled, or else called "not tried"."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from evqgan.aot import programs, report
from evqgan.aot.topology import Target
from evqgan.core import mesh
from evqgan.core.config_files import override
from evqgan.core.progress import counted, heartbeat
from evqgan.core.space import gib
from evqgan.training.prepare import jitted


class Change(NamedTuple):
    """Keys of a config, and in words what they change."""

    keys: list[str]  # as on a command line
    effect: str


def lines(config: Any, target: Target, row: report.Row, tries: int = 0) -> Iterator[str]:
    """Yield what to change about a step that does not fit, one change a line.

    config: completed; row: of its training step.
    tries: how many programs to compile, each with one change more, until one fits.
    """
    given: list[str] = []
    for _ in range(tries):
        change = next(changes(config, target, row))
        if not change.keys:
            break
        given += change.keys
        config = changed(config, change.keys)
        (step,) = programs.training(config, target.devices)
        with heartbeat(f"compiling with {' '.join(given)}"):
            row = report.compiled(step, target)
        reached = f"peak {gib(row.peak_bytes)}" if row.peak_bytes else row.error
        verdict = "it fits" if row.fits else "it does not fit"
        yield f"compiled with {' '.join(given)}: {verdict}, {reached}"
        if row.fits:
            return
    for change in changes(config, target, row):
        untried = f" (not tried; --tries={tries + 3} compiles on)" if change.keys else ""
        yield " ".join([*change.keys, change.effect]) + untried


def changed(config: Any, keys: list[str]) -> Any:
    """Return a copy of a config with the keys of a change."""
    config = config.copy_and_resolve_references()
    override(config, keys)
    return config


def changes(config: Any, target: Target, row: report.Row) -> Iterator[Change]:
    """Yield changes that lower what a step takes, the one that is to be made first in front.

    The last has no keys where nothing more can be changed.
    """
    there, fsdp = row.memory_bytes, row.mesh["fsdp"]
    if row.state_bytes > there / 2:
        sharded = sharded_state(config, target)
        small = [number for number, size in sharded.items() if number > fsdp and size <= there / 2]
        number = small[0] if small else max(sharded)
        if number > fsdp:
            effect = f"leaves {gib(sharded[number])} of weights and optimizer on a device"
            yield Change([f"--config.mesh.fsdp={number}"], f"{effect}, not {gib(row.state_bytes)}")
    if keys := without_remat_of(config):
        yield Change(keys, "keeps the inputs of layers alone for the backward pass")
    now, ways = config.optimizer.get("accumulate", 1), row.mesh["data"] * fsdp
    each = config.batch_size // now // ways
    divisor = next((n for n in range(2, each + 1) if each % n == 0), 1)
    if divisor > 1:
        effect = (
            f"computes {counted(each // divisor, 'image')} of a device at a time, not {each}, "
            "in a new run"
        )
        yield Change([f"--config.optimizer.accumulate={now * divisor}"], effect)
    else:
        yield Change([], "a device computes one image at a time: more memory a device is needed")


def without_remat_of(config: Any) -> list[str]:
    """Return the keys that make all parts of a step recompute which can and do not yet."""
    stage = programs.stage_of(config)
    if config.stage == "stage2":
        parts = {"generator": stage.model.network}
    else:
        network = stage.model.network
        parts = {"tokenizer.encoder": network.encoder, "tokenizer.decoder": network.decoder}
        if stage.distance:
            parts["perceptual.distance"] = stage.distance
        if stage.adversary:
            parts["adversarial.critic"] = stage.adversary.critic
    names = [name for name, part in parts.items() if not getattr(part, "remat", True)]
    return [f"--config.{name}.remat=True" for name in names]


def sharded_state(config: Any, target: Target) -> dict[int, int]:
    """Return {fsdp: bytes of a device for weights and optimizer} for the powers of 2 of devices."""
    stage, number, found = programs.stage_of(config), len(target.devices), {}
    tensor = max(config.get("mesh", {}).get("tensor", 1), 1)
    for fsdp in (2**i for i in range(number.bit_length())):
        if number % (fsdp * tensor) == 0:
            over = mesh.make(fsdp=fsdp, tensor=tensor, devices=target.devices)
            found[fsdp] = report.a_device(jitted(stage, over).abstract_state)
    return found
