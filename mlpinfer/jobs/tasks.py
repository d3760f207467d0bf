"""Cut the rows of a prediction into tasks that can be run anywhere, in any order, and again.

A job is its tasks and the file or folder that is made of their results. A task reads its rows, predicts,
and writes one part into the job's folder, ``OUT.partial`` (`mlpinfer.jobs.predict`);
`mlpinfer.jobs.outputs` makes the output of all parts. A part depends on nothing but the job, so a task
that ran twice does no harm, and a job that was killed can be resumed with the tasks that are missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mlpinfer._text import quoted
from mlpinfer._version import VERSION
from mlpinfer.engine.outputs import OUTPUTS
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import InputError
from mlpinfer.io.data.open import check_features
from mlpinfer.io.data.rows import Rows
from mlpinfer.io.data.source import DataSource, FilePart, OpenFiles, OpenSource, file_parts, open_source
from mlpinfer.jobs.output_folder import SCHEMA
from mlpinfer.model.checks import check_scaled

#: Default size of a task: the most rows, and the most bytes of the rows and results that take memory.
_MAX_TASK_ROWS = 1_000_000
_MAX_TASK_BYTES = 64 * 1024**2
_MAX_TASKS = 1_000_000
#: Ends of the names of files that an output may be; without any it is a folder.
SUFFIXES = (".npy", ".csv", ".jsonl")


class Task(NamedTuple):
    """Rows `begin` to `end` of all rows, and where their results go.

    Attributes
    ----------
    files : FilePart
        The files that the rows lie in.
    begin, end : int
    output : {"labels", "proba", "logits"}
        What is predicted.
    path : str
        The file of the part.
    """

    files: FilePart
    begin: int
    end: int
    output: str
    path: str


@dataclass(frozen=True)
class Job:
    """Tasks, in the order of their rows, and the file or folder that is made of their parts.

    Attributes
    ----------
    out : str
    tasks : tuple of Task
    description : dict
        All that the results depend on; a job is resumed only if it is the same.
    files : OpenFiles
        The inputs as they were opened to count their rows, for tasks that run in this process.
    names : sequence of str, or None
        For images, the file of each row.
    """

    out: str
    tasks: tuple[Task, ...]
    description: dict[str, Any]
    files: OpenFiles
    names: Sequence[str] | None = None

    @property
    def folder(self) -> str:
        """The folder that parts are written to."""
        return _job_folder(self.out)

    @property
    def to_folder(self) -> bool:
        """Whether the output is a folder of the parts, not one file."""
        return not os.path.splitext(self.out)[1]

    @property
    def rows(self) -> int:
        """The number of rows of all tasks."""
        return self.tasks[-1].end

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that are read."""
        return tuple(path for path, *_ in self.description["inputs"])


def _job_folder(out: str) -> str:
    return out + ".partial"


def split_job(
    predictor: Predictor,
    source: DataSource | OpenSource,
    out: str | os.PathLike[str],
    *,
    output: str = "labels",
    rows_per_task: int | None = None,
) -> Job:
    """Cut rows into tasks of whole batches, and return them as a job.

    Parameters
    ----------
    predictor : Predictor
    source : DataSource or OpenSource
        The inputs, which are opened here if they are not open yet.
    out : path
        What `mlpinfer.jobs.outputs.finish` makes: a file that ends in .npy, .csv or .jsonl, or a folder.
    output : {"labels", "proba", "logits"}
        What is predicted.
    rows_per_task : int, optional
        By default a million, or fewer if they would take more than 64 MiB of memory.

    Raises
    ------
    DatasetError
        If the inputs cannot be read, or do not fit the network.
    InputError
        If the network has no such output, no scale is known for bytes, or `out` could not be written or
        is one of the inputs.
    """
    out = check_out(os.fspath(out))
    opened = open_source(source) if isinstance(source, DataSource) else source
    rows = opened.rows
    check_fit(predictor, rows, output)
    folders = (f"{out}/", f"{_job_folder(out)}/")
    if any(f"{os.path.realpath(path)}/".startswith(folders) for path in opened.source.paths):
        raise InputError(f"{out}: expected another name than that of an input")
    rows_per_task, spans = cut(predictor, rows, output, rows_per_task)
    description = _describe(predictor, opened)
    description |= {"values": output, "rows_per_task": rows_per_task}
    # The parts of each job have names of their own, because a task of an earlier job may still be writing
    # into the same folder.
    mark = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:8]
    digits = len(str(len(spans) - 1))
    files = file_parts(opened, spans)
    tasks = tuple(
        Task(part, *span, output, os.path.join(_job_folder(out), f"part-{number:0{digits}}-{mark}.npy"))
        for number, (part, span) in enumerate(zip(files, spans, strict=True))
    )
    return Job(out, tasks, description, opened.files, rows.names)


