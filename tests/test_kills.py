"""Runs that are killed at any moment end with the bits of one that was not.

So does a command that is given twice at once.
"""

import contextlib
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from test_train import config_of, metrics_of, start, state_of

from evqgan.training import loop

pytestmark = pytest.mark.slow

KILLS = 10  # of each stage
# Ours: the last moment of a kill, in times of a whole run that ends by itself.
# Some come after its end.
LONGEST = 1.5


@pytest.fixture(scope="module", params=[1, 2])
def straight(request, tmp_path_factory):
    """A config, the workdir of an uninterrupted run of it, and the seconds that it takes.

    They are those of a run as a process.
    """
    config = config_of(request.param)
    workdir = tmp_path_factory.mktemp("straight") / "run"
    loop.train(config.copy_and_resolve_references(), workdir)
    began = time.monotonic()
    ends(start(config, workdir.parent / "timed"), 0)
    return config, workdir, time.monotonic() - began


def ends(process, *codes):
    """What a run prints; it has to end with one of `codes`."""
    output, _ = process.communicate(timeout=900)
    assert process.returncode in codes, output
    return output


def is_that_of(config, workdir, expected):
    """Asserts that the workdir holds the state and the metrics of another one."""
    a, b = state_of(config, expected), state_of(config, workdir)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert metrics_of(workdir) == metrics_of(expected)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(straight, tmp_path):
    config, expected, seconds = straight
    moments = random.Random(0)
    for number in range(KILLS):
        process = start(config, tmp_path / "run")
        # Less is left to do each time.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, LONGEST / (1 + number / 4) * seconds))
        process.send_signal(signal.SIGKILL)
        ends(process, -signal.SIGKILL, 0)
    ends(start(config, tmp_path / "run"), 0)
    is_that_of(config, tmp_path / "run", expected)
    assert not [
        path
        for path in (tmp_path / "run").rglob("*")
        if ".part" in path.name or "orbax-checkpoint-tmp" in path.name
    ]


def test_the_same_command_twice_at_once_is_one_run(straight, tmp_path):
    config, expected, _ = straight
    both = [start(config, tmp_path / "run") for _ in range(2)]
    outputs = [ends(process, 0, 1) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    refused = outputs[[process.returncode for process in both].index(1)]
    assert "is in use by process" in refused.splitlines()[-1]
    is_that_of(config, tmp_path / "run", expected)
