"""Networks of scikit-learn in memory, read by duck typing: scikit-learn is not imported."""

from __future__ import annotations

import warnings
from typing import Any

from mlpinfer._text import quoted
from mlpinfer.errors import WeightsError
from mlpinfer.model.adapters.parts import Parts, type_name

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
        raise WeightsError(f"expected a fitted MLPClassifier or MLPRegressor, found {type_name(model)}")
    hidden, head = _SKLEARN.get(model.activation), _SKLEARN.get(model.out_activation_)
    if hidden is None or head is None:
        found = quoted(model.out_activation_ if hidden else model.activation)
        raise WeightsError(f"expected {', '.join(_SKLEARN)}, found activation {found}")
    classes = list(getattr(model, "classes_", []))
    notes = []
    if head != "identity" and classes != list(range(len(classes))):
        first = next(i for i, label in enumerate(classes) if label != i)
        notes.append(
            f"labels are positions in the model's classes_: {first} means {quoted(str(classes[first]))}"
        )
        warnings.warn(notes[-1], stacklevel=3)  # at the call of Network.from_sklearn
    return Parts(model.coefs_, model.intercepts_, hidden, head, notes)
