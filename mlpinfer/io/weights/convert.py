"""Write a network in another format, and prove that it came out the same."""

from __future__ import annotations

import os

import numpy as np

from mlpinfer.errors import WeightsError
from mlpinfer.io.errors import weights_file
from mlpinfer.io.files import atomic_write
from mlpinfer.io.weights import assembly
from mlpinfer.io.weights.load import decode
from mlpinfer.io.weights.save import encode
from mlpinfer.model.network import Network

#: Random rows that the written network is compared on.
ROWS = 256


def convert(network: Network, path: str | os.PathLike[str]) -> float:
    """Write `network` to `path` in the format of its suffix, after reading back what is to be written.

    Returns
    -------
    float
        The largest difference between the outputs of both on `ROWS` random rows.

    Raises
    ------
    WeightsError
        If what would be written is not the same network; nothing is written then.
    InputError
        If no format has the suffix.
    """
    data = encode(network, path)
    with weights_file(path):
        again = assembly.to_network(decode(data), None, None, None, None)
    x = np.random.default_rng(0).random((ROWS, network.sizes[0])) / (network.scale or 1)
    with np.errstate(all="ignore"):  # outputs beyond the largest number are compared too
        ours, theirs = network.forward(x), again.forward(x)
        equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = float(np.where(equal, 0, np.abs(ours - theirs)).max())
    if again.sha256 != network.sha256:
        what = [
            name for name in ("hidden", "head", "scale") if getattr(again, name) != getattr(network, name)
        ]
        raise WeightsError(
            f"{os.fspath(path)}: read back, {', '.join(what) or 'weights'} would differ; not written"
        )
    with atomic_write(path) as file:
        file.write(data)
    return difference
