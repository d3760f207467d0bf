"""Predict or score on a Dask cluster that is already there.

Futures only: the predictor travels once to each worker, tasks and what they return travel, rows
do not. Workers read the inputs and write the parts themselves, on a file system that all see. Dask
promises that a task runs at least once; a part is the same however often it was written.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mlpinfer._version import VERSION
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import ClusterError, DatasetError, MlpInferError, missing_package
from mlpinfer.evaluation.report import ClusterInfo, ScoreReport
from mlpinfer.io.data.source import Inputs
from mlpinfer.io.files import write_whole
from mlpinfer.jobs import tasks
from mlpinfer.jobs.score_tasks import ScoreTask, report_of, run_score_task, split_score
from mlpinfer.jobs.tasks import Job, Receipt, Task

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T", Task, ScoreTask)
R = TypeVar("R")
#: Seconds until a scheduler that does not answer is an error, and a cluster without workers.
_SCHEDULER_SECONDS, _WORKER_SECONDS = 10.0, 60.0
#: Seconds until a question is asked again, and between two looks at what is done.
_ANSWER_SECONDS, _LOOK_SECONDS = 3.0, 0.02
#: Tasks that wait on the cluster, for every thread of it.
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
        return Client(
            address, scheduler_file=scheduler_file, timeout=_SCHEDULER_SECONDS, set_as_default=False
        )
    except Exception as error:  # of a dozen unrelated types: bad addresses, bad files, no answer
        found = _short(error)
        raise ClusterError(f"{where}: expected a Dask scheduler, found none that answers ({found})") from None


def run_job(
    predictor: Predictor,
    job: Job,
    *,
    client: Client,
    min_workers: int = 1,
    retries: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Receipt]:
    """Run the tasks of a job that are missing on a cluster, and return all receipts.

    Parameters
    ----------
    predictor : Predictor
        It travels to every worker once.
    job : Job
        Its inputs and its output stand where all workers see them.
    client : distributed.Client
    min_workers : int
        How many to wait for before the first task.
    retries : int
        How often a task that raised an error is tried again.
    resume, overwrite, progress
        As for `mlpinfer.jobs.tasks.run_job`.

    Raises
    ------
    ClusterError
        If workers have another version or do not see the output, if the scheduler or all workers are
        gone, or, once all others are done, if tasks failed; it names their rows. `resume` goes on.
    DatasetError
        If it is the data of tasks that was refused; these are not tried again.
    InputError
        As `mlpinfer.jobs.tasks.run_job`.
    """
    done = tasks.begin(job, resume, overwrite)
    for receipt in done.values():
        progress(receipt.rows)
    missing = [task for task in job.tasks if task not in done]
    nonce = os.path.join(os.path.abspath(job.folder), f"nonce-{uuid.uuid4().hex}")
    with write_whole(nonce) as file:
        file.write(b"seen")
    try:
        _check_workers(client, min_workers, [nonce, *job.paths])
    finally:
        os.unlink(nonce)
    try:
        for task, receipt in _results(client, tasks.run_task, predictor, missing, retries):
            done[task] = receipt
            progress(receipt.rows)
    except (ClusterError, DatasetError) as error:
        raise type(error)(f"{error}; what is done is kept, resume (--resume) goes on with the rest") from None
    return [done[task] for task in job.tasks]


def score(
    predictor: Predictor,
    inputs: Inputs,
    labels: str | None = None,
    *,
    client: Client,
    min_workers: int = 1,
    retries: int = 2,
    rows_per_task: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> ScoreReport:
    """Measure how right a network is, and how fast a cluster runs it, in one pass over all rows.

    Parameters
    ----------
    predictor : Predictor
        It travels to every worker once.
    inputs : Inputs
        They, and the labels, stand where all workers see them.
    labels : path, optional
        Labels, one a row. Otherwise those of the inputs, if they have some.
    client, min_workers, retries
        As for `run_job`.
    rows_per_task : int, optional
        As for `mlpinfer.jobs.tasks.split_job`.
    progress : callable
        Is told the rows of every task that is done.

    Returns
    -------
    ScoreReport
        Throughput is from the first task given to the last result come back, reading included.

    Raises
    ------
    ClusterError
        As `run_job`; if tasks failed, nothing is said of the others.
    DatasetError, InputError
        As `mlpinfer.jobs.score_tasks.split_score`.
    """
    job = split_score(predictor, inputs, labels, rows_per_task)
    _check_workers(client, min_workers, job.paths)
    workers = client.nthreads()
    done, begin = {}, time.perf_counter()
    for task, scored in _results(client, run_score_task, predictor, job.tasks, retries):
        done[task] = scored
        progress(scored.rows)
    seconds = time.perf_counter() - begin
    # In the order of their rows: sums are the same whichever task was first.
    in_order = [done[task] for task in job.tasks]
    return report_of(
        predictor,
        job,
        in_order,
        seconds,
        ClusterInfo(workers=len(workers), threads=sum(workers.values()), tasks=len(job.tasks)),
    )


def _check_workers(client: Client, min_workers: int, files: Sequence[str]) -> None:
    """See, before the first task, that every worker could run it."""
    with _translated("before the first task"):
        try:
            client.wait_for_workers(min_workers, timeout=_WORKER_SECONDS)
        except TimeoutError:
            raise ClusterError(
                f"expected {min_workers} Dask workers, found fewer within a minute; start more"
            ) from None
        found = client.run(_look, files, on_error="return")
    for worker, seen in found.items():
        if isinstance(seen, BaseException):
            why = _short(seen)
            raise ClusterError(
                f"{worker}: expected mlpinfer {VERSION} there, found an error: {why}; install it"
            )
        version, missing = seen
        if version != VERSION:
            raise ClusterError(f"{worker}: expected mlpinfer {VERSION}, found {version}")
        if missing:
            raise ClusterError(f"{worker}: expected to see {missing}, found nothing; share its folder")


@contextlib.contextmanager
def _translated(when: str) -> Iterator[None]:
    """Turn what distributed raises where the scheduler is gone into one kind of error."""
    try:
        yield
    except (MlpInferError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ClusterError(f"the Dask scheduler does not answer any more {when} ({_short(error)})") from None


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {ascii(str(error).partition(chr(10))[0])[1:-1][:200]}"


def _look(files: Sequence[str]) -> tuple[str, str | None]:
    """Return the worker's version, and the first of the files that it does not see."""
    return VERSION, next((file for file in files if not os.path.exists(file)), None)


