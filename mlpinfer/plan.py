"""A folded network on one backend: its weights there, and one call from rows to labels or logits.

A `Plan` is immutable once made and shared by all workers; what a call writes to is a `Workspace`,
which belongs to one worker at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from mlpinfer import ops
from mlpinfer.backends import Backend
from mlpinfer.fold import fold
from mlpinfer.network import Network
from mlpinfer.ops import Array

#: Buffers for the rows of one call: the input where it must be cast, then one a layer.
Workspace = list[Array]


class Plan:
    """The fast equivalent of `Network.forward`, up to its head.

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

    Raises
    ------
    WeightsError
        If a weight does not fit `dtype`.
    """

    name = "plan"

    def __init__(
        self, network: Network, backend: Backend, dtype: npt.DTypeLike, threshold: float = 0.5
    ) -> None:
        network.astype(dtype)  # refuses by the name that the file uses, before folding renames
        folded = fold(network).astype(dtype)
        self.sizes = folded.sizes
        self._xp = backend.xp
        self._dtype = dtype
        self._cut = math.log(threshold) - math.log1p(-threshold)  # sigmoid(z) > t as z > logit(t)
        self._layers: list[tuple[Array, Array, Any]] = [
            (backend.asarray(layer.W), backend.asarray(layer.b), ops.activation(layer.activation))
            for layer in folded.layers
        ]

    def workspace(self, rows: int) -> Workspace:
        """Return buffers for calls of up to `rows` rows."""
        return [self._xp.empty((rows, size), dtype=self._dtype) for size in self.sizes]

    def logits(self, x: Array, workspace: Workspace, out: Array) -> None:
        """Write the last layer's affine values into `out`.

        Parameters
        ----------
        x : array, shape (n, D), any real dtype
        workspace : from `workspace`, for n rows or more
        out : array, shape (n, K), contiguous, of the plan's dtype
        """
        xp, n = self._xp, len(x)
        a = x
        if x.dtype != out.dtype or not x.flags.c_contiguous:
            a = workspace[0][:n]
            a[...] = x
        for (W, b, activation), buffer in zip(self._layers[:-1], workspace[1:-1], strict=True):
            z = ops.affine(xp, a, W, b, out=buffer[:n])
            a = activation(xp, z, out=z)
        W, b, _ = self._layers[-1]
        ops.affine(xp, a, W, b, out=out)

    def labels(self, x: Array, workspace: Workspace, out: Array) -> None:
        """Write the label of each row into `out`, shape (n,), int64.

        The index of the largest logit, the lowest of a tie: softmax would keep their order, so it
        is not computed. With one output, 1 where its probability is above the threshold, else 0.
        """
        z = workspace[-1][: len(x)]
        self.logits(x, workspace, z)
        if self.sizes[-1] == 1:
            self._xp.greater(z[:, 0], self._cut, out=out, casting="unsafe")
        else:
            self._xp.argmax(z, axis=1, out=out)
