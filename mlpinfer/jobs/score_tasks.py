"""Score rows where they are read: tasks for any engine, whose accumulators merge into one report."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import DatasetError
from mlpinfer.evaluation import metrics
from mlpinfer.evaluation.environment import environment
from mlpinfer.evaluation.report import (
    BatchInfo,
    ClusterInfo,
    DataInfo,
    DeviceInfo,
    NetworkInfo,
    ScoreReport,
    Spread,
    Timing,
)
from mlpinfer.evaluation.timing import steps
from mlpinfer.io.data.open import check_labels
from mlpinfer.io.data.source import DataSource, FilePart, OpenFiles, OpenSource, file_parts, open_source
from mlpinfer.jobs import tasks
from mlpinfer.jobs.runner import ClusterRunner, LocalRunner, Runner
from mlpinfer.model.ops import Array


class ScoreTask(NamedTuple):
    """Rows `begin` to `end` of all, the files they lie in, and that of their labels, if it is another."""

    files: FilePart
    labels: FilePart | None
    begin: int
    end: int


class Worker(NamedTuple):
    """What a task was computed on."""

    device: str
    name: str
    backend: str
    evaluator: str


class Scored(NamedTuple):
    """What a task found, and what computed it; the accumulator is None where there are no labels."""

    rows: int
    accumulator: metrics.Accumulator | None
    by: Worker


@dataclass(frozen=True)
class ScoreJob:
    """Tasks, in the order of their rows, all files they read, and those that are open."""

    data: DataInfo
    tasks: tuple[ScoreTask, ...]
    paths: tuple[str, ...]
    files: OpenFiles


def split_score(
    predictor: Predictor,
    source: DataSource | OpenSource,
    labels: str | None = None,
    rows_per_task: int | None = None,
) -> ScoreJob:
    """Cut rows and their labels into tasks, at the ends of batches.

    Parameters
    ----------
    predictor : Predictor
    source : DataSource or OpenSource
        The inputs, which are opened here if they are not open yet.
    labels : path, optional
        Labels, one a row. Otherwise those of the inputs.
    rows_per_task : int, optional
        As for `mlpinfer.jobs.tasks.split_job`.

    Raises
    ------
    DatasetError
        If files cannot be read or do not fit the network, or rows and labels differ in number.
    InputError
        If no scale is known for bytes.
    """
    opened = open_source(source) if isinstance(source, DataSource) else source
    rows = opened.rows
    tasks.check_fit(predictor, rows, "labels")
    metrics.accumulator_for(predictor.network)  # Refuses too many classes before anything is computed.
    paths, truth = opened.source.paths, None
    if labels is not None:
        label_source = DataSource((labels,)).resolve()
        truth = FilePart(label_source, label_source.stamps(), 0)
        found = truth.open(opened.files)
        check_labels(labels, found)
        if found.samples != rows.samples:
            raise DatasetError(
                f"{rows.name}: expected {rows.samples} labels, one a row, found {found.samples}"
            )
        paths = *paths, *label_source.paths
    _, spans = tasks.cut(predictor, rows, output="logits", rows_per_task=rows_per_task)
    data = DataInfo(name=os.path.basename(rows.name), samples=rows.samples, features=predictor.n_features_in_)
    score_tasks = tuple(
        ScoreTask(part, truth, *span) for part, span in zip(file_parts(opened, spans), spans, strict=True)
    )
    return ScoreJob(data, score_tasks, paths, opened.files)


def run_score_task(predictor: Predictor, task: ScoreTask, files: OpenFiles | None = None) -> Scored:
    """Read the rows of a task, predict, and judge. A function for any engine.

    Parameters
    ----------
    predictor : Predictor
    task : ScoreTask
    files : OpenFiles, optional
        Where inputs stay open from one task to the next.

    Raises
    ------
    DatasetError
        If rows or labels cannot be read, or labels do not fit the network.
    """
    files = files or OpenFiles()
    x, truth = task.files.read(task.begin, task.end, files), _truth(task, files)
    x = x.reshape(len(x), -1)
    with np.errstate(all="ignore"):  # infinities and NaN are in the report
        if truth is None:
            predictor.predict(x)
            accumulator = None
        else:
            accumulator = _judged(predictor, x, truth)
    for part in (task.files, task.labels):
        if part:
            part.check()
    backend = predictor.backend
    worker = Worker(
        device=backend.device,
        name=backend.describe(),
        backend=backend.name,
        evaluator=predictor.evaluator,
    )
    return Scored(len(x), accumulator, worker)


def _truth(task: ScoreTask, files: OpenFiles) -> Array | None:
    if task.labels is None:
        return task.files.labels(task.begin, task.end, files)
    y = task.labels.read(task.begin, task.end, files)
    return y[:, 0] if y.shape[1:] == (1,) else y


def _judged(predictor: Predictor, x: Array, y: Array) -> metrics.Accumulator:
    """Predict rows, some at a time so that their logits take little memory, and judge them."""
    accumulator = metrics.accumulator_for(predictor.network)
    for begin, end in metrics.chunks(0, len(x)):
        rows = x[begin:end]
        predicted = predictor.predict(rows)
        truth = metrics.as_truth(y[begin:end], predictor.network, "labels")
        accumulator.update(truth, predicted)
        if isinstance(accumulator, metrics.LabelAccumulator):
            accumulator.update_loss(truth, predictor.decision_function(rows))
    return accumulator


def score_job(
    predictor: Predictor,
    job: ScoreJob,
    *,
    runner: Runner | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> ScoreReport:
    """Measure how right a network is, and how fast the tasks run, in one pass over all rows.

    Parameters
    ----------
    predictor : Predictor
    job : ScoreJob
    runner : Runner, optional
        Where the tasks run; by default in this process.
    progress : callable
        Is told the rows of every task that is done.

    Returns
    -------
    ScoreReport
        Throughput is from the first task given to the last result come back, reading included.

    Raises
    ------
    DatasetError
        As `run_score_task`.
    ClusterError
        As the runner; if tasks failed, nothing is said of the others.
    """
    runner = LocalRunner() if runner is None else runner
    function = functools.partial(run_score_task, files=job.files)
    results = runner.run(predictor, job.tasks, function, reads=job.paths)
    cluster = None
    if isinstance(runner, ClusterRunner):
        size = runner.cluster_size()
        cluster = ClusterInfo(workers=size.workers, threads=size.threads, tasks=len(job.tasks))
    done, begin = {}, time.perf_counter()
    with closing(results):
        for task, scored in results:
            done[task] = scored
            progress(scored.rows)
    seconds = time.perf_counter() - begin
    # Added up in the order of the rows, so that sums are the same whichever task was first.
    return _report([done[task] for task in job.tasks], predictor, job, seconds, cluster)


def _report(
    scored: Sequence[Scored],
    predictor: Predictor,
    job: ScoreJob,
    seconds: float,
    cluster: ClusterInfo | None,
) -> ScoreReport:
    """Add up what tasks found to the report of one pass that took `seconds`, wall clock.

    Devices and evaluators are those that tasks ran on; the environment is that of this process.
    """
    accumulator = metrics.accumulator_for(predictor.network)
    judged = [part.accumulator for part in scored if part.accumulator is not None]
    with np.errstate(all="ignore"):  # as in the tasks
        for part in judged:
            accumulator.merge(part)
        found = accumulator.result() if judged else None
    used = {name: sorted({getattr(part.by, name) for part in scored}) for name in Worker._fields}
    by = Worker(**{name: ", ".join(found) for name, found in used.items()})
    size = predictor.batch_size
    full = sum(part.rows // size for part in scored)
    includes = ("read", *steps(predictor, "labels"), *(["metrics"] * bool(judged)))
    return ScoreReport(
        network=NetworkInfo.of(predictor),
        data=job.data,
        device=DeviceInfo(
            requested=predictor.requested_device,
            actual=by.device,
            name=by.name,
            backend=by.backend,
            threads=cluster.threads if cluster else predictor.threads,
            precision=predictor.precision,
            evaluator=by.evaluator,
        ),
        batch=BatchInfo(size=size, full=full, tail=job.data.samples - full * size),
        metrics=found,
        timing=Timing(
            cold_seconds=None,
            seconds=Spread.of([seconds]),
            samples_per_second=job.data.samples / seconds,
            batch_latency_ms=None,
            includes=includes,
            stages=None,
        ),
        parity=None,
        cluster=cluster,
        environment=environment(predictor.backend),
    )
