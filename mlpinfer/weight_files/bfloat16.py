"""bfloat16, which NumPy does not have: the upper half of a float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def widen(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the values of bfloat16 numbers, given as uint16, exactly, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
