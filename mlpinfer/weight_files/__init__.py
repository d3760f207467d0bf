"""Weight files: one module a format. Content decides which one reads a file, never its suffix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mlpinfer.errors import WeightsError
from mlpinfer.files import read_file
from mlpinfer.network import Network
from mlpinfer.weight_files import layouts
from mlpinfer.weight_files.raw import RawWeights

#: The shipped network that is scored where none is named.
DEFAULT = "mnist_784-50-100-10.pkl"


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
        The book's pickle (a dict W1, b1, ..., any protocol) or an npz file with the same keys.
    hidden : str or sequence of str, optional
        Activation behind the hidden layers, where the file does not say or to overrule it.
    head : {"softmax", "sigmoid", "identity"}, optional
    scale : float, optional
        What raw inputs are multiplied by.
    layout : {"in-out", "out-in"}, optional
        Which way round the weights lie, where the file does not say.

    Raises
    ------
    WeightsError
        If the file is not a network, or not safe to read.
    FileNotFoundError
    """
    data = read_file(path, WeightsError)
    try:
        return layouts.to_network(_decode(data), hidden, head, scale, layout)
    except WeightsError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from None


def _decode(data: bytes) -> RawWeights:
    if data.startswith(b"PK\x03\x04"):
        from mlpinfer.weight_files import npz  # late: zipfile and pickletools are slow to import

        return npz.decode(data)
    # Protocols 2 to 5 say so; 0 and 1 begin with the opcode of a dict or of a global.
    if data.startswith((b"\x80", b"(", b"}", b"c")):
        from mlpinfer.weight_files import pickled

        return pickled.decode(data)
    raise WeightsError("expected a pickle or an npz file, found neither")


def shipped(name: str = DEFAULT) -> Path:
    """Path of a weight file that comes with mlpinfer: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "_weights", package.parent / "weights"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(2, "no such shipped weight file, install mlpinfer again", name)
