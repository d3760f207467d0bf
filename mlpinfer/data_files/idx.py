"""IDX, the format of the MNIST files, plain or gzipped.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then
the values in C order, big-endian (the format's description stands with the original MNIST files).
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.files import Gunzip, read_file

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def load(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an IDX file into an array of the shape and type it declares.

    Raises
    ------
    DatasetError
        If the file is not IDX, is cut short, or is longer than it declares.
    FileNotFoundError
    """
    name = os.fspath(path)
    data = read_file(name, DatasetError)
    source = Gunzip(data, DatasetError, name) if data.startswith(_GZIP_MAGIC) else _Plain(data, name)

    zeros, code, ndim = struct.unpack(">HBB", source.read(4))
    if zeros or code not in _TYPES or ndim == 0:
        raise DatasetError(
            f"{name}: expected an IDX file (two zero bytes, a type code), found something else"
        )
    shape = struct.unpack(f">{ndim}I", source.read(4 * ndim))
    dtype = np.dtype(_TYPES[code])
    if 0 in shape or ndim > 8:
        raise DatasetError(f"{name}: expected 1 to 8 dimensions above zero, found {shape[:8]}")
    values = source.read(math.prod(shape) * dtype.itemsize)
    source.finish()
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


class _Plain:
    """Bytes in memory, read like a `Gunzip`."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._at, self._name = data, 0, name

    def read(self, count: int) -> bytes:
        left = len(self._data) - self._at
        if count > left:
            raise DatasetError(f"{self._name}: cut short: {count} bytes expected, {left} found")
        self._at += count
        return self._data[self._at - count : self._at]

    def finish(self) -> None:
        if self._at != len(self._data):
            raise DatasetError(f"{self._name}: {len(self._data) - self._at} bytes more than its header says")


def encode(array: npt.NDArray[Any]) -> bytes:
    """Return `array` as an IDX file, uncompressed."""
    big = array.dtype.newbyteorder(">")
    code = next(code for code, name in _TYPES.items() if np.dtype(name) == big)
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(big).tobytes()
