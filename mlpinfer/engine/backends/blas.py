"""One process-wide guard that keeps BLAS at one thread while workers call it.

BLAS's own threads inside ours would only get in the way, and how it splits a product changes the
last bits of a result. `threadpoolctl.threadpool_limits` restores what it saw when it was made, so
two that overlap can leave a process at one thread for ever; this guard counts instead.

threadpoolctl finds the libraries. OpenBLAS is then called directly: newer releases of threadpoolctl
let one thread alone change its limit, so that the last out might not be able to restore it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """How to read and set the number of threads of one library; per process, or per thread."""

    get: Callable[[], int]
    set: Callable[[int], None]
    per_thread: bool


class SingleThreadedBlas:
    """A context manager, shared by all: the first in saves and sets, the last out restores.

    Every thread that calls BLAS enters, because an OpenBLAS built on OpenMP has a limit for each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: list[tuple[Limit, int]] = []
        self._mine = threading.local()
        self._libraries: list[Any] | None = None
        self._limits: list[Limit] | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin anew in a forked process: of all threads it has but one, which was not inside."""
        self._lock, self._inside, self._mine = threading.Lock(), 0, threading.local()
        _restore(self._saved)

    def libraries(self) -> list[Any]:
        """The BLAS libraries of this process, as threadpoolctl's controllers."""
        if self._libraries is None:
            from threadpoolctl import ThreadpoolController  # late: not needed to import mlpinfer

            self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        return self._libraries

    def limits(self) -> list[Limit]:
        """How to limit each of them."""
        if self._limits is None:
            self._limits = [_limit(library) for library in self.libraries()]
        return self._limits

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = _lower([limit for limit in self.limits() if not limit.per_thread])
            self._inside += 1
        own = [limit for limit in self.limits() if limit.per_thread]
        if own:
            stack = self._mine.__dict__.setdefault("stack", [])
            stack.append(_lower(own))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack = self._mine.__dict__.get("stack")
        if stack:
            _restore(stack.pop())
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _restore(self._saved)


def _lower(limits: list[Limit]) -> list[tuple[Limit, int]]:
    """Set every limit to one; return those that were another."""
    saved = [(limit, threads) for limit in limits if (threads := limit.get()) != 1]
    for limit, _ in saved:
        limit.set(1)
    return saved


def _restore(saved: list[tuple[Limit, int]]) -> None:
    for limit, threads in saved:
        limit.set(threads)


def _limit(library: Any) -> Limit:
    per_thread = getattr(library, "threading_layer", "") == "openmp"
    if library.internal_api == "openblas" and not per_thread:
        for affixes in ("{}", "scipy_{}", "scipy_{}64_", "{}64_", "{}_64"):
            get, set_ = (
                getattr(library.dynlib, affixes.format(f"openblas_{verb}_num_threads"), None)
                for verb in ("get", "set")
            )
            if get and set_:
                return Limit(get, set_, False)
    return Limit(library.get_num_threads, library.set_num_threads, per_thread)


#: The guard of this process.
single_threaded_blas = SingleThreadedBlas()
