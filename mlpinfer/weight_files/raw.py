"""What every reader returns: named arrays and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

#: No dimension of an array in a weight file may be larger.
MAX_DIMENSION = 2**31 - 1


@dataclass
class RawWeights:
    """The contents of a weight file before they are a network.

    Attributes
    ----------
    arrays : dict of str to ndarray
        In the order of the file.
    metadata : dict of str to str
        Activations, scale and layout, where the format carries them.
    notes : list of str
        What was left out, a line each.
    """

    arrays: dict[str, npt.NDArray[Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