def _identity(predictor: Predictor) -> Predictor:
    return predictor


def _run(
    version: str, function: Callable[[Predictor, T], R], predictor: Predictor, task: T
) -> R | MlpInferError:
    """Run a task on a worker, which may have joined late; what is wrong with data is not tried again."""
    if version != VERSION:
        return ClusterError(f"expected mlpinfer {version} on every worker, found {VERSION}")
    try:
        return function(predictor, task)
    except MlpInferError as error:
        return error


def _results(
    client: Client,
    function: Callable[[Predictor, T], R],
    predictor: Predictor,
    tasks: Sequence[T],
    retries: int,
) -> Iterator[tuple[T, R]]:
    """Yield every task with its result, as they are done; an error at the end names those that failed."""
    failed: list[tuple[T, _Failure]] = []
    try:
        for task, outcome in _outcomes(client, function, predictor, tasks, retries):
            if isinstance(outcome, _Failure):
                failed.append((task, outcome))
            else:
                yield task, outcome
    except ClusterError as error:
        before = f"; before, rows {_rows(task for task, _ in failed)} failed" if failed else ""
        raise ClusterError(f"{error}{before}") from None
    hopeless = []
    for task, failure in failed:
        again: R | _Failure = failure
        if failure.killed_worker:
            # Dask blames a worker's death on all tasks it had been given: alone, each shows what it does.
            ((_, again),) = _outcomes(client, function, predictor, [task], retries)
        if isinstance(again, _Failure):
            hopeless.append((task, again))
        else:
            yield task, again
    if hopeless:
        kind = DatasetError if all(failure.in_data for _, failure in hopeless) else ClusterError
        found = f"{len(hopeless)} of {len(tasks)} tasks failed, rows {_rows(task for task, _ in hopeless)}"
        raise kind(f"{found}: {hopeless[0][1].text}")


