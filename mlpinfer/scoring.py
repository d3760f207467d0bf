"""Score a data set: how right, and how fast, in one run.

Metrics come from an untimed pass. Throughput is end to end, host rows in, host values out, after a
warm-up, with the device synchronised before the clock stops. Latency is a pass of its own, one
batch at a time on one thread, so that no timer sits inside the throughput run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mlpinfer import metrics
from mlpinfer.data_files import Dataset
from mlpinfer.environment import Environment, environment
from mlpinfer.errors import DatasetError, InputError
from mlpinfer.ops import Array
from mlpinfer.predictor import Predictor

SCHEMA = "mlpinfer.score/1"
#: The latency pass stops after this many batches, taken evenly from the whole set.
_LATENCY_BATCHES = 1_000


class NetworkInfo(NamedTuple):
    """`scale` is the one that was applied, from the options, the network or the data."""

    layers: tuple[int, ...]
    parameters: int
    hidden: tuple[str, ...]
    head: str
    scale: float | None
    sha256: str


class DataInfo(NamedTuple):
    """Which rows were scored."""

    name: str
    samples: int
    features: int


class DeviceInfo(NamedTuple):
    """`requested` is what was asked for, `actual` what was used; `threads` is how many workers ran."""

    requested: str
    actual: str
    name: str
    backend: str
    threads: int
    precision: str


class BatchInfo(NamedTuple):
    """`full` batches of `size` rows and, if there is one, a last one of `tail` rows."""

    size: int
    full: int
    tail: int


class Spread(NamedTuple):
    """Seconds of the timed passes, wall clock."""

    min: float
    median: float
    max: float


class Latency(NamedTuple):
    """Percentiles of the time a full batch takes, milliseconds, one thread."""

    p50: float
    p90: float
    p95: float
    p99: float


class Timing(NamedTuple):
    """`samples_per_second` is rows over the median of `seconds`; `includes` names every step timed.

    `cold_seconds` is the first pass, before any warm-up.
    """

    cold_seconds: float
    seconds: Spread
    samples_per_second: float
    batch_latency_ms: Latency
    includes: tuple[str, ...]


@dataclass(frozen=True)
class ScoreReport:
    """All that `score` found; `to_dict` is the JSON of schema ``mlpinfer.score/1``.

    `metrics` is None where the data has no labels.
    """

    network: NetworkInfo
    data: DataInfo
    device: DeviceInfo
    batch: BatchInfo
    metrics: metrics.ClassificationMetrics | metrics.RegressionMetrics | None
    timing: Timing
    environment: Environment

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; what is not a finite number is None."""
        result: dict[str, Any] = _jsonable({"schema": SCHEMA, **vars(self)})
        return result


def score(
    predictor: Predictor,
    data: Dataset,
    *,
    values: str = "labels",
    repeat: int = 5,
    warmup: int = 1,
) -> ScoreReport:
    """Measure how right and how fast `predictor` is on `data`.

    Parameters
    ----------
    predictor : Predictor
        Where neither it nor its network has a scale, that of the data is applied.
    data : Dataset
    values : {"labels", "proba"}
        What the timed passes compute. Labels need no softmax; probabilities do.
    repeat, warmup : int
        Timed passes over all rows, and untimed ones before them.

    Raises
    ------
    DatasetError
        If rows or labels do not fit the network.
    InputError
    """
    _check_options(values, repeat, warmup, predictor)
    features = predictor.n_features_in_
    if data.features != features:
        raise DatasetError(
            f"{data.name}: expected rows of {features} features, found shape {data.x.shape[1:]}"
        )
    if predictor.scale is None and data.scale is not None:
        predictor = predictor.variant(scale=data.scale)
    x = data.x.reshape(data.samples, features)
    truth = _truth(predictor, data)  # refused before anything is computed
    compute = predictor.predict if values == "labels" else predictor.predict_proba

    cold = _seconds(predictor, compute, x)
    measured = None if truth is None else _measure(predictor, x, truth)
    for _ in range(warmup):
        compute(x)
    seconds = [_seconds(predictor, compute, x) for _ in range(repeat)]
    spread = Spread(min(seconds), _percentile(seconds, 50), max(seconds))
    return ScoreReport(
        _network_info(predictor),
        DataInfo(data.name, data.samples, data.features),
        _device_info(predictor, data.samples),
        BatchInfo(predictor.batch_size, *divmod(data.samples, predictor.batch_size)),
        measured,
        Timing(
            cold,
            spread,
            data.samples / spread.median,
            _latency(predictor, x, values),
            predictor.steps(values),
        ),
        environment(predictor.backend),
    )


def _check_options(values: str, repeat: int, warmup: int, predictor: Predictor) -> None:
    if values not in ("labels", "proba"):
        raise InputError(f"values: expected labels or proba, found {ascii(values)[:60]}")
    if values == "proba" and predictor.network.head == "identity":
        raise InputError(
            "values: expected labels for an identity head, which has no probabilities, found proba"
        )
    if repeat < 1 or warmup < 0:
        raise InputError(f"expected repeat of 1 or more and warmup of 0 or more, found {repeat} and {warmup}")


def _truth(predictor: Predictor, data: Dataset) -> Array | None:
    if data.y is None:
        return None
    outputs = predictor.network.sizes[-1]
    if predictor.network.head != "identity":
        return metrics.as_labels(data.y, max(2, outputs))
    if data.y.reshape(len(data.y), -1).shape[1] != outputs:
        raise DatasetError(f"{data.name}: expected {outputs} values a row, found shape {data.y.shape}")
    return data.y.reshape(data.samples, outputs)


def _measure(
    predictor: Predictor, x: Array, truth: Array
) -> metrics.ClassificationMetrics | metrics.RegressionMetrics:
    if predictor.network.head == "identity":
        return metrics.regression(truth, predictor.predict(x))
    return metrics.classification(truth, predictor.predict(x), predictor.decision_function(x))


def _seconds(predictor: Predictor, compute: Callable[[Array], Array], x: Array) -> float:
    begin = time.perf_counter()
    compute(x)
    predictor.backend.synchronize()
    return time.perf_counter() - begin


def _latency(predictor: Predictor, x: Array, values: str) -> Latency:
    alone = predictor.variant(threads=1)
    compute = alone.predict if values == "labels" else alone.predict_proba
    size = alone.batch_size
    starts = np.arange(0, max(1, len(x) - size + 1), size)  # full batches; the tail where there is none
    starts = starts[np.linspace(0, len(starts) - 1, min(len(starts), _LATENCY_BATCHES)).astype(int)]
    compute(x[:size])
    seconds = [_seconds(alone, compute, x[at : at + size]) for at in starts.tolist()]
    return Latency(*(_percentile(seconds, q) * 1e3 for q in (50, 90, 95, 99)))


def _percentile(values: list[float], q: float) -> float:
    """The smallest measured value that `q` percent of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(q / 100 * len(values)) - 1)]


def _network_info(predictor: Predictor) -> NetworkInfo:
    network = predictor.network
    return NetworkInfo(
        network.sizes, network.parameters, network.hidden, network.head, predictor.scale, network.sha256
    )


def _device_info(predictor: Predictor, rows: int) -> DeviceInfo:
    backend = predictor.backend
    return DeviceInfo(
        predictor.requested_device,
        backend.device,
        backend.describe(),
        backend.name,
        predictor.workers(rows),
        predictor.precision,
    )


def _jsonable(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
