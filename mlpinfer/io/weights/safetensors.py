"""safetensors: a JSON header with offsets, then the bytes of the arrays; metadata of strings.

The safetensors package reads and checks it (header of at most 100 MB, offsets without holes or
overlaps, the whole file accounted for).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted, said
from mlpinfer.io.errors import FormatError
from mlpinfer.io.npy_format import is_shape
from mlpinfer.io.weights.raw_tensors import MAX_ARRAYS, RawTensors, bfloat16_to_float32, parse_metadata

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_DTYPES |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}


def decode(data: bytes) -> RawTensors:
    """Read the arrays and the metadata of a safetensors file.

    Raises
    ------
    FormatError
        If the file is damaged, or an array is not of numbers.
    """
    from safetensors import SafetensorError, deserialize

    # An object of JSON for each array: told before there is one of Python for each.
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    if header.count(b"{") > 2 * MAX_ARRAYS:
        raise FormatError(f"expected at most {MAX_ARRAYS} arrays, found more")
    # As much as the package will allocate: where that fails, it panics, and Python complains.
    np.empty(len(data), np.uint8)
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call,unused-ignore]
    except (SafetensorError, ValueError, OverflowError) as error:
        raise FormatError(f"damaged safetensors: {said(error)}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust; no Exception, so that few catch it
            raise
        raise FormatError("damaged safetensors: the package that reads them failed") from None
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _DTYPES:
            raise FormatError(f"{quoted(name)}: expected floats or integers, found {quoted(tensor['dtype'])}")
        if len(tensor["shape"]) > 8 or not is_shape(tuple(tensor["shape"])):
            raise FormatError(f"{quoted(name)}: expected an array of a possible shape")
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        arrays[name] = bfloat16_to_float32(array) if tensor["dtype"] == "BF16" else array
    # The package has checked the header, but does not hand out its metadata.
    metadata = json.loads(header).get("__metadata__") or {}
    return RawTensors(arrays, parse_metadata(json.dumps(metadata).encode()))


def encode(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file of `arrays` with `metadata`."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, dict(metadata)))
