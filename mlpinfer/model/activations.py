"""Activations by name: which there are, their parameters, and their functions."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable

from mlpinfer.model.ops import Array, identity, leaky_relu, relu, sigmoid, softmax, tanh

Activation = Callable[..., Array]


#: What may stand after a hidden layer.
HIDDEN = {"identity": identity, "sigmoid": sigmoid, "tanh": tanh, "relu": relu, "leaky_relu": leaky_relu}


#: What may stand after the last layer: classes, one class against the rest, values.
HEADS = {"softmax": softmax, "sigmoid": sigmoid, "identity": identity}


_LEAKY = re.compile(r"leaky_relu(?:\(([0-9.eE+-]{1,32})\))?")


def canonical(name: str) -> str:
    """Return the one spelling of an activation's name: ``leaky_relu`` becomes ``leaky_relu(0.01)``.

    Raises
    ------
    ValueError
        If no activation has that name, or the slope is not a finite number.
    """
    leaky = _LEAKY.fullmatch(name) if isinstance(name, str) else None
    if leaky:
        with contextlib.suppress(ValueError):  # such as 1.2.3
            slope = float(leaky[1] or 0.01)
            if math.isfinite(slope):
                return f"leaky_relu({slope!r})"
    elif isinstance(name, str) and (name in HIDDEN or name in HEADS):
        return name
    known = ", ".join(sorted({*HIDDEN, *HEADS} - {"leaky_relu"}))
    raise ValueError(f"expected an activation ({known}, leaky_relu(SLOPE)), found {ascii(name)[:60]}")


def slope_of(name: str) -> float | None:
    """Return the slope in the name of a leaky ReLU, None for the others; errors as `canonical`."""
    leaky = _LEAKY.fullmatch(canonical(name))
    return float(leaky[1]) if leaky else None


@functools.lru_cache(64)
def activation(name: str) -> Activation:
    """Return the function of an activation's name; errors as `canonical`."""
    slope = slope_of(name)
    if slope is not None:
        return functools.partial(leaky_relu, slope=slope)
    return {**HIDDEN, **HEADS}[name]
