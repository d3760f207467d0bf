"""Run tasks with a predictor, in a loop or through another engine.

A task is something small that can be pickled; what is done with it is a function of a predictor and a
task. `Runner` is all that an engine has to implement. `LocalRunner` runs tasks in this process;
`mlpinfer.jobs.dask_runner.DaskRunner` runs them on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from mlpinfer.engine.predictor import Predictor


class RowSpan(Protocol):
    """What every task is: rows `begin` to `end` of all rows."""

    @property
    def begin(self) -> int: ...  # noqa: D102

    @property
    def end(self) -> int: ...  # noqa: D102


T = TypeVar("T", bound=RowSpan)
Y = TypeVar("Y")
R = TypeVar("R")


class Runner(Protocol):
    """Runs tasks, wherever it likes, in any order, each at least once."""

    def run(
        self,
        predictor: Predictor,
        tasks: Sequence[T],
        function: Callable[[Predictor, T], R],
        *,
        reads: Sequence[str] = (),
        writes_to: str | None = None,
    ) -> Generator[tuple[T, R], None, None]:
        """Return a generator of every task with `function(predictor, task)`, as they are done.

        Parameters
        ----------
        predictor : Predictor
        tasks : sequence
            They, and what the function returns for them, can be pickled.
        function : callable
            A module's function, or a `TwoSteps` of two.
        reads : sequence of str
            The files that tasks read, by absolute names, for a runner that checks its workers.
        writes_to : str, optional
            The folder that tasks write to. What is in it is kept when tasks fail.
        """


class ClusterSize(NamedTuple):
    """How many workers a cluster has, and how many threads they have together."""

    workers: int
    threads: int


@runtime_checkable
class ClusterRunner(Runner, Protocol):
    """A `Runner` that knows the size of the cluster it runs tasks on."""

    def cluster_size(self) -> ClusterSize:
        """Return the size; it is asked after `run` was called."""


@dataclass(frozen=True)
class TwoSteps(Generic[T, Y, R]):
    """A function of a predictor and a task in two steps, so that a runner may overlap them.

    Attributes
    ----------
    compute : callable
        Of a predictor and a task; it keeps the cores busy.
    write : callable
        Of the task and what `compute` returned; it waits for the disk.
    """

    compute: Callable[[Predictor, T], Y]
    write: Callable[[T, Y], R]

    def __call__(self, predictor: Predictor, task: T) -> R:
        """Compute and write."""
        return self.write(task, self.compute(predictor, task))


class LocalRunner:
    """Runs tasks one after the other in this process, in their order."""

    def run(
        self,
        predictor: Predictor,
        tasks: Sequence[T],
        function: Callable[[Predictor, T], R],
        *,
        reads: Sequence[str] = (),
        writes_to: str | None = None,
    ) -> Generator[tuple[T, R], None, None]:
        """Return a generator as `Runner.run`, which raises whatever `function` raises.

        If `function` is a `TwoSteps`, one task is written while the next is computed.
        """
        if isinstance(function, TwoSteps):
            return _overlapped(predictor, tasks, function)
        return ((task, function(predictor, task)) for task in tasks)


def _overlapped(
    predictor: Predictor, tasks: Sequence[T], function: TwoSteps[T, Any, R]
) -> Generator[tuple[T, R], None, None]:
    before: tuple[T, Future[R]] | None = None
    latest: tuple[T, Future[R]] | None = None
    writer = ThreadPoolExecutor(1)
    try:
        for task in tasks:
            latest = task, writer.submit(function.write, task, function.compute(predictor, task))
            if before:
                yield before[0], before[1].result()
            before = latest
        if before:
            yield before[0], before[1].result()
    finally:
        try:
            writer.shutdown()
        except BaseException:
            # A signal may come just here, and Python 3.11 takes a join that was interrupted for ended.
            wait([future for _, future in filter(None, (before, latest))])
            raise
