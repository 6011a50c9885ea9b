"""A lock on a folder of an object store: its owner renews an object; a stale one may be taken over.

The object .owner says who it is. It is written on the condition that it is as it was read, which
the store itself checks, so that of two processes one alone can take a folder. The owner writes it
anew every RENEW_EVERY seconds, which is its heartbeat. Who finds it waits up to STALE seconds for
one: if it comes, the folder is in use; if none does, as after a machine was lost, the folder is
taken over. An owner that was cut off for so long and finds another's name ends at once, before it
writes on.
"""

import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from evqgan.core import stores
from evqgan.core.errors import InputError
from evqgan.core.progress import say

OWNER = ".owner"
# Ours, seconds: between two heartbeats; without one, until another may take over; from which age on
# of the last one none is waited for, whatever two clocks differ by; between two looks.
RENEW_EVERY, STALE, LONG_AGO, LOOK = 20.0, 90.0, 600.0, 2.0
PATIENCE = 2.0  # ours: seconds for taking away the mark when the process is about to end


class Lease:
    """A folder as this process's, from `take` to `release`."""

    def __init__(
        self,
        folder: pathlib.Path,
        in_use: Callable[[str], str],
        lost: Callable[[str], None] | None = None,
    ) -> None:
        """Take nothing yet.

        in_use: returns the message for a folder that is another's, whom the text names.
        lost: is called with a line when another has taken the folder over; None: `end`.
        """
        self.folder, self._in_use, self._lost = folder, in_use, lost or end
        self._token, self._generation = os.urandom(8).hex(), b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        """Make the folder this process's; raise InputError if it is another's, or none can be.

        It may wait STALE seconds, and then says so.
        """
        try:
            self._store = stores.kvstore(self.folder)
            found = self._store.read(OWNER).result()
            while not self._written(self._free(found)):
                found = self._store.read(OWNER).result()
        except InputError:
            raise
        except (ValueError, RuntimeError, OSError) as error:  # what TensorStore raises
            said = stores.reason(error, self.folder)
            raise InputError(f"cannot write {self.folder}: {said}") from error
        self._thread.start()

    def release(self) -> None:
        """Let the folder go; calling it again does nothing."""
        self._ended.set()
        if self._thread.is_alive():  # a heartbeat may be on its way: the mark to take away
            self._thread.join(PATIENCE)
        generation, self._generation = self._generation, b""
        if generation:
            try:
                self._store.write(OWNER, None, if_equal=generation).result(timeout=PATIENCE)
            except Exception as error:  # it is free STALE seconds later
                text = f"{self.folder / OWNER} is left behind: {stores.reason(error, self.folder)}"
                print(text, file=sys.stderr, flush=True)

    def _free(self, found: Any) -> bytes:
        """Return the generation of the object that may be replaced, once it may.

        found: the object as it was read. Raises InputError if its owner gives a heartbeat.
        """
        owner = told(found.value)
        if found.state == "missing" or is_abandoned(owner):
            return found.stamp.generation
        who, first = f"process {owner.get('process')} on {owner.get('host')}", found
        say(f"{self.folder} was last used by {who}: waiting up to {STALE:.0f} s for a heartbeat")
        until = time.monotonic() + STALE
        while time.monotonic() < until and found.stamp.generation == first.stamp.generation:
            time.sleep(LOOK)
            found = self._store.read(OWNER).result()
        if found.state == "value" and found.stamp.generation != first.stamp.generation:
            raise InputError(self._in_use(who))
        return found.stamp.generation

    def _written(self, generation: bytes) -> bool:
        """Write a heartbeat, if the object is of this generation still; return whether it was.

        The store may have done so when it is asked a second time, as after a lost answer.
        """
        name = {"process": os.getpid(), "host": socket.gethostname(), "machine": machine()}
        text = json.dumps({**name, "token": self._token, "time": time.time()}).encode()
        made = self._store.write(OWNER, text, if_equal=generation).result().generation
        if not made:
            found = self._store.read(OWNER).result()
            made = found.stamp.generation if told(found.value).get("token") == self._token else b""
        self._generation = made or self._generation
        return bool(made)

    def _renew(self) -> None:
        """Give heartbeats until the end, or until another has taken the folder over."""
        while not self._ended.wait(RENEW_EVERY):
            try:
                is_ours = self._written(self._generation)
            except Exception:  # out of reach: the next one may come through
                continue
            if not is_ours and not self._ended.is_set():
                self._lost(
                    f"{self.folder} was taken over by another process, as this one gave no "
                    f"heartbeat for {STALE:.0f} s: it ends here, and has left all to that one"
                )
                return


def told(text: bytes) -> dict[str, Any]:
    """Return what an owner's object says; {} if that cannot be read."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_abandoned(owner: dict[str, Any]) -> bool:
    """Return whether an owner has certainly ended: killed on this machine, or silent for long."""
    process, last = owner.get("process"), owner.get("time")
    if not isinstance(process, int) or not isinstance(last, int | float):
        return False
    here = machine() and owner.get("machine") == machine()
    return time.time() - last > LONG_AGO or bool(here and not runs_here(process))


def machine() -> str:
    """Return what tells this start of this machine, and its processes, from others; "" if unknown.

    Of two containers of one machine it differs, as one does not see the processes of the other.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def runs_here(process: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)  # no signal: only the errors
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def end(line: str) -> None:
    """End the process at once, with an error in a line: what it wrote on would be another's."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(2)
