"""Recognize, lock and remove the folders of predictions on disk.

A folder is known by a file in it, its mark, which says that mlpinfer made it. Nothing else is ever
overwritten or removed.
"""

from __future__ import annotations

import enum
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mlpinfer.errors import InputError
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import read_file

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SCHEMA = "mlpinfer.predictions/1"
#: The marks of the folder that a job runs in, and of a folder of predictions.
JOB_FILE, MANIFEST = "job.json", "manifest.json"


class Found(enum.Enum):
    """What is under the name of an output."""

    NOTHING = enum.auto()
    #: A file, of which nothing says what it holds; or a folder of predictions, or an empty one.
    PREDICTIONS = enum.auto()
    #: A folder of predictions that has files in it which mlpinfer has not put there.
    PREDICTIONS_AND_MORE = enum.auto()
    SOMETHING_ELSE = enum.auto()


def find_output(out: str, *, folder: bool) -> Found:
    """Return what is under the name of an output, which is to be a folder or a file."""
    if not os.path.lexists(out):
        return Found.NOTHING
    if not folder:
        return Found.PREDICTIONS if os.path.isfile(out) else Found.SOMETHING_ELSE
    manifest = _read_mark(out, MANIFEST)
    if manifest is None:
        return Found.SOMETHING_ELSE
    known, parts = {MANIFEST, JOB_FILE}, manifest.get("parts")
    for part in parts if isinstance(parts, list) else ():
        name = part.get("file") if isinstance(part, dict) else None
        if isinstance(name, str):
            # The file of its PartInfo is there too, until `mlpinfer.jobs.outputs.tidy` removes it.
            known |= {name, f"{name.removesuffix('.npy')}.json"}
    only_known = all(name in known or name.startswith(f".{MANIFEST}.") for name in os.listdir(out))
    return Found.PREDICTIONS if only_known else Found.PREDICTIONS_AND_MORE


def created_by_mlpinfer(folder: str, mark: str) -> bool:
    """Return True if the mark in a folder says that mlpinfer made it, and may remove it."""
    return _read_mark(folder, mark) is not None


def _read_mark(folder: str, mark: str) -> dict[str, Any] | None:
    """Return what the mark of a folder says, or None if the folder was not made by mlpinfer."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return None
    try:
        found = read_object(os.path.join(folder, mark))
    except FileNotFoundError:
        # A run may have been killed before it wrote the first file, or after it removed the last.
        return {} if all(entry.startswith(f".{mark}.") for entry in os.listdir(folder)) else None
    return found if found.get("schema") == SCHEMA else None


def remove(folder: str, mark: str) -> None:
    """Remove a folder that mlpinfer made, its mark last, so that what is left of it is still known."""
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
    """Return the JSON object in a regular file, or an empty one if there is anything else in it.

    Raises
    ------
    FileNotFoundError
    """
    with suppress(FormatError, ValueError, RecursionError):
        found = json.loads(read_file(path))
        if isinstance(found, dict):
            return found
    return {}


@contextmanager
def exclusive_lock(out: str) -> Iterator[None]:
    """Hold a lock, so that no other run writes the same output.

    Raises
    ------
    InputError
        If another run holds it.
    """
    path = os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.lock")
    flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock file may have been unlinked and recreated by another process, so compare inodes.
            alike = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            alike = False
        if not alike:
            raise InputError(f"{out}: expected no other run, found one that is writing it")
        try:
            yield
        finally:
            os.unlink(path)
