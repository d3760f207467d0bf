"""Which rows, as something small that travels: they are opened where they are read."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass

from mlpinfer.data_files import Rows, input_files, open_rows


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

    def files(self) -> tuple[tuple[str, int, int], ...]:
        """Return name, size and time of change (nanoseconds) of every file."""
        status = ((path, os.stat(path)) for path in input_files(self.paths))
        return tuple((path, found.st_size, found.st_mtime_ns) for path, found in status)

    def open(self) -> Rows:
        """Open the files, or find them open from the last time; errors as `open_rows`."""
        return _open(self, self.files())


@functools.lru_cache(4)
def _open(inputs: Inputs, files: tuple[tuple[str, int, int], ...]) -> Rows:
    how = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    return open_rows(how.pop("paths"), **how)
