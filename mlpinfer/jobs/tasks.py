"""Predictions of more rows than memory holds: tasks that can be run anywhere, in any order, and again.

A job cuts its rows into tasks. A task reads its rows, predicts, and writes one part into the job's
folder, ``OUT.partial``; `mlpinfer.jobs.outputs` makes the output of all parts. Parts appear whole or not
at all and depend on nothing but the job, so that a task which ran twice does no harm, and a job that
was killed goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import stat
import zlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mlpinfer._text import quoted
from mlpinfer._version import VERSION
from mlpinfer.engine.predictor import VALUES, Predictor, check_scaled
from mlpinfer.errors import InputError
from mlpinfer.io.data.open import check_features
from mlpinfer.io.data.rows import Rows
from mlpinfer.io.data.source import FilePart, Inputs, Stamp, file_parts
from mlpinfer.io.files import write_whole
from mlpinfer.jobs.output_folder import MANIFEST, PLAN, SCHEMA, is_ours, is_predictions, read_object, remove
from mlpinfer.model.ops import Array

#: Rows of a task, where they lie in a mapped file; and bytes of them where they take memory.
_TASK_ROWS = 1_000_000
_TASK_BYTES = 64 * 1024**2
_MOST_TASKS = 1_000_000
#: Ends of the names of files that an output may be; without any it is a folder.
SUFFIXES = (".npy", ".csv", ".jsonl")


class Task(NamedTuple):
    """Rows `begin` to `end` of all, the files they lie in, and the file their values go to."""

    files: FilePart
    begin: int
    end: int
    values: str
    path: str


class Receipt(NamedTuple):
    """That a part was written: its name, rows, and the size and CRC-32 of the file."""

    file: str
    rows: int
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Job:
    """Tasks, in the order of their rows, and the output that is made of their parts.

    Attributes
    ----------
    out : str
    tasks : tuple of Task
    description : dict
        All that the values depend on; a job goes on only where it is the same.
    names : sequence of str, or None
        Of images, the file of each row.
    """

    out: str
    tasks: tuple[Task, ...]
    description: dict[str, Any]
    names: Sequence[str] | None = None

    @property
    def folder(self) -> str:
        """Where parts are written."""
        return _folder(self.out)

    @property
    def to_folder(self) -> bool:
        """Whether the output is a folder of the parts, not one file."""
        return not os.path.splitext(self.out)[1]

    @property
    def rows(self) -> int:
        """Rows of all tasks."""
        return self.tasks[-1].end

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that are read."""
        return tuple(path for path, *_ in self.description["inputs"])


def _folder(out: str) -> str:
    return out + ".partial"


def split_job(
    predictor: Predictor,
    inputs: Inputs,
    out: str | os.PathLike[str],
    values: str = "labels",
    rows_per_task: int | None = None,
) -> Job:
    """Cut rows into tasks, at the ends of batches.

    Parameters
    ----------
    predictor : Predictor
    inputs : Inputs
    out : path
        What `mlpinfer.jobs.outputs.finish` makes: a file that ends in .npy, .csv or .jsonl, or a folder.
    values : {"labels", "proba", "logits"}
    rows_per_task : int, optional
        Otherwise a million, or fewer where they would take more than 64 MiB of memory.

    Raises
    ------
    DatasetError
        If the inputs cannot be read, or do not fit the network.
    InputError
        If it has no such values, no scale is known for bytes, or the output could not be written or is
        one of the inputs.
    """
    inputs, out = inputs.resolve(), check_out(os.fspath(out))
    stamps = inputs.stamps()
    rows = check_inputs(predictor, inputs, values)
    if any(f"{os.path.realpath(path)}/".startswith((f"{out}/", f"{_folder(out)}/")) for path in inputs.paths):
        raise InputError(f"{out}: expected another name than that of an input")
    unit, spans = cut(predictor, rows, values, rows_per_task)
    description = _describe(predictor, inputs, stamps, rows) | {"values": values, "rows_per_task": unit}
    # Parts of another job have other names: one that is still written somewhere is not taken for ours.
    mark = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:8]
    digits = len(str(len(spans) - 1))
    tasks = tuple(
        Task(files, *span, values, os.path.join(_folder(out), f"part-{number:0{digits}}-{mark}.npy"))
        for number, (files, span) in enumerate(
            zip(file_parts(inputs, stamps, rows, spans), spans, strict=True)
        )
    )
    return Job(out, tasks, description, rows.names)


