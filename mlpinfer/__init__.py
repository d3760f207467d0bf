"""Batch inference for multilayer perceptrons, on NumPy or CuPy."""

from mlpinfer._version import VERSION
from mlpinfer.data_files import Dataset, load_data
from mlpinfer.errors import DatasetError, DeviceError, InputError, MlpInferError, WeightsError
from mlpinfer.fold import fold
from mlpinfer.mnist import load_mnist
from mlpinfer.network import Layer, LayerTrace, Network
from mlpinfer.predictor import Predictor
from mlpinfer.scoring import ScoreReport, score
from mlpinfer.weight_files import load_network, save_network

__version__ = VERSION

__all__ = [
    "Dataset",
    "DatasetError",
    "DeviceError",
    "InputError",
    "Layer",
    "LayerTrace",
    "MlpInferError",
    "Network",
    "Predictor",
    "ScoreReport",
    "WeightsError",
    "fold",
    "load_data",
    "load_mnist",
    "load_network",
    "save_network",
    "score",
]
