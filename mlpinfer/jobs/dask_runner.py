"""Run tasks on a Dask cluster that is already there.

Only futures are used. The predictor is sent once to each worker; tasks and their results are sent, rows
are not. Workers read the inputs and write the parts themselves, on a file system that all see. Dask
promises that a task runs at least once, and a part is the same however often it was written.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from mlpinfer._version import VERSION
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import ClusterError, DatasetError, MlpInferError, missing_package
from mlpinfer.io.files import atomic_write
from mlpinfer.jobs.dask_watchdog import (
    SCHEDULER_SECONDS,
    WORKER_SECONDS,
    Failure,
    Watchdog,
    name_rows,
    short,
    translated,
)
from mlpinfer.jobs.runner import ClusterSize, R, T

if TYPE_CHECKING:
    from distributed import Client, Future

#: Tasks submitted at a time, for every thread of the cluster.
_WINDOW = 4


def connect(address: str | None = None, scheduler_file: str | None = None) -> Client:
    """Connect to a scheduler, by its address (``tcp://host:8786``) or the file that it writes.

    Raises
    ------
    MlpInferError
        If Dask is not installed.
    ClusterError
        If no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise missing_package("a Dask cluster", "distributed") from None
    where = address or f"the scheduler of {scheduler_file}"
    if scheduler_file and not os.path.exists(scheduler_file):
        raise ClusterError(f"{scheduler_file}: expected the file that a Dask scheduler writes, found none")
    try:
        return Client(address, scheduler_file=scheduler_file, timeout=SCHEDULER_SECONDS, set_as_default=False)
    except Exception as error:  # of a dozen unrelated types: bad addresses, bad files, no answer
        found = short(error)
        raise ClusterError(f"{where}: expected a Dask scheduler, found none that answers ({found})") from None


class DaskRunner:
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
    min_workers : int
        How many workers to wait for before the first task.
    retries : int
        How often a task that raised an error is tried again.
    """

    def __init__(self, client: Client, *, min_workers: int = 1, retries: int = 2) -> None:
        self._client, self._min_workers, self._retries = client, min_workers, retries

    def run(
        self,
        predictor: Predictor,
        tasks: Sequence[T],
        function: Callable[[Predictor, T], R],
        *,
        reads: Sequence[str] = (),
        writes_to: str | None = None,
    ) -> Generator[tuple[T, R], None, None]:
        """Check the workers, and return a generator as `mlpinfer.jobs.runner.Runner.run`.

        Raises
        ------
        ClusterError
            If workers have another version or do not see the files or the folder. By the generator: if
            the scheduler or all workers are gone, or, once all others are done, if tasks failed; it names
            their rows.
        DatasetError
            By the generator: if what failed is data that was refused, which is not tried again.
        """
        if writes_to is None:
            self._check_workers(reads)
        else:
            # A new file shows that workers see this folder, and not one of the same name on their own disk.
            nonce = os.path.join(os.path.abspath(writes_to), f"nonce-{uuid.uuid4().hex}")
            with atomic_write(nonce) as file:
                file.write(b"seen")
            try:
                self._check_workers([nonce, *reads])
            finally:
                os.unlink(nonce)
        results = self._results(function, predictor, tasks)
        return results if writes_to is None else _saying_what_is_kept(results)

    def cluster_size(self) -> ClusterSize:
        """Return how many workers and threads the cluster has now."""
        threads = self._client.nthreads()
        return ClusterSize(workers=len(threads), threads=sum(threads.values()))

    def _check_workers(self, files: Sequence[str]) -> None:
        """Raise ClusterError if a worker has another version of mlpinfer or does not see one of the files."""
        with translated("before the first task"):
            try:
                self._client.wait_for_workers(self._min_workers, timeout=WORKER_SECONDS)
            except TimeoutError:
                raise ClusterError(
                    f"expected {self._min_workers} Dask workers, found fewer within a minute; start more"
                ) from None
            found = self._client.run(_look, files, on_error="return")
        for worker, seen in found.items():
            if isinstance(seen, BaseException):
                why = short(seen)
                raise ClusterError(
                    f"{worker}: expected mlpinfer {VERSION} there, found an error: {why}; install it"
                )
            version, missing = seen
            if version != VERSION:
                raise ClusterError(f"{worker}: expected mlpinfer {VERSION}, found {version}")
            if missing:
                raise ClusterError(f"{worker}: expected to see {missing}, found nothing; share its folder")

    def _results(
        self, function: Callable[[Predictor, T], R], predictor: Predictor, tasks: Sequence[T]
    ) -> Generator[tuple[T, R], None, None]:
        """Yield every task with its result, as they are done; an error at the end names those that failed."""
        failed: list[tuple[T, Failure]] = []
        try:
            for task, outcome in self._outcomes(function, predictor, tasks):
                if isinstance(outcome, Failure):
                    failed.append((task, outcome))
                else:
                    yield task, outcome
        except ClusterError as error:
            before = f"; before, rows {name_rows(task for task, _ in failed)} failed" if failed else ""
            raise ClusterError(f"{error}{before}") from None
        hopeless = []
        for task, failure in failed:
            again: R | Failure = failure
            if failure.killed_worker:
                # Dask blames the death of a worker on all tasks that it had been given, so each is run alone.
                ((_, again),) = self._outcomes(function, predictor, [task])
            if isinstance(again, Failure):
                hopeless.append((task, again))
            else:
                yield task, again
        if hopeless:
            kind = DatasetError if all(failure.in_data for _, failure in hopeless) else ClusterError
            rows = name_rows(task for task, _ in hopeless)
            raise kind(f"{len(hopeless)} of {len(tasks)} tasks failed, rows {rows}: {hopeless[0][1].text}")

    def _outcomes(
        self, function: Callable[[Predictor, T], R], predictor: Predictor, tasks: Sequence[T]
    ) -> Generator[tuple[T, R | Failure], None, None]:
        """Yield every task with its result, or with what went wrong, as they are done."""
        # The run is in every key, so that Dask does not take results of an earlier run for these.
        run = uuid.uuid4().hex
        with translated("at the first task"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
            # Use submit, not scatter: Dask can compute it again if the worker that holds it dies.
            key = f"predictor-{run}"
            sent = self._client.submit(_pair, predictor, function, key=key, retries=self._retries)
        waiting, watchdog = iter(tasks), Watchdog(self._client)
        running: dict[Future, T] = {}
        while True:
            with translated("during the run"):
                while len(running) < _WINDOW * watchdog.threads and (task := next(waiting, None)) is not None:
                    key = f"rows-{task.begin}-{run}"
                    future = self._client.submit(_run, VERSION, sent, task, key=key, retries=self._retries)
                    running[future] = task
            if not running:
                return
            for future, outcome in watchdog.wait(running):
                yield running.pop(future), outcome
                future.release()


def _saying_what_is_kept(
    results: Generator[tuple[T, R], None, None],
) -> Generator[tuple[T, R], None, None]:
    """Yield the results; if tasks failed, say that those that are done need not be run again."""
    try:
        yield from results
    except (ClusterError, DatasetError) as error:
        raise type(error)(f"{error}; what is done is kept, resume (--resume) goes on with the rest") from None


def _look(files: Sequence[str]) -> tuple[str, str | None]:
    """Return the worker's version, and the first of the files that it does not see."""
    return VERSION, next((file for file in files if not os.path.exists(file)), None)


def _pair(
    predictor: Predictor, function: Callable[[Predictor, T], R]
) -> tuple[Predictor, Callable[[Predictor, T], R]]:
    """Return both, as a worker keeps them during a run: the function may hold files that stay open."""
    return predictor, function


def _run(version: str, sent: tuple[Predictor, Callable[[Predictor, T], R]], task: T) -> R | MlpInferError:
    """Run a task on a worker, which may have joined late.

    An MlpInferError is returned, not raised, because Dask would try the task again.
    """
    if version != VERSION:
        return ClusterError(f"expected mlpinfer {version} on every worker, found {VERSION}")
    predictor, function = sent
    try:
        return function(predictor, task)
    except MlpInferError as error:
        return error
