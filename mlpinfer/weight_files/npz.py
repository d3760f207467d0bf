"""npz: NumPy's zip of .npy files, read member by member with every size checked first."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.npy import read_header
from mlpinfer.weight_files.raw import RawWeights, parse_metadata

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
    header = read_header(data, name, WeightsError)
    if len(data) - header.offset != header.nbytes:
        found = len(data) - header.offset
        raise WeightsError(f"{quoted(name)}: expected {header.shape} of {header.dtype}, found {found} bytes")
    return np.frombuffer(data, header.dtype, offset=header.offset).reshape(header.shape, order=header.order)
