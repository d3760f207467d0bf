"""The clock: passes over all rows, and single batches, timed until the device is done; and what is timed."""

from __future__ import annotations

import math
import time

import numpy as np

from mlpinfer.engine.predictor import Predictor
from mlpinfer.engine.streaming import STAGES
from mlpinfer.evaluation.parts import Parts
from mlpinfer.evaluation.report import Latency, Stages
from mlpinfer.model.ops import Array

#: Latency is of this many rows in whole batches, taken evenly from all; of 20 batches at the least.
_LATENCY_ROWS = 3_000
_LATENCY_BATCHES = (20, 1_000)


def timed(predictor: Predictor, x: Array, output: str) -> tuple[float, Array]:
    """Return the seconds until the device is done, and the output that was computed."""
    begin = time.perf_counter()
    result = predictor.compute(x, output)
    predictor.backend.synchronize()
    return time.perf_counter() - begin, result


def steps(predictor: Predictor, output: str) -> tuple[str, ...]:
    """Name what a call from host rows to host output, ``labels`` or ``proba``, does."""
    labels = "values" if not predictor.network.is_classifier else "labels"
    last = "head" if output == "proba" else labels
    if predictor.backend.name == "numpy":
        return ("cast", "affine", "activation", last)
    return ("upload", "cast", "affine", "activation", last, "download")


def stages(predictor: Predictor, parts: Parts, output: str) -> Stages | None:
    """Return the seconds of upload, computation and download of all rows, one after the other.

    Parameters
    ----------
    predictor : Predictor
    parts : Parts
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
    for _, x in parts:
        out = np.empty((len(x), *shape), dtype)
        streamer.run(x, out, evaluate, predictor.call_rows, laps)
    return Stages(**dict(zip(STAGES, laps, strict=True)))


def timed_pass(predictor: Predictor, parts: Parts, output: str) -> float:
    """Return the seconds of a pass over all rows, without those of reading them."""
    return sum(timed(predictor, x, output)[0] for _, x in parts)


def latencies(predictor: Predictor, parts: Parts, output: str) -> list[float]:
    """Return the seconds of single batches on one thread, full ones where there are some."""
    with predictor.variant(threads=1) as alone:
        return _latencies_of(alone, parts, output)


def _latencies_of(alone: Predictor, parts: Parts, output: str) -> list[float]:
    size, rows = alone.batch_size, parts.samples
    starts = np.arange(0, max(1, rows - size + 1), size)  # full batches; the tail where there is none
    fewest, most = _LATENCY_BATCHES
    count = min(len(starts), max(fewest, min(most, _LATENCY_ROWS // size)))
    starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
    batches = (parts.read(at, min(at + size, rows)) for at in [0, *starts.tolist()])
    alone.compute(next(batches), output)
    return [timed(alone, x, output)[0] for x in batches]


def latency_of(seconds: list[float]) -> Latency:
    """Return the percentiles of latencies in milliseconds."""
    p50, p90, p95, p99 = (_percentile(seconds, q) * 1e3 for q in (50, 90, 95, 99))
    return Latency(p50=p50, p90=p90, p95=p95, p99=p99)


def _percentile(values: list[float], q: float) -> float:
    """The smallest measured value that `q` percent of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(q / 100 * len(values)) - 1)]
