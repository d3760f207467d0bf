"""Weight files: one module a format. Content decides which one reads a file, never its suffix."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mlpinfer._text import quoted
from mlpinfer.errors import InputError
from mlpinfer.io.archives import unzip
from mlpinfer.io.errors import FormatError, weights_file
from mlpinfer.io.files import read_file
from mlpinfer.io.weights import assembly, numpy_pickle
from mlpinfer.io.weights.raw_tensors import RawTensors
from mlpinfer.model.checks import checked_head, checked_hidden, checked_scale
from mlpinfer.model.network import Network

#: The shipped network that is scored where none is named.
DEFAULT = "mnist_784-50-100-10.pkl"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def load_network(
    path: str | os.PathLike[str],
    hidden: str | Sequence[str] | None = None,
    head: str | None = None,
    scale: float | None = None,
    layout: str | None = None,
) -> Network:
    """Read a network from a file that may come from a stranger; nothing in it is ever run.

    Parameters
    ----------
    path : path
        The book's pickle (a dict W1, b1, ..., any protocol), npz, safetensors, PyTorch's zip with a
        state_dict, or ONNX.
    hidden : str or sequence of str, optional
        Activation behind the hidden layers, where the file does not say or to overrule it.
    head : {"softmax", "sigmoid", "identity"}, optional
    scale : float, optional
        What raw inputs are multiplied by.
    layout : {"in-out", "out-in"}, optional
        Which way round the weights lie, where the file does not say.

    Raises
    ------
    InputError
        If an option is none of these.
    WeightsError
        If the file is not a network, or not safe to read.
    MlpInferError
        If it is ONNX, whose package is missing.
    FileNotFoundError
    """
    _check_options(hidden, head, scale, layout)
    with weights_file(path):
        return assembly.to_network(decode(read_file(path)), hidden, head, scale, layout)


def _check_options(
    hidden: str | Sequence[str] | None, head: str | None, scale: float | None, layout: str | None
) -> None:
    if hidden is not None:
        checked_hidden(hidden)
    if head is not None:
        checked_head(head)
    checked_scale(scale)
    if layout not in (None, *assembly.LAYOUTS):
        raise InputError(f"layout: expected in-out or out-in, found {quoted(layout)}")


def decode(data: bytes) -> RawTensors:
    """Read the arrays of a weight file; its first bytes decide the format.

    Raises
    ------
    FormatError
    """
    if data.startswith(b"PK\x03\x04"):
        from mlpinfer.io.weights import npz, torch_zip  # late: each format is imported where it is met

        members = unzip(data)
        return torch_zip.decode(members) if torch_zip.is_torch_zip(members) else npz.decode(members)
    if data.startswith(_TORCH_LEGACY):
        raise FormatError("PyTorch's legacy format: save again with a PyTorch of 1.6 or later")
    if data[8:9] == b"{":
        from mlpinfer.io.weights import safetensors

        return safetensors.decode(data)
    # Protocols 2 to 5 say so; 0 and 1 begin with the opcode of a dict or of a global.
    if data.startswith((b"\x80", b"(", b"}", b"c")):
        return numpy_pickle.decode(data)
    if data.startswith(b"\x08"):  # ir_version, the first field of every model
        from mlpinfer.io.weights import onnx

        return onnx.decode(data)
    raise FormatError("expected a pickle, npz, safetensors, PyTorch zip or ONNX file, found none of these")


def shipped(name: str = DEFAULT) -> str:
    """Path of a weight file that comes with mlpinfer: in the package, or beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(sys.modules["mlpinfer"].__file__ or ""))
    for folder in (os.path.join(package, "_weights"), os.path.join(os.path.dirname(package), "weights")):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(2, "no such shipped weight file, install mlpinfer again", name)
