"""npz: NumPy's zip of .npy files, read member by member with every size checked first."""

from __future__ import annotations

import ast
import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.weight_files.raw import MAX_DIMENSION, RawWeights, parse_metadata

_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
_MAX_HEADER = 10_000
_METADATA = "metadata.json"


def decode(members: Mapping[str, bytes]) -> RawWeights:
    """Read the arrays of an unpacked npz file.

    Raises
    ------
    WeightsError
        If a member is not an array of numbers.
    """
    arrays, notes, metadata = {}, [], {}
    for name, member in members.items():
        if name == _METADATA:
            metadata = parse_metadata(member)
        elif name.endswith(".npy"):
            arrays[name.removesuffix(".npy")] = decode_npy(member, name)
        else:
            notes.append(f"{quoted(name)} left out: expected an .npy array")
    return RawWeights(arrays, metadata, notes)


def encode(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return an npz file of `arrays`, and `metadata` as JSON beside them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            # A ZipInfo without a date: the same network gives the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(_METADATA), json.dumps(dict(metadata)))
    return file.getvalue()


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
