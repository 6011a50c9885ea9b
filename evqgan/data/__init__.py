"""Data: images and labels, or stored ids, as batches in one order on any number of processes.

`dataset.Dataset` is config.dataset. `pipeline.open_split` opens one split of it as a source of the
form below: a folder (`folder`), a data set of tfds (`named`, with builders of our own in
`builders`), generated images (`generated`), or stored ids (`stored_ids`, `stored_split`).
`decoded` decodes its images, `views` crops them, and `pipeline` makes batches of them. `damage`
finds damaged files that decoders accept without an error.
"""

from collections.abc import Sequence
from typing import Protocol


class Source(Protocol):
    """One split of a data set."""

    class_names: tuple[str, ...]  # empty where there are no classes
    labels: Sequence[int] | None  # of all examples; None where all would have to be read for it
    paths: Sequence[str]  # of the examples' files, empty where they are none

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, i: int) -> dict:
        """Return example i: {"image", "label"}.

        image: encoded bytes, or uint8 [H',W',3].
        label: int, 0 where there is none.
        """

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
