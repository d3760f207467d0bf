"""Sweep batch sizes, threads and devices: which is fastest, and what bounds it.

Every figure is measured in the run. Passes are taken in rounds over all settings, so that a machine
that slows down meanwhile slows all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlpinfer._json import Report
from mlpinfer._text import quoted
from mlpinfer.engine.predictor import Predictor
from mlpinfer.engine.threads import run_all
from mlpinfer.errors import InputError
from mlpinfer.evaluation.environment import Environment, environment
from mlpinfer.evaluation.parts import Parts
from mlpinfer.evaluation.report import DataInfo, Latency, NetworkInfo, Spread
from mlpinfer.evaluation.timing import latencies, latency_of, stages, timed
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.io.data.open import check_features
from mlpinfer.model.checks import first_known
from mlpinfer.model.network import Network
from mlpinfer.model.ops import Array

#: No more rows than this are swept; more would say the same.
MOST_ROWS = 100_000
#: The recommended batch size is the smallest whose throughput is at least this share of the best.
ENOUGH = 0.95
_READ_BYTES = 2**20
#: Fewer bytes stay in the processor's caches from one pass to the next.
_CACHED_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One setting and what was measured.

    `threads` is how many workers ran, `asked_threads` how many were asked for, None for all; `seconds`
    are those of a pass.
    """

    device: str
    asked_threads: int | None
    threads: int
    evaluator: str
    batch_size: int
    samples_per_second: float
    seconds: Spread
    batch_latency_ms: Latency


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a row takes at the recommended setting, microseconds, wall clock, and which part is largest.

    `launches` is what a batch costs however few rows it has, shared by its rows: from the times of a
    row in the smallest and the largest batches, ``t(B) = launch / B + rest``. On a CPU `memory` is
    reading the rows once, timed apart with as many threads, where they are more than a cache holds, and
    `arithmetic` is the rest. On a GPU `transfer` is the longer of upload and download, and `arithmetic`
    is what computing takes besides launches, each timed apart; in a pass they overlap, so that the parts
    do not add up to `row_us`.
    """

    limit: str
    row_us: float
    launches: float
    transfer: float
    memory: float
    arithmetic: float


@dataclass(frozen=True, kw_only=True)
class SweepReport(Report):
    """All that `sweep` found; `to_dict` is the JSON of schema ``mlpinfer.sweep/1``.

    `crossover` is the smallest batch size from which a GPU was faster than the CPU at all larger ones
    too; None where not both were swept, or it never was. `bound` is None of a single batch size.
    """

    schema: ClassVar[str] = "mlpinfer.sweep/1"

    network: NetworkInfo
    data: DataInfo
    precision: str
    values: str
    points: tuple[SweepPoint, ...]
    recommended: SweepPoint
    crossover: int | None
    bound: Bound | None
    environment: Environment


def sweep(
    network: Network,
    data: Dataset,
    *,
    batch_sizes: Sequence[int] = (1, 10, 100, 1_000, 10_000),
    devices: Sequence[str] = ("cpu",),
    threads: Sequence[int | None] = (None,),
    precision: str = "float32",
    scale: float | None = None,
    output: str = "labels",
    repeat: int = 3,
) -> SweepReport:
    """Measure throughput and latency at every batch size, on every device, with every number of threads.

    Parameters
    ----------
    network : Network
    data : Dataset
        Its first 100,000 rows are used.
    batch_sizes : sequence of int
        Those of more rows than there are become one of all rows.
    devices : sequence of str
        As for `Predictor`.
    threads : sequence of int or None
    precision, scale
        As for `Predictor`; without a scale that of the network or the data.
    output : {"labels", "proba"}
    repeat : int
        Timed passes over all rows at each setting, behind one that is not timed.

    Raises
    ------
    DatasetError
        If rows do not fit the network.
    DeviceError, InputError
        As `Predictor`, and if there is nothing to sweep.
    """
    if output not in ("labels", "proba"):
        raise InputError(f"output: expected labels or proba, found {quoted(output)}")
    if repeat < 1:
        raise InputError(f"repeat: expected 1 or more, found {repeat}")
    for name, given in {"batch_sizes": batch_sizes, "devices": devices, "threads": threads}.items():
        if not given:
            raise InputError(f"{name}: expected one or more, found none")
    check_features(data.name, data.x.shape[1:], network.sizes[0])
    x = data.x[:MOST_ROWS].reshape(-1, data.features)
    known = first_known(scale, network.scale, data.scale)
    sizes = sorted({min(size, len(x)) for size in batch_sizes})  # no batch has more rows than there are
    with contextlib.ExitStack() as stack:
        settings: dict[tuple[str, int | None, int], Predictor] = {}
        for device, count, size in itertools.product(devices, threads, sizes):
            predictor = stack.enter_context(Predictor(network, device, size, count, precision, known))
            settings.setdefault((predictor.backend.device, count, size), predictor)
        predictors = list(settings.values())
        points = _measure(predictors, [count for _, count, _ in settings], x, output, repeat)
        best = _recommended(points)
        gpus = [predictor.backend for predictor in predictors if predictor.backend.name != "numpy"]
        return SweepReport(
            network=NetworkInfo.of(predictors[0]),
            data=DataInfo(name=data.name, samples=len(x), features=data.features),
            precision=precision,
            values=output,
            points=tuple(points),
            recommended=best,
            crossover=_crossover(points),
            bound=_bound(predictors[points.index(best)], points, best, x, output),
            environment=environment((*gpus, predictors[0].backend)[0]),
        )


def _measure(
    predictors: list[Predictor], asked: list[int | None], x: Array, output: str, repeat: int
) -> list[SweepPoint]:
    for predictor in predictors:
        predictor.compute(x, output)
    seconds: list[list[float]] = [[] for _ in predictors]
    for _ in range(repeat):
        for predictor, found in zip(predictors, seconds, strict=True):
            found.append(timed(predictor, x, output)[0])
    return [
        SweepPoint(
            device=predictor.backend.device,
            asked_threads=threads,
            threads=predictor.useful_threads(len(x)),
            evaluator=predictor.evaluator,
            batch_size=predictor.batch_size,
            samples_per_second=len(x) / spread.median,
            seconds=spread,
            batch_latency_ms=latency_of(latencies(predictor, Parts.of(x), output)),
        )
        for predictor, threads, spread in zip(predictors, asked, map(Spread.of, seconds), strict=True)
    ]


def _recommended(points: list[SweepPoint]) -> SweepPoint:
    """Return the smallest batch, then the fewest threads, about as fast as the fastest, on its device."""
    best = max(points, key=lambda point: point.samples_per_second)
    enough = [
        point
        for point in points
        if point.device == best.device and point.samples_per_second >= ENOUGH * best.samples_per_second
    ]
    return min(enough, key=lambda point: (point.batch_size, point.threads))


def _crossover(points: list[SweepPoint]) -> int | None:
    fastest: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for point in points:
        rates = fastest[point.device != "cpu"]
        rates[point.batch_size] = max(rates.get(point.batch_size, 0.0), point.samples_per_second)
    on_gpu, on_cpu = fastest[True], fastest[False]
    crossover = None
    for batch_size in sorted(on_gpu.keys() & on_cpu.keys(), reverse=True):
        if on_gpu[batch_size] <= on_cpu[batch_size]:
            break
        crossover = batch_size
    return crossover


def _bound(
    predictor: Predictor, points: list[SweepPoint], best: SweepPoint, x: Array, output: str
) -> Bound | None:
    row = 1e6 / best.samples_per_second
    alike = [p for p in points if (p.device, p.asked_threads) == (best.device, best.asked_threads)]
    first, last = alike[0], alike[-1]
    if first.batch_size == last.batch_size:
        return None
    apart = 1e6 / first.samples_per_second - 1e6 / last.samples_per_second
    launch = max(0.0, apart / (1 / first.batch_size - 1 / last.batch_size))
    launches = min(row, launch / best.batch_size)
    on_gpu = stages(predictor, Parts.of(x), output)
    if on_gpu:
        upload, compute, download = (
            seconds * 1e6 / len(x) for seconds in (on_gpu.upload, on_gpu.compute, on_gpu.download)
        )
        launches = min(launches, compute)
        parts = {"launches": launches, "transfer": max(upload, download), "memory": 0.0}
        parts["arithmetic"] = compute - launches
    else:
        memory = min(row - launches, _read_seconds(x, best.threads) * 1e6 / len(x))
        parts = {"launches": launches, "transfer": 0.0, "memory": memory}
        parts["arithmetic"] = row - launches - memory
    return Bound(limit=max(parts, key=lambda name: parts[name]), row_us=row, **parts)


def _read_seconds(x: Array, threads: int) -> float:
    """Return the seconds that so many threads need to read all rows, piece by piece into their caches."""
    if x.nbytes < _CACHED_BYTES:
        return 0.0
    rows = max(1, _READ_BYTES // x[:1].nbytes)

    def read(share: Array, stopped: list[BaseException]) -> None:
        piece = np.empty_like(share[:rows])
        for at in range(0, len(share), rows):
            part = share[at : at + rows]
            np.copyto(piece[: len(part)], part)

    best = np.inf
    for _ in range(3):
        begin = time.perf_counter()
        run_all(read, np.array_split(x, threads))
        best = min(best, time.perf_counter() - begin)
    return float(best)
