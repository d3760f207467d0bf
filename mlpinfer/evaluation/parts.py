"""The rows that are scored, in parts that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.evaluation.metrics import as_truth
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.io.data.open import check_labels
from mlpinfer.io.data.rows import ArrayRows, Rows
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: Bytes of rows that are read at a time; a batch is never cut, however large it is.
_PART_BYTES = 2**28


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredData:
    """Rows in files, and the labels or values they should give, which are read as they are used.

    Attributes
    ----------
    name : str
    rows : Rows
    labels : Rows, optional
        One a row. Otherwise those that `rows` have.

    Raises
    ------
    DatasetError
        If the rows are no numbers, or there is not one label for each.
    """

    name: str
    rows: Rows
    labels: Rows | None = None

    def __post_init__(self) -> None:
        if self._dtype.kind not in "fiub":
            raise DatasetError(f"{self.name}: expected numbers, found {self._dtype}")
        if self.labels is not None:
            check_labels(self.labels.name, self.labels)
            if self.labels.samples != self.samples:
                raise DatasetError(
                    f"{self.name}: expected {self.samples} labels, one a row, found {self.labels.samples}"
                )

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self.rows.read(0, 0).dtype

    @property
    def samples(self) -> int:
        """Number of rows."""
        return self.rows.samples

    @property
    def features(self) -> int:
        """Numbers in a row: 784 for images of 28 x 28."""
        return math.prod(self.rows.shape)

    @property
    def scale(self) -> float | None:
        """What the rows are multiplied by before the network: 1/255 for images of bytes, else None."""
        return self.rows.scale

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return self.features * self._dtype.itemsize

    @property
    def has_labels(self) -> bool:
        """Whether it is known what the rows should give."""
        return self.labels is not None or self.rows.y is not None

    def read_labels(self, begin: int, end: int) -> npt.NDArray[Any] | None:
        """Return the labels or values of rows `begin` to `end`, if there are any."""
        if self.labels is not None:
            y = self.labels.read(begin, end)
            return y[:, 0] if self.labels.shape == (1,) else y
        return None if self.rows.y is None else self.rows.y[begin:end]

    def load(self, most_rows: int | None = None) -> Dataset:
        """Read all rows, or the first `most_rows`, into memory.

        Raises
        ------
        DatasetError
            If they do not fit, or cannot be read.
        """
        end = self.samples if most_rows is None else min(most_rows, self.samples)
        try:
            x, y = self.rows.read(0, end), self.read_labels(0, end)
        except MemoryError:
            raise DatasetError(f"{self.rows.name}: does not fit into memory") from None
        if self.labels is not None and y is not None and y.dtype == np.float64:
            from mlpinfer.io.data.csv import whole_numbers

            y = whole_numbers(y)  # CSV has but one kind of number.
        return Dataset(x, y, self.scale, self.name)


class Parts:
    """The parts of the rows that are scored, which end where batches end; rows in memory are one part.

    Iterating yields the number of the first row of each part, and its rows, shape (n, D).

    Parameters
    ----------
    data : Dataset or StoredData
    batch_size : int

    Attributes
    ----------
    name : str
    samples : int
        Number of rows.
    row_shape : tuple of int
        Shape of a row as it is stored: that of an image is (height, width).
    has_labels : bool
        Whether it is known what the rows should give.
    spans : list of (int, int)
        Where each part begins and ends.
    """

    def __init__(self, data: Dataset | StoredData, batch_size: int) -> None:
        if isinstance(data, StoredData):
            self.row_shape = data.rows.shape
            unit = max(1, _PART_BYTES // (data.row_bytes * batch_size)) * batch_size
        else:
            self.row_shape, unit = data.x.shape[1:], data.samples
            x = data.x.reshape(data.samples, -1)  # Here and not in every pass: it may be a copy.
            data = StoredData(name=data.name, rows=ArrayRows(data.name, x, data.y, data.scale))
        self._data, self.name, self.samples, self.has_labels = data, data.name, data.samples, data.has_labels
        self.spans = [(at, min(at + unit, self.samples)) for at in range(0, self.samples, unit)]

    @classmethod
    def of(cls, x: Array) -> Parts:
        """Return an array of rows as one part."""
        return cls(Dataset(x), len(x))

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        for begin, end in self.spans:
            yield begin, self.read(begin, end)

    def read(self, begin: int, end: int) -> Array:
        """Return rows `begin` to `end`, shape (end - begin, D)."""
        x = self._data.rows.read(begin, end)
        return x.reshape(len(x), -1)

    def truth(self, network: Network, begin: int, end: int) -> npt.NDArray[Any]:
        """Return the labels (n,) or values (n, K) of rows `begin` to `end`, which there must be.

        Raises
        ------
        DatasetError
            If they do not fit the network.
        """
        y = self._data.read_labels(begin, end)
        assert y is not None
        return as_truth(y, network, self.name)
