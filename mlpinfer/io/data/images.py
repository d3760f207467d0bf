"""PNG and JPEG images, each a row of pixels. Needs Pillow (extra `images`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlpinfer._text import said
from mlpinfer.errors import missing_package
from mlpinfer.io.data.rows import PIXEL_SCALE, Rows
from mlpinfer.io.errors import FormatError, data_file
from mlpinfer.io.files import read_file

_MOST_PIXELS = 100_000_000
#: Each scan of a progressive JPEG goes over all its pixels, whatever its length; files have about ten.
_MOST_SCANNED = 20 * _MOST_PIXELS


class ImageRows(Rows):
    """Images in grey, resized to a square; white on black as they are, or inverted.

    Parameters
    ----------
    paths : sequence of str
    side : int
        Height and width in pixels.
    invert : bool
        For dark on light: what is 0 becomes 255.

    Raises
    ------
    MlpInferError
        If Pillow is missing. Images are opened when they are read.
    """

    scale = PIXEL_SCALE

    def __init__(self, paths: Sequence[str], side: int | None, invert: bool = False) -> None:
        if side is None:
            raise FormatError("expected a network of square images for an image, found another")
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise missing_package("reading images", "pillow") from None
        self.name, self.names, self._invert = paths[0], list(paths), invert
        self._paths = self.names
        self._side = side
        self.samples, self.shape = len(paths), (side, side)

    @property
    def counts(self) -> Sequence[int]:
        """Rows of each file: one."""
        return [1] * self.samples

    def _read(self, begin: int, end: int) -> npt.NDArray[np.uint8]:
        paths = self._paths[begin:end]
        return (
            np.stack([self._pixels(path) for path in paths])
            if paths
            else np.empty((0, *self.shape), np.uint8)
        )

    def _pixels(self, path: str) -> npt.NDArray[np.uint8]:
        with data_file(path):
            return self._decode(read_file(path))

    def _decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        from PIL import Image, ImageOps

        scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, about sizes that are checked here
                with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                    if image.width * image.height > _MOST_PIXELS:
                        raise FormatError(f"expected at most {_MOST_PIXELS} pixels, found more")
                    if image.width * image.height * scans > _MOST_SCANNED:
                        raise FormatError(f"expected about ten scans of its pixels, found {scans}")
                    upright = ImageOps.exif_transpose(image)
                    if upright.has_transparency_data:  # on a ground of the other colour than the strokes
                        ground = Image.new("RGBA", upright.size, "white" if self._invert else "black")
                        upright = Image.alpha_composite(ground, upright.convert("RGBA"))
                    grey = upright.convert("L").resize((self._side, self._side))
                    pixels = np.asarray(grey, np.uint8)
        except (FormatError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise half a dozen unrelated types
            raise FormatError(f"expected a PNG or JPEG image: {said(error)}") from None
        return 255 - pixels if self._invert else pixels
