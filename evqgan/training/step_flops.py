"""The work of a training step in floating-point operations, counted without compiling it."""

from collections.abc import Callable
from typing import Any

from evqgan.core import flops


def of_step(config: Any, update: Any, given: tuple, again: Callable[[Any], Callable]) -> float:
    """Return the FLOPs of a step over all devices, 0 where a loop counts its own turns.

    What is computed twice to save memory counts once, as in the definition of MFU.

    update: of a stage, jitted, already traced with the shapes `given`.
    again: returns the update of a config, not jitted.
    """
    try:
        if not remat_sections(config):
            return flops.of_jaxpr(update.trace(*given).jaxpr.jaxpr)
        return flops.count(again(without_remat(config)), *given)
    except ValueError:
        return 0.0


def without_remat(config: Any) -> Any:
    """Return a copy of a config whose training step computes nothing twice."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for section in remat_sections(config):
            section.remat = False
    return config


def remat_sections(config: Any) -> list[Any]:
    """Return the sections of a config, at any depth, in which `remat` is set."""
    inner = [value for value in config.values() if hasattr(value, "values")]
    found = [section for value in inner for section in remat_sections(value)]
    return [config, *found] if config.get("remat") else found


def in_words(each: float, devices: int, peak: float) -> str:
    """Return a line on the work of a step.

    each: FLOPs of a device. peak: of a device in a second; 0: not known.
    """
    unit, size = ("T", 1e12) if each > 1e11 else ("G", 1e9)
    text = f"a step is {each / size:.3g} {unit}FLOP"
    if devices > 1:
        text += f" on each of {devices} devices"
    if peak:
        text += f", {1000 * each / peak:.3g} ms at the peak of {peak / 1e12:,.0f} TFLOP/s: MFU 100%"
    return text
