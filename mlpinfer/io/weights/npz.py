"""npz: NumPy's zip of .npy files, read member by member with every size checked first."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io import npy_format
from mlpinfer.io.errors import of_member
from mlpinfer.io.weights.raw_tensors import RawTensors, parse_metadata

_METADATA = "metadata.json"


def decode(members: Mapping[str, bytes]) -> RawTensors:
    """Read the arrays of an unpacked npz file.

    Raises
    ------
    FormatError
        If a member is not an array of numbers.
    """
    arrays, notes, metadata = {}, [], {}
    for name, member in members.items():
        if name == _METADATA:
            metadata = parse_metadata(member)
        elif name.endswith(".npy"):
            with of_member(name):
                arrays[name.removesuffix(".npy")] = npy_format.decode(member)
        else:
            notes.append(f"{quoted(name)} left out: expected an .npy array")
    return RawTensors(arrays, metadata, notes)


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
