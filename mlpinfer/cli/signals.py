"""Signals that end a command: each becomes one line and an exit code, and what was begun is taken back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

#: What stops a command, and what is said of it. SIGTERM last: where it is caught, all are.
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # the terminal is gone
    STOPS = {signal.SIGHUP: "hung up", **STOPS}
#: Data refused.
_BUS_ERROR_CODE = 5
_BUS_ERROR = b"mlpinfer: a data file was cut short while it was read, or cannot be read; try again\n"
_kept: list[Any] = []
#: Filled when the process is the command's: nobody else's handlers are touched.
_stopped: list[Stopped | None] = []


class Stopped(BaseException):
    """A signal that stops the command; no `Exception`, so that nothing but the end of it takes it.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(STOPS[signal.Signals(number)])


def stopped() -> Stopped | None:
    """Return the stop that came, if any: what it interrupts may make another error of it, or lose it."""
    return _stopped[-1] if _stopped else None


def ignore() -> None:
    """Ignore what comes from now on: the command is done, and its exit code known."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def catch() -> None:
    """Raise `Stopped` where a signal comes; one that the parent has set to be ignored stays so.

    A second signal ends the process at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOPS:
            signal.signal(each, signal.SIG_DFL)
        _stopped.append(Stopped(number))
        raise _stopped[-1]  # type: ignore[misc]

    _stopped.append(None)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def explain_bus_error() -> None:
    """End with a line, and not by the signal, where a mapped file has become shorter than it was.

    Only jobs map files: of a small network, one that read its rows instead would be a fifth slower. The
    system has no other word for a file that is cut short. Python's own handlers would return to the
    access that failed; so this is one of C. It interrupts nothing but a read of mapped rows, and may call
    what it likes. What another thread is writing is cut off: of a job, a part that it will not take for
    whole.
    """
    if sys.platform == "win32" or not _stopped:
        return
    import ctypes

    first = threading.Lock()

    def end(number: int) -> None:
        first.acquire()  # for ever: threads that meet the same have nothing to add
        os.write(2, _BUS_ERROR)
        os._exit(_BUS_ERROR_CODE)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    _kept.append(handler)  # as long as it may be called
