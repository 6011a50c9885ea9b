"""A run goes on on any number of devices, split in any way, and ends as if it had not moved.

The children: this file in processes of their own.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import test_stage2
from test_train import metrics_of, state_of

from evqgan.training import loop
from evqgan.training.stopping import Stopped

TESTS = pathlib.Path(__file__).parent
# Devices, how they are split, and the step at which the run leaves them.
LEGS = (
    (8, {"data": 2, "fsdp": 2, "tensor": 2}, 2),
    (1, {}, 4),
    (4, {"data": 2, "fsdp": 2}, 6),
)
STEPS = LEGS[-1][2]


def config_of(**changes):
    config = test_stage2.config_of(log_every="1 step", eval_every="4 steps")
    config.generator.layers = 1
    config.evals.generation.show = 0  # no sampler is compiled
    config.update({"batch_size": 8, "duration": f"{STEPS} steps", **changes})
    return config


def leg(place, sizes, until):
    """A child: the run goes on until a step."""
    loop.stop_now = lambda stopping, checkpoints, step: signal.SIGTERM * (step == until)
    try:
        loop.train(config_of(mesh=json.loads(sizes)), pathlib.Path(place))
    except Stopped as stopped:
        assert stopped.step == until
    print(f"left {jax.device_count()} devices", flush=True)


def run_leg(place, devices, sizes, until):
    code = "import sys, test_elastic as t\nt.leg(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(TESTS.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(place), json.dumps(sizes), str(until)],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert f"left {devices} devices" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The workdir of a run that moves from devices to others."""
    place = tmp_path_factory.mktemp("moved") / "run"
    for devices, sizes, until in LEGS:
        run_leg(place, devices, sizes, until)
    return place


def test_a_run_that_moves_from_devices_to_others_ends_as_one_that_stays(moved, tmp_path):
    loop.train(config_of(), tmp_path / "stays")
    ours, theirs = metrics_of(moved), metrics_of(tmp_path / "stays")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            # Which code is likeliest hangs on rounding.
            near = {"abs": 0.05} if "accuracy" in name else {"rel": 1e-4}
            assert one[name] == pytest.approx(other[name], **near), name
    assert any("val/cross_entropy" in line for line in ours)
    config = config_of()
    a, b = state_of(config, moved), state_of(config, tmp_path / "stays")
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        # Adam takes a gradient of nothing but rounding for one.
        assert np.mean(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)) > 1e-4) < 0.01
