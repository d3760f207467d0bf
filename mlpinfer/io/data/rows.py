"""Rows that are read in spans: what every data file is opened as, whatever its size."""

from __future__ import annotations

import abc
import bisect
import itertools
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.io.errors import FormatError, data_file

#: What pixels of one byte are multiplied by to lie in [0, 1].
PIXEL_SCALE = 1 / 255
#: Bytes that are read from one source at a time, before they are put behind those of another.
_PIECE_BYTES = 2**24
Array = npt.NDArray[Any]
Order = Literal["C", "F"]


class Rows(abc.ABC):
    """Rows of one file or several.

    Attributes
    ----------
    name : str
    samples : int
        Number of rows.
    shape : tuple of int
        Of one row: (D,), or (height, width) of an image.
    scale : float or None
        What the rows are multiplied by before the network: 1/255 for images of bytes, else None.
    y : ndarray or None
        Labels, where the file has them.
    mapped : bool
        Whether what `map` returns takes no memory of this process.
    breaks : tuple of int
        Rows at which a span had better end: those at which a file ends, but for images.
    names : sequence of str or None
        The file of each row, of images.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    scale: float | None = None
    y: Array | None = None
    mapped: bool = False
    breaks: tuple[int, ...] = ()
    names: Sequence[str] | None = None

    @property
    def counts(self) -> Sequence[int]:
        """Rows of each file, in order."""
        return [self.samples]

    def read(self, begin: int, end: int) -> Array:
        """Return rows `begin` to `end`, shape (end - begin, *shape).

        Raises
        ------
        DatasetError
            If what stands there is not what rows are made of.
        """
        with data_file(self.name):
            return self._read(begin, end)

    def map(self, begin: int, end: int) -> Array:
        """Return rows as `read` does, but mapped into memory read-only where the file allows it.

        Mapped rows are copied nowhere, which makes jobs of small networks a fifth faster. If the file is
        cut short while they are used, the system ends the process by SIGBUS.
        """
        with data_file(self.name):
            return self._map(begin, end)

    @abc.abstractmethod
    def _read(self, begin: int, end: int) -> Array:
        """Return rows as `read`, or raise `FormatError`."""

    def _map(self, begin: int, end: int) -> Array:
        """Return rows as `map`, or raise `FormatError`."""
        return self._read(begin, end)


def map_file(
    file: BinaryIO, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], order: Order = "C"
) -> Array:
    """Return the values behind `offset` of an open file, mapped into memory read-only.

    Raises
    ------
    FormatError
        If the addresses are not there to be had, or the file has become shorter.
    """
    try:
        return np.memmap(file, dtype, "r", offset, shape, order)
    except OSError as error:
        raise FormatError(f"cannot be mapped into memory: {error.strerror}") from None
    except ValueError:
        raise FormatError("changed while it was read, try again") from None


class ArrayRows(Rows):
    """Rows of an array in memory."""

    def __init__(self, name: str, x: Array, y: Array | None = None, scale: float | None = None) -> None:
        if x.ndim == 1:
            x = x.reshape(-1, 1)
        if x.ndim < 2 or x.size == 0:
            raise FormatError(f"expected rows of features, (N, D), found shape {x.shape}")
        self.name, self._x, self.y, self.scale = name, x, y, scale
        if y is not None:
            check_one_a_row(y, len(x), name)
        self.samples, self.shape = len(x), x.shape[1:]

    def _read(self, begin: int, end: int) -> Array:
        return self._x[begin:end]


def check_one_a_row(y: Array, rows: int, name: str) -> None:
    """Refuse another number of labels than of rows.

    Raises
    ------
    DatasetError
    """
    if y.ndim == 0 or len(y) != rows:
        found = len(y) if y.ndim else "a single number"
        raise DatasetError(f"{name}: expected {rows} labels, one a row, found {found}")


class _Names(Sequence[str]):
    """The file of each row, without a list of a name a row."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(part.samples for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, row: Any) -> Any:
        i = bisect.bisect_right(self._ends, row)
        part = self._parts[i]
        return part.names[row - self._ends[i] + part.samples] if part.names else part.name


class JoinedRows(Rows):
    """Rows of several sources, one behind the other."""

    def __init__(self, name: str, parts: Sequence[Rows]) -> None:
        first = parts[0]
        for part in parts[1:]:
            if (part.shape, part.scale) != (first.shape, first.scale):
                raise DatasetError(
                    f"{part.name}: expected rows of shape {first.shape} and scale {first.scale}, as in "
                    f"{first.name}, found {part.shape} and {part.scale}"
                )
        self.name, self.shape, self.scale = name, first.shape, first.scale
        dtypes = {part.read(0, 0).dtype for part in parts}
        self._dtype = np.result_type(*dtypes)
        self.mapped = len(dtypes) == 1 and all(part.mapped for part in parts)
        labels = [part.y for part in parts if part.y is not None]
        if len({y.shape[1:] for y in labels}) > 1:
            raise DatasetError(f"{name}: expected labels of one kind, found some of several columns")
        if labels and len(labels) < len(parts):
            raise DatasetError(f"{name}: expected labels in all or none, found them in {len(labels)}")
        self.y = np.concatenate(labels) if labels else None
        self._parts = parts
        self._starts = [0, *itertools.accumulate(part.samples for part in parts)]
        self.samples, self.breaks = self._starts[-1], tuple(self._starts[1:-1])
        if any(part.names for part in parts):
            self.names = _Names(parts)

    @property
    def counts(self) -> Sequence[int]:
        """Rows of each file, in order."""
        return [count for part in self._parts for count in part.counts]

    def _read(self, begin: int, end: int) -> Array:
        i = bisect.bisect_right(self._starts, min(begin, self.samples - 1)) - 1
        if end <= self._starts[i + 1]:
            x = self._parts[i].read(begin - self._starts[i], end - self._starts[i])
            return x.astype(self._dtype, copy=False)
        x = np.empty((end - begin, *self.shape), self._dtype)
        most = max(1, _PIECE_BYTES * len(x) // x.nbytes)
        at = begin
        while at < end:
            start, stop = self._starts[i], min(end, at + most, self._starts[i + 1])
            x[at - begin : stop - begin] = self._parts[i].read(at - start, stop - start)
            at, i = stop, i + (stop == self._starts[i + 1])
        return x

    def _map(self, begin: int, end: int) -> Array:
        i = bisect.bisect_right(self._starts, min(begin, self.samples - 1)) - 1
        if end <= self._starts[i + 1]:
            x = self._parts[i].map(begin - self._starts[i], end - self._starts[i])
            return x.astype(self._dtype, copy=False)
        return self._read(begin, end)
