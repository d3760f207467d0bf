"""Checks of what a network is made of, as users and files give it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.errors import InputError, WeightsError
from mlpinfer.model import activations

Floats = npt.NDArray[np.floating[Any]]


def checked_scale(scale: float | None) -> float | None:
    """Return `scale` as a float, or raise InputError if it cannot be one."""
    if scale is None:
        return None
    if isinstance(scale, bool) or not isinstance(scale, (int, float, np.floating, np.integer)):
        raise InputError(f"scale: expected a number, found {type(scale).__name__}")
    try:
        number = float(scale)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number == 0:
        raise InputError(f"scale: expected a finite number other than 0, found {number}")
    return number


def checked_hidden(hidden: str | Sequence[str]) -> list[str]:
    """Return activations by their one spelling, or raise InputError for what no hidden layer can have."""
    if not isinstance(hidden, (str, list, tuple)):
        raise InputError(f"hidden: expected a name, or one for each layer, found {type(hidden).__name__}")
    try:
        names = [activations.canonical(name) for name in ([hidden] if isinstance(hidden, str) else hidden)]
    except ValueError as error:
        raise InputError(f"hidden: {error}") from None
    if "softmax" in names:
        raise InputError("hidden: expected an activation of single units, found softmax; it is a head")
    return names


def checked_head(head: str) -> str:
    """Return the name of a head, or raise InputError for any other."""
    if not isinstance(head, str) or head not in activations.HEADS:
        raise InputError(f"head: expected softmax, sigmoid or identity, found {quoted(head)}")
    return head


def activation_of_each(hidden: str | Sequence[str], count: int) -> list[str]:
    """Return the activations of `count` hidden layers, from one for all or one for each."""
    names = checked_hidden(hidden)
    if isinstance(hidden, str):
        names *= count
    if len(names) != count:
        raise WeightsError(f"hidden: expected {count} activations, one a hidden layer, found {len(names)}")
    return names


def check_head(head: str, outputs: int) -> None:
    """Raise WeightsError if a head cannot have so many outputs."""
    if head == "sigmoid" and outputs != 1:
        raise WeightsError(f"head sigmoid: expected 1 output (one class against the rest), found {outputs}")
    if head == "softmax" and outputs == 1:
        raise WeightsError("head softmax: expected 2 or more outputs, found 1; use head sigmoid or identity")


def checked_floats(values: npt.ArrayLike, name: str) -> Floats:
    """Return a copy as native floats, or raise WeightsError if it is not an array of finite numbers."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        raise WeightsError(f"{name}: expected an array of numbers, found {type(values).__name__}") from None
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise WeightsError(f"{name}: expected float16, float32, float64 or integers, found {array.dtype}")
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.dtype(np.float64)
    array = np.array(array, dtype=dtype, order="C", copy=True)
    if not np.isfinite(array).all():
        raise WeightsError(f"{name}: expected finite numbers, found NaN or infinity")
    return array


def check_scaled(dtype: Any, scale: float | None, where: str = "") -> None:
    """Raise an error for rows of bytes if nobody said what they are multiplied by.

    Raises
    ------
    InputError
    """
    if scale is None and dtype == np.uint8:
        raise InputError(f"{where}uint8 rows and no known scale: give scale (--scale) 1/255 for pixels, or 1")


def first_known(*scales: float | None) -> float | None:
    """Return the first scale that is given: of an option, of the network, of the data."""
    return next((scale for scale in scales if scale is not None), None)


def positive_or_none(name: str, value: int | None) -> int | None:
    """Return a positive integer, or None, or raise InputError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}: expected a whole number from 1, found {quoted(value)}")
    return int(value)
