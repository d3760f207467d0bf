"""`mlpinfer predict`: labels, probabilities or logits of rows in files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from mlpinfer.cli import options

if TYPE_CHECKING:
    from mlpinfer.jobs import Inputs
    from mlpinfer.predictor import Predictor


@click.command("predict", short_help="Predict labels, probabilities or logits of rows in files.")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="PATH",
    help="A file that ends in .npy, .csv or .jsonl, or a folder.  [default: a line a row on stdout]",
)
@click.option(
    "--values",
    type=click.Choice(["labels", "proba", "logits"]),
    default="labels",
    show_default=True,
    help="What is predicted.",
)
@options.weights
@options.network
@options.label_column
@options.invert
@options.scale
@options.batch_size
@options.device
@options.threads
@options.precision
@options.threshold
@click.option("--rows-per-task", type=click.IntRange(1), help="Rows of a part.  [default: up to a million]")
@click.option("--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler, tcp://HOST:PORT.")
@click.option("--dask-scheduler-file", metavar="FILE", help="The same, by the file that it writes.")
@click.option(
    "--min-workers", type=click.IntRange(1), default=1, show_default=True, help="Dask workers to wait for."
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often Dask tries a task again.",
)
@click.option("--resume", is_flag=True, help="Go on with what an earlier run has left.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever is there.")
def command(
    inputs: tuple[str, ...],
    out: str | None,
    values: str,
    weights: str | None,
    hidden: str | None,
    head: str | None,
    layout: str | None,
    label_column: str | None,
    invert: bool,
    scale: float | None,
    batch_size: int,
    device: str,
    threads: int | None,
    precision: str,
    threshold: float,
    rows_per_task: int | None,
    dask: str | None,
    dask_scheduler_file: str | None,
    min_workers: int,
    retries: int,
    resume: bool,
    overwrite: bool,
) -> None:
    """Predict labels, probabilities or logits of the rows in INPUTS.

    INPUTS are .npy, .npz, IDX (plain or .gz), CSV, PNG and JPEG files, folders of them, or patterns.
    On stdout a line has a label and its probability, for images the file too. With --out, whatever the
    size, memory stays bounded, nothing appears under the final name until it is whole, and a run that
    was stopped goes on with --resume.
    """
    import numpy as np

    from mlpinfer import jobs, outputs
    from mlpinfer.predictor import Predictor

    cluster = dask or dask_scheduler_file
    if out is None and (resume or overwrite or rows_per_task or cluster):
        raise click.UsageError(
            "--resume, --overwrite, --rows-per-task, --dask: expected --out with them, found none"
        )
    if resume and overwrite:
        raise click.UsageError("expected --resume or --overwrite, found both")
    if out is not None:
        outputs.check_out(out)
    network = options.load_network(weights, hidden, head, layout)
    chosen = jobs.Inputs(inputs, network.image_side, invert, label_column)
    with options.missing_is_data_error():
        rows = chosen.open()
    scales = (scale, network.scale, rows.scale)
    known = next((number for number in scales if number is not None), None)
    # On a cluster the workers are the threads.
    predictor = Predictor(
        network, device, batch_size, threads or (1 if cluster else None), precision, known, threshold
    )
    if out is None:
        with np.errstate(all="ignore"):
            _print(predictor, chosen, values)
        return
    job = jobs.split_job(predictor, chosen, out, values, rows_per_task)
    if resume and os.path.lexists(job.out) and not os.path.lexists(job.folder):
        click.echo(f"note: {out} is there, and no unfinished run: nothing to do", err=True)
        return
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    # Infinities and NaN are in the values, not on stderr.
    with jobs.alone(job), _progress(job.rows) as progress, np.errstate(all="ignore"):
        if cluster:
            from mlpinfer.cluster import connect, run_job

            with connect(dask, dask_scheduler_file) as client:
                how |= {"client": client, "min_workers": min_workers, "retries": retries}
                receipts = run_job(predictor, job, progress=progress, **how)
        else:
            receipts = jobs.run_job(predictor, job, progress=progress, **how)
        outputs.finish(job, receipts)


def _print(predictor: Predictor, inputs: Inputs, values: str) -> None:
    from mlpinfer import jobs, outputs

    rows = jobs.check_inputs(predictor, inputs, values)
    labels = values == "labels" and predictor.network.head != "identity"
    for begin in range(0, rows.samples, 1_000):
        x = rows.read(begin, min(begin + 1_000, rows.samples))
        y = getattr(predictor, jobs.VALUES[values])(x.reshape(len(x), -1))
        columns = list(outputs.as_text(y))
        if labels:
            p = predictor.predict_proba(x.reshape(len(x), -1))
            for line, label, probabilities in zip(columns, y.tolist(), p, strict=True):
                line.append(f"{probabilities[label]:.4f}")
        for i, line in enumerate(columns):
            click.echo("\t".join([*line, ascii(rows.names[begin + i])[1:-1]] if rows.names else line))


@contextlib.contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    """Show rows a second and the time that is left, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.completed:,} of {task.total:,} rows  {task.fields[rate]}")
    with Progress(
        BarColumn(), speed, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=rows, rate="")

        def advance(done: int) -> None:
            bar.advance(task, done)
            per_second = bar.tasks[task].speed
            bar.update(task, rate=f"{per_second:,.0f} rows/s" if per_second else "")

        yield advance
