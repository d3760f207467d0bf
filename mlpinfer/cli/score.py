"""`mlpinfer score`: accuracy and throughput of a network on a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlpinfer.cli import options

if TYPE_CHECKING:
    from mlpinfer.mistakes import Mistakes
    from mlpinfer.report import ScoreReport


@click.command("score", short_help="Measure how right and how fast a network is.")
@options.weights
@options.network
@options.data
@click.option("--labels", type=click.Path(), metavar="FILE", help="Their labels: .npy, IDX or CSV.")
@options.reading
@options.scale
@options.running
@options.values
@options.repeat
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="More untimed passes before them."
)
@click.option("--check-parity", is_flag=True, help="Compute all on the CPU too, and compare; on a GPU.")
@click.option(
    "--errors",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Show the N most confident mistakes, with their images.",
)
@options.cluster
@click.option(
    "--report",
    type=click.Path(),
    metavar="FILE.html",
    callback=options.check_folder,
    help="Write a web page: metrics, the mistakes, latencies. Needs mlpinfer[report].",
)
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
    errors: int,
    cluster: dict[str, Any],
    report: str | None,
    json: str | None,
) -> None:
    """Measure how right and how fast a network is.

    With no options, the shipped 784-50-100-10 network on the 10,000 images of the MNIST test set.
    Throughput is end to end; batch latency is a pass of its own on one thread.
    """
    if labels and not data:
        raise click.UsageError("--labels: expected --data with it, found none")
    if report:
        from mlpinfer.render.page import check_packages

        check_packages()
    mistakes: Mistakes | None = None
    errors = 0 if json == "-" else errors
    if options.on_cluster(cluster):
        _refuse_more_passes(context)
        found = _on_cluster(weights, layers, data, labels, reading, scale, running, cluster)
    else:
        mnist = options.Background(options.load_dataset, None, None) if data is None else None
        import numpy as np

        from mlpinfer.metrics import ClassificationMetrics
        from mlpinfer.mistakes import check_has_mistakes, find_mistakes
        from mlpinfer.scoring import score

        network = options.load_network(weights, layers)
        if mnist:
            dataset = mnist.result()
        else:
            dataset = options.load_dataset(data, labels, side=network.image_side, **reading)
        predictor = options.predictor_for(network, scale, dataset.scale, running)
        if errors:
            check_has_mistakes(predictor, dataset)
        with np.errstate(all="ignore"):  # infinities and NaN are in the report, not on stderr
            found = score(
                predictor, dataset, values=values, repeat=repeat, warmup=warmup, check_parity=check_parity
            )
            if errors or (report and isinstance(found.metrics, ClassificationMetrics)):
                from mlpinfer.render.page import MOST_MISTAKES

                mistakes = find_mistakes(predictor, dataset, max(errors, MOST_MISTAKES if report else 0))
    # Files first: whoever reads the table may leave.
    if report:
        from mlpinfer.render.page import write_page

        write_page(report, found, mistakes, options.command_line(context))
    if json:
        options.write_json(found.to_dict(), json)
    if json != "-":
        from mlpinfer.render.text import print_score

        print_score(found)
        if errors and mistakes:
            from mlpinfer.render.blocks import print_mistakes

            print_mistakes(mistakes, errors)


def _refuse_more_passes(context: click.Context) -> None:
    """Refuse options of passes that a cluster does not make."""
    for name in ("values", "repeat", "warmup", "check_parity", "errors", "report"):
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
    inputs = options.open_inputs((data,), network, reading, by_absolute_name=True)
    predictor = options.predictor_for(network, scale, inputs.open().scale, running, on_cluster=True)
    with (
        options.missing_is_data_error(),
        options.connected(cluster) as how,
        progress(inputs.open().samples) as advance,
    ):
        return score(predictor, inputs, labels, progress=advance, **how)
