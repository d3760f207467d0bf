"""What an adapter returns: the arguments of `Network.from_arrays`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Parts(NamedTuple):
    """What `Network.from_arrays` takes."""

    weights: list[Any]
    biases: list[Any]
    hidden: str | Sequence[str]
    head: str
    notes: list[str]


def type_name(value: object) -> str:
    """Return the name of the type of `value`."""
    return type(value).__name__
