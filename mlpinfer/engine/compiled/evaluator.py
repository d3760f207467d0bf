"""A folded network evaluated by the C extension: rows go in, labels or logits come out, nothing between.

A block of rows goes through all layers while its values are in the first-level cache. In the first
layer a row's zeros are skipped where they are many, as in images on a blank ground; a row with few
goes through products blocked in registers, as do the other layers.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.engine.evaluator import Evaluator
from mlpinfer.engine.tiling import Tiles
from mlpinfer.model import activations
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: Multiply-adds of one call: a few tenths of a millisecond. A thread takes its rows in such calls, and can
#: stop between them.
_WORK_PER_CALL = 16_000_000
#: Few rows of a wide network are cut into this many calls, so that several threads can share them.
_CALLS_FOR_FEW_ROWS = 8
#: Minimum multiply-adds per thread before a second one is started, because starting one takes as long.
_MIN_WORK_PER_THREAD = 12_000_000
#: Overhead of a row, in multiply-adds.
_WORK_PER_ROW = 2_000
#: Names in the extension, but for leaky ReLU, which has a slope.
_ACTIVATIONS = {"identity": "IDENTITY", "relu": "RELU", "tanh": "TANH"}
_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)


def fits(folded: Network) -> bool:
    """Return True if the extension can evaluate a folded network: float32, layers up to 4,096 wide."""
    from mlpinfer.engine.compiled import _cpu

    known = all(name in _ACTIVATIONS or activations.slope_of(name) is not None for name in folded.hidden)
    return known and folded.layers[0].W.dtype == np.float32 and max(folded.sizes[1:]) <= _cpu.MAX_WIDTH


class CompiledEvaluator(Evaluator):
    """Run a folded network in the C extension: rows go in, labels or logits come out.

    It is immutable and shared by all threads. It calls no BLAS, starts no threads, allocates nothing but
    buffers for a block of rows, and releases the GIL while it computes.
    Results are bitwise the same for any batch size and any number of threads.

    Parameters
    ----------
    folded : Network
        One that `fits`, without hidden sigmoids: `mlpinfer.model.folding.fold` has replaced them.
    instruction_set : str
        A name of `mlpinfer.engine.compiled.availability.Compiled.available`.
    batch_size : int
        Rows that may be computed together.
    logit_threshold : float
        With one output, the logit above which the label is 1.
    """

    def __init__(
        self, folded: Network, instruction_set: str, batch_size: int, logit_threshold: float
    ) -> None:
        from mlpinfer.engine.compiled import _cpu

        layers = tuple(
            (*layer.W.shape, np.ascontiguousarray(layer.W), layer.b, *_activation(_cpu, activation))
            for layer, activation in zip(folded.layers, (*folded.hidden, "identity"), strict=True)
        )
        self._network = _cpu.PackedNetwork(instruction_set, layers, logit_threshold)
        self._batch_size = min(batch_size, sys.maxsize)
        self.name = f"compiled {instruction_set}"
        self._row_work = _WORK_PER_ROW + sum(layer.W.size for layer in folded.layers)
        # In a wide network fewer rows are that much work already, but rows of one call share what is read
        # of the weights, so a call has more of them where there are enough rows for all threads.
        self._few = max(6, _WORK_PER_CALL // self._row_work)
        self._many = max(_cpu.ROWS, self._few)
        self.call_rows = self.tiles(0).most_rows

    def tiles(self, n_rows: int) -> Tiles:
        """Cut rows into whole batches, or into parts of a batch that is larger than a call."""
        most = min(max(self._few, n_rows // _CALLS_FOR_FEW_ROWS), self._many)
        return Tiles.of_batches(n_rows, self._batch_size, most)

    def useful_threads(self, n_rows: int) -> int:
        """Return how many threads pay for so many rows."""
        return n_rows * self._row_work // _MIN_WORK_PER_THREAD

    def labels(self, x: Array, out: Array) -> None:
        """Write the label of each row into `out`, as `Evaluator.labels`."""
        self._network.labels(_rows(x), out, self._batch_size)

    def logits(self, x: Array, out: Array) -> None:
        """Write the affine values of the last layer into `out`, as `Evaluator.logits`."""
        self._network.logits(_rows(x), out, self._batch_size)


def _rows(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `x` as the extension reads it: uint8 or float32, contiguous and aligned."""
    dtype, flags = x.dtype, x.flags
    if (dtype is _UINT8 or dtype is _FLOAT32) and flags.c_contiguous and flags.aligned:
        return x
    return np.require(x, _UINT8 if dtype == _UINT8 else _FLOAT32, ["C", "A"])


def _activation(_cpu: Any, name: str) -> tuple[int, float]:
    slope = activations.slope_of(name)
    if slope is not None:
        return _cpu.LEAKY_RELU, slope
    return getattr(_cpu, _ACTIVATIONS[name]), 0.0
