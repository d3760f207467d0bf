"""`mlpinfer score`: accuracy and throughput of a network on a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlpinfer.cli import options

if TYPE_CHECKING:
    from mlpinfer.report import ScoreReport


@click.command("score", short_help="Measure how right and how fast a network is.")
@options.weights
@options.network
@click.option(
    "--data",
    metavar="PATH",
    help="Rows or images: .npy, .npz, IDX, CSV, PNG, JPEG, a folder of them.  [default: the MNIST test set]",
)
@click.option("--labels", metavar="FILE", help="Their labels: .npy, IDX or CSV.")
@options.reading
@options.scale
@options.running
@click.option("--values", type=click.Choice(["labels", "proba"]), default="labels", show_default=True,
              help="What the timed passes compute; proba adds the softmax.")  # fmt: skip
@click.option(
    "--repeat", type=click.IntRange(1), default=3, show_default=True, help="Timed passes over all rows."
)
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="More untimed passes before them."
)
@click.option("--check-parity", is_flag=True, help="Compute all on the CPU too, and compare; on a GPU.")
@options.cluster
@options.json_output
@click.pass_context
def command(
    context: click.Context,
    weights: str | None,
    layers: dict[str, Any],
    data: str | None,
    labels: str | None,
    reading: dict[str, Any],
    scale: float | None,
    running: dict[str, Any],
    values: str,
    repeat: int,
    warmup: int,
    check_parity: bool,
    cluster: dict[str, Any],
    json: str | None,
) -> None:
    """Measure how right and how fast a network is.

    With no options, the shipped 784-50-100-10 network on the 10,000 images of the MNIST test set.
    Throughput is end to end; batch latency is a pass of its own on one thread.
    """
    if labels and not data:
        raise click.UsageError("--labels: expected --data with it, found none")
    if options.on_cluster(cluster):
        _refuse_more_passes(context)
        report = _on_cluster(weights, layers, data, labels, reading, scale, running, cluster)
    else:
        mnist = options.Background(options.load_dataset, None, None) if data is None else None
        import numpy as np

        from mlpinfer.predictor import Predictor
        from mlpinfer.scoring import score

        network = options.load_network(weights, layers)
        if mnist:
            dataset = mnist.result()
        else:
            dataset = options.load_dataset(data, labels, side=network.image_side, **reading)
        predictor = Predictor(network, scale=scale, **running)
        with np.errstate(all="ignore"):  # infinities and NaN are in the report, not on stderr
            report = score(
                predictor, dataset, values=values, repeat=repeat, warmup=warmup, check_parity=check_parity
            )
    if json:  # first: whoever reads the table may leave
        options.write_json(report.to_dict(), json)
    if json != "-":
        from mlpinfer.render.text import print_score

        print_score(report)


def _refuse_more_passes(context: click.Context) -> None:
    """Refuse options of passes that a cluster does not make."""
    for name in ("values", "repeat", "warmup", "check_parity"):
        if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option}: expected without --dask, which makes one pass, found both")


def _on_cluster(
    weights: str | None,
    layers: dict[str, Any],
    data: str | None,
    labels: str | None,
    reading: dict[str, Any],
    scale: float | None,
    running: dict[str, Any],
    cluster: dict[str, Any],
) -> ScoreReport:
    from mlpinfer import mnist
    from mlpinfer.cli.progress import progress
    from mlpinfer.cluster import score

    network = options.load_network(weights, layers)
    if data is None:
        data, labels = mnist.IMAGES, mnist.LABELS
    inputs = options.open_inputs((data,), network, reading)
    predictor = options.predictor_for(inputs, network, scale, running, on_cluster=True)
    with (
        options.missing_is_data_error(),
        options.connected(cluster) as how,
        progress(inputs.open().samples) as advance,
    ):
        return score(predictor, inputs, labels, progress=advance, **how)
