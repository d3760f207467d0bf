"""CSV: numbers, a row a line, with a header or without, read as a stream."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.data_files.rows import Rows
from mlpinfer.errors import DatasetError, quoted
from mlpinfer.files import open_regular

_MOST_CHARACTERS = 2**24


class CsvRows(Rows):
    """Rows of a CSV file; a first pass over it counts them and takes out the labels.

    Unless told, a first line that is not all numbers is the header. Empty lines are left out.

    Parameters
    ----------
    path : str
    label_column : str or int, optional
        Name or number, from 0, of the column of labels; it is no feature.
    header : bool, optional
        Whether the first line has names of columns.

    Raises
    ------
    DatasetError
        If there is no such column, no row, or a row of another length.
    """

    def __init__(self, path: str, label_column: str | int | None = None, header: bool | None = None) -> None:
        self.name = self._path = path
        self._lines: Iterator[list[str]] = iter(())
        self._lock = threading.Lock()  # of both
        self._next = 0  # number of the row that `_lines` gives next
        self._column: int | None = None
        first = next(self._records(), None)
        if first is None:
            raise DatasetError(f"{path}: expected rows of numbers, found none")
        words = [cell for cell in first if not _is_number(cell)]
        if header is None and words and (len(words) < len(first) or not all(map(str.strip, words))):
            raise DatasetError(
                f"{path}: row 1: expected numbers, or the names of all columns, found {quoted(words[0])}; "
                "say --header (header=True) or --no-header (header=False)"
            )
        self._header = first if (words if header is None else header) else None
        self._column = self._find(label_column, len(first))
        self.shape = (len(first) - (self._column is not None),)
        self._width = len(first)
        if self._column is None:
            self.samples = sum(1 for _ in self._rows())
        else:
            labels = (self._label(row, number) for number, row in enumerate(self._rows(), 1))
            self.y = as_labels(np.fromiter(labels, np.float64))
            self.samples = len(self.y)
        if not self.samples:
            raise DatasetError(f"{path}: expected rows of numbers behind the header, found none")

    def read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Return rows `begin` to `end`; quickest where they follow the last ones."""
        with self._lock:
            return self._read(begin, end)

    def _read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        if begin < self._next or self._next == 0:
            self._lines, self._next = self._rows(), 0
        x = np.empty((end - begin, *self.shape))
        for row in self._lines if begin < end else ():
            self._next += 1
            if self._next > begin:
                x[self._next - 1 - begin] = self._numbers(row, self._next)
            if self._next == end:
                break
        else:
            if begin < end:
                raise DatasetError(f"{self._path}: changed while it was read, try again")
        if self._next == self.samples:
            self._lines = iter(())  # closes the file
        return x

    def _records(self) -> Iterator[list[str]]:
        """Yield the lines that are not empty."""
        with open_regular(self._path, DatasetError) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            try:
                lines = _Lines(text, self._path)
                for record in csv.reader(lines, strict=True):
                    lines.characters = 0
                    if record:
                        yield record
            except (csv.Error, UnicodeDecodeError) as error:
                raise DatasetError(f"{self._path}: expected CSV: {ascii(str(error))[1:-1][:100]}") from None

    def _rows(self) -> Iterator[list[str]]:
        records = self._records()
        if self._header is not None:
            next(records, None)
        for number, record in enumerate(records, 1):
            if len(record) != self._width:
                raise DatasetError(
                    f"{self._path}: row {number}: expected {self._width} columns, found {len(record)}"
                )
            yield record

    def _numbers(self, record: list[str], number: int) -> list[float]:
        try:
            values = [float(cell) for cell in record]
            if any("_" in cell for cell in record):
                raise ValueError
        except ValueError:
            column = next(i for i, cell in enumerate(record) if not _is_number(cell))
            raise DatasetError(
                f"{self._path}: row {number}, column {column}: expected a number, "
                f"found {quoted(record[column])}"
            ) from None
        if self._column is not None:
            del values[self._column]
        return values

    def _label(self, record: list[str], number: int) -> float:
        assert self._column is not None
        cell = record[self._column]
        if not _is_number(cell):
            raise DatasetError(f"{self._path}: row {number}: expected a label, found {quoted(cell)}")
        return float(cell)

    def _find(self, column: str | int | None, width: int) -> int | None:
        if column is None:
            return None
        if self._header is not None and column in self._header:
            return self._header.index(str(column))
        if str(column).isdecimal() and int(column) < width:
            return int(column)
        names = ", ".join(self._header) if self._header else f"0 to {width - 1}"
        raise DatasetError(
            f"{self._path}: label column: expected one of {quoted(names)}, found {quoted(str(column))}"
        )


class _Lines:
    """Lines of a file, of which a record has no more than a row of numbers may: quotes may span many.

    `characters` are those since it was last set to 0.
    """

    def __init__(self, text: io.TextIOWrapper, path: str) -> None:
        self._text, self._path, self.characters = text, path, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_MOST_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.characters += len(line)
        if self.characters > _MOST_CHARACTERS:
            raise DatasetError(
                f"{self._path}: expected rows of at most {_MOST_CHARACTERS} characters, found more"
            )
        return line


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def as_labels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return whole numbers as integers."""
    whole = np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.trunc(values))
    return values.astype(np.int64) if whole.all() else values


def is_text(begin: bytes) -> bool:
    """Tell whether a file that begins so may be CSV."""
    return bool(begin) and not set(begin) & {*range(9), *range(14, 32)}
