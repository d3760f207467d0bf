"""Networks of other frameworks in memory, read by duck typing: neither framework is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlpinfer.errors import WeightsError, quoted


class Parts(NamedTuple):
    """What `Network.from_arrays` takes."""

    weights: list[Any]
    biases: list[Any]
    hidden: str | Sequence[str]
    head: str
    notes: list[str]


#: Parts of a torch module that change nothing when a network is not trained.
_NOTHING = ("Dropout", "Identity")
_SKLEARN = {
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "identity": "identity",
    "softmax": "softmax",
}


def read_sklearn(model: Any) -> Parts:
    """Read a fitted ``MLPClassifier`` or ``MLPRegressor``.

    Raises
    ------
    WeightsError
        If it is neither, or not fitted, or has several labels a row.
    """
    if not hasattr(model, "coefs_") or not hasattr(model, "intercepts_"):
        raise WeightsError(f"expected a fitted MLPClassifier or MLPRegressor, found {_type(model)}")
    hidden, head = _SKLEARN.get(model.activation), _SKLEARN.get(model.out_activation_)
    if hidden is None or head is None:
        raise WeightsError(f"expected scikit-learn's activations, found {quoted(model.activation)}")
    classes = list(getattr(model, "classes_", []))
    notes = []
    if head != "identity" and classes != list(range(len(classes))):
        notes.append("labels are positions in classes_: 0 means classes_[0]")
    return Parts(model.coefs_, model.intercepts_, hidden, head, notes)


def read_torch(module: Any, hidden: str | Sequence[str] | None, head: str | None) -> Parts:
    """Read an ``nn.Module`` of linear layers.

    Only a ``Sequential`` says in which order its parts are called. Of any other module the linear
    layers are taken in the order of their definition, and `hidden` and `head` must be given.

    Raises
    ------
    WeightsError
        If a part is neither a linear layer nor an activation, or activations are missing.
    """
    if not hasattr(module, "named_modules"):
        raise WeightsError(f"expected a torch.nn.Module, found {_type(module)}")
    # A part may stand in a module more than once, and is called as often.
    parts = list(module.named_modules(remove_duplicate=False))
    leaves = [(name, part) for name, part in parts if not list(part.children())]
    linear = [part for _, part in leaves if _is_linear(part)]
    if not linear:
        raise WeightsError(f"expected linear layers, found none in {_type(module)}")
    for name, part in parts:
        if list(part.children()) and list(part.named_parameters(recurse=False)):
            raise WeightsError(f"{quoted(name)}: expected linear layers and activations, found {_type(part)}")
    if all(_type(part) == "Sequential" for _, part in parts if list(part.children())):
        found_hidden, found_head = _sequence(leaves)
        hidden, head = hidden or found_hidden, head or found_head
    elif (hidden is None and len(linear) > 1) or head is None:
        raise WeightsError(
            f"only a Sequential tells its activations: give hidden and head for {_type(module)}"
        )
    else:
        _check_leaves(leaves, hidden or [], head)
    return Parts(
        [_numpy(part.weight).T for part in linear],
        [0 * _numpy(part.weight)[:, 0] if part.bias is None else _numpy(part.bias) for part in linear],
        hidden or [],
        head,
        [],
    )


def _sequence(leaves: list[tuple[str, Any]]) -> tuple[list[str], str]:
    """Return the activations behind the linear layers of a Sequential, and the head."""
    behind: list[str] = []
    for name, part in leaves:
        kind = _type(part)
        if _is_linear(part):
            behind.append("identity")
        elif kind in _NOTHING or (kind == "Flatten" and not behind):
            continue
        elif (activation := _torch_activation(part)) and behind and behind[-1] == "identity":
            behind[-1] = activation
        else:
            raise WeightsError(f"{quoted(name)}: expected linear layers and activations, found {kind}")
    return behind[:-1], behind[-1]


def _check_leaves(leaves: list[tuple[str, Any]], hidden: str | Sequence[str], head: str) -> None:
    """Refuse parts that are not linear, and activations that contradict those that were given."""
    given = {*([hidden] if isinstance(hidden, str) else hidden), head, "identity"}
    given = {name.partition("(")[0] for name in given}
    for name, part in leaves:
        if _is_linear(part) or _type(part) in (*_NOTHING, "Flatten"):
            continue
        activation = _torch_activation(part)
        if activation is None or activation.partition("(")[0] not in given:
            raise WeightsError(
                f"{quoted(name)}: expected linear layers and what was given, found {_type(part)}"
            )


def _is_linear(part: Any) -> bool:
    # By its exact type: what a subclass computes cannot be known.
    return _type(part) == "Linear" and type(part).__module__.startswith("torch.nn.")


def _torch_activation(part: Any) -> str | None:
    kind = _type(part)
    if kind == "LeakyReLU":
        return f"leaky_relu({part.negative_slope!r})"
    if kind == "Softmax" and part.dim not in (1, -1):
        return None
    return {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu", "Softmax": "softmax"}.get(kind)


def _numpy(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()  # exact; NumPy has no bfloat16
    return tensor.numpy()


def _type(value: object) -> str:
    return type(value).__name__
