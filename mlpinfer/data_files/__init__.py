"""Data sets on disk: one module a format, each with `load`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.data_files import idx
from mlpinfer.errors import DatasetError

Path = str | os.PathLike[str]
#: What pixels of one byte are multiplied by to lie in [0, 1].
PIXEL_SCALE = 1 / 255


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows, and the labels or values they should give.

    Attributes
    ----------
    x : ndarray, shape (N, ...), uint8 or floating
        Raw inputs, not scaled; images keep their height and width.
    y : ndarray, shape (N,) integers, or (N, K) one-hot or values; or None
    scale : float or None
        What `x` is multiplied by before the network: 1/255 for images of bytes, None for arrays.
    name : str
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None = None
    scale: float | None = None
    name: str = "array"

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or self.x.size == 0:
            raise DatasetError(f"{self.name}: expected rows of features, (N, D), found shape {self.x.shape}")
        if self.x.dtype.kind not in "fiub":
            raise DatasetError(f"{self.name}: expected numbers, found {self.x.dtype}")
        if self.y is not None and len(self.y) != len(self.x):
            raise DatasetError(f"{self.name}: expected {len(self.x)} labels, one a row, found {len(self.y)}")

    @property
    def samples(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def features(self) -> int:
        """Numbers in a row: 784 for images of 28 x 28."""
        return math.prod(self.x.shape[1:])


def load_data(x: Path, y: Path | None = None, scale: float | None = None) -> Dataset:
    """Read a data set from IDX files, plain or gzipped.

    Parameters
    ----------
    x : path
        Rows of features, or images, which become rows of pixels.
    y : path, optional
        Labels, one a row.
    scale : float, optional
        What the rows are multiplied by. Otherwise 1/255 for images of bytes, and nothing else.

    Raises
    ------
    DatasetError
        If a file is not what it should be, or rows and labels differ in number.
    FileNotFoundError
    """
    try:
        rows = idx.load(x)
        labels = None if y is None else idx.load(y)
    except MemoryError:
        raise DatasetError(f"{os.fspath(x)}: does not fit into memory") from None
    if labels is not None and labels.ndim > 2:
        raise DatasetError(f"{os.fspath(y or x)}: expected labels, found images of shape {labels.shape}")
    if scale is None and rows.dtype == np.uint8:
        scale = PIXEL_SCALE
    return Dataset(rows, labels, scale, os.path.basename(os.fspath(x)))
