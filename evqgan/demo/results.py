"""What a click has made, and its files: a PNG an image, and a zip of all that belongs to it."""

import dataclasses
import pathlib
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evqgan.core import pictures

KEPT = 32  # ours: results whose files are kept; older ones are removed


@dataclasses.dataclass(frozen=True)
class Result:
    """What a click has made.

    images: uint8 [H,W,3] each; captions: a text each; paths: a PNG each.
    archive: a zip of all files. command: makes the same in a shell. line: what was made, in words.
    """

    images: list[np.ndarray]
    captions: list[str]
    paths: list[str]
    archive: str
    command: str
    line: str

    def gallery(self) -> list[tuple[str, str]]:
        """Return the (path, caption) of each image."""
        return list(zip(self.paths, self.captions, strict=True))


class ResultFiles:
    """The files of the latest results, in a folder of their own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def keep(
        self,
        name: str,
        images: Sequence[np.ndarray] | np.ndarray,
        captions: list[str],
        command: str,
        line: str,
        made: Sequence[Mapping[str, Any]] = (),
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> Result:
        """Write images and what they were made of as PNG files and a zip, and return the result.

        made: the record of each image, if there are any. extra: further pictures by file name.
        """
        self.forget()
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{time.time_ns()}_", dir=self.folder))
        paths = [folder / f"{name}_{i:03d}.png" for i in range(len(images))]
        for i, (path, image) in enumerate(zip(paths, images, strict=True)):
            pictures.save_png(path, image, made[i] if made else None)
        more = [folder / file for file in extra or {}]
        for path, picture in zip(more, (extra or {}).values(), strict=True):
            whole = np.broadcast_to(picture, (*picture.shape[:2], 3)).astype(np.uint8)
            pictures.save_png(path, np.ascontiguousarray(whole))
        archive = folder / f"{name}s.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in [*paths, *more]:
                file.write(path, path.name)
            file.writestr("command.txt", f"{command}\n")
        texts = list(map(str, paths))
        return Result(list(images), captions, texts, str(archive), command, line)

    def forget(self) -> None:
        """Remove the files of the oldest results, so that KEPT are left with the next one."""
        folders = sorted(path for path in self.folder.iterdir() if path.is_dir())
        for path in folders[: max(0, len(folders) - KEPT + 1)]:
            shutil.rmtree(path, ignore_errors=True)
