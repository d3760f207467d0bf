"""A folded network evaluated array by array on one backend, NumPy or CuPy.

An `ArrayEvaluator` is shared by all threads. A call writes into a `Workspace`, which it takes from those
that are free and gives back.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from mlpinfer.engine.backends.base import Backend
from mlpinfer.engine.evaluator import Evaluator
from mlpinfer.engine.tiling import Tiles
from mlpinfer.model import ops
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: Fewer rows than this make the products slow, and change their last bits.
_MIN_TILE_ROWS = 64
#: Minimum multiply-adds per thread before a second one is started: about a tenth of a millisecond.
_MIN_WORK_PER_THREAD = 5_000_000
#: Minimum multiply-adds per call before threads pay off; below this, GIL contention outweighs the gain.
_MIN_WORK_PER_CALL = 1_000_000


_Weights = list[tuple[Array, Array | None]]


class Workspace:
    """Buffers for up to `rows` rows: the input where it must be cast, then one a layer."""

    def __init__(self, rows: int, buffers: list[Array]) -> None:
        self.rows = rows
        self._buffers = self._views = buffers

    def views(self, n: int) -> list[Array]:
        """Return the buffers cut to `n` rows; cut anew only where `n` changes."""
        if len(self._views[0]) != n:
            self._views = [buffer[:n] for buffer in self._buffers]
        return self._views


class ArrayEvaluator(Evaluator):
    """The fast equivalent of `Network.forward`, up to its head.

    On NumPy the first bias is the last row of its weights, and a column of ones stands behind the
    inputs that are cast: a pass over memory less. On CuPy such an odd width would slow the product.

    Parameters
    ----------
    folded : Network
        With weights of one dtype, which is what is computed in.
    backend : Backend
        Where the weights go, once.
    batch_size : int
        Most rows in a call.
    logit_threshold : float
        With one output, the logit above which the label is 1.
    """

    name = "plan"

    def __init__(self, folded: Network, backend: Backend, batch_size: int, logit_threshold: float) -> None:
        self._backend, self._xp, self._dtype = backend, backend.xp, folded.layers[0].W.dtype
        self._batch_size, self._logit_threshold = batch_size, logit_threshold
        self._ones = backend.name == "numpy"
        self._features, self._outputs = folded.sizes[0], folded.sizes[-1]
        self._widths = [folded.sizes[0] + self._ones, *folded.sizes[1:]]
        self._folded = folded
        self._finish = [backend.finish(activation) for activation in (*folded.hidden, "identity")]
        self._weights: tuple[_Weights, _Weights] | None = self._send_weights()
        row_bytes = sum(self._widths) * self._dtype.itemsize
        self.call_rows = min(batch_size, max(_MIN_TILE_ROWS, backend.tile_bytes // row_bytes))
        self._row_work = sum(layer.W.size for layer in folded.layers)
        # Keyed by stream: a workspace may be reused before its work has finished only if both calls are
        # ordered on the same stream.
        self._free: dict[Hashable, list[Workspace]] = {}

    def _send_weights(self) -> tuple[_Weights, _Weights]:
        """Send W and b of each layer: for inputs as they are, and for inputs that are cast."""
        asarray, (first, *others) = self._backend.asarray, self._folded.layers
        rest = [(asarray(layer.W), asarray(layer.b)) for layer in others]
        if self._ones:
            W = asarray(np.vstack([first.W, first.b]))  # (D + 1, H)
            weights = [(W[:-1], first.b), *rest], [(W, None), *rest]
        else:
            weights = ([(asarray(first.W), asarray(first.b)), *rest],) * 2
        self._backend.synchronize()  # streams that wait for nobody may read them now
        return weights

    def tiles(self, n_rows: int) -> Tiles:
        """Cut batches into tiles whose buffers fit the cache."""
        return Tiles(n_rows, self._batch_size, self.call_rows)

    def useful_threads(self, n_rows: int) -> int:
        """Return how many threads pay for so many rows."""
        if self.call_rows * self._row_work < _MIN_WORK_PER_CALL:
            return 1
        return n_rows * self._row_work // _MIN_WORK_PER_THREAD

    def active(self) -> AbstractContextManager[Any]:
        """Make the device ready for the calls inside."""
        return self._backend.active()

    def shrink(self) -> bool:
        """Take half as many rows in a call from now on; return False if it is one already."""
        shrunk, self.call_rows = self.call_rows > 1, max(1, self.call_rows // 2)
        return shrunk

    def forget_workspaces(self) -> None:
        """Release the workspaces; those of streams that are gone would never be used again."""
        self._free = {}

    def close(self) -> None:
        """Forget workspaces, and weights on a device; they are made and sent again as they are needed."""
        self.forget_workspaces()
        if self._backend.name != "numpy":
            self._weights = None

    @contextmanager
    def _workspace(self, rows: int) -> Iterator[list[Array]]:
        """Yield buffers that nobody else uses, cut to `rows` rows."""
        free = self._free.setdefault(self._backend.queue(), [])
        try:
            workspace = free.pop()  # atomic, so that concurrent calls never share one
        except IndexError:
            workspace = None
        if workspace is None or workspace.rows < rows:
            buffers = [self._xp.empty((rows, width), dtype=self._dtype) for width in self._widths]
            if self._ones:
                buffers[0][:, -1] = 1
            workspace = Workspace(rows, buffers)
        yield workspace.views(rows)
        free.append(workspace)

    def logits(self, x: Array, out: Array) -> None:
        """Write the affine values of the last layer into `out`, as `Evaluator.logits`."""
        with self._workspace(len(x)) as buffers:
            self._run(x, [*buffers[:-1], out])

    def labels(self, x: Array, out: Array) -> None:
        """Write the label of each row into `out`, as `Evaluator.labels`."""
        with self._workspace(len(x)) as buffers:
            self._run(x, buffers)
            z = buffers[-1]
            if self._outputs == 1:
                out[...] = z[:, 0] > self._logit_threshold
            else:
                z.argmax(axis=1, out=out)

    def _run(self, x: Array, buffers: list[Array]) -> None:
        a, *outputs = buffers
        weights = self._weights
        if weights is None:  # two threads may both send them, which does no harm
            weights = self._weights = self._send_weights()
        as_it_is, cast = weights
        if x.dtype == self._dtype and x.flags.c_contiguous:
            a, layers = x, as_it_is
        else:
            a[:, : self._features] = x
            layers = cast
        for (W, b), finish, buffer in zip(layers, self._finish, outputs, strict=True):
            a = ops.affine(self._xp, a, W, None, out=buffer)
            finish(a, b)
