"""An .npy file, read without trust.

A magic string, the header's length, a Python dict of three entries as text, and values (the format is that of
`numpy.lib.format`). NumPy itself evaluates the text; here it has to match a pattern.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io.errors import FormatError

#: The codes of the dtypes that are read, behind their byte order.
DTYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_MAX_DIMENSION = 2**31 - 1
#: A header is never longer; so much of a file is enough to read it.
MAX_HEADER = 10_000
# Python 2 wrote shapes as (784L, 50L).
_SHAPE = rb"\((?:\s*[0-9]{1,20}L?\s*,)*(?:\s*[0-9]{1,20}L?)?\s*\)"
_PAIR = rb"\s*'(\w{1,20})'\s*:\s*('[^']{0,20}'|\[[^\]]*\]|True|False|" + _SHAPE + rb")\s*"
_ENTRY = re.compile(_PAIR)
_HEADER = re.compile(rb"\s*\{" + _PAIR + rb"," + _PAIR + rb"," + _PAIR + rb",?\s*\}\s*")


class Header(NamedTuple):
    """What stands in an .npy file, and where its values begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_shape(shape: tuple[int, ...], most: int = _MAX_DIMENSION) -> bool:
    """Tell whether an array of that shape is possible; zeros do not excuse large numbers."""
    return all(0 <= n <= _MAX_DIMENSION for n in shape) and math.prod(n or 1 for n in shape) <= most


def read_header(data: bytes, most: int = _MAX_DIMENSION) -> Header:
    """Read the header at the beginning of `data`: floats, integers or booleans of up to `most` values.

    Raises
    ------
    FormatError
        For objects and structures too.
    """
    prefix = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}.get(data[:8])
    if prefix is None:
        raise FormatError("expected an .npy file of version 1 to 3")
    begin = 8 + prefix
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > MAX_HEADER or end > len(data):
        raise FormatError(f"expected an .npy header of at most {MAX_HEADER} bytes")
    match = _HEADER.fullmatch(data[begin:end])
    entries = dict(_ENTRY.findall(data[begin:end])) if match else {}
    if entries.keys() != {b"descr", b"fortran_order", b"shape"} or entries[b"shape"][:1] != b"(":
        raise FormatError("expected a dict of descr, fortran_order and shape as .npy header")
    descr = entries[b"descr"][1:-1].decode("latin1")
    if descr[:1] not in ("<", ">", "|") or descr[1:] not in DTYPES:
        raise FormatError(f"expected floats or integers, found dtype {quoted(descr)}")
    shape = tuple(int(number) for number in re.findall(rb"[0-9]+", entries[b"shape"]))
    if entries[b"fortran_order"] not in (b"True", b"False") or len(shape) > 8 or not is_shape(shape, most):
        raise FormatError("expected an array of a possible shape")
    return Header(np.dtype(descr), shape, "F" if entries[b"fortran_order"] == b"True" else "C", end)


def check_length(header: Header, size: int) -> None:
    """Refuse a file of another size than its header says.

    Raises
    ------
    FormatError
    """
    found = size - header.offset
    if found != header.nbytes:
        raise FormatError(f"expected {header.shape} of {header.dtype}, found {found} bytes")


def decode(data: bytes) -> npt.NDArray[Any]:
    """Return the array of a whole .npy file, a view of its bytes; errors as `read_header`."""
    header = read_header(data)
    check_length(header, len(data))
    return np.frombuffer(data, header.dtype, offset=header.offset).reshape(header.shape, order=header.order)
