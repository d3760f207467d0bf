"""Arrays of any library to NumPy and back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.model.ops import Array


def fetch(x: Array) -> npt.NDArray[Any]:
    """Return any array or sequence as a NumPy array, from whatever device it is on."""
    if _is_of(x, "torch") and hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x.get() if _is_of(x, "cupy") else x)


def send_like(y: npt.NDArray[Any], x: Array) -> Array:
    """Return `y` in the library of `x`, on its device."""
    if not _is_of(x, "cupy"):
        return y
    with x.device:
        return sys.modules["cupy"].asarray(y)


def _is_of(x: object, package: str) -> bool:
    return type(x).__module__.partition(".")[0] == package
