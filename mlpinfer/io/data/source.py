"""Which rows, as something small that travels: files are opened where they are read."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.io.data.open import check_kinds, input_files, open_files
from mlpinfer.io.data.rows import Rows

#: Size and time of change (nanoseconds) of a file.
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Inputs:
    """Which rows: files, folders and patterns as of `open_rows`, and how they are read."""

    paths: tuple[str, ...]
    side: int | None = None
    invert: bool = False
    label_column: str | int | None = None
    header: bool | None = None

    def resolve(self) -> Inputs:
        """Return the same files by their absolute names: what workers elsewhere have to find."""
        paths = tuple(os.path.abspath(path) for path in input_files(self.paths))
        return dataclasses.replace(self, paths=paths)

    def stamps(self) -> tuple[Stamp, ...]:
        """Return size and time of change of every file; patterns are expanded before."""
        return tuple(_stamp(path) for path in self.paths)

    def how(self) -> dict[str, Any]:
        """Return how they are read: arguments of `open_rows`."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "paths"}

    def open(self) -> Rows:
        """Open all files, or find them open from the last time; errors as `open_rows`."""
        files = dataclasses.replace(self, paths=tuple(input_files(self.paths)))
        rows = _open(files, files.stamps())
        check_kinds(files.paths, rows, self.invert, self.label_column)
        return rows


@dataclass(frozen=True)
class FilePart:
    """The files that some rows lie in, as they were when the rows were counted.

    `first` is the number, among all rows, of the first row in these files.
    """

    inputs: Inputs
    stamps: tuple[Stamp, ...]
    first: int

    def open(self) -> Rows:
        """Open the files, or find them open from the last time.

        Raises
        ------
        DatasetError
            As `check` and `open_rows`.
        """
        self.check()
        return _open(self.inputs, self.stamps)

    def check(self) -> None:
        """Refuse files that changed. Mapped rows are read while they are computed: ask behind that too.

        Raises
        ------
        DatasetError, FileNotFoundError
        """
        for path, before in zip(self.inputs.paths, self.stamps, strict=True):
            if _stamp(path) != before:
                raise DatasetError(f"{path}: changed since the run began; begin anew")

    def read(self, begin: int, end: int) -> npt.NDArray[Any]:
        """Return rows `begin` to `end`, counted among all rows; errors as `open`. Then `check`."""
        return self.open().read(begin - self.first, end - self.first)

    def labels(self, begin: int, end: int) -> npt.NDArray[Any] | None:
        """Return the labels of rows `begin` to `end`, where the files have them; errors as `open`."""
        y = self.open().y
        return None if y is None else y[begin - self.first : end - self.first]


def file_parts(
    inputs: Inputs, stamps: tuple[Stamp, ...], rows: Rows, spans: Sequence[tuple[int, int]]
) -> list[FilePart]:
    """Return, for each span of the rows of resolved inputs, the files that it lies in."""
    starts = [0, *itertools.accumulate(rows.counts)]
    parts = []
    for begin, end in spans:
        i, j = bisect.bisect_right(starts, begin) - 1, bisect.bisect_left(starts, end)
        some = dataclasses.replace(inputs, paths=inputs.paths[i:j])
        parts.append(FilePart(some, stamps[i:j], starts[i]))
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


@functools.lru_cache(4)
def _open(inputs: Inputs, stamps: tuple[Stamp, ...]) -> Rows:
    return open_files(inputs.paths, **inputs.how())
