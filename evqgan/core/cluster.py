"""A run of several processes: how it starts, what all must see, how each ends when one fails."""

import contextlib
import hashlib
import itertools
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the client has no public name
from jax.experimental import multihost_utils

from evqgan.core import files, slurm, stores
from evqgan.core.errors import InputError
from evqgan.core.processes import stopped

# What names the processes where no cluster does: process 0's address, how many, which this one is.
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
GIVE = (
    f"give each process {VARIABLES[0]}=HOST:PORT, {VARIABLES[1]} and {VARIABLES[2]} "
    "(docs/training.md, Clusters), or leave EVQGAN_DISTRIBUTED out for a run of one"
)
HEARTBEAT = 30  # ours: seconds of silence after which a process counts as lost; JAX waits for 100
# Ours: seconds until a new file must be seen on all hosts; a network file system may answer from a
# cache.
SEEING = 20
# Ours: seconds that a process that failed waits for the others, which may have failed alike, before
# it ends.
LEAVING = 10
LONGEST = 86400  # ours: seconds that one that has not failed waits for slower ones
_meetings = itertools.count()  # of `failing_together`
# Where JAX's coordination service keeps that a process has got a SIGTERM.
NOTICE = "RECEIVED_PREEMPTION_NOTICE"
PLACES = "evqgan/places"  # where it keeps what processes note by `post_position`
NAME = 64  # bytes of a host's name, at most (Linux, HOST_NAME_MAX)

# What Gloo, NCCL and JAX's coordination service say when a process they talk to is gone.
LOST = re.compile(
    r"Gloo [\w-]+ failed|remote process exited"
    r"|(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|INTERNAL)"
    r": .*(task|barrier|coordination service|heartbeat)",
    re.DOTALL | re.IGNORECASE,
)


def start() -> None:
    """Join the other processes, named by VARIABLES, or found by JAX: Slurm, a TPU's metadata, ...

    It has to be the first use of JAX. Raises InputError where the processes are not known.
    """
    known = {**named(os.environ), **loopback(os.environ), **slurm.gpus(os.environ)}
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT, **known)
    except ValueError as error:
        where = (
            "no Slurm, no TPU and no other cluster that JAX knows names the processes of this run"
        )
        raise InputError(f"{where}: {GIVE}") from error


def named(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what VARIABLES say of this process; {} where neither number is given.

    Raises InputError for a part of them, and for what they cannot be.
    """
    address, *numbers = (environment.get(name, "") for name in VARIABLES)
    if not any(numbers):
        return {}
    if not (address and all(numbers)):
        absent = [name for name in VARIABLES if not environment.get(name)]
        raise InputError(f"without {' and '.join(absent)}: {GIVE}")
    if not re.fullmatch(r".+:\d+", address):
        raise InputError(f"{VARIABLES[0]}={address}: expected HOST:PORT, of process 0")
    for name, number in zip(VARIABLES[1:], numbers, strict=True):
        if not number.isdecimal():
            raise InputError(f"{name}={number}: expected a whole number")
    total, this = map(int, numbers)
    if this >= total:
        last = f"the last of {VARIABLES[1]}={total} is {total - 1}"
        raise InputError(f"{VARIABLES[2]}={this}: they are counted from 0, and {last}")
    return {"coordinator_address": address, "num_processes": total, "process_id": this}


def loopback(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what keeps the coordinator off the network when all processes are on one host.

    The coordinator asks for no password. All processes are known to be on one host if they are a
    Slurm step of one node, or if the address that the user gave says so. Else {} is returned, and
    the coordinator listens on all interfaces, which is JAX's default.
    """
    address, job = environment.get("JAX_COORDINATOR_ADDRESS"), environment.get("SLURM_JOB_ID", "")
    if not address and environment.get("SLURM_STEP_NUM_NODES") == "1" and job.isdecimal():
        # The port that JAX takes for a job of Slurm.
        address = f"127.0.0.1:{61440 + int(job) % 4096}"
    if not address or not re.match(r"(127\.[\d.]+|localhost|\[::1\]):", address):
        return {}
    bound = environment.get("JAX_COORDINATOR_BIND_ADDRESS", address)
    return {"coordinator_address": address, "coordinator_bind_address": bound}


def _client() -> Any:
    """Return this process's client of JAX's coordination service; there have to be several."""
    client = distributed.global_state.client
    assert client is not None
    return client


def terminated(seconds: float) -> bool:
    """Return whether a process of this run has got a SIGTERM, or gets one in so many seconds.

    Raises JaxRuntimeError if the coordinator is gone. Any thread may call it.
    """
    client = _client()
    try:
        client.blocking_key_value_get(NOTICE, int(1000 * seconds))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return False
    return True


def post_position(text: str) -> None:
    """Note where this process stands, for `positions` of all processes of a run of several.

    Raises JaxRuntimeError if the coordinator is gone. Any thread may call it.
    """
    client = _client()
    own = f"{PLACES}/{jax.process_index()}"
    client.key_value_set(own, f"{socket.gethostname()} {text}", allow_overwrite=True)


def positions() -> dict[str, str]:
    """Return {"process 1 (on HOST)": what it last noted by `post_position`}, in order.

    Raises JaxRuntimeError if the coordinator is gone. Any thread may call it.
    """
    client = _client()
    found = {int(key.rpartition("/")[2]): text for key, text in client.key_value_dir_get(PLACES)}
    parts = {number: found[number].partition(" ") for number in sorted(found)}
    return {f"process {number} (on {host})": text for number, (host, _, text) in parts.items()}


def check_alike(**things: Any) -> None:
    """Raise InputError in all processes unless each was given the same `things`.

    The message names the processes that differ. A run of one process is always alike. Call this
    before any exchange between processes whose form depends on these things.

    things: {what it is in words, "_" for " ": its text}.
    """
    if not several():
        return
    own = [
        np.frombuffer(hashlib.sha256(str(text).encode()).digest(), np.uint8)
        for text in things.values()
    ]
    hashes, names = multihost_utils.process_allgather((np.stack(own), host_name()))
    for what, rows in zip(things, np.moveaxis(np.asarray(hashes), 1, 0), strict=True):
        rows = [row.tobytes() for row in rows]
        usual = max(rows, key=rows.count)  # the first process', if there are as many of each
        odd = [i for i, row in enumerate(rows) if row != usual]
        if odd:
            who = ", ".join(f"process {i} (on {hosts(names)[i]})" for i in odd)
            like = rows.index(usual)
            than = f"process {like} (on {hosts(names)[like]})"
            raise InputError(
                f"{who} has another {what.replace('_', ' ')} than {than}: give all "
                "processes of a run the same command, code and files"
            )


def by_first(work: Callable[[], int | None]) -> int:
    """Return the number that `work` returns, 0 for None, in all processes; the first one does it.

    If it raises InputError there, it is raised in all.
    """
    failed, number = None, 0
    if jax.process_index() == 0:
        try:
            number = work() or 0
        except InputError as error:
            failed = error
    if several():
        of_first = np.array([failed is None, number], np.int32)
        succeeded, number = map(int, multihost_utils.broadcast_one_to_all(of_first))
        if not succeeded:
            raise failed or stopped(0)
    if failed:
        raise failed
    return number


def met(place: str, seconds: float) -> bool:
    """Return whether all processes of a run come to `place`, a name used once, in so many seconds.

    A process may call it alone: the others may wait for something else, as where it has failed.
    """
    if not several():
        return True
    client = _client()
    try:
        client.wait_at_barrier(f"evqgan/{place}", int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Raise in all processes of a run where the body raised in one of them; all come to it.

    A process whose body raised waits LEAVING seconds for the others. They may be in an exchange
    with it, which ends as it does.
    """
    if not several():
        yield
        return
    place = f"meeting_{next(_meetings)}"
    client = _client()
    failures = f"evqgan/failed/{place}"
    try:
        yield
    except Exception:  # of any kind: the others have to know of it, and it is raised again
        client.key_value_set(f"{failures}/{jax.process_index()}", "")
        met(place, LEAVING)
        raise
    have_met = met(place, LONGEST)
    failed = sorted(int(key.rpartition("/")[2]) for key, _ in client.key_value_dir_get(failures))
    if failed or not have_met:
        raise stopped(failed[0] if failed else None)


def host_name() -> np.ndarray:
    """Return the name of this host as uint8 [NAME], for an exchange."""
    return np.frombuffer(socket.gethostname().encode()[:NAME].ljust(NAME, b"\0"), np.uint8)


def hosts(names: Any) -> list[str]:
    """Return the `host_name`s of all processes, uint8 [processes,NAME], as texts."""
    return [bytes(np.asarray(row)).rstrip(b"\0").decode(errors="replace") for row in names]


def check_shared(folder: str | os.PathLike[str]) -> None:
    """Make a folder; raise InputError in all processes unless they all see it as the same.

    It takes up to SEEING seconds. In a run of one process nothing is made.
    """
    if not several():
        return
    folder, chief, failed = stores.path(folder), jax.process_index() == 0, None
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
    seen, names = multihost_utils.process_allgather((np.array(appears(file)), host_name()))
    if chief:
        with contextlib.suppress(OSError):
            file.unlink()
    blind = [f"process {i} (on {hosts(names)[i]})" for i in np.flatnonzero(~seen)]
    if blind:
        what = f"the files of process 0 (on {hosts(names)[0]}) in {stores.absolute(folder)}"
        raise InputError(
            f"{', '.join(blind)} cannot see {what}: give "
            "a --workdir in a folder that all hosts share, by the same path"
        )


def appears(file: pathlib.Path) -> bool:
    """Return whether a file is there within SEEING seconds.

    To open the folders makes a network file system look again.
    """
    until = time.monotonic() + SEEING
    while True:
        for folder in () if stores.is_remote(file) else (file.parent.parent, file.parent):
            with contextlib.suppress(OSError):
                os.scandir(folder).close()
        if file.exists():
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


def several() -> bool:
    """Return whether this process is one of several of a run."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def lost(error: BaseException) -> bool:
    """Return whether an exception says that another process of this run is out of reach."""
    return several() and bool(LOST.search(str(error)))


def leave(code: int) -> None:
    """End a process of several that failed, with an exit code; return in a process that is alone.

    Python's own end would wait for the others, which may wait for this one. This end does not wait,
    and the others learn of it after HEARTBEAT seconds.
    """
    if not several():
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # of a full disk
            stream.flush()
    # Those that fail alike end in order.
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    together.start()
    together.join(LEAVING)
    os._exit(code)