def check_out(out: str) -> str:
    """Return the absolute name of an output, links followed; refuse what could not be written.

    Raises
    ------
    InputError
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


def cut(
    predictor: Predictor, rows: Rows, values: str, rows_per_task: int | None = None
) -> tuple[int, list[tuple[int, int]]]:
    """Return how many rows a task has, whole batches, and where each begins and ends."""
    if rows_per_task is None:
        one = values == "labels" and predictor.network.head != "identity"
        out_bytes = 8 * (1 if one else max(2, predictor.network.sizes[-1]))
        in_bytes = 0 if rows.mapped else 8 * predictor.n_features_in_
        rows_per_task = min(_TASK_ROWS, _TASK_BYTES // (in_bytes + out_bytes))
    unit = max(1, rows_per_task // predictor.batch_size) * predictor.batch_size
    tasks = rows.samples // unit + len(rows.breaks)
    if tasks > _MOST_TASKS:
        raise InputError(
            f"rows_per_task: expected at most {_MOST_TASKS} tasks, found {tasks}; give more rows"
        )
    # Tasks end where files end, so that mapped rows need not be copied to stand together.
    files = itertools.pairwise((0, *rows.breaks, rows.samples))
    return unit, [(at, min(at + unit, end)) for begin, end in files for at in range(begin, end, unit)]


def check_inputs(predictor: Predictor, inputs: Inputs, values: str) -> Rows:
    """Open the inputs and see that they fit; errors as `split_job`."""
    if values not in VALUES:
        raise InputError(f"values: expected {', '.join(VALUES)}, found {quoted(values)}")
    if values == "proba" and predictor.network.head == "identity":
        raise InputError(
            "values: expected labels for an identity head, which has no probabilities, found proba"
        )
    rows = inputs.open()
    check_features(rows.name, rows.shape, predictor.n_features_in_)
    check_scaled(rows.read(0, 1).dtype, predictor.scale, f"{rows.name}: ")
    return rows


def _describe(predictor: Predictor, inputs: Inputs, stamps: tuple[Stamp, ...], rows: Rows) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "mlpinfer": VERSION,
        "numpy": np.__version__,
        "network": predictor.network.sha256,
        "inputs": [[path, *stamp] for path, stamp in zip(inputs.paths, stamps, strict=True)],
        "reading": inputs.how(),
        "rows": rows.samples,
        "scale": predictor.scale,
        "threshold": predictor.threshold,
        "precision": predictor.precision,
        "backend": predictor.backend.name,
        "evaluator": predictor.evaluator,
        "batch_size": predictor.batch_size,
    }


def run_task(predictor: Predictor, task: Task) -> Receipt:
    """Read the rows of a task, predict, and write its part. A function for any engine.

    Raises
    ------
    DatasetError
        If the rows cannot be read.
    OSError
        If the part cannot be written.
    """
    return write_part(task, compute(predictor, task))


def compute(predictor: Predictor, task: Task) -> Array:
    """Read the rows of a task and return their values; errors as `run_task`."""
    x = task.files.read(task.begin, task.end)
    y = getattr(predictor, VALUES[task.values])(x.reshape(len(x), -1))
    task.files.check()
    return y


def write_part(task: Task, y: Array) -> Receipt:
    """Write the part of a task; errors as `run_task`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(y))
    parts = (header.getvalue(), np.ascontiguousarray(y).data)
    crc = zlib.crc32(parts[1], zlib.crc32(parts[0]))
    with write_whole(task.path) as file:
        for part in parts:
            file.write(part)
        receipt = Receipt(os.path.basename(task.path), len(y), file.tell(), crc)
    with write_whole(receipt_path(task)) as file:
        file.write(json.dumps(receipt._asdict()).encode())
    return receipt


def receipt_path(task: Task) -> str:
    """Return the file of a task's receipt."""
    return task.path.removesuffix(".npy") + ".json"


def run_job(
    predictor: Predictor,
    job: Job,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Receipt]:
    """Run the tasks of a job that are missing, and return all receipts.

    While a part is written, the next is computed.

    Parameters
    ----------
    predictor : Predictor
    job : Job
    resume : bool
        Go on with what an earlier run of the same job has left.
    overwrite : bool
        Begin anew, whatever is there; the old output stays until the new one is whole.
    progress : callable
        Is told the rows of every task that is done, those of an earlier run too.

    Raises
    ------
    InputError
        If an output or an unfinished run is there and neither was asked for, or the unfinished run is
        of another job.
    DatasetError, OSError
        As `run_task`; what is done stays, for a later run to go on with.
    """
    done = begin(job, resume, overwrite)
    receipts = []
    with closing(_run(predictor, job.tasks, done)) as run:  # whatever stops it, a part that is begun is ended
        for receipt in run:
            receipts.append(receipt)
            progress(receipt.rows)
    return receipts


