"""`mlpinfer`, and `python -m mlpinfer`: the command line as a process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from mlpinfer.cli import signals


def run() -> NoReturn:
    """Be the process: run the command line and leave at once.

    All output is flushed by then. What the interpreter would still do is free memory, module by
    module, which takes longer than reading the test set does; the system frees it all the same.
    """
    code = 1
    try:
        signals.catch()  # first: the imports take longer than many a command
        _open_streams()
        from mlpinfer.cli.app import main

        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except signals.Stopped as stopped:
        code = 128 + stopped.number
        _say(str(stopped))
    except MemoryError:  # of the imports
        _say("out of memory: nothing was left")
    finally:
        signals.ignore()
        atexit._run_exitfuncs()  # matplotlib has a folder to remove
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"mlpinfer: {text}\n")


def _open_streams() -> None:
    """Open the streams that the parent has closed: a file would get their numbers, and what is printed."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free
    # What is printed there shall be an error, as it is for a full disk; nobody waits for a note.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    run()
