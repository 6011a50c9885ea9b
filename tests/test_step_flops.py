"""The work of a training step: what is computed twice counts once; the peak of known devices."""

import json
import time

import jax
import pytest
import test_stage2

from evqgan.core import chips
from evqgan.training import loop, step_flops
from evqgan.training.prepare import prepare


def flops_of(place, **changes):
    config = test_stage2.config_of()
    config.generator.update(changes)
    return prepare(config, place).flops


def test_it_grows_with_the_layers_and_not_with_what_is_computed_twice(tmp_path):
    first, one = flops_of(tmp_path, layers=1)
    assert first == one > 0
    two = flops_of(tmp_path, layers=2)[1]
    assert two > 1.3 * one
    assert flops_of(tmp_path, layers=2, remat=True)[1] == pytest.approx(two, rel=1e-3)


def test_a_loop_of_unknown_length_has_no_number():
    @jax.jit
    def step(x):
        return jax.lax.while_loop(lambda y: y[0, 0] < 1, lambda y: y @ y, x)

    config = test_stage2.config_of()
    shape = jax.ShapeDtypeStruct((4, 4), "float32")
    assert step_flops.of_step(config, step, (shape,), lambda config: step) == 0.0


@pytest.mark.parametrize(
    "each, devices, peak, text",
    [
        (2e13, 8, 1e14, "a step is 20 TFLOP on each of 8 devices, 200 ms at the peak of 100 "),
        (3e9, 1, 0, "a step is 3 GFLOP"),
    ],
)
def test_it_is_said_in_words(each, devices, peak, text):
    assert step_flops.in_words(each, devices, peak).startswith(text)


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("cpu", 0.0),
    ],
)
def test_devices_are_known_by_the_names_that_jax_has_for_them(kind, peak):
    assert chips.of(kind).flops == peak


def test_steps_are_traced_for_a_look(tmp_path, capsys, monkeypatch):
    stop = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (stop(), time.sleep(1.0)))
    config = test_stage2.config_of()
    config.update({"duration": "5 steps", "evals": {}, "log_every": "1 step"})
    loop.train(config, tmp_path, profile=2)
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    spent = [row.get("perf/spent_profile", 0.0) for row in rows]
    assert sum(spent) >= 1.0  # and not time of steps, for which the watchdog has less patience
    traces = list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))
    said = capsys.readouterr().out
    assert len(traces) == 1 and traces[0].stat().st_size > 1000
    assert "tracing steps 3 to 4" in said and "steps 3 to 4 are traced in" in said
    assert "a step is" in said and "time: " in said
