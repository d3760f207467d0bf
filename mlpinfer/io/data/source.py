"""Which rows, as something small that can be pickled: files are opened where they are read."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.io.data.open import check_kinds, input_files, open_files
from mlpinfer.io.data.read_options import DEFAULTS, ReadOptions
from mlpinfer.io.data.rows import Rows

#: Size and time of change (nanoseconds) of a file.
Stamp = tuple[int, int]
#: Most sources that `OpenFiles` keeps open.
_MAX_OPEN = 4


@dataclass(frozen=True)
class DataSource:
    """Which rows: files, folders and patterns as of `open_rows`, and how they are read."""

    paths: tuple[str, ...]
    options: ReadOptions = DEFAULTS

    def resolve(self, absolute: bool = True) -> DataSource:
        """Return the files that folders and patterns stand for.

        Parameters
        ----------
        absolute : bool
            Whether by their absolute names, under which other processes find them.
        """
        paths = input_files(self.paths)
        return dataclasses.replace(self, paths=tuple(map(os.path.abspath, paths) if absolute else paths))

    def stamps(self) -> tuple[Stamp, ...]:
        """Return size and time of change of every file of a resolved source."""
        return tuple(_stamp(path) for path in self.paths)


class OpenFiles:
    """Data files that stay open for a run, because to open one may mean to read all of it once.

    It can be pickled, without the files, and may be used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[DataSource, tuple[Stamp, ...]], Rows] = {}

    def open(self, source: DataSource, stamps: tuple[Stamp, ...]) -> Rows:
        """Return the rows of a resolved source; errors as `open_rows`.

        Files are opened again if their stamps are others than they were.
        """
        key = source, stamps
        with self._lock:
            rows = self._rows.pop(key, None)
        # Not under the lock, because threads may open different files at once.
        rows = rows or open_files(source.paths, source.options)
        with self._lock:
            # The one that was used last is the last one.
            self._rows[key] = rows
            if len(self._rows) > _MAX_OPEN:
                del self._rows[next(iter(self._rows))]
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, ()


@dataclass(frozen=True)
class OpenSource:
    """A resolved source, its files as they were when they were opened, and their rows."""

    source: DataSource
    stamps: tuple[Stamp, ...]
    rows: Rows
    files: OpenFiles

    def check(self) -> None:
        """Raise DatasetError if a file is another than when it was opened."""
        for path, before in zip(self.source.paths, self.stamps, strict=True):
            if not os.path.exists(path) or _stamp(path) != before:
                raise DatasetError(f"{path}: changed while it was read, try again")


def open_source(source: DataSource, absolute: bool = True) -> OpenSource:
    """Open the files of a source, for all that a run does with them.

    Parameters
    ----------
    source : DataSource
    absolute : bool
        As for `DataSource.resolve`.

    Raises
    ------
    DatasetError, FileNotFoundError
        As `open_rows`.
    """
    source, files = source.resolve(absolute), OpenFiles()
    stamps = source.stamps()
    rows = files.open(source, stamps)
    check_kinds(source.paths, rows, source.options)
    return OpenSource(source, stamps, rows, files)


@dataclass(frozen=True)
class FilePart:
    """The files that some rows lie in, as they were when the rows were counted.

    `first` is the number, among all rows, of the first row in these files.
    """

    source: DataSource
    stamps: tuple[Stamp, ...]
    first: int

    def open(self, files: OpenFiles | None = None) -> Rows:
        """Open the files, or find them among `files`.

        Raises
        ------
        DatasetError
            As `check` and `open_rows`.
        """
        self.check()
        return (files or OpenFiles()).open(self.source, self.stamps)

    def check(self) -> None:
        """Raise DatasetError if a file has changed, which it may do while its rows are read.

        Raises
        ------
        DatasetError, FileNotFoundError
        """
        for path, before in zip(self.source.paths, self.stamps, strict=True):
            if _stamp(path) != before:
                raise DatasetError(f"{path}: changed since the run began; begin anew")

    def read(self, begin: int, end: int, files: OpenFiles | None = None) -> npt.NDArray[Any]:
        """Return rows `begin` to `end` of all rows, as `Rows.map`; errors as `open`. Then `check`."""
        return self.open(files).map(begin - self.first, end - self.first)

    def labels(self, begin: int, end: int, files: OpenFiles | None = None) -> npt.NDArray[Any] | None:
        """Return the labels of rows `begin` to `end`, where the files have them; errors as `open`."""
        y = self.open(files).y
        return None if y is None else y[begin - self.first : end - self.first]


def file_parts(opened: OpenSource, spans: Sequence[tuple[int, int]]) -> list[FilePart]:
    """Return, for each span of rows, the files that it lies in."""
    source = opened.source
    starts = [0, *itertools.accumulate(opened.rows.counts)]
    parts = []
    for begin, end in spans:
        i, j = bisect.bisect_right(starts, begin) - 1, bisect.bisect_left(starts, end)
        some = dataclasses.replace(source, paths=source.paths[i:j])
        parts.append(FilePart(some, opened.stamps[i:j], starts[i]))
    return parts


@contextlib.contextmanager
def unchanged(*given: str) -> Iterator[None]:
    """Refuse inputs of `open_rows` that change meanwhile: some mapped rows would be old, some new.

    Raises
    ------
    DatasetError
        When it ends, naming the file.
    """
    paths = input_files(given)
    before = [_stamp(path) for path in paths]
    yield
    for path, stamp in zip(paths, before, strict=True):
        if not os.path.exists(path) or _stamp(path) != stamp:
            raise DatasetError(f"{path}: changed while it was read, try again")


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns
