"""Raw tensors: the named arrays that every reader returns, and what the file says about them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.io.errors import FormatError

#: More arrays than W1 to b9999 are refused, whatever they are.
MAX_ARRAYS = 20_000


@dataclass
class RawTensors:
    """The contents of a weight file before they are a network.

    Attributes
    ----------
    arrays : dict of str to ndarray
        In the order of the file.
    metadata : dict of str to str
        Activations, scale and layout, where the format carries them.
    notes : list of str
        What was left out, a line each.
    ordered : bool
        Whether the order of the arrays is that in which their layers were defined.
    """

    arrays: dict[str, npt.NDArray[Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ordered: bool = False


def parse_metadata(data: bytes) -> dict[str, str]:
    """Read metadata from JSON: one object of strings.

    Raises
    ------
    FormatError
        If it is anything else.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if type(values) is not dict or any(type(value) is not str for value in values.values()):
        raise FormatError("damaged metadata: expected one JSON object of strings")
    return values


def bfloat16_to_float32(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return bfloat16 numbers, given by their bits as uint16, as float32: they are its upper halves."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
