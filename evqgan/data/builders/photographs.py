"""The photographs that come with scikit-image and scikit-learn, as a tfds data set.

Nothing to download. Of each photograph a region is held out for validation. Training tiles may
overlap each other, never a held-out region.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

TILE = 256  # ours: side of a training tile; room for random crops of 128
HELD_TILE = 128  # ours: side of a validation tile, the width of the narrowest held-out region
DESCRIPTION = "Tiles of nine photographs, of each of which a region is held out for validation."


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph, whose name is its class.

    Its regions are boxes (top, left, bottom, right) in pixels.
    """

    name: str
    size: tuple[int, int]
    train: tuple[int, int, int, int]
    held: tuple[int, int, int, int]
    # at most, between training tiles; wider for the two large ones, or they would be most of the
    # data
    stride: int
    licence: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut", (512, 512), (0, 0, 512, 384), (0, 384, 512, 512), 128, "public domain; NASA"
    ),
    Photograph(
        "chelsea", (300, 451), (0, 0, 300, 323), (0, 323, 300, 451), 128, "CC0; Stefan van der Walt"
    ),
    Photograph(
        "coffee", (400, 600), (0, 0, 400, 472), (0, 472, 400, 600), 128, "CC0; Rachel Michetti"
    ),
    Photograph(
        "rocket", (427, 640), (0, 0, 427, 512), (0, 512, 427, 640), 128, "public domain; SpaceX"
    ),
    Photograph(
        "hubble_deep_field",
        (872, 1000),
        (0, 0, 872, 744),
        (0, 744, 512, 1000),
        256,
        "public domain; NASA",
    ),
    Photograph(
        "retina",
        (1411, 1411),
        (192, 64, 1216, 832),
        (448, 1155, 960, 1411),
        256,
        "CC0; Mikael Häggström",
    ),
    Photograph(
        "immunohistochemistry",
        (512, 512),
        (0, 0, 512, 384),
        (0, 384, 512, 512),
        128,
        "no known restrictions; CMMI",
    ),
    Photograph(
        "china",
        (427, 640),
        (0, 0, 427, 512),
        (0, 512, 427, 640),
        128,
        "CC BY 2.0; danielbuechele (Flickr)",
    ),
    Photograph(
        "flower",
        (427, 640),
        (0, 0, 427, 512),
        (0, 512, 427, 640),
        128,
        "CC BY 2.0; vultilion (Flickr)",
    ),
)


def read(name: str) -> np.ndarray:
    """Return the photograph `name`, uint8 [H,W,3]."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(f"{name}.jpg"))
    import skimage.data

    return np.asarray(getattr(skimage.data, name)())


def train_tiles(photograph: Photograph) -> list[tuple[int, int, int, int]]:
    """Return boxes of TILE x TILE that cover the training region, evenly, at most `stride` apart.

    Shorter sides are whole.
    """
    top, left, bottom, right = photograph.train

    def starts(low: int, high: int) -> list[int]:
        room = max(0, high - low - TILE)
        return [
            low + round(start) for start in np.linspace(0, room, -(-room // photograph.stride) + 1)
        ]

    return [
        (y, x, min(y + TILE, bottom), min(x + TILE, right))
        for y in starts(top, bottom)
        for x in starts(left, right)
    ]


def held_tiles(photograph: Photograph) -> list[tuple[int, int, int, int]]:
    """Return boxes of HELD_TILE x HELD_TILE side by side in the held-out region.

    A remainder is left out.
    """
    top, left, bottom, right = photograph.held
    rows, columns = (
        range(top, bottom - HELD_TILE + 1, HELD_TILE),
        range(left, right - HELD_TILE + 1, HELD_TILE),
    )
    return [(y, x, y + HELD_TILE, x + HELD_TILE) for y in rows for x in columns]


class Photographs(tfds.core.GeneratorBasedBuilder):
    """`train`: tiles of 256x256; `validation`: tiles of 128x128 of the held-out regions.

    Label: which photograph.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(
                names=[photograph.name for photograph in PHOTOGRAPHS]
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
            license="\n".join(
                f"{photograph.name}: {photograph.licence}" for photograph in PHOTOGRAPHS
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples(train_tiles),
            "validation": self._generate_examples(held_tiles),
        }

    def _generate_examples(self, tiles: Callable) -> Iterator[tuple[str, dict]]:
        for photograph in PHOTOGRAPHS:
            image = read(photograph.name)
            if image.shape[:2] != photograph.size:
                raise ValueError(
                    f"{photograph.name} is {image.shape[:2]}, expected {photograph.size}: "
                    "another version"
                )
            for top, left, bottom, right in tiles(photograph):
                tile = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2BGR)
                png = cv2.imencode(".png", tile)[1].tobytes()
                yield (
                    f"{photograph.name}_{top}_{left}",
                    {"image": io.BytesIO(png), "label": photograph.name},
                )
