"""A folded network on one backend: its weights there, and one call from rows to labels or logits.

A `Plan` is shared by all workers. What a call writes to is a `Workspace`, which it takes from those
that are free and gives back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from mlpinfer import ops
from mlpinfer.backends import Backend
from mlpinfer.network import Network
from mlpinfer.ops import Array
from mlpinfer.tiles import Tiles

#: What the buffers of one tile may take: about the second-level cache of one core.
_TILE_BYTES = 2 * 1024**2
#: Fewer rows than this make the products slow, and change their last bits.
_MIN_TILE_ROWS = 64
#: Multiply-adds a worker must have before a second thread is started: about a tenth of a millisecond.
_WORK_PER_WORKER = 5_000_000
#: And in every call: below, the threads wait for Python's lock longer than they compute.
_WORK_PER_CALL = 1_000_000


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


class Plan:
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
    cut : float
        With one output, the logit above which the label is 1.

    Attributes
    ----------
    name : str
        "plan"
    call_rows : int
        Most rows in a call: a batch, or as many as have buffers that fit the cache.
    """

    name = "plan"

    def __init__(self, folded: Network, backend: Backend, batch_size: int, cut: float) -> None:
        self._backend, self._xp, self._dtype = backend, backend.xp, folded.layers[0].W.dtype
        self._batch_size, self._cut = batch_size, cut
        self._ones = backend.name == "numpy"
        self._features, self._outputs = folded.sizes[0], folded.sizes[-1]
        self._widths = [folded.sizes[0] + self._ones, *folded.sizes[1:]]
        self._layers = [
            (backend.asarray(layer.W), backend.asarray(layer.b), ops.activation(activation))
            for layer, activation in zip(folded.layers, (*folded.hidden, "identity"), strict=True)
        ]
        first = folded.layers[0]
        if self._ones:
            W = backend.asarray(np.vstack([first.W, first.b]))  # (D + 1, H)
            _, b, activation = self._layers[0]
            self._layers[0] = (W[:-1], b, activation)
            self._layers_cast = [(W, None, activation), *self._layers[1:]]
        else:
            self._layers_cast = self._layers
        row_bytes = sum(self._widths) * self._dtype.itemsize
        self.call_rows = min(batch_size, max(_MIN_TILE_ROWS, _TILE_BYTES // row_bytes))
        self._row_work = sum(layer.W.size for layer in folded.layers)
        self._free: list[Workspace] = []

    def tiles(self, rows: int) -> Tiles:
        """Cut rows into those of each call."""
        return Tiles(rows, self._batch_size, self.call_rows)

    def useful_workers(self, rows: int) -> int:
        """Return how many threads pay for so many rows."""
        if self.call_rows * self._row_work < _WORK_PER_CALL:
            return 1
        return rows * self._row_work // _WORK_PER_WORKER

    def active(self) -> AbstractContextManager[Any]:
        """Make the device ready for the calls inside."""
        return self._backend.active()

    def close(self) -> None:
        """Forget the workspaces; new ones are made as they are needed."""
        self._free.clear()

    def _take_workspace(self, rows: int) -> Workspace:
        """Return a workspace that nobody else uses; the caller gives it back to `_free`."""
        try:
            workspace = self._free.pop()  # atomic, so that concurrent calls never share one
        except IndexError:
            return self._workspace(rows)
        return workspace if workspace.rows >= rows else self._workspace(rows)

    def _workspace(self, rows: int) -> Workspace:
        buffers = [self._xp.empty((rows, width), dtype=self._dtype) for width in self._widths]
        if self._ones:
            buffers[0][:, -1] = 1
        return Workspace(rows, buffers)

    def logits(self, x: Array, out: Array) -> None:
        """Write the last layer's affine values into `out`.

        Parameters
        ----------
        x : array, shape (n, D), any real dtype, n up to `call_rows`
        out : array, shape (n, K), contiguous, of the network's dtype
        """
        workspace = self._take_workspace(len(x))
        self._run(x, [*workspace.views(len(x))[:-1], out])
        self._free.append(workspace)

    def labels(self, x: Array, out: Array) -> None:
        """Write the label of each row into `out`, shape (n,), int64.

        The index of the largest logit, the lowest of a tie: softmax would keep their order, so it
        is not computed. With one output, 1 where its logit is above the cut, else 0.
        """
        workspace = self._take_workspace(len(x))
        *_, z = buffers = workspace.views(len(x))
        self._run(x, buffers)
        if self._outputs == 1:
            out[...] = z[:, 0] > self._cut
        else:
            z.argmax(axis=1, out=out)
        self._free.append(workspace)

    def _run(self, x: Array, buffers: list[Array]) -> None:
        a, *outputs = buffers
        if x.dtype == self._dtype and x.flags.c_contiguous:
            a, layers = x, self._layers
        else:
            a[:, : self._features] = x
            layers = self._layers_cast
        for (W, b, activation), buffer in zip(layers, outputs, strict=True):
            a = ops.affine(self._xp, a, W, b, out=buffer)
            if activation is not ops.identity:
                activation(self._xp, a, out=a)
