"""CSV: numbers, a row a line, with a header or without, read as a stream."""

from __future__ import annotations

import csv
import io
import itertools
import operator
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted, said
from mlpinfer.io.data.rows import Rows
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import open_regular

Table = npt.NDArray[np.float64]

#: Of a row, and of one cell.
_MOST_CHARACTERS = 2**24
_MOST_IN_CELL = min(csv.field_size_limit(), _MOST_CHARACTERS)
#: Read at a time; and of what the csv module reads, rows and about the bytes that their cells take.
_BLOCK_CHARACTERS = 2**18
_BLOCK_ROWS, _BLOCK_BYTES, _CELL_BYTES = 1_000, 2**23, 60
#: Left out around a number by NumPy, as no blank is by Python.
_BLANK_TO_NUMPY = re.compile("[\x1c-\x1f]")


class _Block(NamedTuple):
    """Some rows, a list of lines without quotes or of lists of cells, and the numbers of their lines."""

    lines: Any
    rows: Any


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
    FormatError
        If there is no such column, no row, or a row of another length.
    """

    def __init__(self, path: str, label_column: str | int | None = None, header: bool | None = None) -> None:
        self.name = self._path = path
        self._lock = threading.Lock()  # of all four
        self._blocks: Iterator[_Block] = iter(())
        self._block, self._at = _Block([], []), 0  # row `_at` of it is row `_next` of all
        self._next = 0
        with self._open() as text:
            line, first = next(self._records(_lines(text)), (0, None))
        if first is None:
            raise FormatError("expected rows of numbers, found none")
        words = [cell for cell in first if not _is_number(cell)]
        if header is None and words and (len(words) < len(first) or not all(map(str.strip, words))):
            raise FormatError(
                f"line {line}: expected numbers, or the names of all columns, found "
                f"{quoted(words[0])}; say --header (header=True) or --no-header (header=False)"
            )
        self._header = first if (words if header is None else header) else None
        self._width = len(first)
        label = self._find(label_column)
        self._features = [column for column in range(self._width) if column != label]
        self.shape = (len(self._features),)
        tables = (self._parse(block, [] if label is None else [label]) for block in self._read_blocks())
        if label is None:
            self.samples = sum(map(len, tables))
        else:
            self.y = whole_numbers(np.concatenate([np.empty(0), *(table[:, 0] for table in tables)]))
            self.samples = len(self.y)
        if not self.samples:
            raise FormatError("expected rows of numbers behind the header, found none")

    def _read(self, begin: int, end: int) -> Table:
        with self._lock:
            return self._read_on(begin, end)

    def _read_on(self, begin: int, end: int) -> Table:
        """Read on from the last row that was read, or from the first where `begin` is before it."""
        if begin < self._next or self._next == 0:
            self._blocks, self._block, self._at, self._next = self._read_blocks(), _Block([], []), 0, 0
        x = np.empty((end - begin, *self.shape))
        while self._next < end > begin:
            if self._at == len(self._block.rows):
                block = next(self._blocks, None)
                if block is None:
                    raise FormatError("changed while it was read, try again")
                self._block, self._at = block, 0
            to = min(self._at + (begin if self._next < begin else end) - self._next, len(self._block.rows))
            if self._next >= begin:
                some = _Block(self._block.lines[self._at : to], self._block.rows[self._at : to])
                x[self._next - begin :][: len(some.rows)] = self._parse(some, self._features)
            self._next += to - self._at
            self._at = to
        if self._next == self.samples:  # closes the file
            self._blocks, self._block, self._at = iter(()), _Block([], []), 0
        return x

    def _read_blocks(self) -> Iterator[_Block]:
        """Yield the rows behind the header, some at a time, not parsed: those that are skipped never are."""
        with self._open() as text:
            done = 0  # lines
            if self._header is not None:
                done, _ = next(self._records(_lines(text)), (0, None))
            while block := text.read(_BLOCK_CHARACTERS) + text.readline(_MOST_CHARACTERS + 1):
                if "\r" in block:
                    block = block.replace("\r\n", "\n").replace("\r", "\n")
                if '"' in block:  # a row may go on in the next block: to the end as the csv module reads it
                    yield from self._cells(itertools.chain(io.StringIO(block), _lines(text)), done)
                    return
                lines = block.split("\n")
                ended = len(lines) - 1
                if not lines[-1]:
                    del lines[-1]
                if _BLANK_TO_NUMPY.search(block) or max(map(len, lines)) > _MOST_IN_CELL:
                    yield from self._cells(lines, done)
                elif "" in lines:
                    yield _Block(
                        [i for i, line in enumerate(lines, done + 1) if line], [*filter(None, lines)]
                    )
                else:
                    yield _Block(range(done + 1, done + 1 + len(lines)), lines)
                done += ended

    def _cells(self, lines: Iterable[str], done: int) -> Iterator[_Block]:
        """Yield the rows in lines, behind `done` others, cell by cell."""
        block, size = _Block([], []), 0
        try:
            for line, cells in self._records(lines, done):
                block.lines.append(line)
                block.rows.append(cells)
                size += sum(map(len, cells)) + _CELL_BYTES * len(cells)
                if len(block.rows) == _BLOCK_ROWS or size > _BLOCK_BYTES or len(cells) != self._width:
                    yield block
                    block, size = _Block([], []), 0
        except (FormatError, UnicodeDecodeError):
            yield block  # something may be wrong before
            raise
        yield block

    def _parse(self, block: _Block, columns: list[int]) -> Table:
        """Return the given columns of rows, (n, len(columns)); rows are but checked where there are none."""
        rows = block.rows
        if rows and isinstance(rows[0], str):
            table = self._at_once(rows, columns)
            if table is not None:
                return table
            rows = [line.split(",") for line in rows]
        numbers = [self._numbers(cells, i, columns) for i, cells in zip(block.lines, rows, strict=True)]
        return np.array(numbers, np.float64).reshape(len(rows), len(columns))

    def _at_once(self, lines: list[str], columns: list[int]) -> Table | None:
        """Parse lines; None where there is something else than the plainest of numbers."""
        if set(map(operator.methodcaller("count", ","), lines)) - {self._width - 1}:
            return None
        if not columns:
            return np.empty((len(lines), 0))
        if not lines[0].strip():  # NumPy would warn of nothing but blanks
            return None
        try:
            table = np.loadtxt(lines, delimiter=",", comments=None, usecols=columns, ndmin=2)
        except ValueError:
            return None
        return table if len(table) == len(lines) else None

    def _numbers(self, cells: Sequence[str], line: int, columns: list[int]) -> list[float]:
        if len(cells) != self._width:
            raise FormatError(f"line {line}: expected {self._width} columns, found {len(cells)}")
        try:
            numbers = [float(cells[column]) for column in columns]
            if not any("_" in cells[column] for column in columns):  # float() takes 1_0
                return numbers
        except ValueError:
            pass
        column = next(column for column in columns if not _is_number(cells[column]))
        name = quoted(self._header[column]) if self._header else f"{column} of 0 to {self._width - 1}"
        found = quoted(cells[column])
        raise FormatError(f"line {line}, column {name}: expected a number, found {found}")

    @contextmanager
    def _open(self) -> Iterator[io.TextIOWrapper]:
        with open_regular(self._path) as binary:
            try:
                yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            except UnicodeDecodeError as error:
                raise FormatError(f"expected CSV: {said(error)}") from None

    def _records(self, lines: Iterable[str], done: int = 0) -> Iterator[tuple[int, list[str]]]:
        """Yield rows that are not empty, and the number of the last line of each, behind `done` others."""
        capped = _Capped(lines)
        reader = csv.reader(capped, strict=True)
        try:
            for record in reader:
                capped.characters = 0
                if record:
                    yield done + reader.line_num, record
        except csv.Error as error:
            line = done + reader.line_num
            raise FormatError(f"line {line}: expected CSV: {said(error)}") from None

    def _find(self, column: str | int | None) -> int | None:
        if column is None:
            return None
        if self._header is not None and column in self._header:
            return self._header.index(str(column))
        if str(column).isdecimal() and int(column) < self._width:
            return int(column)
        names = ", ".join(self._header) if self._header else f"0 to {self._width - 1}"
        raise FormatError(f"label column: expected one of {quoted(names)}, found {quoted(str(column))}")


class _Capped:
    """Lines, of which a record has no more than a row of numbers may: quotes may span many.

    `characters` are those since it was last set to 0.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.characters = iter(lines), 0

    def __iter__(self) -> _Capped:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.characters += len(line)
        if self.characters > _MOST_CHARACTERS:
            raise FormatError(f"expected rows of at most {_MOST_CHARACTERS} characters, found more")
        return line


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    return iter(lambda: text.readline(_MOST_CHARACTERS + 1), "")


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
