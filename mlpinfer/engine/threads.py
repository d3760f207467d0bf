"""Threads that share one call's work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


def run_all(run: Callable[[Any, list[BaseException]], None], shares: list[Any]) -> None:
    """Call `run` on every share, each in its own thread but the first, which is the caller's.

    Threads are started for the call and joined before it ends, so that nothing is left for a fork,
    a pickle or an interpreter's end to trip over. The first error stops all, and is raised: `run`
    is given the list of errors and must end once it is not empty.
    """
    errors: list[BaseException] = []

    def guarded(share: Any) -> None:
        try:
            with np.errstate(**errstate):
                run(share, errors)
        except BaseException as error:
            errors.append(error)

    errstate: Any = {**np.geterr(), "call": np.geterrcall()}  # the caller's; a thread has its own
    threads = [threading.Thread(target=guarded, args=(share,)) for share in shares[1:]]
    try:
        for thread in threads:
            thread.start()
        run(shares[0], errors)
    except BaseException as error:  # Ctrl-C too: the others must end before their caller goes on
        errors.insert(0, error)
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # their tracebacks hold this frame, and this frame would hold them
