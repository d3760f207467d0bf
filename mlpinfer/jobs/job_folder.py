"""The state of a job on disk: the folder of its parts, which of them are whole, and whether it is done."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from mlpinfer.errors import InputError
from mlpinfer.io.files import atomic_write, mode_of
from mlpinfer.jobs.output_folder import (
    JOB_FILE,
    MANIFEST,
    Found,
    created_by_mlpinfer,
    find_output,
    read_object,
    remove,
)
from mlpinfer.jobs.tasks import Job, Task


class PartInfo(NamedTuple):
    """A part that was written: its name, its rows, and the size and CRC-32 of its file."""

    file: str
    rows: int
    bytes: int
    crc32: int


def part_info_path(task: Task) -> str:
    """Return the file that a task's `PartInfo` is written to, as JSON."""
    return task.path.removesuffix(".npy") + ".json"


def is_whole(path: str, info: PartInfo) -> bool:
    """Return True if the file of a part has the size and CRC-32 that its `PartInfo` says."""
    if os.path.getsize(path) != info.bytes:
        return False
    data = np.memmap(path, np.uint8, "r")
    return zlib.crc32(data.data) == info.crc32


def begin_job(job: Job, *, resume: bool = False, overwrite: bool = False) -> dict[Task, PartInfo]:
    """Make the job's folder, or find the one of an earlier run, and return the parts that are whole.

    Parameters
    ----------
    job : Job
    resume : bool
        Keep the parts that an earlier run of the same job has written.
    overwrite : bool
        Begin anew, whatever is there; the old output stays until the new one is whole.

    Raises
    ------
    InputError
        If an output or an unfinished run is there and neither was asked for, or the unfinished run is
        of another job.
    """
    plan = os.path.join(job.folder, JOB_FILE)
    if os.path.lexists(job.folder) and not created_by_mlpinfer(job.folder, JOB_FILE):
        raise InputError(f"{job.folder}: expected a free name, found something else; move it away")
    begun = os.path.exists(plan) and any(name.startswith("part-") for name in os.listdir(job.folder))
    if begun and resume:
        _check_same(job, plan)
        return _whole_parts(job)
    if begun and not overwrite:
        raise InputError(
            f"{job.folder}: an unfinished run is there; give resume (--resume) or overwrite (--overwrite)"
        )
    found = find_output(job.out, folder=job.to_folder)
    if found not in (Found.NOTHING, Found.PREDICTIONS):
        raise InputError(f"{job.out}: expected a free name, found something else; move it away")
    is_empty_folder = job.to_folder and found is Found.PREDICTIONS and not os.listdir(job.out)
    if found is Found.PREDICTIONS and not overwrite and not is_empty_folder:
        raise InputError(f"{job.out}: expected a free name, found something; give overwrite (--overwrite)")
    remove(job.folder, JOB_FILE)
    os.mkdir(job.folder, _folder_mode(job.out))
    with atomic_write(plan) as file:
        file.write(json.dumps(job.description, indent=1).encode())
    return {}


def is_done(job: Job) -> bool:
    """Return True if the output of a job is there, and no unfinished run of it.

    A folder says what it was made of; a file is not compared with the job.

    Raises
    ------
    InputError
        If the output is of another job, or no output.
    """
    found = find_output(job.out, folder=job.to_folder)
    if found is Found.NOTHING or os.path.lexists(job.folder):
        return False
    if found is Found.SOMETHING_ELSE:
        raise InputError(f"{job.out}: expected predictions, found something else; move it away")
    manifest = os.path.join(job.out, MANIFEST)
    if job.to_folder and os.path.exists(manifest):
        _check_same(job, manifest)
    return not job.to_folder or os.path.exists(manifest)


def _folder_mode(out: str) -> int:
    """Return the mode of a job's folder, which no more users may read than the output that is there."""
    mode = mode_of(out)
    if mode is None:
        return 0o777
    return mode | (mode & 0o444) >> 2 | 0o700


def _check_same(job: Job, plan: str) -> None:
    """Raise InputError if the job whose description is in the file `plan` is another."""
    before = read_object(plan)
    for key, now in json.loads(json.dumps(job.description)).items():
        if before.get(key) != now:
            found = f"{ascii(before.get(key))[:60]}, found {ascii(now)[:60]}"
            raise InputError(
                f"resume: expected {key} as it was, {found}; "
                "give it so, or overwrite (--overwrite) to begin anew"
            )


def _whole_parts(job: Job) -> dict[Task, PartInfo]:
    done = {}
    for task in job.tasks:
        # Whatever is wrong with a part or its PartInfo, the task is run again.
        with suppress(OSError, ValueError, TypeError):
            info = PartInfo(**read_object(part_info_path(task)))
            if info.file == os.path.basename(task.path) and is_whole(task.path, info):
                done[task] = info
    return done
