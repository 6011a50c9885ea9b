"""Generated stand-in images: no file, no download, any size, the same on every machine."""

import colorsys

import cv2
import numpy as np

from evqgan.data.splits import select

GOLDEN = 0.618034  # ours: steps of the golden ratio spread the hues of any number of classes evenly


def draw(index: int, label: int, shape: tuple[int, int]) -> np.ndarray:
    """Return an image uint8 [*shape,3]: a disc in the colour of class `label` on a smooth field.

    It is placed by `index`.
    """
    rng = np.random.default_rng((index, label))
    height, width = shape
    field = rng.integers(64, 192, size=(3, 3, 3)).astype(np.uint8)
    image = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    centre = rng.uniform(0.25, 0.75, size=2) * (width, height)
    radius = rng.uniform(0.15, 0.3) * min(shape)
    colour = [255 * c for c in colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.9, 0.9)]
    cv2.circle(image, tuple(int(c) for c in centre), max(1, int(radius)), colour, thickness=-1)
    return image


class Generated:
    """Source of `num_examples` training images and an eighth as many others for validation.

    Classes take turns.
    """

    paths: tuple[str, ...] = ()

    def __init__(self, split: str, shape: tuple[int, int], classes: int, num_examples: int) -> None:
        end = num_examples + max(1, num_examples // 8)
        parts = {
            "train": range(num_examples),
            "validation": range(num_examples, end),
            "all": range(end),
        }
        self.indices = select(split, parts, "the data set 'generated'")
        self.shape, self.class_names = shape, tuple(str(k) for k in range(classes))

    @property
    def labels(self) -> np.ndarray:
        """The labels of all images, int64 [n]."""
        return np.asarray(self.indices) % max(1, len(self.class_names))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict:
        index = self.indices[i]
        label = index % max(1, len(self.class_names))
        return {"image": draw(index, label, self.shape), "label": label}

    def where(self, i: int) -> str:
        """Return what a message calls example i."""
        return f"generated image {self.indices[i]}"
