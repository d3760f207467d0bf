"""IDX, the format of the MNIST files, plain or gzipped.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then
the values in C order, big-endian (the format's description stands with the original MNIST files).
"""

from __future__ import annotations

import math
import os
import struct
import threading
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlpinfer.io.archives import DEFLATE_RATIO, Gunzip
from mlpinfer.io.data.rows import PIXEL_SCALE, Rows, map_file
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import open_regular, read_into

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
#: Type, shape, and bytes of the header.
_Header = tuple[np.dtype[Any], tuple[int, ...], int]
_MOST_HEADER = 4 + 4 * 255
_SKIP_BYTES = 2**24


class IdxRows(Rows):
    """Rows of an IDX file: a plain one is opened anew for each read, a gzipped one unpacked as it is read.

    Raises
    ------
    FormatError
        If the file is not IDX, is cut short, or is longer than it declares. Of a gzipped file that
        shows when its last row is read.
    FileNotFoundError
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = self._path = os.fspath(path)
        with open_regular(path) as file:
            self._plain = file.read(2) != _GZIP_MAGIC
            size = os.fstat(file.fileno()).st_size
        self._lock = threading.Lock()  # of the place that has been unpacked to
        self._start()
        dtype, shape, offset = self._header
        self.samples, self.shape = shape[0], shape[1:]
        # Images of bytes are pixels.
        self.scale = PIXEL_SCALE if dtype == np.uint8 and len(shape) > 1 else None
        self._row_bytes = math.prod(self.shape) * dtype.itemsize
        if self._plain:
            _check_length(size - offset, self.samples * self._row_bytes)
            # Bytes need no other order: then what is mapped stays in the file.
            self.mapped = dtype.itemsize == 1
        elif self.samples * self._row_bytes > size * DEFLATE_RATIO:
            raise FormatError(f"cut short: {size} compressed bytes cannot hold {shape}")
        self._source.close()  # until the first read: thousands of files may be open as rows
        self._next = self.samples

    def _start(self) -> None:
        """Go to the first row."""
        if self._plain:
            with open_regular(self._path) as file:
                self._source: Gunzip | _Plain = _Plain(file.read(_MOST_HEADER))
        else:
            self._source = Gunzip(open_regular(self._path))
        self._next = 0
        self._header: _Header = _read_header(self._source)

    def _read(self, begin: int, end: int) -> npt.NDArray[Any]:
        dtype, _, offset = self._header
        if self._plain:
            x = np.empty((end - begin, *self.shape), dtype)
            with self._open_plain() as file:
                read_into(x, file, offset + begin * self._row_bytes)
        else:
            with self._lock:
                x = self._unpack(begin, end)
        return _native(x)

    def _map(self, begin: int, end: int) -> npt.NDArray[Any]:
        if not self._plain:
            return self._read(begin, end)
        dtype, shape, offset = self._header
        with self._open_plain() as file:
            return _native(map_file(file, dtype, offset, shape)[begin:end])

    def _open_plain(self) -> BinaryIO:
        file = open_regular(self._path)
        if os.fstat(file.fileno()).st_size != self._header[2] + self.samples * self._row_bytes:
            file.close()
            raise FormatError("changed while it was read, try again")
        return file

    def __del__(self) -> None:
        if "_source" in vars(self):
            self._source.close()

    def _unpack(self, begin: int, end: int) -> npt.NDArray[Any]:
        if begin == end:
            return np.empty((0, *self.shape), self._header[0])
        if begin < self._next:
            self._source.close()
            before = self._header
            self._start()
            if self._header != before:
                raise FormatError("changed while it was read, try again")
        while self._next < begin:
            skipped = min(begin - self._next, max(1, _SKIP_BYTES // self._row_bytes))
            self._source.read(skipped * self._row_bytes)
            self._next += skipped
        values = self._source.read((end - begin) * self._row_bytes)
        self._next = end
        if end == self.samples:
            self._source.finish()
            self._source.close()
        return np.frombuffer(values, self._header[0]).reshape(end - begin, *self.shape)


def _native(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _read_header(source: Gunzip | _Plain) -> _Header:
    zeros, code, ndim = struct.unpack(">HBB", source.read(4))
    if zeros or code not in _TYPES or ndim == 0:
        other = "; unpack files of other formats" if isinstance(source, Gunzip) else ""
        raise FormatError(f"expected an IDX file (two zero bytes, a type code), found none{other}")
    shape = struct.unpack(f">{ndim}I", source.read(4 * ndim))
    if 0 in shape or ndim > 8:
        raise FormatError(f"expected 1 to 8 dimensions above zero, found {shape[:8]}")
    return np.dtype(_TYPES[code]), shape, 4 + 4 * ndim


def _check_length(found: int, expected: int) -> None:
    if found < expected:
        raise FormatError(f"cut short: {expected} bytes expected, {found} found")
    if found > expected:
        raise FormatError(f"{found - expected} bytes more than its header says")


class _Plain:
    """The beginning of a file, read like a `Gunzip`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        left = len(self._data) - self._at
        if count > left:
            raise FormatError(f"cut short: {count} bytes expected, {left} found")
        self._at += count
        return self._data[self._at - count : self._at]

    def finish(self) -> None:
        """The length is checked where the values are read."""

    def close(self) -> None:
        """There is no file."""


def encode(array: npt.NDArray[Any]) -> bytes:
    """Return `array` as an IDX file, uncompressed."""
    big = array.dtype.newbyteorder(">")
    code = next(code for code, name in _TYPES.items() if np.dtype(name) == big)
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(big).tobytes()
