"""Whether there is room for a request: its memory and its work, before anything is begun."""

import os

import jax

from evqgan.core.errors import InputError

GIB = 2**30
IMAGES = 20_000_000  # ours: 16 views of each image of ImageNet, and more than a GPU makes in weeks


def of_machine() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def of_device() -> int:
    """Return the bytes of memory of a device of this process; a CPU's is the machine's."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", of_machine())


def require(needed: float, what: str, there: int | None = None) -> None:
    """Raise InputError if something takes more bytes than there are.

    what: the thing in words, such as "config.batch_size = 8 images of 64x64".
    there: the bytes that there are; None is the machine's memory.
    """
    there = of_machine() if there is None else there
    if needed > there:
        raise InputError(
            f"{what} would take {needed / GIB:,.1f} GiB, and there are {there / GIB:,.1f} GiB: ask for less"
        )


def limit(number: float, most: int, what: str, force: bool = False) -> None:
    """Raise InputError for so much work that it is more often a slip than a wish.

    number: of things to do, at most `most`.
    what: the things in words, such as "images to encode".
    force: whether any number is allowed.
    """
    if number > most and not force:
        raise InputError(
            f"this takes {number:,.0f} {what}, which are more than {most:,}: ask for less, or lift the limit "
            "by --force (in Python, force=True)"
        )
