"""The images of a data set as evaluators read them."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from evqgan.core import mesh
from evqgan.core.errors import InputError
from evqgan.data import pipeline
from evqgan.data.dataset import Dataset
from evqgan.data.decoded import forgiven

_late: list[list[InputError]] = []  # what could not be read in the bodies of `errors_last`


@contextlib.contextmanager
def errors_last() -> Iterator[None]:
    """Raise an error of reading once the body has ended, in a run of several processes.

    Until then what cannot be read is black and not valid. So this process takes part in all that
    the processes compute together, where the others would wait for it without end.
    """
    if jax.process_count() == 1:
        yield
        return
    found: list[InputError] = []
    _late.append(found)
    try:
        yield
    except Exception as error:
        if found:  # which may be the reason of that one
            raise found[0] from error
        raise
    finally:
        _late.remove(found)
    if found:
        raise found[0]


def _check_bad(count: int, number: int, max_bad: float, late: list[InputError] | None) -> None:
    """Raise InputError, or add it to `late`, if more images than a share do not decode.

    Each process has met those of its own rows alone. All have to call it.

    count: of these of this process. number: of all images.
    """
    count = int(multihost_utils.process_allgather(np.array(count)).sum())
    if count <= forgiven(number, max_bad):
        return
    error = InputError(
        f"{count} of {number} images do not decode, which is more than the share "
        f"config.dataset.max_bad = {max_bad:g}; all processes name theirs: repair or remove them, "
        "or raise config.dataset.max_bad"
    )
    if late is None:
        raise error
    late.append(error)


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Batches of the splits of a data set, split over all devices."""

    dataset: Dataset
    size: int  # images of a batch
    rows: np.ndarray  # of a batch, that this process reads
    device_mesh: jax.sharding.Mesh

    def __call__(self, split: str = "", images: bool = False) -> Iterator[dict]:
        """Yield the batches of a split, each image once, see `pipeline.eval_batches`.

        split: "" is the validation split.
        images: whether they have images even where there are stored ids.
        """
        dataset = self.dataset.of_images() if images else self.dataset
        split = split or dataset.validation
        late = _late[-1] if _late else None
        made = pipeline.eval_batches(dataset, split, self.size, self.rows, late)
        with contextlib.closing(made) as batches:
            for batch in batches:
                yield mesh.put(batch, self.device_mesh, self.size)
            if jax.process_count() > 1 and not dataset.codes:
                _check_bad(batches.skipped(), len(batches.examples), dataset.max_bad, late)

    def number(self, split: str) -> int:
        """Return how many images a split has."""
        return len(pipeline.open_split(self.dataset.of_images(), split))


def batches_of(dataset: Dataset, least: int, device_mesh: jax.sharding.Mesh) -> Batches:
    """Return batches of at least so many images, a multiple of what the devices split."""
    ways = mesh.ways(device_mesh)
    size = -(-least // ways) * ways
    return Batches(dataset, size, mesh.rows(device_mesh, size), device_mesh)
