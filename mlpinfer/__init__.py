"""Batch inference for multilayer perceptrons, on NumPy, CuPy or compiled C.

Each public name is imported from its module when it is first used, so that a program, and the
command line, loads only what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlpinfer._version import VERSION as __version__

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor
    from mlpinfer.errors import (
        ClusterError,
        DatasetError,
        DeviceError,
        DeviceMemoryError,
        InputError,
        MlpInferError,
        WeightsError,
    )
    from mlpinfer.evaluation.report import ScoreReport
    from mlpinfer.evaluation.score import score
    from mlpinfer.io.data.dataset import Dataset, load_data
    from mlpinfer.io.data.mnist import load_mnist
    from mlpinfer.io.weights.load import load_network
    from mlpinfer.io.weights.save import save_network
    from mlpinfer.model.folding import fold
    from mlpinfer.model.network import Layer, LayerTrace, Network

#: The module of each public name.
_MODULES = {
    "Predictor": "engine.predictor",
    "ClusterError": "errors",
    "DatasetError": "errors",
    "DeviceError": "errors",
    "DeviceMemoryError": "errors",
    "InputError": "errors",
    "MlpInferError": "errors",
    "WeightsError": "errors",
    "ScoreReport": "evaluation.report",
    "score": "evaluation.score",
    "Dataset": "io.data.dataset",
    "load_data": "io.data.dataset",
    "load_mnist": "io.data.mnist",
    "load_network": "io.weights.load",
    "save_network": "io.weights.save",
    "fold": "model.folding",
    "Layer": "model.network",
    "LayerTrace": "model.network",
    "Network": "model.network",
}

__all__ = sorted([*_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlpinfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlpinfer.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
