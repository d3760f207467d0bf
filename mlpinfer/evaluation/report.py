"""What a score is made of, as it is printed and as it is written in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlpinfer.evaluation.environment import Environment
from mlpinfer.evaluation.metrics import ClassificationMetrics, RegressionMetrics

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor

SCHEMA = "mlpinfer.score/1"


class NetworkInfo(NamedTuple):
    """`scale` is the one that was applied, from the options, the network or the data."""

    layers: tuple[int, ...]
    parameters: int
    hidden: tuple[str, ...]
    head: str
    scale: float | None
    sha256: str

    @classmethod
    def of(cls, predictor: Predictor) -> NetworkInfo:
        """Describe a predictor's network, with the scale that it applies."""
        network = predictor.network
        return cls(
            network.sizes, network.parameters, network.hidden, network.head, predictor.scale, network.sha256
        )


class DataInfo(NamedTuple):
    """Which rows were scored."""

    name: str
    samples: int
    features: int


class DeviceInfo(NamedTuple):
    """`requested` is what was asked for, `actual` what was used; `threads` is how many workers ran.

    `evaluator` is ``plan``, or ``compiled`` and the instruction set.
    """

    requested: str
    actual: str
    name: str
    backend: str
    threads: int
    precision: str
    evaluator: str


class BatchInfo(NamedTuple):
    """`full` batches of `size` rows, and `tail` rows in a shorter one.

    Tasks on a cluster end where files end: there are as many shorter ones as files, at most.
    """

    size: int
    full: int
    tail: int


class Spread(NamedTuple):
    """Seconds of the timed passes, wall clock."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarize the passes; the median of an even number lies between the middle two."""
        return cls(min(seconds), float(np.median(seconds)), max(seconds))


class Latency(NamedTuple):
    """Percentiles of the time a full batch takes, milliseconds, one thread."""

    p50: float
    p90: float
    p95: float
    p99: float


class Timing(NamedTuple):
    """`samples_per_second` is rows over the median of `seconds`; `includes` names every step timed.

    `cold_seconds` is the first pass over all rows, to logits, which nothing has warmed up. `stages` are
    the seconds of upload, compute and download on a GPU in a pass of their own, one after the other: in
    the timed passes they overlap. On a cluster there is one pass, and neither a cold one nor a latency.
    """

    cold_seconds: float | None
    seconds: Spread
    samples_per_second: float
    batch_latency_ms: Latency | None
    includes: tuple[str, ...]
    stages: dict[str, float] | None


class Parity(NamedTuple):
    """The same rows on another device: labels that differ, and the largest difference of probabilities.

    For an identity head `labels_different` is None, and the difference is that of values.
    """

    reference: str
    labels_different: int | None
    largest_difference: float


class ClusterInfo(NamedTuple):
    """What the rows were scored on: workers of a cluster, their threads, and how many tasks they shared."""

    workers: int
    threads: int
    tasks: int


@dataclass(frozen=True)
class ScoreReport:
    """All that `score` found; `to_dict` is the JSON of schema ``mlpinfer.score/1``.

    `metrics` is None where the data has no labels, `parity` where it was not asked for, `cluster` where
    it was scored in one process. `latencies_ms` are those that the percentiles are of, milliseconds; they
    are drawn, and not in JSON.
    """

    network: NetworkInfo
    data: DataInfo
    device: DeviceInfo
    batch: BatchInfo
    metrics: ClassificationMetrics | RegressionMetrics | None
    timing: Timing
    parity: Parity | None
    cluster: ClusterInfo | None
    environment: Environment
    latencies_ms: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; what is not a finite number is None."""
        values = {"schema": SCHEMA, **vars(self)}
        del values["latencies_ms"]
        result: dict[str, Any] = jsonable(values)
        return result


def jsonable(value: Any) -> Any:
    """Return plain values: a dict for a named tuple, a list for a tuple, None for what is not finite."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, str):  # bytes of a name that are no text have no place in JSON
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not np.isfinite(value) else value
