"""Wait for the futures of a Dask cluster, but not forever.

A scheduler that does not answer, or a cluster without workers, becomes a `ClusterError` within a bound
time; Dask itself would wait for it to come back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from mlpinfer.errors import ClusterError, DatasetError, MlpInferError
from mlpinfer.jobs.runner import RowSpan, T

if TYPE_CHECKING:
    from distributed import Client, Future

#: Seconds until a scheduler that does not answer is an error, and a cluster without workers.
SCHEDULER_SECONDS, WORKER_SECONDS = 10.0, 60.0
#: Seconds that the scheduler has to answer one question, and between two looks at what is done.
_ANSWER_SECONDS, _LOOK_SECONDS = 3.0, 0.02


class Failure(NamedTuple):
    """What became of a task that has no result."""

    text: str
    killed_worker: bool = False
    in_data: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error that a task raised or returned."""
        return cls(
            short(error),
            killed_worker=type(error).__name__ == "KilledWorker",
            in_data=isinstance(error, DatasetError),
        )


class Watchdog:
    """Waits for futures of a client, and asks the scheduler now and then which workers it has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked = self._answered = self._had_workers = time.monotonic()
        with translated("at the first task"):
            #: Threads of all workers, when the scheduler was last asked.
            self.threads = max(1, sum(client.nthreads().values()))

    def wait(self, running: dict[Future, T]) -> list[tuple[Future, Any]]:
        """Return those futures that are done, at least one, each with its result or its `Failure`.

        Raises
        ------
        ClusterError
            If the scheduler does not answer any more, or no worker is left.
        """
        while True:
            done = [(future, self._outcome(future)) for future in running if future.status != "pending"]
            done = [(future, outcome) for future, outcome in done if outcome is not None]
            if done:
                return done
            self._check(running)
            time.sleep(_LOOK_SECONDS)

    def _outcome(self, future: Future) -> Any:
        """Return the result of a future or its failure, or None if its worker has gone with it."""
        try:
            if future.status == "finished":
                found = future.result(timeout=_ANSWER_SECONDS)
                return Failure.of(found) if isinstance(found, MlpInferError) else found
            if future.status == "error":
                return Failure.of(future.exception(timeout=_ANSWER_SECONDS))
        except TimeoutError:
            return None
        except Exception as error:  # not the task's own, which `future.exception` returns
            if future.status in ("pending", "lost") or self._client.status != "running":
                return None
            return Failure(f"its result is lost ({short(error)})")
        # A lost one is computed again; and a client that has lost its scheduler cancels all of them.
        if future.status == "cancelled" and self._client.status == "running":
            return Failure("cancelled by the scheduler or by another client of it")
        return None

    def _check(self, running: dict[Future, T]) -> None:
        """Raise ClusterError if the scheduler or all workers have been gone for too long."""
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
        if now - self._answered > SCHEDULER_SECONDS or self._client.status == "closed":
            raise ClusterError("the Dask scheduler does not answer any more")
        if now - self._had_workers > WORKER_SECONDS:
            found = f"rows {name_rows(running.values())} were to be computed"
            raise ClusterError(f"no Dask worker is left; {found}, and may be what ended them")


@contextlib.contextmanager
def translated(when: str) -> Iterator[None]:
    """Raise ClusterError for whatever distributed raises if the scheduler is gone."""
    try:
        yield
    except (MlpInferError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ClusterError(f"the Dask scheduler does not answer any more {when} ({short(error)})") from None


def short(error: BaseException) -> str:
    """Return the type of an error and its first line, in ASCII."""
    return f"{type(error).__name__}: {ascii(str(error).partition(chr(10))[0])[1:-1][:200]}"


def name_rows(tasks: Iterable[RowSpan]) -> str:
    """Return the rows of some tasks as text, the first ten at most."""
    spans = [f"{task.begin} to {task.end}" for task in tasks]
    return ", ".join(spans[:10]) + (f" and {len(spans) - 10} more" if len(spans) > 10 else "")
