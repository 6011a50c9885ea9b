"""A bucket that is out of reach for minutes: what needs it waits and says so, and then goes on.

gcsfs asks six times within half a minute. Here it goes on asking, for about as long as the other
libraries that talk to a bucket do by themselves: TensorStore, which reads and writes arrays, and
array_record. That is for a bucket that has answered before: one that never did is a slip in a
command, or there is no network, and the command ends with a line.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from evqgan.core.errors import first_line
from evqgan.core.progress import duration, warn

OUTAGE = 900.0  # ours: seconds after which a bucket is given up
PAUSE = 30.0  # ours: seconds between gcsfs' rounds, each of which takes as long: a line a minute

_answered = threading.Event()  # the bucket has answered, and was not given up since
_saying = threading.Lock()
_said = float("-inf")  # when it was last said that a request waits


def outlast() -> None:
    """Have all of fsspec's requests to Google Cloud Storage wait for the end of an outage."""
    import fsspec
    from gcsfs import core

    class FileSystem(core.GCSFileSystem):
        """gcsfs', whose every request goes through one of these two."""

        async def _request(self, *args: Any, **kwargs: Any) -> Any:
            return await _asked(super()._request, *args, **kwargs)

        async def _get_file_request(self, *args: Any, **kwargs: Any) -> Any:
            return await _asked(super()._get_file_request, *args, **kwargs)

    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, FileSystem, clobber=True)


async def _asked(request: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Return what a request does; raise what gcsfs raises once OUTAGE seconds are over."""
    from gcsfs.retry import is_retriable

    began = time.monotonic()
    while True:
        try:
            found = await request(*args, **kwargs)
        except Exception as error:  # of several libraries
            left = OUTAGE - (time.monotonic() - began)
            if not is_retriable(error) and not isinstance(error, TimeoutError):
                raise
            if left <= 0:
                _answered.clear()  # so that other requests do not wait for as long again
            if not _answered.is_set():
                raise
            _say(error, left)
            await asyncio.sleep(PAUSE)
        else:
            _answered.set()
            return found


def _say(error: Exception, left: float) -> None:
    """Say that a request waits, once for all that wait at the same time."""
    global _said
    with _saying:
        if time.monotonic() - _said < PAUSE:
            return
        _said = time.monotonic()
    said = first_line(error)
    warn(f"the bucket does not answer ({said}): asking again, for {duration(left)} at most")
