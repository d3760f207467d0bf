"""The protocol of evaluators: a folded network as two calls, from rows to labels or to logits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from mlpinfer.engine.tiling import Tiles
from mlpinfer.model.ops import Array

_NOTHING = nullcontext()


class Evaluator(Protocol):
    """Run a folded network on up to `call_rows` rows at a time; shared by all threads of a predictor.

    Implementations derive from this class, and override what they need of the methods that prepare or
    release something: here these do nothing.

    Attributes
    ----------
    name : str
        As reports show it: ``plan``, or ``compiled`` and an instruction set.
    call_rows : int
        Most rows in one call of `labels` or `logits`.
    """

    name: str
    call_rows: int

    def labels(self, x: Array, out: Array) -> None:
        """Write the label of each row into `out`.

        The label is the index of the largest logit, the lowest of a tie; with one output, 1 where its
        logit is above the threshold, else 0. Softmax keeps the order of logits, so it is not computed.

        Parameters
        ----------
        x : array, shape (n, D), any real dtype, n up to `call_rows`
        out : array, shape (n,), int64
        """
        ...

    def logits(self, x: Array, out: Array) -> None:
        """Write the affine values of the last layer into `out`.

        Parameters
        ----------
        x : array, shape (n, D), any real dtype, n up to `call_rows`
        out : array, shape (n, K), contiguous, of the network's dtype
        """
        ...

    def tiles(self, n_rows: int) -> Tiles:
        """Return the rows of each call; the ends of tiles depend on the batch size alone."""
        ...

    def useful_threads(self, n_rows: int) -> int:
        """Return how many threads pay for so many rows; 0 or 1 means the caller's thread alone."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """Make the device ready for the calls inside the context."""
        return _NOTHING

    def shrink(self) -> bool:
        """Take half as many rows in a call from now on; return False if that would save no memory."""
        return False

    def forget_workspaces(self) -> None:
        """Release buffers that calls reuse; they are made again when they are needed."""
        return

    def close(self) -> None:
        """Release workspaces, and weights on a device; both are made again when they are needed."""
        return
