"""NumPy's .npy, memory-mapped, and .npz."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from mlpinfer.io.archives import unzip
from mlpinfer.io.data.rows import ArrayRows, Rows, map_file
from mlpinfer.io.errors import FormatError, data_file, of_member
from mlpinfer.io.files import open_regular, read_file
from mlpinfer.io.npy_format import MAX_HEADER, check_length, decode, read_header

#: Names of the rows and of their labels in an .npz, the first that is there.
_ROWS, _LABELS = ("x", "X", "x_test", "data", "images", "arr_0"), ("y", "t", "y_test", "labels", "arr_1")
#: A mapped file may have this many values; it takes no memory.
_MOST = 2**47


class NpyRows(Rows):
    """Rows of an .npy file, which is mapped anew for each read: thousands of files may be open as rows.

    Raises
    ------
    FormatError, FileNotFoundError
        As `map_npy`.
    """

    def __init__(self, path: str) -> None:
        first = _map_rows(path)
        self.name, self._kind = path, (first.shape, first.dtype, first.flags.c_contiguous)
        self.samples, self.shape = len(first), first.shape[1:]
        self.mapped = first.flags.c_contiguous and first.dtype.isnative

    def _read(self, begin: int, end: int) -> npt.NDArray[Any]:
        x = _map_rows(self.name)
        if (x.shape, x.dtype, x.flags.c_contiguous) != self._kind:
            raise FormatError("changed while it was read, try again")
        return x[begin:end]


def _map_rows(path: str) -> npt.NDArray[Any]:
    x = _map(path)
    return x.reshape(-1, 1) if x.ndim == 1 else x


def map_npy(path: str) -> npt.NDArray[Any]:
    """Return the array of an .npy file, mapped into memory read-only.

    Raises
    ------
    DatasetError
        If the file is not .npy, has no values, or is of another length than its header says.
    FileNotFoundError
    """
    with data_file(path):
        return _map(path)


def _map(path: str) -> npt.NDArray[Any]:
    with open_regular(path) as file:
        header = read_header(file.read(MAX_HEADER + 12), _MOST)
        check_length(header, os.fstat(file.fileno()).st_size)
        if 0 in header.shape or not header.shape:
            raise FormatError(f"expected rows of features, (N, D), found shape {header.shape}")
        return map_file(file, header.dtype, header.offset, header.shape, header.order)


def open_npz(path: str) -> ArrayRows:
    """Open an .npz file, with labels where it has some.

    Raises
    ------
    FormatError
        If it is not a zip of .npy arrays, or none has a name that rows have.
    FileNotFoundError
    """
    members = unzip(read_file(path))
    arrays = {name.removesuffix(".npy"): data for name, data in members.items() if name.endswith(".npy")}
    rows = next((name for name in _ROWS if name in arrays), None)
    if len(arrays) == 1 and not arrays.keys() & set(_LABELS):
        (rows,) = arrays
    if rows is None:
        raise FormatError(f"expected an array called {', '.join(_ROWS)}, found {_names(arrays)}")
    labels = next((name for name in _LABELS if name in arrays), None)
    y = None if labels is None else _decode(labels, arrays[labels])
    return ArrayRows(path, _decode(rows, arrays[rows]), y)


def _decode(name: str, data: bytes) -> npt.NDArray[Any]:
    with of_member(name):
        return decode(data)


def _names(arrays: dict[str, bytes]) -> str:
    return ascii(", ".join(arrays))[1:-1][:100] or "none"
