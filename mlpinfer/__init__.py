"""Batch inference for multilayer perceptrons, on NumPy, CuPy or compiled C.

Each public name is imported from its module when it is first asked for, so that a program, and the
command line, pays for what it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlpinfer._version import VERSION as __version__

if TYPE_CHECKING:
    from mlpinfer.data_files import Dataset, load_data
    from mlpinfer.errors import (
        ClusterError,
        DatasetError,
        DeviceError,
        DeviceMemoryError,
        InputError,
        MlpInferError,
        WeightsError,
    )
    from mlpinfer.folding import fold
    from mlpinfer.mnist import load_mnist
    from mlpinfer.network import Layer, LayerTrace, Network
    from mlpinfer.predictor import Predictor
    from mlpinfer.report import ScoreReport
    from mlpinfer.scoring import score
    from mlpinfer.weight_files import load_network, save_network

_HOMES = {
    "data_files": ("Dataset", "load_data"),
    "errors": (
        "ClusterError",
        "DatasetError",
        "DeviceError",
        "DeviceMemoryError",
        "InputError",
        "MlpInferError",
        "WeightsError",
    ),
    "folding": ("fold",),
    "mnist": ("load_mnist",),
    "network": ("Layer", "LayerTrace", "Network"),
    "predictor": ("Predictor",),
    "report": ("ScoreReport",),
    "scoring": ("score",),
    "weight_files": ("load_network", "save_network"),
}

__all__ = [
    "ClusterError",
    "Dataset",
    "DatasetError",
    "DeviceError",
    "DeviceMemoryError",
    "InputError",
    "Layer",
    "LayerTrace",
    "MlpInferError",
    "Network",
    "Predictor",
    "ScoreReport",
    "WeightsError",
    "__version__",
    "fold",
    "load_data",
    "load_mnist",
    "load_network",
    "save_network",
    "score",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"mlpinfer.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'mlpinfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
