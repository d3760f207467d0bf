"""Write a network to a weight file; the suffix of its name decides the format."""

from __future__ import annotations

import os

from mlpinfer._text import quoted
from mlpinfer.errors import InputError
from mlpinfer.io.files import atomic_write
from mlpinfer.io.weights import assembly, numpy_pickle
from mlpinfer.model.network import Network


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a file, whole or not at all; the suffix of `path` decides the format.

    Parameters
    ----------
    network : Network
    path : path
        ``.safetensors``, ``.npz``, ``.pkl`` (the book's layout) or ``.onnx``. An existing file is
        replaced.

    Raises
    ------
    InputError
        If the suffix is none of these.
    MlpInferError
        If a package is missing, saying which.
    """
    data = encode(network, path)
    with atomic_write(path) as file:
        file.write(data)


def encode(network: Network, path: str | os.PathLike[str]) -> bytes:
    """Return what `save_network` writes."""
    suffix = os.path.splitext(path)[1].lower()
    arrays, metadata = assembly.to_arrays(network)
    match suffix:
        case ".safetensors":
            from mlpinfer.io.weights import safetensors

            return safetensors.encode(arrays, metadata)
        case ".npz":
            from mlpinfer.io.weights import npz

            return npz.encode(arrays, metadata)
        case ".pkl" | ".pickle":
            return numpy_pickle.encode(arrays, {} if assembly.needs_no_metadata(network) else metadata)
        case ".onnx":
            from mlpinfer.io.weights import onnx_writer

            return onnx_writer.encode(network)
    raise InputError(f"{os.fspath(path)}: expected .safetensors, .npz, .pkl or .onnx, found {quoted(suffix)}")
