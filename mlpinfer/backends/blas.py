"""One process-wide guard that keeps BLAS at one thread while workers call it.

BLAS's own threads inside ours would only get in the way, and how it splits a product changes the
last bits of a result. `threadpoolctl.threadpool_limits` restores what it saw when it was made, so
two that overlap can leave a process at one thread for ever; this guard counts instead.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any


class SingleThreadedBlas:
    """A context manager, shared by all: the first in saves and sets, the last out restores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: list[tuple[Any, int]] = []
        self._libraries: list[Any] | None = None

    def libraries(self) -> list[Any]:
        """The BLAS libraries of this process, as threadpoolctl's controllers."""
        if self._libraries is None:
            from threadpoolctl import ThreadpoolController  # late: not needed to import mlpinfer

            self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        return self._libraries

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = [(library, library.get_num_threads()) for library in self.libraries()]
                for library, threads in self._saved:
                    if threads != 1:
                        library.set_num_threads(1)
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, threads in self._saved:
                    if threads != 1:
                        library.set_num_threads(threads)


#: The guard of this process.
single_threaded_blas = SingleThreadedBlas()
