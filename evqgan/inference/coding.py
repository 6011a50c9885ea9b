"""Encode, decode and reconstruct, as people call them: their images in, arrays or pictures out."""

from __future__ import annotations  # so that help() shows the names of types

from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike
from PIL.Image import Image

from evqgan.core import jax_settings
from evqgan.inference import tiled
from evqgan.inference.batched import Progressing
from evqgan.inference.core import CoreModel
from evqgan.inference.images import Images, Output, check_output, to_output, to_uint8
from evqgan.tokenizers.tokenizer import Tokenizer

Rows: TypeAlias = Literal["numpy"]  # what `output` is by default
Pictures: TypeAlias = Literal["pil"]


class CodingModel(CoreModel):
    """The methods of a model that need a tokenizer alone: a generator has one, too.

    See `model.Model`.
    """

    @property
    @jax_settings.ours()
    def codebook(self) -> np.ndarray:
        """The codes' vectors by their ids, float32 [codes,width], as the decoder gets them.

        The shape is [depth,codes,width] where each depth has a table of its own. Of several depths
        the decoder gets the sum of their vectors.

        >>> model.codebook[model.encode(images)[..., 0]].shape
        (2, 8, 8, 32)
        """
        found: Any = self._network.apply(self._tokenizer, method=Tokenizer.codebook)
        tables = np.array(found)  # of the caller's own
        return tables[0] if len(tables) == 1 else tables

    def encode(
        self, images: Images, *, tiles: bool | None = None, progress: Progressing = False
    ) -> np.ndarray:
        """Return the ids [B,h,w,D] int32 of images.

        images: see `Model`; of any size of which both sides are multiples of `factor`.
        tiles: whether images larger than the model's are cut. False encodes them whole, which
          networks of convolutions or of windows (cnn, swin) can. True encodes tiles of the model's
          size that overlap by half, and takes each token from the tile whose centre is nearest.
          None is whole if the network can and an image has at most 2**22 pixels (2048x2048), else
          in tiles; which of them is logged, once a size.
        progress: see `Model`.

        >>> ids = model.encode(images)
        >>> ids.shape, ids.dtype
        ((2, 8, 8, 1), dtype('int32'))
        """
        given = to_uint8(images)
        cut = tiled.choose(self, given.shape[1:3], tiles, "encoded")
        with self.runner.reporting(progress, "encode", "tiles" if cut else "images") as report:
            if cut:
                return tiled.encode(self, given, report)
            return self.to_ids(given, tiled.rows(self, len(given), given.shape[1:3]), report)

    @overload
    def decode(
        self,
        ids: ArrayLike,
        *,
        tiles: bool | None = None,
        output: Rows = "numpy",
        progress: Progressing = False,
    ) -> np.ndarray: ...
    @overload
    def decode(
        self,
        ids: ArrayLike,
        *,
        tiles: bool | None = None,
        output: Pictures,
        progress: Progressing = False,
    ) -> list[Image]: ...
    def decode(
        self,
        ids: ArrayLike,
        *,
        tiles: bool | None = None,
        output: Output = "numpy",
        progress: Progressing = False,
    ) -> np.ndarray | list[Image]:
        """Return the images of ids [B,h,w,D] or [h,w,D], whole numbers from 0 to `codes` - 1.

        tiles: as in `encode`; pixels are blended where tiles overlap.
        output, progress: see `Model`.

        >>> model.decode(ids, output="pil")[0].size
        (64, 64)
        """
        check_output(output)
        given = self.checked_ids(ids)
        height, width = (side * self.factor for side in given.shape[1:3])
        cut = tiled.choose(self, (height, width), tiles, "decoded")
        with self.runner.reporting(progress, "decode", "tiles" if cut else "images") as report:
            if cut:
                return to_output(tiled.decode(self, given, report), output)
            rows = tiled.rows(self, len(given), (height, width))
            return to_output(self.to_images(given, rows, report), output)

    @overload
    def reconstruct(
        self,
        images: Images,
        *,
        tiles: bool | None = None,
        output: Rows = "numpy",
        progress: Progressing = False,
    ) -> np.ndarray: ...
    @overload
    def reconstruct(
        self,
        images: Images,
        *,
        tiles: bool | None = None,
        output: Pictures,
        progress: Progressing = False,
    ) -> list[Image]: ...
    def reconstruct(
        self,
        images: Images,
        *,
        tiles: bool | None = None,
        output: Output = "numpy",
        progress: Progressing = False,
    ) -> np.ndarray | list[Image]:
        """Return images, each encoded, quantized and decoded.

        images, tiles: as in `encode`; pixels are blended where tiles overlap.
        output, progress: see `Model`; progress is told twice, of encoding and then of decoding.

        >>> model.reconstruct(images).shape
        (2, 64, 64, 3)
        """
        check_output(output)
        given = to_uint8(images)
        cut = tiled.choose(self, given.shape[1:3], tiles, "reconstructed")
        ids = self.encode(given, tiles=cut, progress=progress)
        return to_output(self.decode(ids, tiles=cut, progress=progress), output)
