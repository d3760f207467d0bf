"""npz: NumPy's zip of .npy files, read member by member with every size checked first."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.weight_files.raw import DTYPES, RawWeights, is_shape, parse_metadata

_MAX_HEADER = 10_000
_METADATA = "metadata.json"
# Python 2 wrote shapes as (784L, 50L).
_SHAPE = rb"\((?:\s*[0-9]{1,20}L?\s*,)*(?:\s*[0-9]{1,20}L?)?\s*\)"
_PAIR = rb"\s*'(\w{1,20})'\s*:\s*('[^']{0,20}'|\[[^\]]*\]|True|False|" + _SHAPE + rb")\s*"
_ENTRY = re.compile(_PAIR)
_HEADER = re.compile(rb"\s*\{" + _PAIR + rb"," + _PAIR + rb"," + _PAIR + rb",?\s*\}\s*")


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
    """Read the dict of three entries; by a pattern, because even `ast.literal_eval` can be abused."""
    match = _HEADER.fullmatch(text)
    entries = dict(_ENTRY.findall(text)) if match else {}
    if entries.keys() != {b"descr", b"fortran_order", b"shape"} or entries[b"shape"][:1] != b"(":
        raise WeightsError(
            f"{quoted(name)}: expected a dict of descr, fortran_order and shape as .npy header"
        )
    descr = entries[b"descr"][1:-1].decode("latin1")
    if descr[:1] not in ("<", ">", "|") or descr[1:] not in DTYPES:
        raise WeightsError(f"{quoted(name)}: expected floats or integers, found dtype {quoted(descr)}")
    shape = tuple(int(number) for number in re.findall(rb"[0-9]+", entries[b"shape"]))
    if entries[b"fortran_order"] not in (b"True", b"False") or len(shape) > 8 or not is_shape(shape):
        raise WeightsError(f"{quoted(name)}: expected an array of a possible shape")
    return np.dtype(descr), shape, entries[b"fortran_order"] == b"True"
