"""Data: images and labels, or stored ids, as batches in one order that any number of processes shares.

`pipeline.Dataset` is config.dataset. A data set becomes a source of the form below: of a folder (`folder`), of a name
that tfds knows (`named`, with builders of our own in `builders`), of nothing (`generated`), or of stored ids (`codes`).
`decoded` decodes and `transforms` crops its images; `damage` finds files that decoders paper over.
"""

from typing import Protocol


class Source(Protocol):
    """One split of a data set."""

    class_names: tuple[str, ...]  # empty where there are no classes

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, i: int) -> dict:
        """Return example i: {"image": encoded bytes or uint8 [H',W',3], "label": int}, label 0 where there is none."""

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
