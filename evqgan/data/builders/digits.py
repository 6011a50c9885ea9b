"""The handwritten digits that come with scikit-learn, as a tfds data set.

1,797 images, nothing to download.
"""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

# the size of the bitmaps from which the 8x8 counts were made; 8x8 are too few pixels for a
# tokenizer
SIDE = 32
LEVELS = 16  # the data set's: a pixel counts 0 to 16
EVERY = 5  # ours: each fifth digit of a class is held out

DESCRIPTION = "Handwritten digits of 13 people, 8x8 with 17 levels, enlarged to 32x32 (bicubic)."
HOMEPAGE = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
LICENCE = "CC BY 4.0 (UCI Machine Learning Repository); the copy bundled with scikit-learn"
CITATION = """@misc{optdigits, author={E. Alpaydin and C. Kaynak}, year={1998},
title={Optical Recognition of Handwritten Digits}, howpublished={UCI Machine Learning Repository},
doi={10.24432/C50P49}}"""


def enlarge(digit: np.ndarray) -> np.ndarray:
    """Return a digit float [8,8] of 0..16 as image uint8 [32,32,3].

    0..16 becomes 0..255, then bicubic, rounded and clipped.
    """
    image = cv2.resize(
        np.asarray(digit, np.float32) * (255 / LEVELS), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    )
    return np.repeat(image.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def examples() -> Iterator[tuple[int, np.ndarray, int, bool]]:
    """Yield (number, image uint8 [32,32,3], label, whether it is held out).

    Of each class every fifth digit is held out.
    """
    from sklearn.datasets import load_digits

    digits, seen = load_digits(), [0] * 10
    for number, (digit, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        yield number, enlarge(digit), int(label), seen[label] % EVERY == 0
        seen[label] += 1


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,433 digits in `train` and 364 in `validation`, the same share of every class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=[str(k) for k in range(10)]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license=LICENCE,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples(False),
            "validation": self._generate_examples(True),
        }

    def _generate_examples(self, held: bool) -> Iterator[tuple[int, dict]]:
        for number, image, label, held_out in examples():
            if held_out == held:
                # grey: the order of the channels does not matter
                png = cv2.imencode(".png", image)[1].tobytes()
                yield number, {"image": io.BytesIO(png), "label": label}
