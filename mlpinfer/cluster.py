"""Predict or score on a Dask cluster that is already there.

Futures only: a task and its receipt or tally travel, rows do not. Workers read the inputs and write the
parts themselves, on a file system that all see. Dask promises that a task runs at least once; a part is
the same however often it was written.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mlpinfer import jobs
from mlpinfer._version import VERSION
from mlpinfer.data_files.inputs import Inputs
from mlpinfer.errors import ClusterError, InputError
from mlpinfer.files import write_whole
from mlpinfer.jobs import Job, Receipt, Task
from mlpinfer.predictor import Predictor
from mlpinfer.report import ClusterInfo, ScoreReport
from mlpinfer.score_tasks import ScoreTask, report_of, run_score_task, split_score

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T", Task, ScoreTask)
R = TypeVar("R")
#: Seconds until a scheduler that does not answer is an error, and a cluster without workers.
_SCHEDULER_SECONDS, _WORKER_SECONDS = 10.0, 60.0
#: Tasks that wait on the cluster, for every thread of it.
_WINDOW = 4


def connect(address: str | None = None, scheduler_file: str | None = None) -> Client:
    """Connect to a scheduler, by its address (``tcp://host:8786``) or the file that it writes.

    Raises
    ------
    InputError
        If Dask is not installed.
    ClusterError
        If no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a Dask cluster needs distributed: pip install 'mlpinfer[dask]'") from None
    where = address or f"the scheduler of {scheduler_file}"
    if scheduler_file and not os.path.exists(scheduler_file):
        raise ClusterError(f"{scheduler_file}: expected the file that a Dask scheduler writes, found none")
    try:
        return Client(
            address, scheduler_file=scheduler_file, timeout=_SCHEDULER_SECONDS, set_as_default=False
        )
    except (OSError, ValueError) as error:
        text = ascii(str(error).partition("\n")[0])[1:-1][:100]
        raise ClusterError(f"{where}: expected a Dask scheduler, found none that answers ({text})") from None


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
        As for `mlpinfer.jobs.run_job`.

    Raises
    ------
    ClusterError
        If workers have another version or do not see the output, if the scheduler or all workers are
        gone, or, once all others are done, if tasks failed; it names their rows. `resume` goes on.
    InputError
        As `mlpinfer.jobs.run_job`.
    """
    done = jobs.begin(job, resume, overwrite)
    for receipt in done.values():
        progress(receipt.rows)
    missing = [task for task in job.tasks if task not in done]
    nonce = os.path.join(os.path.abspath(job.folder), f"nonce-{uuid.uuid4().hex}")
    with write_whole(nonce) as file:
        file.write(b"seen")
    try:
        _check_workers(client, min_workers, [nonce, *job.tasks[0].inputs.paths])
    finally:
        os.unlink(nonce)
    try:
        for task, receipt in _results(client, jobs.run_task, predictor, missing, retries):
            done[task] = receipt
            progress(receipt.rows)
    except ClusterError as error:
        raise ClusterError(f"{error}; what is done is kept, --resume goes on with the rest") from None
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
        As for `mlpinfer.jobs.split_job`.
    progress : callable
        Is told the rows of every task that is done.

    Returns
    -------
    ScoreReport
        Throughput is from the first task given to the last tally come back, reading included.

    Raises
    ------
    ClusterError
        As `run_job`; if tasks failed, nothing is said of the others.
    DatasetError, InputError
        As `mlpinfer.score_tasks.split_score`.
    """
    job = split_score(predictor, inputs, labels, rows_per_task)
    first = job.tasks[0]
    truth = first.labels.paths if first.labels else ()
    _check_workers(client, min_workers, [*first.inputs.paths, *truth])
    workers, threads = len(client.nthreads()), sum(client.nthreads().values())
    done, begin = {}, time.perf_counter()
    for task, scored in _results(client, run_score_task, predictor, job.tasks, retries):
        done[task] = scored
        progress(scored.rows)
    seconds = time.perf_counter() - begin
    # In the order of their rows: sums are the same whichever task was first.
    in_order = [done[task] for task in job.tasks]
    return report_of(predictor, job, in_order, seconds, ClusterInfo(workers, threads, len(job.tasks)))


def _check_workers(client: Client, min_workers: int, files: list[str]) -> None:
    """See, before the first task, that every worker could run it."""
    try:
        client.wait_for_workers(min_workers, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise ClusterError(f"expected {min_workers} Dask workers, found fewer within a minute") from None
    for worker, (version, missing) in client.run(_look, files).items():
        if version != VERSION:
            raise ClusterError(f"{worker}: expected mlpinfer {VERSION}, found {version}")
        if missing:
            raise ClusterError(f"{worker}: expected to see {missing}, found nothing; share its folder")


def _look(files: list[str]) -> tuple[str, str | None]:
    """Return the worker's version, and the first of the files that it does not see."""
    return VERSION, next((file for file in files if not os.path.exists(file)), None)


def _identity(predictor: Predictor) -> Predictor:
    return predictor


def _results(
    client: Client,
    function: Callable[[Predictor, T], R],
    predictor: Predictor,
    tasks: Sequence[T],
    retries: int,
) -> Iterator[tuple[T, R]]:
    """Yield every task with its result, as they are done; an error at the end names those that failed."""
    failed = []
    for task, outcome in _outcomes(client, function, predictor, tasks, retries):
        if isinstance(outcome, _Failure):
            failed.append((task, outcome))
        else:
            yield task, outcome
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
        rows = ", ".join(f"{task.begin} to {task.end}" for task, _ in hopeless[:5])
        more = f" and {len(hopeless) - 5} more" if len(hopeless) > 5 else ""
        raise ClusterError(
            f"{len(hopeless)} of {len(tasks)} tasks failed, rows {rows}{more}: {hopeless[0][1].text}"
        )


def _outcomes(
    client: Client,
    function: Callable[[Predictor, T], R],
    predictor: Predictor,
    tasks: Sequence[T],
    retries: int,
) -> Iterator[tuple[T, R | _Failure]]:
    run = uuid.uuid4().hex  # in every key: results of an earlier run are not taken for these
    # By submit and not by scatter: a worker that takes it along when it dies gets it computed again.
    travelling = client.submit(_identity, predictor, key=f"predictor-{run}", retries=retries)
    waiting, patience = iter(tasks), _Patience(client)
    running: dict[Future, T] = {}
    while True:
        while len(running) < _WINDOW * patience.threads and (task := next(waiting, None)) is not None:
            future = client.submit(
                function, travelling, task, key=f"rows-{task.begin}-{run}", retries=retries
            )
            running[future] = task
        if not running:
            return
        for future in patience.wait(list(running)):
            error = future.exception()
            yield running.pop(future), future.result() if error is None else _Failure.of(error)
            future.release()


class _Failure(NamedTuple):
    """What became of a task that has no result."""

    killed_worker: bool
    text: str

    @classmethod
    def of(cls, error: BaseException) -> _Failure:
        name = type(error).__name__
        return cls(name == "KilledWorker", f"{name}: {ascii(str(error).partition(chr(10))[0])[1:-1][:200]}")


class _Patience:
    """Waits for futures, but not for ever: a scheduler or workers that are gone become an error."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answered = self._had_workers = time.monotonic()
        self.threads = max(1, sum(client.nthreads().values()))

    def wait(self, futures: list[Any]) -> list[Any]:
        """Return those that are finished or have failed, at least one."""
        while True:
            finished = [future for future in futures if future.status in ("finished", "error")]
            if finished:
                self._answered = self._had_workers = time.monotonic()
                return finished
            self._check()
            time.sleep(0.02)

    def _check(self) -> None:
        now = time.monotonic()
        if self._client.status == "running":
            self._answered = now
            info = self._client.scheduler_info(n_workers=-1)["workers"]
            self.threads = sum(worker["nthreads"] for worker in info.values()) or self.threads
            if info:
                self._had_workers = now
        if now - self._answered > _SCHEDULER_SECONDS or self._client.status == "closed":
            raise ClusterError("the Dask scheduler does not answer any more")
        if now - self._had_workers > _WORKER_SECONDS:
            raise ClusterError("no Dask worker is left")
