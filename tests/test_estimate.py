"""How long a training is said to take: reading counts where it is slower than the devices."""

import types

import pytest
from test_configs import load

from evqgan.data import pipeline
from evqgan.own_images import estimate


class Batches:
    """Batches of which some lie ready at first, and each other one takes seconds of a clock."""

    def __init__(self, clock, ready, seconds):
        self.clock, self.ready, self.seconds = clock, ready, seconds

    def __next__(self):
        self.ready -= 1
        self.clock[0] += self.seconds if self.ready < 0 else 0.0
        return {}

    def close(self):
        self.ready = -1


@pytest.fixture
def timed(monkeypatch):
    """A function of the seconds of a step and of reading a batch: what `estimate.timed` says."""

    def seconds(step, reading, ready, workers=0):
        config, clock = load("folder_stage1", "tiny"), [0.0]
        config.dataset.workers = workers
        batches = Batches(clock, ready, reading)

        def update(state, batch):
            clock[0] += step
            return state, {}

        compiled = types.SimpleNamespace(init=dict, update=update, abstract_state={})
        ticking = types.SimpleNamespace(perf_counter=lambda: clock[0])
        monkeypatch.setattr(estimate, "time", ticking)
        monkeypatch.setattr(estimate, "jitted", lambda *given: compiled)
        monkeypatch.setattr(estimate, "jitted_update", lambda *given: update)
        monkeypatch.setattr(estimate.mesh, "put", lambda batch, *given: batch)
        monkeypatch.setattr(pipeline, "train_batches", lambda *given: batches)
        early, complete, _ = estimate.timed(config, 16, 0)
        assert early == complete and batches.ready == -1  # they were closed
        return complete

    return seconds


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_that_lie_ready_hide_no_slow_reading(timed, monkeypatch, workers):
    monkeypatch.setattr(pipeline, "threads", lambda: 4)
    ready = 2 * workers or pipeline.buffered()
    assert timed(1.5, 2.0, ready + 100, workers) == pytest.approx(1.5)  # steps are timed alone
    assert timed(1.5, 2.0, ready, workers) == pytest.approx(2.0)
    assert timed(1.5, 0.5, 0, workers) >= 1.5
