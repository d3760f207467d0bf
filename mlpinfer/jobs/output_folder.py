"""Folders and outputs of predictions on disk: whose they are, who is at them, how they are removed.

A folder is known by a file in it, its mark, that says that it was made here: nothing else is ever
overwritten or removed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mlpinfer.errors import DatasetError, InputError
from mlpinfer.io.files import read_file

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SCHEMA = "mlpinfer.predictions/1"
#: Marks: of a folder that a job is run in, and of a folder of predictions.
PLAN, MANIFEST = "job.json", "manifest.json"


def created_by_mlpinfer(folder: str, mark: str) -> bool:
    """Tell whether a folder's mark says that it was made here, and may be removed here."""
    return _read_mark(folder, mark) is not None


def is_predictions(folder: str) -> bool:
    """Tell whether a folder was made here and has nothing in it but what was put there then."""
    manifest = _read_mark(folder, MANIFEST)
    if manifest is None:
        return False
    known, parts = {MANIFEST, PLAN}, manifest.get("parts")
    for part in parts if isinstance(parts, list) else ():
        name = part.get("file") if isinstance(part, dict) else None
        if isinstance(name, str):  # and its PartInfo, until it is removed
            known |= {name, f"{name.removesuffix('.npy')}.json"}
    return all(name in known or name.startswith(f".{MANIFEST}.") for name in os.listdir(folder))


def _read_mark(folder: str, mark: str) -> dict[str, Any] | None:
    """Return what the mark of a folder says, None where it was not made here."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return None
    try:
        found = read_object(os.path.join(folder, mark))
    except FileNotFoundError:
        # Killed before its first file was written, or behind the removal of its last.
        return {} if all(entry.startswith(f".{mark}.") for entry in os.listdir(folder)) else None
    return found if found.get("schema") == SCHEMA else None


def remove(folder: str, mark: str) -> None:
    """Remove a folder that was made here, its mark last: as long as anything is left, it is known."""
    if not os.path.isdir(folder):
        return
    while True:
        for name in sorted(os.listdir(folder), key=lambda name: name == mark):
            os.unlink(os.path.join(folder, name))
        try:
            os.rmdir(folder)
            return
        except OSError as error:
            # A task of a run that is gone may still write here.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def read_object(path: str) -> dict[str, Any]:
    """Return the JSON object in a regular file; an empty one where it is anything else.

    Raises
    ------
    FileNotFoundError
    """
    with suppress(DatasetError, ValueError, RecursionError):
        found = json.loads(read_file(path, DatasetError))
        if isinstance(found, dict):
            return found
    return {}


@contextmanager
def exclusive_lock(out: str) -> Iterator[None]:
    """Keep every other run of the same output away: two would write each other's parts.

    Raises
    ------
    InputError
        If another run is at it.
    """
    path = os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.lock")
    flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Or the other run has just ended and taken its lock away, and a third has made another.
            alike = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            alike = False
        if not alike:
            raise InputError(f"{out}: expected no other run, found one that is writing it")
        try:
            yield
        finally:
            os.unlink(path)
