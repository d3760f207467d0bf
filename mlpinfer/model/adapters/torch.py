"""Networks of other frameworks in memory, read by duck typing: neither framework is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlpinfer._text import quoted
from mlpinfer.errors import WeightsError
from mlpinfer.model import activations
from mlpinfer.model.adapters.parts import Parts, type_name

#: Parts of a torch module that change nothing when a network is not trained.
_NOTHING = ("Dropout", "Identity")


def read_torch(module: Any, hidden: str | Sequence[str] | None, head: str | None) -> Parts:
    """Read an ``nn.Module`` of linear layers.

    Only a ``Sequential`` says in which order its parts are called. Of any other module the linear
    layers are taken in the order of their definition, and `hidden` and `head` must be given. Batch
    normalization, with what it has seen in training, becomes a part of the layer beside it.

    Raises
    ------
    WeightsError
        If a part is neither a linear layer nor an activation, or activations are missing.
    """
    if not hasattr(module, "named_modules"):
        raise WeightsError(f"expected a torch.nn.Module, found {type_name(module)}")
    # A part may stand in a module more than once, and is called as often.
    parts = list(module.named_modules(remove_duplicate=False))
    leaves = [(name, part) for name, part in parts if not list(part.children())]
    linear = [_Linear(part) for _, part in leaves if _is_linear(part)]
    if not linear:
        raise WeightsError(f"expected linear layers, found none in {type_name(module)}")
    for name, part in parts:
        if list(part.children()) and list(part.named_parameters(recurse=False)):
            raise WeightsError(
                f"{quoted(name)}: expected linear layers and activations, found {type_name(part)}"
            )
    if all(type_name(part) == "Sequential" for _, part in parts if list(part.children())):
        found_hidden, found_head, notes = _sequence(leaves, linear)
        hidden, head = hidden or found_hidden, head or found_head
    elif (hidden is None and len(linear) > 1) or head is None:
        raise WeightsError(
            f"only a Sequential tells its activations: give hidden and head for {type_name(module)}"
        )
    else:
        _check_leaves(leaves, hidden or [], head)
        notes = []
    if head == "softmax" and any(type_name(part) == "LogSoftmax" for _, part in leaves):
        notes.append("LogSoftmax is taken for softmax: probabilities, not logarithms")
    return Parts([layer.W for layer in linear], [layer.b for layer in linear], hidden or [], head, notes)


class _Linear:
    """Weights (in, out) and bias of a linear layer, and of what else is done to its inputs and outputs.

    What is taken in makes them float64: float32 might cancel.
    """

    def __init__(self, part: Any) -> None:
        self.W = _numpy(part.weight).T
        self.b = 0 * self.W[0] if part.bias is None else _numpy(part.bias)

    def after(self, done: _Normalization) -> None:
        """Take in what is done to its outputs."""
        done.check_width(self.W.shape[1])
        self.W, self.b = self.W * done.scale, self.b * done.scale + done.shift

    def before(self, done: _Normalization) -> None:
        """Take in what is done to its inputs."""
        done.check_width(self.W.shape[0])
        self.W, self.b = done.scale[:, None] * self.W, self.b + done.shift @ self.W


class _Normalization(NamedTuple):
    """What batch normalization multiplies by, and what it adds then."""

    name: str
    scale: Any
    shift: Any

    def check_width(self, features: int) -> None:
        """Refuse that of another number of features."""
        if len(self.scale) != features:
            raise WeightsError(f"{quoted(self.name)}: expected {features} features, found {len(self.scale)}")


def _sequence(leaves: list[tuple[str, Any]], linear: list[_Linear]) -> tuple[list[str], str, list[str]]:
    """Return the activations behind the linear layers of a Sequential, the head, and notes.

    Batch normalization is taken into the layer whose outputs it gets, or else into the next.
    """
    behind: list[str] = []
    notes: list[str] = []
    waiting: list[_Normalization] = []  # for the next layer
    for name, part in leaves:
        kind = type_name(part)
        if _is_linear(part):
            while waiting:
                linear[len(behind)].before(waiting.pop())
            behind.append("identity")
        elif kind in _NOTHING or (kind == "Flatten" and not behind):
            continue
        elif normalization := _normalization(name, part):
            if behind and behind[-1] == "identity" and not waiting:
                linear[len(behind) - 1].after(normalization)
            else:
                waiting.append(normalization)
            notes.append(f"{quoted(name)}: batch normalization became part of a linear layer")
        elif (activation := _torch_activation(part)) and behind and behind[-1] == "identity" and not waiting:
            behind[-1] = activation
        else:
            raise WeightsError(f"{quoted(name)}: expected linear layers and activations, found {kind}")
    if waiting:
        raise WeightsError(f"{quoted(waiting[0].name)}: expected a linear layer behind it, found none")
    return behind[:-1], behind[-1], notes


def _normalization(name: str, part: Any) -> _Normalization | None:
    """Return what a BatchNorm1d does when it is not trained (Ioffe and Szegedy, 2015), None of others."""
    if type_name(part) != "BatchNorm1d" or not type(part).__module__.startswith("torch.nn."):
        return None
    if part.running_mean is None:
        raise WeightsError(f"{quoted(name)}: expected running statistics, found none")
    mean, variance = (_numpy(array).astype(np.float64) for array in (part.running_mean, part.running_var))
    scale = 1 / np.sqrt(variance + part.eps)
    if part.weight is None:
        return _Normalization(name, scale, -mean * scale)
    scale *= _numpy(part.weight)
    return _Normalization(name, scale, _numpy(part.bias) - mean * scale)


def _check_leaves(leaves: list[tuple[str, Any]], hidden: str | Sequence[str], head: str) -> None:
    """Refuse parts that are not linear, and activations that contradict those that were given."""
    try:
        given = {activations.canonical(name) for name in ([hidden] if isinstance(hidden, str) else hidden)}
    except ValueError as error:
        raise WeightsError(f"hidden: {error}") from None
    for name, part in leaves:
        if _is_linear(part) or type_name(part) in (*_NOTHING, "Flatten"):
            continue
        activation = _torch_activation(part)
        if activation is None or activation not in {*given, head, "identity"}:
            raise WeightsError(
                f"{quoted(name)}: expected linear layers and what was given, found {type_name(part)}"
            )


def _is_linear(part: Any) -> bool:
    # By its exact type: what a subclass computes cannot be known.
    return type_name(part) == "Linear" and type(part).__module__.startswith("torch.nn.")


def _torch_activation(part: Any) -> str | None:
    kind = type_name(part)
    if kind == "LeakyReLU":
        return f"leaky_relu({float(part.negative_slope)!r})"
    if kind in ("Softmax", "LogSoftmax"):
        return "softmax" if part.dim in (1, -1) else None
    return {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu"}.get(kind)


def _numpy(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()  # exact; NumPy has no bfloat16
    return tensor.numpy()
