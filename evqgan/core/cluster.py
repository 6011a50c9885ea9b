"""A run of several processes: how it starts, what all of them must see, and how each ends when one of them fails."""

import contextlib
import os
import pathlib
import re
import socket
import sys
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from evqgan.core import files
from evqgan.core.errors import InputError

HEARTBEAT = 30  # ours: seconds of silence after which a process counts as lost; JAX waits for 100
SEEING = 20  # ours: seconds until a new file must be seen on all hosts; a network file system may answer from a cache
LEAVING = 10  # ours: seconds a process that failed waits for the others, which may have failed alike, before it ends
NAME = 64  # bytes of a host's name, at most (Linux, HOST_NAME_MAX)

# What Gloo, NCCL and JAX's coordination service say when a process they talk to is not there any more.
LOST = re.compile(
    r"Gloo \w+ failed|remote process exited"
    r"|(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|INTERNAL): .*(task|barrier|coordination service|heartbeat)",
    re.DOTALL | re.IGNORECASE,
)


def start():
    """Joins the other processes, which JAX finds through Slurm, a TPU's metadata and such. Before all else of JAX."""
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)


def check_shared(folder):
    """InputError, in all processes alike and within seconds, unless they all see `folder` as the same; makes it.

    Of one process nothing is asked.
    """
    if not several():
        return
    folder, chief, failed = pathlib.Path(folder), jax.process_index() == 0, None
    token = np.frombuffer(os.urandom(16), np.uint8)
    file = folder / f".{token.tobytes().hex()}"
    if chief:
        try:
            with files.writable(folder):
                folder.mkdir(parents=True, exist_ok=True)
                file.touch()
        except InputError as error:
            failed = error
    token, writes = multihost_utils.broadcast_one_to_all((token, np.array(failed is None)))
    if not writes:
        raise failed or InputError(f"process 0 cannot write {folder}, see its message")
    file = folder / f".{np.asarray(token).tobytes().hex()}"
    name = np.frombuffer(socket.gethostname().encode()[:NAME].ljust(NAME, b"\0"), np.uint8)
    seen, names = multihost_utils.process_allgather((np.array(appears(file)), name))
    if chief:
        with contextlib.suppress(OSError):
            file.unlink()
    hosts = [bytes(np.asarray(row)).rstrip(b"\0").decode(errors="replace") for row in names]
    blind = [f"process {i} (on {hosts[i]})" for i in np.flatnonzero(~seen)]
    if blind:
        raise InputError(
            f"{', '.join(blind)} cannot see the files of process 0 (on {hosts[0]}) in {folder.absolute()}: give a "
            "--workdir in a folder that all hosts share, by the same path"
        )


def appears(file):
    """Whether a file is there within SEEING seconds; to open the folders makes a network file system look again."""
    until = time.monotonic() + SEEING
    while True:
        for place in (file.parent.parent, file.parent):
            with contextlib.suppress(OSError):
                os.scandir(place).close()
        if file.exists():
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


def several():
    """Whether this process is one of several of a run."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def lost(error):
    """Whether an exception says that another process of this run cannot be reached any more."""
    return several() and bool(LOST.search(str(error)))


def leave(code):
    """Ends a process of several that failed with exit code `code`; returns in a process that is alone.

    Python's own end would wait for the others, which may wait for this one. Left so, they learn of it by HEARTBEAT.
    """
    if not several():
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)  # those that fail alike end in order
    together.start()
    together.join(LEAVING)
    os._exit(code)
