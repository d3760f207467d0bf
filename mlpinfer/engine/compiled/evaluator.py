"""A folded network evaluated by the C extension: rows go in, labels or logits come out, nothing between.

A block of rows goes through all layers while its values are in the first-level cache. In the first
layer a row's zeros are skipped where they are many, as in images on a blank ground; a row with few
goes through products blocked in registers, as do the other layers.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.engine.tiling import Tiles
from mlpinfer.model import activations
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: Multiply-adds in one call, some tenths of a millisecond: what a worker is dealt, and how soon it stops. Of
#: networks thousands of units wide it is ten milliseconds.
_WORK_PER_CALL = 16_000_000
#: Few rows of such a network are cut into so many calls: for as many workers.
_SHARES = 8
#: And what a worker must have before a second thread is started, which takes as long.
_WORK_PER_WORKER = 12_000_000
#: What a row costs besides, in multiply-adds.
_WORK_PER_ROW = 2_000
_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)
#: Reused, because a call on one row takes three microseconds in all.
_NOTHING = nullcontext()


def fits(folded: Network) -> bool:
    """Tell whether the extension can evaluate a folded network: float32, layers up to 4,096 wide."""
    from mlpinfer.engine.compiled import _cpu

    return folded.layers[0].W.dtype == np.float32 and max(folded.sizes[1:]) <= _cpu.MAX_WIDTH


class CompiledEvaluator:
    """Rows to labels or logits by the C extension; the interface is that of `Plan`.

    Immutable and shared by all workers. It calls no BLAS, starts no threads, allocates nothing for
    contiguous rows of uint8 or float32 and layers up to 256 wide, and gives the interpreter's lock back
    while it computes.
    Results are bitwise the same for any batch size and any number of workers.

    Parameters
    ----------
    folded : Network
        That `fits`, without sigmoid behind a hidden layer: `mlpinfer.model.folding.fold` has left none.
    instruction_set : str
        A name of `mlpinfer.engine.compiled.availability.Compiled.available`.
    batch_size : int
        Rows that may be computed together.
    cut : float
        With one output, the logit above which the label is 1.
    """

    def __init__(self, folded: Network, instruction_set: str, batch_size: int, cut: float) -> None:
        from mlpinfer.engine.compiled import _cpu

        layers = tuple(
            (*layer.W.shape, np.ascontiguousarray(layer.W), layer.b, *_activation(_cpu, activation))
            for layer, activation in zip(folded.layers, (*folded.hidden, "identity"), strict=True)
        )
        self._network = _cpu.PackedNetwork(instruction_set, layers, cut)
        self._batch_size = min(batch_size, sys.maxsize)
        self.name = f"compiled {instruction_set}"
        self._row_work = _WORK_PER_ROW + sum(layer.W.size for layer in folded.layers)
        # Of wide networks, 24 rows are more work than that, but they share what is read of the weights.
        self._few = max(6, _WORK_PER_CALL // self._row_work)
        self._many = max(_cpu.ROWS, self._few)
        self.call_rows = self.tiles(0).most_rows

    def tiles(self, rows: int) -> Tiles:
        """Cut rows into those of each call."""
        most = min(max(self._few, rows // _SHARES), self._many)
        return Tiles.of_batches(rows, self._batch_size, most)

    def useful_workers(self, rows: int) -> int:
        """Return how many threads pay for so many rows."""
        return rows * self._row_work // _WORK_PER_WORKER

    def active(self) -> AbstractContextManager[Any]:
        """Nothing to prepare."""
        return _NOTHING

    def labels(self, x: Array, out: Array) -> None:
        """Write the label of each row into `out`, shape (n,), int64; as `Plan.labels`."""
        self._network.labels(_rows(x), out, self._batch_size)

    def logits(self, x: Array, out: Array) -> None:
        """Write the last layer's affine values into `out`, shape (n, K), float32; as `Plan.logits`."""
        self._network.logits(_rows(x), out, self._batch_size)

    def shrink(self) -> bool:
        """Nothing here grows with the rows of a call."""
        return False

    def forget_workspaces(self) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing to give back."""


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
    return {"identity": _cpu.IDENTITY, "relu": _cpu.RELU, "tanh": _cpu.TANH}[name], 0.0
