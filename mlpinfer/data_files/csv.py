"""CSV: numbers, a row a line, with a header or without, read as a stream."""

from __future__ import annotations

import csv
import io
import itertools
import operator
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.data_files.rows import Rows
from mlpinfer.errors import DatasetError, quoted, said
from mlpinfer.files import open_regular

Table = npt.NDArray[np.float64]

#: Of a row, and of one cell.
_MOST_CHARACTERS = 2**24
_MOST_IN_CELL = csv.field_size_limit()
#: Read and parsed at a time; and rows, where they are parsed one by one.
_BLOCK_CHARACTERS = 2**18
_BLOCK_ROWS = 1_000


class CsvRows(Rows):
    """Rows of a CSV file; a first pass over it counts them and takes out the labels.

    Unless told, a first line without a number is the header. Empty lines are left out.

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
        self._lock = threading.Lock()  # of all three
        self._next = 0  # number of the first row of `_table`, behind which `_tables` goes on
        self._table: Table = np.empty((0, 0))
        self._tables: Iterator[Table] = iter(())
        with self._open() as text:
            line, first = next(self._records(_lines(text)), (0, None))
        if first is None:
            raise DatasetError(f"{path}: expected rows of numbers, found none")
        words = [cell for cell in first if not _is_number(cell)]
        if header is None and words and (len(words) < len(first) or not all(map(str.strip, words))):
            raise DatasetError(
                f"{path}: line {line}: expected numbers, or the names of all columns, found "
                f"{quoted(words[0])}; say --header (header=True) or --no-header (header=False)"
            )
        self._header = first if (words if header is None else header) else None
        self._width = len(first)
        label = self._find(label_column)
        self._features = [column for column in range(self._width) if column != label]
        self.shape = (len(self._features),)
        if label is None:
            self.samples = sum(map(len, self._parse([])))
        else:
            self.y = whole_numbers(np.concatenate([np.empty(0), *(t[:, 0] for t in self._parse([label]))]))
            self.samples = len(self.y)
        if not self.samples:
            raise DatasetError(f"{path}: expected rows of numbers behind the header, found none")

    def read(self, begin: int, end: int) -> Table:
        """Return rows `begin` to `end`; quickest where they follow the last ones."""
        with self._lock:
            return self._read(begin, end)

    def _read(self, begin: int, end: int) -> Table:
        x = np.empty((end - begin, *self.shape))
        if begin < self._next or self._next == 0:
            self._tables, self._table, self._next = self._parse(self._features), x[:0], 0
        while self._next < end > begin:
            if not len(self._table):
                table = next(self._tables, None)
                if table is None:
                    raise DatasetError(f"{self._path}: changed while it was read, try again")
                self._table = table
            count = (begin if self._next < begin else end) - self._next
            rows, self._table = self._table[:count], self._table[count:]
            if self._next >= begin:
                x[self._next - begin :][: len(rows)] = rows
            self._next += len(rows)
        if self._next == self.samples:
            self._tables = iter(())  # closes the file
        return x

    def _parse(self, columns: list[int]) -> Iterator[Table]:
        """Yield the given columns of the rows, some at a time; of no column at all to count them."""
        with self._open() as text:
            done = 0  # lines
            if self._header is not None:
                done, _ = next(self._records(_lines(text)))
            while block := text.read(_BLOCK_CHARACTERS) + text.readline(_MOST_CHARACTERS + 1):
                if "\r" in block:
                    block = block.replace("\r\n", "\n").replace("\r", "\n")
                if '"' in block:  # a row may go on in the next block: as the csv module reads it, to the end
                    yield from self._one_by_one(
                        itertools.chain(io.StringIO(block), _lines(text)), done, columns
                    )
                    return
                lines = block.split("\n")
                table = self._at_once([line for line in lines if line], columns)
                yield from self._one_by_one(lines, done, columns) if table is None else [table]
                done += len(lines) - 1

    def _at_once(self, lines: list[str], columns: list[int]) -> Table | None:
        """Parse lines without quotes; None where there is something else than the plainest of numbers."""
        if set(map(operator.methodcaller("count", ","), lines)) - {self._width - 1}:
            return None
        if not lines or not columns:
            return np.empty((len(lines), len(columns)))
        if max(map(len, lines)) > _MOST_IN_CELL and any(map(_is_too_long, lines)):
            return None
        if not lines[0].strip():  # NumPy would warn of nothing but blanks
            return None
        try:
            table = np.loadtxt(lines, delimiter=",", comments=None, usecols=columns, ndmin=2)
        except ValueError:
            return None
        return table if len(table) == len(lines) else None

    def _one_by_one(self, lines: Iterable[str], done: int, columns: list[int]) -> Iterator[Table]:
        """Parse lines, behind `done` others, as Python reads CSV and numbers, or say what is wrong."""
        rows = (self._numbers(row, done + line, columns) for line, row in self._records(lines))
        while some := list(itertools.islice(rows, _BLOCK_ROWS)):
            yield np.array(some, np.float64).reshape(len(some), len(columns))

    def _numbers(self, row: list[str], line: int, columns: list[int]) -> list[float]:
        if len(row) != self._width:
            raise DatasetError(f"{self._path}: line {line}: expected {self._width} columns, found {len(row)}")
        for column in columns:
            if not _is_number(row[column]):
                name = quoted(self._header[column]) if self._header else f"{column} of 0 to {self._width - 1}"
                found = quoted(row[column])
                raise DatasetError(
                    f"{self._path}: line {line}, column {name}: expected a number, found {found}"
                )
        return [float(row[column]) for column in columns]

    @contextmanager
    def _open(self) -> Iterator[io.TextIOWrapper]:
        with open_regular(self._path, DatasetError) as binary:
            try:
                yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            except (csv.Error, UnicodeDecodeError) as error:
                raise DatasetError(f"{self._path}: expected CSV: {said(error)}") from None

    def _records(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield rows that are not empty, and the number of the last line of each, from 1."""
        capped = _Capped(lines, self._path)
        reader = csv.reader(capped, strict=True)
        for record in reader:
            capped.characters = 0
            if record:
                yield reader.line_num, record

    def _find(self, column: str | int | None) -> int | None:
        if column is None:
            return None
        if self._header is not None and column in self._header:
            return self._header.index(str(column))
        if str(column).isdecimal() and int(column) < self._width:
            return int(column)
        names = ", ".join(self._header) if self._header else f"0 to {self._width - 1}"
        raise DatasetError(
            f"{self._path}: label column: expected one of {quoted(names)}, found {quoted(str(column))}"
        )


class _Capped:
    """Lines, of which a record has no more than a row of numbers may: quotes may span many.

    `characters` are those since it was last set to 0.
    """

    def __init__(self, lines: Iterable[str], path: str) -> None:
        self._lines, self._path, self.characters = iter(lines), path, 0

    def __iter__(self) -> _Capped:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.characters += len(line)
        if self.characters > _MOST_CHARACTERS:
            raise DatasetError(
                f"{self._path}: expected rows of at most {_MOST_CHARACTERS} characters, found more"
            )
        return line


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    return iter(lambda: text.readline(_MOST_CHARACTERS + 1), "")


def _is_too_long(line: str) -> bool:
    """Tell whether it is refused where rows are read one by one."""
    return len(line) > _MOST_CHARACTERS or max(map(len, line.split(","))) > _MOST_IN_CELL


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def whole_numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values as integers where all are whole numbers."""
    whole = np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.trunc(values))
    return values.astype(np.int64) if whole.all() else values


def is_text(begin: bytes) -> bool:
    """Tell whether a file that begins so may be CSV."""
    return bool(begin) and not set(begin) & {*range(9), *range(14, 32)}