def _rows(tasks: Iterable[T]) -> str:
    """Name the rows of some tasks."""
    spans = [f"{task.begin} to {task.end}" for task in tasks]
    return ", ".join(spans[:10]) + (f" and {len(spans) - 10} more" if len(spans) > 10 else "")


def _outcomes(
    client: Client,
    function: Callable[[Predictor, T], R],
    predictor: Predictor,
    tasks: Sequence[T],
    retries: int,
) -> Iterator[tuple[T, R | _Failure]]:
    """Yield every task with its result, or with what went wrong, as they are done."""
    run = uuid.uuid4().hex  # in every key: results of an earlier run are not taken for these
    with _translated("at the first task"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
        # By submit and not by scatter: a worker that takes it along when it dies gets it computed again.
        travelling = client.submit(_identity, predictor, key=f"predictor-{run}", retries=retries)
    waiting, patience = iter(tasks), _Patience(client)
    running: dict[Future, T] = {}
    while True:
        with _translated("during the run"):
            while len(running) < _WINDOW * patience.threads and (task := next(waiting, None)) is not None:
                key = f"rows-{task.begin}-{run}"
                future = client.submit(_run, VERSION, function, travelling, task, key=key, retries=retries)
                running[future] = task
        if not running:
            return
        for future, outcome in patience.wait(running):
            yield running.pop(future), outcome
            future.release()


class _Failure(NamedTuple):
    """What became of a task that has no result."""

    text: str
    killed_worker: bool = False
    in_data: bool = False

    @classmethod
    def of(cls, error: BaseException) -> _Failure:
        return cls(_short(error), type(error).__name__ == "KilledWorker", isinstance(error, DatasetError))


class _Patience:
    """Waits for futures, but not for ever: a scheduler or workers that are gone become an error."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked = self._answered = self._had_workers = time.monotonic()
        with _translated("at the first task"):
            self.threads = max(1, sum(client.nthreads().values()))

    def wait(self, running: dict[Future, T]) -> list[tuple[Future, Any]]:
        """Return those that are done with their results or failures, at least one."""
        while True:
            done = [(future, self._outcome(future)) for future in running if future.status != "pending"]
            done = [(future, outcome) for future, outcome in done if outcome is not None]
            if done:
                return done
            self._check(running)
            time.sleep(_LOOK_SECONDS)

    def _outcome(self, future: Future) -> Any:
        """Return the result of a future or its failure; None where its worker is gone with it."""
        try:
            if future.status == "finished":
                found = future.result(timeout=_ANSWER_SECONDS)
                return _Failure.of(found) if isinstance(found, MlpInferError) else found
            if future.status == "error":
                return _Failure.of(future.exception(timeout=_ANSWER_SECONDS))
        except TimeoutError:
            return None
        except Exception as error:  # the task's own stand in `future.exception`
            if future.status in ("pending", "lost") or self._client.status != "running":
                return None
            return _Failure(f"its result is lost ({_short(error)})")
        # A lost one is computed again; and a client cancels all when it has lost its scheduler.
        if future.status == "cancelled" and self._client.status == "running":
            return _Failure("cancelled by the scheduler or by another client of it")
        return None

    def _check(self, running: dict[Future, T]) -> None:
        """Ask the scheduler, now and then, which workers it has."""
        if time.monotonic() - self._asked < 1:
            return
        threads = None
        with contextlib.suppress(Exception):
            threads = self._client.sync(self._client.scheduler.ncores, callback_timeout=_ANSWER_SECONDS)
        self._asked = now = time.monotonic()
        if threads is not None:
            self._answered = now
            self.threads = sum(threads.values()) or self.threads
        if threads:
            self._had_workers = now
        if now - self._answered > _SCHEDULER_SECONDS or self._client.status == "closed":
            raise ClusterError("the Dask scheduler does not answer any more")
        if now - self._had_workers > _WORKER_SECONDS:
            found = f"rows {_rows(running.values())} were to be computed"
            raise ClusterError(f"no Dask worker is left; {found}, and may be what ended them")