def check_out(out: str) -> str:
    """Return the absolute name of an output, with links followed.

    Raises
    ------
    InputError
        If no output could be written under this name.
    """
    if not out.strip(os.sep) or out == "-":
        raise InputError(f"{out!a}: expected the name of a file or a folder to write")
    path = os.path.realpath(out)
    folder, suffix = os.path.dirname(path), os.path.splitext(path)[1]
    if suffix and suffix not in SUFFIXES:
        raise InputError(
            f"{out}: expected a file ending in {', '.join(SUFFIXES)}, or a folder, found {suffix}"
        )
    if not os.path.isdir(folder):
        raise InputError(f"{out}: expected a folder {folder} to write in, found none")
    if os.path.ismount(path):
        raise InputError(f"{out}: expected a folder to replace, found a mount point; name one in it")
    return path


def check_fit(predictor: Predictor, rows: Rows, output: str) -> None:
    """Raise an error unless the predictor can compute an output of rows.

    Raises
    ------
    DatasetError
        If the rows cannot be read, or do not fit the network.
    InputError
        If the network has no such output, or no scale is known for bytes.
    """
    if output not in OUTPUTS:
        raise InputError(f"values: expected {', '.join(OUTPUTS)}, found {quoted(output)}")
    if output == "proba" and not predictor.network.is_classifier:
        raise InputError(
            "values: expected labels for an identity head, which has no probabilities, found proba"
        )
    check_features(rows.name, rows.shape, predictor.n_features_in_)
    check_scaled(rows.read(0, 1).dtype, predictor.scale, f"{rows.name}: ")


def cut(
    predictor: Predictor, rows: Rows, output: str, rows_per_task: int | None = None
) -> tuple[int, list[tuple[int, int]]]:
    """Return how many rows a task has, whole batches, and where each task begins and ends.

    Raises
    ------
    InputError
        If there would be too many tasks.
    """
    if rows_per_task is None:
        one = output == "labels" and predictor.network.is_classifier
        out_bytes = 8 * (1 if one else max(2, predictor.network.sizes[-1]))
        in_bytes = 0 if rows.mapped else 8 * predictor.n_features_in_
        rows_per_task = min(_MAX_TASK_ROWS, _MAX_TASK_BYTES // (in_bytes + out_bytes))
    unit = max(1, rows_per_task // predictor.batch_size) * predictor.batch_size
    n_tasks = rows.samples // unit + len(rows.breaks)
    if n_tasks > _MAX_TASKS:
        raise InputError(
            f"rows_per_task: expected at most {_MAX_TASKS} tasks, found {n_tasks}; give more rows"
        )
    # Tasks end where files end, so that mapped rows need not be copied to be contiguous.
    files = itertools.pairwise((0, *rows.breaks, rows.samples))
    return unit, [(at, min(at + unit, end)) for begin, end in files for at in range(begin, end, unit)]


def _describe(predictor: Predictor, opened: OpenSource) -> dict[str, Any]:
    source, stamps = opened.source, opened.stamps
    return {
        "schema": SCHEMA,
        "mlpinfer": VERSION,
        "numpy": np.__version__,
        "network": predictor.network.sha256,
        "inputs": [[path, *stamp] for path, stamp in zip(source.paths, stamps, strict=True)],
        "reading": dataclasses.asdict(source.options),
        "rows": opened.rows.samples,
        "scale": predictor.scale,
        "threshold": predictor.threshold,
        "precision": predictor.precision,
        "backend": predictor.backend.name,
        "evaluator": predictor.evaluator,
        "batch_size": predictor.batch_size,
    }
