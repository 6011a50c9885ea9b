"""The memory and the work that a request takes, compared with what there is.

It is compared before anything is begun.
"""

import math
import os
from collections.abc import Sequence

import jax

from evqgan.core.errors import InputError, size_text
from evqgan.core.progress import counted
from evqgan.core.space import GIB

IMAGES = 20_000_000  # ours: 16 views of each image of ImageNet, and more than a GPU makes in weeks


def of_machine() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def of_device() -> int:
    """Return the bytes of a device of this process that programs may take.

    Of a GPU they are the share that JAX takes (`chips.jax_share`), of a CPU the machine's.
    """
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", of_machine())


def require_memory(needed: float, what: str, there: int | None = None) -> None:
    """Raise InputError if something takes more bytes than there are.

    needed: bytes that it takes.
    what: such as "config.batch_size = 8 images of 64x64".
    there: bytes that there are; default: the machine's.
    """
    there = of_machine() if there is None else there
    if needed > there:
        least = f"would take {needed / GIB:,.1f} GiB"
        raise InputError(f"{what} {least}, and there are {there / GIB:,.1f} GiB: ask for less")


def require_batch(number: int, shape: Sequence[int]) -> None:
    """Raise InputError if a batch of images of the size `shape` (H, W) takes more than there is."""
    require_images(number, shape, "a batch of ")


def require_images(number: int, shape: Sequence[int], before: str = "") -> None:
    """Raise InputError if `number` images uint8 [H,W,3] take more memory than there is.

    shape: (H, W). before: begins the message.
    """
    what = f"{before}{counted(number, 'image')} of {size_text(shape)}"
    require_memory(number * math.prod(shape) * 3, what)


def limit_work(number: float, most: int, what: str, force: bool | None = False) -> None:
    """Raise InputError if there is more to do than `most`, unless `force` lifts that.

    So much work is more often a slip than a wish.

    number: how much there is to do.
    what: of what, such as "images to encode".
    force: None where nothing lifts it.
    """
    if number > most and not force:
        hint = "ask for less"
        if force is not None:
            hint += ", or lift the limit by --force (in Python, force=True)"
        raise InputError(f"this takes {number:,.0f} {what}, which are more than {most:,}: {hint}")
