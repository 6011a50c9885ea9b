"""What threads do with many files, whose results come in order."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

AT_ONCE = 256  # ours: images under way at a time, so that memory is bounded
T = TypeVar("T")
Result = TypeVar("Result")


def each(function: Callable[[T], Result], given: Sequence[T]) -> Iterator[Result]:
    """Yield function(x) of all that is given, in order, by a thread a core, AT_ONCE at a time."""
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(given), AT_ONCE):
            yield from pool.map(function, given[start : start + AT_ONCE])