def _run(
    predictor: Predictor, tasks: Sequence[Task], done: dict[Task, Receipt]
) -> Generator[Receipt, None, None]:
    before: Future[Receipt] | None = None
    part: Future[Receipt] | None = None
    writer = ThreadPoolExecutor(1)
    try:
        for task in tasks:
            part = None if task in done else writer.submit(write_part, task, compute(predictor, task))
            if before:
                yield before.result()
            before = part
            if task in done:
                yield done[task]
        if before:
            yield before.result()
    finally:
        try:
            writer.shutdown()
        except BaseException:  # stopped just here; Python 3.11 takes a join that was interrupted for ended
            wait([future for future in (before, part) if future])
            raise


def begin(job: Job, resume: bool = False, overwrite: bool = False) -> dict[Task, Receipt]:
    """Make the job's folder, or find what an earlier run has left in it: the receipts of whole parts.

    Raises
    ------
    InputError
        As `run_job`.
    """
    plan = os.path.join(job.folder, PLAN)
    if os.path.lexists(job.folder) and not is_ours(job.folder, PLAN):
        raise InputError(f"{job.folder}: expected a free name, found something else; move it away")
    begun = os.path.exists(plan) and any(name.startswith("part-") for name in os.listdir(job.folder))
    if begun and resume:
        _check_same(job, plan)
        return _receipts(job)
    if begun and not overwrite:
        raise InputError(
            f"{job.folder}: an unfinished run is there; give resume (--resume) or overwrite (--overwrite)"
        )
    if os.path.lexists(job.out):
        if not _is_output(job):
            raise InputError(f"{job.out}: expected a free name, found something else; move it away")
        if not overwrite and not (job.to_folder and not os.listdir(job.out)):
            raise InputError(
                f"{job.out}: expected a free name, found something; give overwrite (--overwrite)"
            )
    remove(job.folder, PLAN)
    os.mkdir(job.folder, _mode(job.out))
    with write_whole(plan) as file:
        file.write(json.dumps(job.description, indent=1).encode())
    return {}


def _mode(out: str) -> int:
    """Mode of a folder that no more may read than the output that is there."""
    if not os.path.exists(out):
        return 0o777
    mode = stat.S_IMODE(os.stat(out).st_mode)
    return mode | (mode & 0o444) >> 2 | 0o700


def is_done(job: Job) -> bool:
    """Tell whether the output of a job is there, and no unfinished run of it.

    A folder says what it was made of; a file is not compared with the job.

    Raises
    ------
    InputError
        If the output is of another job, or no output.
    """
    if not os.path.lexists(job.out) or os.path.lexists(job.folder):
        return False
    if not (is_ours(job.out, MANIFEST) if job.to_folder else os.path.isfile(job.out)):
        raise InputError(f"{job.out}: expected predictions, found something else; move it away")
    manifest = os.path.join(job.out, MANIFEST)
    if job.to_folder and os.path.exists(manifest):
        _check_same(job, manifest)
    return not job.to_folder or os.path.exists(manifest)


def _is_output(job: Job) -> bool:
    return is_predictions(job.out) if job.to_folder else os.path.isfile(job.out)


def _check_same(job: Job, plan: str) -> None:
    before = read_object(plan)
    for key, now in json.loads(json.dumps(job.description)).items():
        if before.get(key) != now:
            found = f"{ascii(before.get(key))[:60]}, found {ascii(now)[:60]}"
            raise InputError(
                f"resume: expected {key} as it was, {found}; "
                "give it so, or overwrite (--overwrite) to begin anew"
            )


def _receipts(job: Job) -> dict[Task, Receipt]:
    done = {}
    for task in job.tasks:
        # Whatever is wrong with a part or its receipt: the task is run again.
        with suppress(OSError, ValueError, TypeError):
            receipt = Receipt(**read_object(receipt_path(task)))
            if receipt.file == os.path.basename(task.path) and is_whole(task.path, receipt):
                done[task] = receipt
    return done


def is_whole(path: str, receipt: Receipt) -> bool:
    """Tell whether a part is as its receipt says."""
    if os.path.getsize(path) != receipt.bytes:
        return False
    data = np.memmap(path, np.uint8, "r")
    return zlib.crc32(data.data) == receipt.crc32
