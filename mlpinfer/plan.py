"""A folded network on one backend: its weights there, and one call from rows to labels or logits.

A `Plan` is immutable once made and shared by all workers. What a call writes to is a `Workspace`,
which belongs to one worker at a time.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mlpinfer import ops
from mlpinfer.backends import Backend
from mlpinfer.folding import fold
from mlpinfer.network import Network
from mlpinfer.ops import Array

#: What the buffers of one tile may take: about the second-level cache of one core.
_TILE_BYTES = 2 * 1024**2
#: Fewer rows than this make the products slow, and change their last bits.
_MIN_TILE_ROWS = 64


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
    network : Network
        Its scale is folded into the weights.
    backend : Backend
        Where the weights go, once.
    dtype : dtype
        float32 or float64; what is computed in.
    threshold : float
        With one output, the probability above which the label is 1.

    Attributes
    ----------
    tile_rows : int
        Rows whose buffers fit the cache; more are better given in several calls.

    Raises
    ------
    WeightsError
        If a weight does not fit `dtype`.
    """

    def __init__(
        self, network: Network, backend: Backend, dtype: npt.DTypeLike, threshold: float = 0.5
    ) -> None:
        network.astype(dtype)  # refuses by the name that the file uses, before folding renames
        folded = fold(network).astype(dtype)
        self._xp, self._dtype = backend.xp, np.dtype(dtype)
        self._ones = backend.name == "numpy"
        self._features, self._outputs = folded.sizes[0], folded.sizes[-1]
        self._cut = math.log(threshold) - math.log1p(-threshold)  # sigmoid(z) > t as z > logit(t)
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
        self.tile_rows = max(_MIN_TILE_ROWS, _TILE_BYTES // row_bytes)

    def workspace(self, rows: int) -> Workspace:
        """Return buffers for calls of up to `rows` rows."""
        buffers = [self._xp.empty((rows, width), dtype=self._dtype) for width in self._widths]
        if self._ones:
            buffers[0][:, -1] = 1
        return Workspace(rows, buffers)

    def logits(self, x: Array, workspace: Workspace, out: Array) -> None:
        """Write the last layer's affine values into `out`.

        Parameters
        ----------
        x : array, shape (n, D), any real dtype
        workspace : Workspace
            For n rows or more.
        out : array, shape (n, K), contiguous, of the plan's dtype
        """
        a, *buffers = workspace.views(len(x))
        buffers[-1] = out
        if x.dtype == self._dtype and x.flags.c_contiguous:
            a, layers = x, self._layers
        else:
            a[:, : self._features] = x
            layers = self._layers_cast
        for (W, b, activation), buffer in zip(layers, buffers, strict=True):
            a = ops.affine(self._xp, a, W, b, out=buffer)
            if activation is not ops.identity:
                activation(self._xp, a, out=a)

    def labels(self, x: Array, workspace: Workspace, out: Array) -> None:
        """Write the label of each row into `out`, shape (n,), int64.

        The index of the largest logit, the lowest of a tie: softmax would keep their order, so it
        is not computed. With one output, 1 where its probability is above the threshold, else 0.
        """
        z = workspace.views(len(x))[-1]
        self.logits(x, workspace, z)
        if self._outputs == 1:
            out[...] = z[:, 0] > self._cut
        else:
            z.argmax(axis=1, out=out)
