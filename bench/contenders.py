"""Who is compared: each a function that prepares a network and returns `rows -> labels`.

``-threads``: one caller, and the library uses as many threads as there are cores. ``-callers``: as many
callers as cores, each with its own contiguous part of the batches, and the library at one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import book_script
import numpy as np
import peers
from batches import Labels, deal, each_batch

from mlpinfer import Network, Predictor

#: (network, batch size, dtype of the rows, cores) -> labels of rows. The network's scale is that of its rows.
Contender = Callable[[Network, int, str, int], Labels]


def mlpinfer_whole(network: Network, batch_size: int, dtype: str, cores: int, device: str = "cpu") -> Labels:
    return Predictor(network, device, batch_size, cores).predict


def mlpinfer_plan(network: Network, batch_size: int, dtype: str, cores: int) -> Labels:
    """The array by array evaluator of NumPy, which runs where there is no compiled one."""
    os.environ["MLPINFER_EVALUATOR"] = "plan"
    return mlpinfer_whole(network, batch_size, dtype, cores)


def mlpinfer_batch(network: Network, batch_size: int, dtype: str, cores: int, callers: bool) -> Labels:
    predictor = Predictor(network, batch_size=batch_size, threads=1 if callers else cores)
    return deal(each_batch(predictor.predict, batch_size), batch_size, cores if callers else 1)


def book(network: Network, batch_size: int, dtype: str, cores: int) -> Labels:
    weights = {}
    for i, layer in enumerate(network.layers, 1):
        weights |= {f"W{i}": layer.W, f"b{i}": layer.b}

    def label(x: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint8:
            x = x.astype(np.float32) / 255
        if len(x) == 1:  # the book's first script, before it comes to batches
            return np.argmax(book_script.predict(weights, x[0]))
        return np.argmax(book_script.predict(weights, x), axis=1)

    return deal(each_batch(label, batch_size), batch_size)


CONTENDERS: dict[str, Contender] = {
    "mlpinfer": mlpinfer_whole,
    "mlpinfer-plan": mlpinfer_plan,
    "mlpinfer-gpu": partial(mlpinfer_whole, device="gpu"),
    "mlpinfer-threads": partial(mlpinfer_batch, callers=False),
    "mlpinfer-callers": partial(mlpinfer_batch, callers=True),
    "book": book,
    "scikit-learn": peers.scikit_learn,
    "torch-eager-threads": partial(peers.torch_, frozen=False, callers=False),
    "torch-eager-callers": partial(peers.torch_, frozen=False, callers=True),
    "torch-frozen-threads": partial(peers.torch_, frozen=True, callers=False),
    "torch-frozen-callers": partial(peers.torch_, frozen=True, callers=True),
    "onnxruntime-threads": partial(peers.onnxruntime_, callers=False),
    "onnxruntime-callers": partial(peers.onnxruntime_, callers=True),
    "openvino-threads": partial(peers.openvino_, callers=False),
    "openvino-callers": partial(peers.openvino_, callers=True),
}
