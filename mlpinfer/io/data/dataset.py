"""`Dataset`: rows in memory with their labels, and `load_data`, which reads one from files."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.io.data.open import Path, check_labels, open_rows
from mlpinfer.io.data.read_options import ReadOptions
from mlpinfer.io.data.rows import check_one_a_row


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows, and the labels or values they should give.

    Attributes
    ----------
    x : ndarray, shape (N, ...), of any numbers but complex ones
        Raw inputs, not scaled; images keep their height and width.
    y : ndarray, shape (N,) integers, or (N, K) one-hot or values; or None
    scale : float or None
        What `x` is multiplied by before the network: 1/255 for IDX, PNG and JPEG, None for arrays.
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
        if self.y is not None:
            check_one_a_row(self.y, len(self.x), self.name)

    @property
    def samples(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def features(self) -> int:
        """Numbers in a row: 784 for images of 28 x 28."""
        return math.prod(self.x.shape[1:])


def load_data(
    x: Path,
    y: Path | None = None,
    scale: float | None = None,
    *,
    side: int | None = None,
    invert: bool = False,
    label_column: str | int | None = None,
    header: bool | None = None,
) -> Dataset:
    """Read a data set from files of any format of `open_rows`.

    Parameters
    ----------
    x : path
        Rows of features, or images; .npy and plain IDX files are mapped into memory.
    y : path, optional
        Labels, one a row. Otherwise those of the same file: the label column of CSV, an array called y,
        t, y_test, labels or arr_1 in .npz.
    scale : float, optional
        What the rows are multiplied by. Otherwise 1/255 for IDX, PNG and JPEG, and nothing else.
    side, invert, label_column, header
        As the attributes of `mlpinfer.io.data.read_options.ReadOptions`.

    Raises
    ------
    DatasetError
        If a file is not what it should be, or rows and labels differ in number.
    FileNotFoundError
    """
    options = ReadOptions(side=side, invert=invert, label_column=label_column, header=header)
    try:
        rows = open_rows([x], options)
        values = rows.map(0, rows.samples)
        labels = rows.y if y is None else _read_labels(y)
    except MemoryError:
        raise DatasetError(f"{os.fspath(x)}: does not fit into memory") from None
    name = os.path.basename(os.fspath(x).rstrip(os.sep))
    return Dataset(values, labels, rows.scale if scale is None else scale, name)


def _read_labels(path: Path) -> npt.NDArray[Any]:
    rows = open_rows([path])
    check_labels(path, rows)
    labels = rows.read(0, rows.samples)
    if labels.dtype == np.float64:  # CSV has but one kind of number
        from mlpinfer.io.data.csv import whole_numbers

        labels = whole_numbers(labels)
    return labels[:, 0] if rows.shape == (1,) else labels
