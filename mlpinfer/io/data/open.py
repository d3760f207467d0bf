"""Data sets on disk: one module a format, each opened as `Rows`."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence

from mlpinfer.errors import DatasetError
from mlpinfer.io.data.read_options import DEFAULTS, ReadOptions
from mlpinfer.io.data.rows import JoinedRows, Rows
from mlpinfer.io.errors import FormatError, data_file
from mlpinfer.io.files import open_regular

#: How PNG and JPEG files begin.
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
Path = str | os.PathLike[str]


def open_rows(inputs: Sequence[Path], options: ReadOptions = DEFAULTS) -> Rows:
    """Open data files as one sequence of rows; content decides which format a file has.

    Parameters
    ----------
    inputs : sequence of path
        .npy, .npz, IDX (plain or gzipped), CSV, PNG and JPEG files; folders of them, whose files are
        taken in the order of their names; or patterns such as ``rows/*.npy``.
    options : ReadOptions

    Raises
    ------
    DatasetError
        If a file is none of these, a folder has none, or the files differ in the shape of their rows.
    FileNotFoundError
        If there is no such file, or no file of a pattern.
    """
    paths = input_files(inputs)
    rows = open_files(paths, options)
    check_kinds(paths, rows, options)
    return rows


def check_kinds(paths: Sequence[str], rows: Rows, options: ReadOptions) -> None:
    """Raise DatasetError if an option is about a kind of files of which there is none."""
    if options.invert and not any(map(_is_image, paths)):
        raise DatasetError(f"{paths[0]}: expected PNG or JPEG images to invert, found none")
    if options.label_column is not None and rows.y is None:
        raise DatasetError(
            f"{paths[0]}: expected CSV with a label column {options.label_column!a}, found none"
        )


def open_files(paths: Sequence[str], options: ReadOptions) -> Rows:
    """Open files as `open_rows` does, of whatever kinds the options are about."""
    parts: list[Rows] = []
    for is_image, group in itertools.groupby(paths, _is_image):
        if is_image:
            from mlpinfer.io.data import images  # late: each format is imported where it is met

            found = list(group)
            with data_file(found[0]):
                parts.append(images.ImageRows(found, options.side, options.invert))
        else:
            for path in group:
                with data_file(path):
                    parts.append(_open(path, options))
    return parts[0] if len(parts) == 1 else JoinedRows(f"{len(paths)} files", parts)


def input_files(inputs: Sequence[Path]) -> list[str]:
    """Return the files that inputs of `open_rows` stand for; errors as there."""
    return [path for given in inputs for path in _expand(os.fspath(given))]


def check_features(name: str, shape: tuple[int, ...], features: int) -> None:
    """Refuse rows of another number of features than a network's.

    Raises
    ------
    DatasetError
    """
    if math.prod(shape) != features:
        hint = ""
        if name.lower().endswith((".csv", ".tsv", ".txt")):
            if shape == (features + 1,):
                hint = "; is one the label? label_column (--label-column) names it"
            elif shape == (1,):
                hint = "; CSV has commas between its columns"
        raise DatasetError(f"{name}: expected rows of {features} features, found shape {shape}{hint}")


def check_labels(path: Path, rows: Rows) -> None:
    """Refuse rows that are no labels, of shape () or (K,).

    Raises
    ------
    DatasetError
        If they are images.
    """
    if len(rows.shape) > 1:
        raise DatasetError(f"{os.fspath(path)}: expected labels, found images of shape {rows.shape}")


def _expand(path: str) -> list[str]:
    """Return the file, the files of the folder, or those that match the pattern."""
    import glob

    if os.path.isdir(path):
        try:
            entries = sorted(entry.path for entry in os.scandir(path) if not entry.name.startswith("."))
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
        found = [entry for entry in entries if not os.path.isdir(entry)]
        if not found:
            raise DatasetError(f"{path}: expected a folder of data files, found none in it")
    elif not os.path.lexists(path) and glob.has_magic(path):
        found = sorted(glob.glob(path))
    else:
        return [path]
    if not found:
        raise FileNotFoundError(2, "no file of that pattern", path)
    return found


def _is_image(path: str) -> bool:
    return _begin(path).startswith(_IMAGES)


def _begin(path: str) -> bytes:
    with data_file(path), open_regular(path) as file:
        try:
            return file.read(64)
        except OSError as error:
            raise FormatError(f"cannot be read: {error.strerror}") from None


def _open(path: str, options: ReadOptions) -> Rows:
    from mlpinfer.io.data import csv, idx, npy

    begin = _begin(path)
    if not begin:
        raise FormatError("expected rows, found an empty file")
    if begin.startswith(b"\x93NUMPY"):
        return npy.NpyRows(path)
    if begin.startswith(b"PK\x03\x04"):
        return npy.open_npz(path)
    if csv.is_text(begin):
        return csv.CsvRows(path, options.label_column, options.header)
    if begin.startswith((b"\0\0", b"\x1f\x8b")):
        return idx.IdxRows(path)
    raise FormatError("expected .npy, .npz, IDX, CSV, PNG or JPEG, found none of these")
