"""Processes that make the batches of training, where threads wait for the interpreter's lock.

Of N workers, worker k makes the batches k, k + N, k + 2N, ..., so that their order and bits do not
depend on N. Each sends its batches through a socket of its own, and is one batch ahead of what was
taken from it. A worker ends when the other end of its socket closes, which the system does however
the parent ends, kill -9 included: no worker outlives it.

A worker is `python -m evqgan.data.workers` and not a process of `multiprocessing`, which would
import the program that was started, and JAX's models with it. It never starts JAX.
"""

import concurrent.futures
import contextlib
import itertools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from evqgan.core.errors import InputError

PATIENCE = 5.0  # ours: seconds that a worker has to end before it is killed


class Examples(Protocol):
    """What the batches are made of: `decoded.DecodedImages` or `stored_split.StoredSplit`."""

    bad: dict[int, str]  # {index of an image that does not decode: why}

    def count_bad(self, index: int, reason: str) -> None:
        """Note one more of `bad`, where there can be any; InputError if they are too many."""


Stream = Callable[[Examples], Sequence[dict]]  # from the examples to all batches


class Made(NamedTuple):
    """What a worker sends.

    batch: None if there was an error.
    bad: images that it newly found not to decode, (index, why).
    error: the line of an InputError, "" for none; defect: the traceback of any other exception.
    """

    batch: dict | None
    bad: list[tuple[int, str]]
    error: str = ""
    defect: str = ""


class Workers:
    """Iterator over batches that worker processes make.

    processes: the workers, subprocess.Popen.
    awaited: the id of the one whose batch is waited for, None while there is none.
    """

    def __init__(self, stream: Stream, examples: Examples, start: int, number: int) -> None:
        """Start `number` workers, which begin with batch `start`.

        stream: can be pickled, and so can `examples`, whose `count_bad` is called here with what
          the workers find.
        """
        self.examples = examples
        self.processes: list[subprocess.Popen] = []
        self.awaited: int | None = None
        self.sockets: list[socket.socket] = []
        for k in range(number):
            ours, theirs = socket.socketpair()
            self.sockets.append(ours)
            with theirs:
                self.processes.append(_start(theirs, start + k, number))
        self.turns = itertools.cycle(zip(self.processes, self.sockets, strict=True))
        everything = packed((stream, examples))
        for process, ours in zip(self.processes, self.sockets, strict=True):
            with self._reporting_an_end_of(process):
                send(ours, everything)

    def __iter__(self) -> "Workers":
        return self

    def __next__(self) -> dict:
        """Return the next batch; raises InputError for bad data, and if the worker has ended."""
        process, ours = next(self.turns)
        self.awaited = process.pid
        with self._reporting_an_end_of(process):
            made: Made = received(ours)
        self.awaited = None
        for index, reason in made.bad:
            self.examples.count_bad(index, reason)
        if made.error:
            raise InputError(made.error)
        if made.defect:
            raise RuntimeError(f"in a worker of config.dataset.workers:\n{made.defect}")
        assert made.batch is not None
        return made.batch

    @contextlib.contextmanager
    def _reporting_an_end_of(self, process: subprocess.Popen) -> Iterator[None]:
        """Raise InputError if the body finds that a worker is not there any more."""
        try:
            yield
        except (EOFError, OSError):
            number = len(self.processes)
            self.close()
            code = process.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise InputError(
                f"one of the {number} worker processes that read the images ended ({how}); "
                "SIGKILL most often means that memory was short: set config.dataset.workers to "
                "fewer, or to 0 for threads"
            ) from None

    def kill(self) -> None:
        """End the workers at once: one that is stopped does not hear that its socket closes."""
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        """End the workers."""
        for ours in self.sockets:
            ours.close()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(theirs: socket.socket, first: int, step: int) -> subprocess.Popen:
    """Start a worker that makes the batches first, first + step, ...

    In a session of its own it does not hear the terminal's Ctrl-C, which is the parent's to answer.
    """
    arguments = [str(number) for number in (theirs.fileno(), first, step)]
    safe = ["-P"] if sys.flags.safe_path else []  # nothing from the current folder, as here
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, *safe, "-m", "evqgan.data.workers", *arguments],
        # JAX_PLATFORMS: should anything start JAX all the same, it leaves the devices alone
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )


def packed(value: Any) -> list[Any]:
    """Return the pickle of a value and the buffers of its arrays, which are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [head, *(buffer.raw() for buffer in buffers)]


def send(to: socket.socket, parts: Sequence[Any]) -> None:
    """Send what `packed` returned."""
    lengths = [memoryview(part).nbytes for part in parts]
    to.sendall(struct.pack(f"<q{len(lengths)}q", len(lengths), *lengths))
    for part in parts:
        to.sendall(part)


def received(of: socket.socket) -> Any:
    """Return the next value that was sent; raises EOFError if the other end is closed."""
    (count,) = struct.unpack("<q", exactly(of, 8))
    lengths = struct.unpack(f"<{count}q", exactly(of, 8 * count))
    head, *buffers = [exactly(of, length) for length in lengths]
    return pickle.loads(head, buffers=buffers)


def exactly(of: socket.socket, length: int) -> bytearray:
    """Return so many bytes; raises EOFError if they do not come."""
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        number = of.recv_into(rest, 0, socket.MSG_WAITALL)
        if not number:
            raise EOFError
        rest = rest[number:]
    return data


def work(ours: socket.socket, first: int, step: int) -> None:
    """Send the batches first, first + step, ... for as long as somebody listens."""
    stream, examples = received(ours)
    threading.Thread(target=_end_with_parent, args=(ours,), daemon=True).start()
    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        batches = ahead.submit(stream, examples).result()
        coming = ahead.submit(_make, batches, examples, first)
        for number in itertools.count(first + step, step):
            made = coming.result()
            coming = ahead.submit(_make, batches, examples, number)
            send(ours, packed(made))


def _make(batches: Sequence[dict], examples: Examples, number: int) -> Made:
    """Return batch `number`, or why there is none."""
    known = len(examples.bad)

    def bad() -> list[tuple[int, str]]:
        return list(examples.bad.items())[known:]

    try:
        batch = batches[number]
    except InputError as error:
        return Made(None, bad(), error=str(error))
    except Exception:  # sent to the parent, which raises it
        return Made(None, bad(), defect=traceback.format_exc())
    return Made(batch, bad())


def _end_with_parent(ours: socket.socket) -> None:
    """Wait for the parent's end of the socket to close, and end this process at once."""
    with contextlib.suppress(OSError):
        ours.recv(1)  # the parent sends nothing more
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Be a worker. arguments: the socket's file descriptor, the first batch and the step."""
    # A scheduler signals all processes of a job, and the run needs batches until it has saved.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    descriptor, first, step = map(int, arguments)
    import cv2
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # the parent names bad images
    cv2.setNumThreads(1)
    ours = socket.socket(fileno=descriptor)
    try:
        work(ours, first, step)
    except InputError as error:  # of a data set that cannot be opened any more
        send(ours, packed(Made(None, [], error=str(error))))
    except (EOFError, ConnectionError):  # the parent is gone, or has closed
        os._exit(0)  # what the thread still makes is for nobody


if __name__ == "__main__":
    from evqgan.data import workers  # what is sent has the names of the module, not of __main__

    workers.main(sys.argv[1:])
