"""What is made of the parts of a job: one file of a format, or a folder of parts with a manifest."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.io.data.npy import map_npy
from mlpinfer.io.files import atomic_write, mode_of, move, set_mode
from mlpinfer.jobs.job_folder import PartInfo, is_whole, part_info_path
from mlpinfer.jobs.output_folder import JOB_FILE, MANIFEST, Found, find_output, remove
from mlpinfer.jobs.tasks import Job, Task

_PIECE_VALUES = 131_072
Array = npt.NDArray[Any]


def finish(job: Job, parts: Sequence[PartInfo]) -> None:
    """Make the output of all parts, whole or not at all, and remove the job's folder.

    A name that ends in .npy, .csv or .jsonl becomes one file; one without an end a folder of the parts and
    ``manifest.json``: the job's description, and the name, rows, size and CRC-32 of every part. In .csv
    and .jsonl, rows have the name of their file where there are images among them.

    Raises
    ------
    OSError
        If the output cannot be written; the parts stay.
    """
    for task, info in zip(job.tasks, parts, strict=True):
        if not is_whole(task.path, info):
            raise OSError(f"{task.path}: changed since it was written; resume (--resume) computes it again")
    if sum(info.rows for info in parts) != job.rows:
        raise OSError(
            f"{job.out}: expected {job.rows} rows, found parts of fewer; give overwrite (--overwrite)"
        )
    if job.to_folder:
        _finish_folder(job, parts)
        return
    encode = _FORMATS[os.path.splitext(job.out)[1]]
    whole = os.path.join(job.folder, "output")  # here, so that nothing is left elsewhere if it is killed
    with atomic_write(whole) as file:
        for chunk in encode(job, _PartReader(job)):
            file.write(chunk)
    set_mode(whole, mode_of(job.out))
    move(whole, job.out)
    remove(job.folder, JOB_FILE)


def _finish_folder(job: Job, parts: Sequence[PartInfo]) -> None:
    manifest = {**job.description, "parts": [info._asdict() for info in parts]}
    with atomic_write(os.path.join(job.folder, MANIFEST)) as file:
        file.write(json.dumps(manifest, indent=1).encode())
    ours = {JOB_FILE, MANIFEST, *(info.file for info in parts), *map(_part_info_name, job.tasks)}
    for name in os.listdir(job.folder):
        if name not in ours:  # of a run that was killed
            os.unlink(os.path.join(job.folder, name))
    # Somebody may have put something else there since the run began.
    if find_output(job.out, folder=True) not in (Found.NOTHING, Found.PREDICTIONS):
        raise OSError(
            f"{job.out}: expected predictions to replace, found something else; move it away, "
            "then resume (--resume)"
        )
    mode = mode_of(job.out)
    remove(job.out, MANIFEST)
    move(job.folder, job.out)
    tidy(job)
    set_mode(job.out, mode)


def tidy(job: Job) -> None:
    """Remove from an output what only the run needed: a run may have been killed before it did so."""
    for name in (JOB_FILE, *map(_part_info_name, job.tasks)) if job.to_folder else ():
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(job.out, name))


def _part_info_name(task: Task) -> str:
    return os.path.basename(part_info_path(task))


class _PartReader:
    """The values of all parts, in order, some rows at a time, and the number of the first of them."""

    def __init__(self, job: Job) -> None:
        self._paths = [task.path for task in job.tasks]
        first = map_npy(self._paths[0])
        self.dtype, self.shape = first.dtype, first.shape[1:]

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        first = 0
        for path in self._paths:
            part = map_npy(path)
            rows = max(1, _PIECE_VALUES // max(1, math.prod(part.shape[1:])))
            for at in range(0, len(part), rows):
                yield first + at, part[at : at + rows]
            first += len(part)


def _npy(job: Job, reader: _PartReader) -> Iterator[bytes]:
    header = io.BytesIO()
    described = {"descr": reader.dtype.str, "fortran_order": False, "shape": (job.rows, *reader.shape)}
    np.lib.format.write_array_header_1_0(header, described)
    yield header.getvalue()
    for _, piece in reader:
        yield piece.tobytes()


def _csv(job: Job, reader: _PartReader) -> Iterator[bytes]:
    file = ["file"] if job.names else []
    yield ",".join([*_columns(job, reader), *file]).encode() + b"\n"
    for first, piece in reader:
        rows = as_text(piece)
        text = io.StringIO()
        if job.names:
            rows = ([*row, _cell(job.names[i])] for i, row in enumerate(rows, first))
        text.writelines(",".join(row) + "\n" for row in rows)
        yield text.getvalue().encode(errors="backslashreplace")


def _cell(text: str) -> str:
    # The csv module of Python 3.11 would leave a carriage return bare.
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _jsonl(job: Job, reader: _PartReader) -> Iterator[bytes]:
    names = _columns(job, reader)
    name = names[0].partition("_")[0]
    for first, piece in reader:
        for i, row in enumerate(as_text(piece), first):
            values = [value if value.strip("-")[:1].isdigit() else "null" for value in row]  # no NaN in JSON
            text = f"[{', '.join(values)}]" if reader.shape else values[0]
            file = f', "file": {json.dumps(job.names[i])}' if job.names else ""
            yield f'{{"{name}": {text}{file}}}\n'.encode()


def _columns(job: Job, reader: _PartReader) -> list[str]:
    if not reader.shape:
        return ["label"]
    stem = {"labels": "value", "logits": "logit"}.get(job.description["values"], "proba")
    return [f"{stem}_{i}" for i in range(reader.shape[0])]


def as_text(values: Array) -> Iterator[list[str]]:
    """Yield the numbers of each row, with the digits that their dtype needs to be read back."""
    digits = {"f4": "{:.9g}", "f8": "{:.17g}"}.get(values.dtype.str[1:], "{}").format
    for row in values.reshape(len(values), -1).tolist():
        yield [digits(value) for value in row]


_FORMATS: dict[str, Callable[[Job, _PartReader], Iterator[bytes]]] = {
    ".npy": _npy,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
