"""Rows cut into batches, for one calling thread or several."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Labels = Callable[[np.ndarray], np.ndarray]
#: Writes the labels of all rows given first into the array given second, batch by batch.
Share = Callable[[np.ndarray, np.ndarray], None]


def deal(share: Share, batch_size: int, callers: int = 1, start: Callable[[], Any] | None = None) -> Labels:
    """Give the batches to `callers` threads, which live as long as the result; each calls `start` once."""
    pool = ThreadPoolExecutor(callers, initializer=start) if callers > 1 else None

    def labels(x: np.ndarray) -> np.ndarray:
        out = np.empty(len(x), np.int64)
        if pool is None:
            share(x, out)
            return out
        batches = -(-len(x) // batch_size)
        cuts = (batches * i // callers * batch_size for i in range(callers + 1))
        spans = [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b]
        for done in [pool.submit(share, x[span], out[span]) for span in spans]:
            done.result()
        return out

    return labels


def each_batch(label: Labels, batch_size: int) -> Share:
    def share(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(0, len(x), batch_size):
            out[i : i + batch_size] = label(x[i : i + batch_size])

    return share
