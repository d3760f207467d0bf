"""What a score is made of, as it is printed and as it is written in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mlpinfer._json import NOT_IN_JSON, Report
from mlpinfer.evaluation.environment import Environment
from mlpinfer.evaluation.metrics import ClassificationMetrics, RegressionMetrics

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
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
            layers=network.sizes,
            parameters=network.parameters,
            hidden=network.hidden,
            head=network.head,
            scale=predictor.scale,
            sha256=network.sha256,
        )


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Which rows were scored."""

    name: str
    samples: int
    features: int


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
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


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """`full` batches of `size` rows, and `tail` rows in a shorter one.

    Tasks on a cluster end where files end: there are as many shorter ones as files, at most.
    """

    size: int
    full: int
    tail: int

    @classmethod
    def of(cls, samples: int, size: int) -> BatchInfo:
        """Cut so many rows into batches."""
        return cls(size=size, full=samples // size, tail=samples % size)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Seconds of the timed passes, wall clock."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarize the passes; the median of an even number lies between the middle two."""
        return cls(min=min(seconds), median=float(np.median(seconds)), max=max(seconds))


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of the time a full batch takes, milliseconds, one thread."""

    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of a pass on a GPU, one stage after the other; in the timed passes they overlap."""

    upload: float
    compute: float
    download: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """`samples_per_second` is rows over the median of `seconds`; `includes` names every step timed.

    `cold_seconds` is the first pass over all rows, to logits, which nothing has warmed up. `stages` are
    of a pass of their own, on a GPU. On a cluster there is one pass, and neither a cold one nor a latency.
    """

    cold_seconds: float | None
    seconds: Spread
    samples_per_second: float
    batch_latency_ms: Latency | None
    includes: tuple[str, ...]
    stages: Stages | None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The same rows on another device: labels that differ, and the largest difference of probabilities.

    For an identity head `labels_different` is None, and the difference is that of values.
    """

    reference: str
    labels_different: int | None
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """What the rows were scored on: workers of a cluster, their threads, and how many tasks they shared."""

    workers: int
    threads: int
    tasks: int


@dataclass(frozen=True, kw_only=True)
class ScoreReport(Report):
    """All that `score` found; `to_dict` is the JSON of schema ``mlpinfer.score/1``.

    `metrics` is None where the data has no labels, `parity` where it was not asked for, `cluster` where
    it was scored in one process. `latencies_ms` are those that the percentiles are of, milliseconds; they
    are drawn, and not in JSON.
    """

    schema: ClassVar[str] = "mlpinfer.score/1"

    network: NetworkInfo
    data: DataInfo
    device: DeviceInfo
    batch: BatchInfo
    metrics: ClassificationMetrics | RegressionMetrics | None
    timing: Timing
    parity: Parity | None
    cluster: ClusterInfo | None
    environment: Environment
    latencies_ms: tuple[float, ...] = field(default=(), metadata=NOT_IN_JSON)
