"""Run the tasks of a job: read rows, predict, and write parts."""

from __future__ import annotations

import functools
import io
import json
import os
import zlib
from collections.abc import Callable
from contextlib import closing

import numpy as np

from mlpinfer.engine.predictor import Predictor
from mlpinfer.io.data.source import OpenFiles
from mlpinfer.io.files import atomic_write
from mlpinfer.jobs.job_folder import PartInfo, begin_job, part_info_path
from mlpinfer.jobs.runner import LocalRunner, Runner, TwoSteps
from mlpinfer.jobs.tasks import Job, Task
from mlpinfer.model.ops import Array


def run_task(predictor: Predictor, task: Task, files: OpenFiles | None = None) -> PartInfo:
    """Read the rows of a task, predict, and write its part. A function for any engine.

    Parameters
    ----------
    predictor : Predictor
    task : Task
    files : OpenFiles, optional
        Where inputs stay open from one task to the next.

    Raises
    ------
    DatasetError
        If the rows cannot be read.
    OSError
        If the part cannot be written.
    """
    return write_part(task, compute(predictor, task, files))


def compute(predictor: Predictor, task: Task, files: OpenFiles | None = None) -> Array:
    """Read the rows of a task and return their labels, probabilities or logits; errors as `run_task`."""
    x = task.files.read(task.begin, task.end, files)
    y = predictor.compute(x.reshape(len(x), -1), task.output)
    task.files.check()
    return y


def write_part(task: Task, y: Array) -> PartInfo:
    """Write the part of a task and its `PartInfo`, each whole or not at all; errors as `run_task`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(y))
    pieces = (header.getvalue(), np.ascontiguousarray(y).data)
    crc = zlib.crc32(pieces[1], zlib.crc32(pieces[0]))
    with atomic_write(task.path) as file:
        for piece in pieces:
            file.write(piece)
        info = PartInfo(file=os.path.basename(task.path), rows=len(y), bytes=file.tell(), crc32=crc)
    with atomic_write(part_info_path(task)) as file:
        file.write(json.dumps(info._asdict()).encode())
    return info


def run_job(
    predictor: Predictor,
    job: Job,
    *,
    runner: Runner | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[PartInfo]:
    """Run the tasks of a job that are missing, and return the `PartInfo` of all tasks, in their order.

    Parameters
    ----------
    predictor : Predictor
    job : Job
    runner : Runner, optional
        Where the tasks run. By default in this process, where one part is written while the next is
        computed.
    resume, overwrite : bool
        As for `mlpinfer.jobs.job_folder.begin_job`.
    progress : callable
        Is told the rows of every task that is done, first those of an earlier run.

    Raises
    ------
    InputError
        As `mlpinfer.jobs.job_folder.begin_job`.
    DatasetError, OSError
        As `run_task`; the parts that are written stay, and a later run can resume.
    ClusterError
        As the runner.
    """
    runner = LocalRunner() if runner is None else runner
    done = begin_job(job, resume=resume, overwrite=overwrite)
    for info in done.values():
        progress(info.rows)
    missing = [task for task in job.tasks if task not in done]
    function = TwoSteps(functools.partial(compute, files=job.files), write_part)
    results = runner.run(predictor, missing, function, reads=job.paths, writes_to=job.folder)
    # Closed here, so that a part that is being written is whole whatever stops the run.
    with closing(results):
        for task, info in results:
            done[task] = info
            progress(info.rows)
    return [done[task] for task in job.tasks]
