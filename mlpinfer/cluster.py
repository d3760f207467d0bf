"""A job's tasks on a Dask cluster that is already there.

Futures only: a task and its receipt travel, rows do not. Workers read the inputs and write the parts
themselves, on a file system that all see. Dask promises that a task runs at least once; a part is the
same however often it was written.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mlpinfer import jobs
from mlpinfer._version import VERSION
from mlpinfer.errors import ClusterError, InputError
from mlpinfer.files import write_whole
from mlpinfer.jobs import Job, Receipt, Task
from mlpinfer.predictor import Predictor

if TYPE_CHECKING:
    from distributed import Client, Future

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
    _check_workers(client, job, min_workers)

    def attempt(tasks: list[Task]) -> list[tuple[Task, str]]:
        """Run tasks, and return those that failed."""
        failed = []
        for task, outcome in _outcomes(client, predictor, tasks, retries):
            if isinstance(outcome, Receipt):
                done[task] = outcome
                progress(outcome.rows)
            else:
                failed.append((task, outcome))
        return failed

    failed = attempt(missing)
    # Dask blames a worker's death on all tasks that it had been given: alone, each shows what it does.
    failed = [
        outcome
        for task, why in failed
        for outcome in (attempt([task]) if why.startswith("KilledWorker") else [(task, why)])
    ]
    if failed:
        rows = ", ".join(f"{task.begin} to {task.end}" for task, _ in failed[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise ClusterError(
            f"{len(failed)} of {len(job.tasks)} tasks failed, rows {rows}{more}: {failed[0][1]}; the others "
            "are done, --resume tries these again"
        )
    return [done[task] for task in job.tasks]


def _check_workers(client: Client, job: Job, min_workers: int) -> None:
    """See, before the first task, that every worker could run it."""
    try:
        client.wait_for_workers(min_workers, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise ClusterError(f"expected {min_workers} Dask workers, found fewer within a minute") from None
    nonce = os.path.join(os.path.abspath(job.folder), f"nonce-{uuid.uuid4().hex}")
    with write_whole(nonce) as file:
        file.write(b"seen")
    try:
        for worker, (version, sees) in client.run(_look, nonce).items():
            if version != VERSION:
                raise ClusterError(f"{worker}: expected mlpinfer {VERSION}, found {version}")
            if not sees:
                raise ClusterError(f"{worker}: expected to see {job.folder}, found nothing; share the folder")
    finally:
        os.unlink(nonce)


def _look(nonce: str) -> tuple[str, bool]:
    return VERSION, os.path.exists(nonce)


def _identity(predictor: Predictor) -> Predictor:
    return predictor


def _outcomes(
    client: Client, predictor: Predictor, tasks: list[Task], retries: int
) -> Iterator[tuple[Task, Receipt | str]]:
    """Yield every task with its receipt, or with what went wrong, as they are done."""
    run = uuid.uuid4().hex  # in every key: results of an earlier run are not taken for these
    # By submit and not by scatter: a worker that takes it along when it dies gets it computed again.
    travelling = client.submit(_identity, predictor, key=f"predictor-{run}", retries=retries)
    waiting, patience = iter(tasks), _Patience(client)
    running: dict[Future, Task] = {}
    while True:
        while len(running) < _WINDOW * patience.threads and (task := next(waiting, None)) is not None:
            future = client.submit(
                jobs.run_task, travelling, task, key=f"rows-{task.begin}-{run}", retries=retries
            )
            running[future] = task
        if not running:
            return
        for future in patience.wait(list(running)):
            yield running.pop(future), _outcome(future)
            future.release()


def _outcome(future: Future) -> Receipt | str:
    error = future.exception()
    if error is None:
        result: Receipt = future.result()
        return result
    return f"{type(error).__name__}: {ascii(str(error).partition(chr(10))[0])[1:-1][:200]}"


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
            raise ClusterError("the Dask scheduler does not answer any more; --resume goes on with another")
        if now - self._had_workers > _WORKER_SECONDS:
            raise ClusterError("no Dask worker is left; --resume goes on with others")
