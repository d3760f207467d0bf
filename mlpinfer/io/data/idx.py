"""IDX, the format of the MNIST files, plain or gzipped.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then
the values in C order, big-endian (the format's description stands with the original MNIST files).
"""

from __future__ import annotations

import io
import math
import os
import struct
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mlpinfer.io.archives import DEFLATE_RATIO, gzip_errors, unpack_into
from mlpinfer.io.data.rows import PIXEL_SCALE, Rows, map_file
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import MAX_FILE_BYTES, open_regular, read_into

if TYPE_CHECKING:
    import gzip

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
#: Type, shape, and bytes of the header.
_Header = tuple[np.dtype[Any], tuple[int, ...], int]


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
        self._lock = threading.Lock()  # Of the file that is being unpacked, and of how far it is.
        self._file: BinaryIO | None = None
        with open_regular(path) as file:
            self._plain = file.read(2) != _GZIP_MAGIC
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            self._header = _read_header(file if self._plain else _unpacked(file))
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

    def _read(self, begin: int, end: int) -> npt.NDArray[Any]:
        dtype, _, offset = self._header
        if not self._plain and (end - begin) * self._row_bytes > MAX_FILE_BYTES:
            raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes, found more")
        x = np.empty((end - begin, *self.shape), dtype)
        at = offset + begin * self._row_bytes
        if self._plain:
            with self._open_plain() as file:
                read_into(x, file, at)
        elif len(x):
            with self._lock:
                self._unpack(x, at, last=end == self.samples)
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
        if vars(self).get("_file"):
            self._close()

    def _unpack(self, x: npt.NDArray[Any], at: int, last: bool) -> None:
        """Fill `x` with what stands behind `at` in the unpacked file, which stays open but for the last."""
        if self._file is None:
            self._file = open_regular(self._path)
            self._source = _unpacked(self._file)
            if _read_header(self._source) != self._header:
                self._close()
                raise FormatError("changed while it was read, try again")
        with gzip_errors():
            self._source.seek(at)
        unpack_into(x, self._source)
        if last:
            with gzip_errors():
                if self._source.read(1):
                    raise FormatError("longer than its header says")
            self._close()

    def _close(self) -> None:
        assert self._file
        self._file.close()
        self._file = None


def _unpacked(file: BinaryIO) -> gzip.GzipFile:
    import gzip  # Late: plain files do without.

    return gzip.GzipFile(fileobj=file)


def _native(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _read_header(source: BinaryIO | gzip.GzipFile) -> _Header:
    zeros, code, ndim = struct.unpack(">HBB", _read_exactly(source, 4))
    if zeros or code not in _TYPES or ndim == 0:
        other = "; unpack files of other formats" if not isinstance(source, io.BufferedReader) else ""
        raise FormatError(f"expected an IDX file (two zero bytes, a type code), found none{other}")
    shape = struct.unpack(f">{ndim}I", _read_exactly(source, 4 * ndim))
    if 0 in shape or ndim > 8:
        raise FormatError(f"expected 1 to 8 dimensions above zero, found {shape[:8]}")
    return np.dtype(_TYPES[code]), shape, 4 + 4 * ndim


def _read_exactly(source: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    with gzip_errors():
        data = source.read(count)
    if len(data) < count:
        raise FormatError(f"cut short: {count} bytes expected, {len(data)} found")
    return data


def _check_length(found: int, expected: int) -> None:
    if found < expected:
        raise FormatError(f"cut short: {expected} bytes expected, {found} found")
    if found > expected:
        raise FormatError(f"{found - expected} bytes more than its header says")


def encode(array: npt.NDArray[Any]) -> bytes:
    """Return `array` as an IDX file, uncompressed."""
    big = array.dtype.newbyteorder(">")
    code = next(code for code, name in _TYPES.items() if np.dtype(name) == big)
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(big).tobytes()
