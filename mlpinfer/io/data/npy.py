"""NumPy's .npy, read in spans or mapped into memory, and .npz."""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlpinfer.io.archives import unzip
from mlpinfer.io.data.rows import ArrayRows, Rows, map_file
from mlpinfer.io.errors import FormatError, data_file, of_member
from mlpinfer.io.files import open_regular, read_file, read_into
from mlpinfer.io.npy_format import MAX_HEADER, Header, check_length, decode, read_header

#: Names of the rows and of their labels in an .npz, the first that is there.
_ROWS, _LABELS = ("x", "X", "x_test", "data", "images", "arr_0"), ("y", "t", "y_test", "labels", "arr_1")
#: A file may have this many values, because not all of them are read into memory.
_MOST = 2**47
#: Columns of fewer bytes are read several at a time.
_PIECE_BYTES = 2**14


class NpyRows(Rows):
    """Rows of an .npy file, which is opened anew for each read: thousands of files may be open as rows.

    Raises
    ------
    FormatError
        If the file is not .npy, has no values, or is of another length than its header says.
    FileNotFoundError
    """

    def __init__(self, path: str) -> None:
        with open_regular(path) as file:
            self._header = _read_header(file)
        self.name, shape = path, self._header.shape
        self.samples, self.shape = shape[0], shape[1:] or (1,)
        # One column, or one row of one dimension, is in both orders.
        self._in_c_order = self._header.order == "C" or max(shape) == math.prod(shape)
        self.mapped = self._in_c_order and self._header.dtype.isnative

    def _read(self, begin: int, end: int) -> npt.NDArray[Any]:
        with open_regular(self.name) as file:
            self._check_header(file)
            if not self._in_c_order:
                return _read_columns(file, self._header, begin, end)
            x = np.empty((end - begin, *self.shape), self._header.dtype)
            row_bytes = self._header.nbytes // self.samples
            read_into(x, file, self._header.offset + begin * row_bytes)
            return x

    def _map(self, begin: int, end: int) -> npt.NDArray[Any]:
        with open_regular(self.name) as file:
            self._check_header(file)
            x = _map(file, self._header)
            return (x.reshape(-1, 1) if x.ndim == 1 else x)[begin:end]

    def _check_header(self, file: BinaryIO) -> None:
        if _read_header(file) != self._header:
            raise FormatError("changed while it was read, try again")


def _read_columns(file: BinaryIO, header: Header, begin: int, end: int) -> npt.NDArray[Any]:
    """Return rows of a file in Fortran order, where the values of a column lie one behind the other."""
    rows, columns = header.shape[0], math.prod(header.shape[1:])
    column_bytes = rows * header.dtype.itemsize
    out = np.empty((columns, end - begin), header.dtype)
    # Of short columns, several are read whole, because each read has a cost of its own.
    several = _PIECE_BYTES // column_bytes
    if several > 1:
        for at in range(0, columns, several):
            piece = np.empty((min(several, columns - at), rows), header.dtype)
            read_into(piece, file, header.offset + at * column_bytes)
            out[at : at + several] = piece[:, begin:end]
    else:
        for at, column in enumerate(out):
            read_into(column, file, header.offset + at * column_bytes + begin * header.dtype.itemsize)
    return out.T.reshape(end - begin, *header.shape[1:], order="F")


def map_npy(path: str) -> npt.NDArray[Any]:
    """Return the array of an .npy file, mapped into memory read-only.

    Raises
    ------
    DatasetError
        If the file is not .npy, has no values, or is of another length than its header says.
    FileNotFoundError
    """
    with data_file(path), open_regular(path) as file:
        return _map(file, _read_header(file))


def _map(file: BinaryIO, header: Header) -> npt.NDArray[Any]:
    return map_file(file, header.dtype, header.offset, header.shape, header.order)


def _read_header(file: BinaryIO) -> Header:
    header = read_header(file.read(MAX_HEADER + 12), _MOST)
    check_length(header, os.fstat(file.fileno()).st_size)
    if 0 in header.shape or not header.shape:
        raise FormatError(f"expected rows of features, (N, D), found shape {header.shape}")
    return header


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
