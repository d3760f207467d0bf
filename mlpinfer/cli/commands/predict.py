"""`mlpinfer predict`: labels, probabilities or logits of rows in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpinfer.cli import loading, options
from mlpinfer.io.data.read_options import ReadOptions

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor
    from mlpinfer.io.data.rows import Rows


@click.command("predict", short_help="Predict labels, probabilities or logits of rows in files.")
@click.argument("inputs", type=click.Path(readable=False), nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(readable=False),
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
@options.reading
@options.scale
@options.running
@click.option("--rows-per-task", type=click.IntRange(1), help="Rows of a part.  [default: up to a million]")
@options.cluster
@click.option("--resume", is_flag=True, help="Go on with what an earlier run has left.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever is there.")
def command(
    inputs: tuple[str, ...],
    out: str | None,
    values: str,
    weights: str | None,
    layers: options.NetworkOptions,
    reading: ReadOptions,
    scale: float | None,
    running: options.RunOptions,
    rows_per_task: int | None,
    cluster: options.ClusterOptions,
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

    from mlpinfer.cli.progress import note, progress
    from mlpinfer.jobs import job_folder, outputs, predict, tasks
    from mlpinfer.jobs.output_folder import exclusive_lock

    on_cluster = loading.on_cluster(cluster)
    if out is None and (resume or overwrite or rows_per_task or on_cluster):
        raise click.UsageError(
            "--resume, --overwrite, --rows-per-task, --dask: expected --out with them, found none"
        )
    if resume and overwrite:
        raise click.UsageError("expected --resume or --overwrite, found both")
    if out is not None:
        tasks.check_out(out)
    network = loading.load_network(weights, layers)
    source = loading.open_inputs(inputs, network, reading, absolute=out is not None)
    predictor = loading.predictor_for(network, scale, source.rows.scale, running, on_cluster)
    if out is None:
        with np.errstate(all="ignore"):
            _print(predictor, source.rows, values)
        source.check()
        return
    job = tasks.split_job(predictor, source, out, output=values, rows_per_task=rows_per_task)
    if resume and job_folder.is_done(job):
        outputs.tidy(job)
        compared = "" if job.to_folder else "; whether it is of these inputs was not compared"
        note(f"note: {out} is there, and no unfinished run: nothing to do{compared}")
        return
    # Infinities and NaN are in the values, not on stderr.
    with exclusive_lock(job.out), progress(job.rows) as advance, np.errstate(all="ignore"):
        with loading.runner_of(cluster) as runner:
            parts = predict.run_job(
                predictor, job, runner=runner, resume=resume, overwrite=overwrite, progress=advance
            )
        outputs.finish(job, parts)


def _print(predictor: Predictor, rows: Rows, values: str) -> None:
    from mlpinfer.jobs import outputs, tasks

    tasks.check_fit(predictor, rows, values)
    labels = values == "labels" and predictor.network.is_classifier
    for begin in range(0, rows.samples, 1_000):
        x = rows.read(begin, min(begin + 1_000, rows.samples))
        y = predictor.compute(x.reshape(len(x), -1), values)
        columns = list(outputs.as_text(y))
        if labels:
            p = predictor.predict_proba(x.reshape(len(x), -1))
            for line, label, probabilities in zip(columns, y.tolist(), p, strict=True):
                line.append(f"{probabilities[label]:.4f}")
        if rows.names:
            for row, line in enumerate(columns, begin):
                line.append(ascii(rows.names[row])[1:-1])
        click.echo("\n".join(map("\t".join, columns)))
