"""What a network can be asked for: labels, probabilities or logits, and how an evaluator gives them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from mlpinfer.engine.evaluator import Evaluator
from mlpinfer.engine.streaming import Evaluate
from mlpinfer.model import ops
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: What `Predictor.compute` can return.
OUTPUTS = ("labels", "proba", "logits")


class Output(NamedTuple):
    """How an output is computed: a function that writes it, and the shape and dtype of one row of it."""

    evaluate: Evaluate
    shape: tuple[int, ...]
    dtype: Any


def outputs_of(network: Network, evaluator: Evaluator, xp: Any, dtype: Any) -> dict[str, Output]:
    """Return the outputs that a network has, by name; labels of one without classes are its values.

    Parameters
    ----------
    network : Network
    evaluator : Evaluator
    xp : array namespace
    dtype : dtype
        What is computed in.
    """
    # Functions and not methods: a reference cycle would keep device memory until it is found.
    logits = Output(evaluator.logits, (network.sizes[-1],), dtype)
    if not network.is_classifier:
        return {"labels": logits, "logits": logits}
    to_proba = _softmax if network.head == "softmax" else _both_classes
    proba = functools.partial(to_proba, evaluator.logits, xp)
    return {
        "labels": Output(evaluator.labels, (), np.int64),
        "proba": Output(proba, (network.n_classes,), dtype),
        "logits": logits,
    }


def _softmax(logits: Evaluate, xp: Any, x: Array, out: Array) -> None:
    logits(x, out)
    ops.softmax(xp, out, out=out)


def _both_classes(logits: Evaluate, xp: Any, x: Array, out: Array) -> None:
    z = xp.empty((len(x), 1), dtype=out.dtype)
    logits(x, z)
    out[:, 1:] = ops.sigmoid(xp, z)
    out[:, :1] = ops.sigmoid(xp, -z)  # 1 - p, without losing its small values
