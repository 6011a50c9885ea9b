"""Any number of rows: the same rows come out, whatever the batches.

Each function compiles once a size.
"""

import concurrent.futures
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from evqgan.core import cli
from evqgan.core.errors import InputError
from evqgan.inference import batched
from evqgan.inference.batched import BatchRunner

WEIGHTS = {"scale": np.float32(3)}


def scaled(weights, x, y):
    """Also notes the rows of every batch, once it is traced."""
    TRACED.append(len(x))
    return {"sum": weights["scale"] * x + y[:, None], "least": jnp.min(x, axis=1)}


TRACED = []


@pytest.fixture(autouse=True)
def nothing_traced():
    TRACED.clear()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_every_row_comes_out_once_and_in_order(number, batch_size):
    x = np.random.default_rng(0).normal(size=(number, 2)).astype(np.float32)
    y = np.arange(number, dtype=np.float32)
    found = BatchRunner(batch_size)(scaled, WEIGHTS, x, y)
    np.testing.assert_allclose(found["sum"], 3 * x + y[:, None], rtol=1e-6)
    np.testing.assert_array_equal(found["least"], x.min(axis=1))
    assert all(type(value) is np.ndarray for value in found.values())


@pytest.mark.parametrize(
    "batch_size, number, size",
    [
        (64, 1, 4),
        (64, 3, 4),
        (64, 5, 8),
        (64, 64, 64),
        (64, 500, 64),
        (7, 4, 4),
        (7, 5, 7),
        (7, 500, 7),
        (2, 1, 2),
    ],
)
def test_batches_have_few_sizes(batch_size, number, size):
    assert BatchRunner(batch_size).rows(number) == size


def test_a_device_takes_fewer_images_if_they_are_large():
    sizes = [batched.at_once((side, side)) for side in (32, 256, 512, 1024, 2048, 4096)]
    assert sizes == [64, 64, 16, 4, 1, 1] and batched.at_once((256, 512, 3), 40) == 32


def test_a_function_compiles_once_a_size():
    rows = BatchRunner(4)
    for number in (3, 4, 5, 6, 100):  # all in batches of 4
        rows(scaled, WEIGHTS, np.zeros((number, 2), np.float32), np.ones(number, np.float32))
    assert TRACED == [4]
    rows(scaled, WEIGHTS, np.zeros((2, 2), np.float32), np.ones(2, np.float32), rows=2)
    assert TRACED == [4, 2]
    rows(scaled, WEIGHTS, np.zeros((2, 2), np.float32), np.ones(2, np.float32))
    assert TRACED == [4, 2]
    rows(scaled, WEIGHTS, np.zeros((4, 3), np.float32), np.ones(4, np.float32))
    assert TRACED == [4, 2, 4]


def test_few_rows_compile_once_and_become_the_same_to_the_bit():
    rows, x = BatchRunner(64), np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    found = [rows(scaled, WEIGHTS, x[:number], x[:number, 0])["sum"] for number in (1, 2, 3, 4)]
    assert TRACED == [4]
    for some in found:
        np.testing.assert_array_equal(some, found[-1][: len(some)])


def test_no_seconds_pass_while_anything_compiles(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(batched.time, "perf_counter", lambda: now[0])

    def slow_to_trace(weights, x):
        now[0] += 7
        return x

    rows = BatchRunner(4)
    before = rows.clock()
    rows(slow_to_trace, WEIGHTS, np.zeros(3))
    assert rows.compiling == 7 and rows.clock() == before
    now[0] += 2
    assert rows.clock() == before + 2


def test_what_cannot_be_is_refused():
    for size in (0, -1, "a", 2.5):
        with pytest.raises(InputError, match=f"batch_size that is a whole number .*, got {size!r}"):
            BatchRunner(size)
    with pytest.raises(InputError, match="expected at least one image, got none"):
        BatchRunner()(scaled, WEIGHTS, np.zeros((0, 2)), np.zeros(0))


def test_what_does_not_fit_a_device_is_a_line_that_says_what_to_do(capsys):
    def too_large(weights, x):
        return jnp.zeros((len(x), 1 << 46), jnp.uint8) + weights["scale"]

    line = r"not enough memory for 3 images at a time \(RESOURCE_EXHAUSTED.*batch_size=N\)\), and"
    with pytest.raises(InputError, match=line) as found:
        BatchRunner(3)(too_large, WEIGHTS, np.zeros(8))
    assert cli.report(found.value, debug=False) == 1
    assert capsys.readouterr().err.count("\n") == 1

    def wrong(weights, x):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        BatchRunner(3)(wrong, WEIGHTS, np.zeros(8))


def in_threads(number, work):
    barrier = threading.Barrier(number)

    def one(i):
        barrier.wait()
        return work(i)

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def test_threads_that_ask_for_one_new_program_compile_it_once():
    runner, x = BatchRunner(4), np.ones((4, 2), np.float32)
    found = in_threads(6, lambda i: runner(scaled, WEIGHTS, x, np.full(4, i, np.float32)))
    assert TRACED == [4]
    assert [made["sum"][0, 0] for made in found] == [3 + i for i in range(6)]


def test_a_thread_tells_of_what_it_compiles_itself(capsys):
    runner, x = BatchRunner(8), np.ones((8, 2), np.float32)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, runner.reporting(True, "encode", "rows"):
        pool.submit(runner, scaled, WEIGHTS, x, x[:, 0]).result()
        assert "compiling" not in capsys.readouterr().out  # that thread did not ask for it
        runner(scaled, WEIGHTS, x[:4], x[:4, 0])
        assert capsys.readouterr().out.startswith("compiling the scaled for 4 images at a time")


def test_a_forked_process_is_refused_and_does_not_wait_for_ever(monkeypatch):
    runner, x = BatchRunner(4), np.ones((4, 2), np.float32)
    monkeypatch.setattr(batched.os, "getpid", lambda: -1)
    with pytest.raises(InputError, match="in the process that loaded it, .* by multiprocessing's"):
        runner(scaled, WEIGHTS, x, np.zeros(4, np.float32))


def test_threads_that_ask_for_one_new_thing_make_it_once():
    made = []
    get = batched.once(lambda key: time.sleep(0.05) or made.append(key) or object())
    assert len({id(x) for x in in_threads(6, lambda i: get("a"))}) == 1
    assert get("b") is not get("a") and made == ["a", "b"]


def test_no_more_programs_are_kept_than_so_many(monkeypatch):
    monkeypatch.setattr(batched, "KEPT", 2)
    runner = BatchRunner(64)
    for number in (4, 8, 16, 16, 8, 4):
        runner(scaled, WEIGHTS, np.ones((number, 2), np.float32), np.ones(number, np.float32))
    assert TRACED == [4, 8, 16, 4]
