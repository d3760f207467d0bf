"""The clock: passes over all rows, and single batches, timed until the device is done; and what is timed."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import numpy as np

from mlpinfer.engine.predictor import Predictor
from mlpinfer.engine.streaming import STAGES
from mlpinfer.evaluation.report import Latency, Stages
from mlpinfer.model.ops import Array

#: Latency is of this many rows in whole batches, taken evenly from all; of 20 batches at the least.
_LATENCY_ROWS = 3_000
_LATENCY_BATCHES = (20, 1_000)


def timed(predictor: Predictor, compute: Callable[[Array], Array], x: Array) -> tuple[float, Array]:
    """Return the seconds until the device is done, and what was computed."""
    begin = time.perf_counter()
    result = compute(x)
    predictor.backend.synchronize()
    return time.perf_counter() - begin, result


def steps(predictor: Predictor, output: str) -> tuple[str, ...]:
    """Name what a call from host rows to host output, ``labels`` or ``proba``, does."""
    labels = "values" if not predictor.network.is_classifier else "labels"
    last = "head" if output == "proba" else labels
    if predictor.backend.name == "numpy":
        return ("cast", "affine", "activation", last)
    return ("upload", "cast", "affine", "activation", last, "download")


def stages(predictor: Predictor, x: Array, output: str) -> Stages | None:
    """Return the seconds of upload, computation and download of host rows, one after the other.

    Parameters
    ----------
    predictor : Predictor
    x : array, shape (N, D)
    output : {"labels", "proba"}

    Returns
    -------
    Stages or None
        None on the CPU, where nothing is sent.
    """
    streamer = predictor.streamer
    if streamer is None:
        return None
    evaluate, shape, dtype = predictor.output(output)
    laps = [0.0] * len(STAGES)
    out = np.empty((len(x), *shape), dtype)
    streamer.run(x, out, evaluate, predictor.call_rows, laps)
    return Stages(**dict(zip(STAGES, laps, strict=True)))


def latencies(predictor: Predictor, x: Array, output: str) -> list[float]:
    """Return the seconds of single batches on one thread, full ones where there are some."""
    with predictor.variant(threads=1) as alone:
        return _latencies_of(alone, x, output)


def _latencies_of(alone: Predictor, x: Array, output: str) -> list[float]:
    compute = functools.partial(alone.compute, output=output)
    size = alone.batch_size
    starts = np.arange(0, max(1, len(x) - size + 1), size)  # full batches; the tail where there is none
    fewest, most = _LATENCY_BATCHES
    count = min(len(starts), max(fewest, min(most, _LATENCY_ROWS // size)))
    starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
    compute(x[:size])
    return [timed(alone, compute, x[at : at + size])[0] for at in starts.tolist()]


def latency_of(seconds: list[float]) -> Latency:
    """Return the percentiles of latencies in milliseconds."""
    p50, p90, p95, p99 = (_percentile(seconds, q) * 1e3 for q in (50, 90, 95, 99))
    return Latency(p50=p50, p90=p90, p95=p95, p99=p99)


def _percentile(values: list[float], q: float) -> float:
    """The smallest measured value that `q` percent of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(q / 100 * len(values)) - 1)]
