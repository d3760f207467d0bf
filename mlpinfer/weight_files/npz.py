"""npz: NumPy's zip of .npy files, read member by member with every size checked first."""

from __future__ import annotations

import ast
import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.files import DEFLATE_RATIO, MAX_FILE_BYTES
from mlpinfer.weight_files.raw import MAX_DIMENSION, RawWeights

_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
_MAX_MEMBERS = 10_000
_MAX_HEADER = 10_000


def decode(data: bytes) -> RawWeights:
    """Read the arrays of an npz file.

    Raises
    ------
    WeightsError
        If the zip is damaged or not plain, or a member is not an array of numbers.
    """
    arrays, notes = {}, []
    for name, member in unzip(data).items():
        if name.endswith(".npy"):
            arrays[name.removesuffix(".npy")] = decode_npy(member, name)
        else:
            notes.append(f"{quoted(name)} left out: expected an .npy array")
    return RawWeights(arrays, {}, notes)


def unzip(data: bytes) -> dict[str, bytes]:
    """Return the members of a zip by name, stored or deflated, each no longer than it declares.

    Raises
    ------
    WeightsError
        If the zip is damaged, encrypted, compressed otherwise, has a name twice, or claims more
        than its bytes can hold.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data))
            return {member.filename: _read(archive, member) for member in members if not member.is_dir()}
    except WeightsError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen unrelated types on damaged files
        raise WeightsError(f"damaged zip: {ascii(str(error))[1:-1][:100]}") from None


def _check_members(members: list[zipfile.ZipInfo], length: int) -> None:
    if len(members) > _MAX_MEMBERS:
        raise WeightsError(f"expected at most {_MAX_MEMBERS} files in the zip, found {len(members)}")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise WeightsError("expected every name in the zip once, found one twice")
    for member in members:
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{quoted(member.filename)}: expected a stored or deflated zip member")
        if member.compress_size > length or member.file_size > member.compress_size * DEFLATE_RATIO:
            raise WeightsError(f"{quoted(member.filename)}: claims more bytes than it can hold")
    if sum(member.file_size for member in members) > MAX_FILE_BYTES:
        raise WeightsError(f"expected at most {MAX_FILE_BYTES} bytes in the zip, found more")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        data = file.read(member.file_size + 1)  # to its end, where zipfile compares the checksum
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise WeightsError(f"{quoted(member.filename)}: damaged in the zip")
    return data


def decode_npy(data: bytes, name: str) -> npt.NDArray[Any]:
    """Read an .npy file of floats, integers or booleans; objects and structures are refused.

    Raises
    ------
    WeightsError
        Naming the member.
    """
    prefix = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}.get(data[:8])
    if prefix is None:
        raise WeightsError(f"{quoted(name)}: expected an .npy file of version 1 to 3")
    begin = 8 + prefix
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > _MAX_HEADER or end > len(data):
        raise WeightsError(f"{quoted(name)}: expected an .npy header of at most {_MAX_HEADER} bytes")
    dtype, shape, fortran = _parse_header(data[begin:end], name)
    if len(data) - end != math.prod(shape) * dtype.itemsize:
        raise WeightsError(f"{quoted(name)}: expected {shape} of {dtype}, found {len(data) - end} bytes")
    return np.frombuffer(data, dtype, offset=end).reshape(shape, order="F" if fortran else "C")


def _parse_header(text: bytes, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except Exception:  # literal_eval raises anything from SyntaxError to RecursionError
        raise WeightsError(f"{quoted(name)}: damaged .npy header") from None
    if type(descr) is not str or descr[:1] not in ("<", ">", "|") or descr[1:] not in _DTYPES:
        raise WeightsError(f"{quoted(name)}: expected floats or integers, found dtype {quoted(descr)}")
    if type(fortran) is not bool or type(shape) is not tuple or len(shape) > 8:
        raise WeightsError(f"{quoted(name)}: damaged .npy header")
    if any(type(n) is not int or not 0 <= n <= MAX_DIMENSION for n in shape):
        raise WeightsError(f"{quoted(name)}: expected dimensions from 0 to {MAX_DIMENSION}")
    return np.dtype(descr), shape, fortran
