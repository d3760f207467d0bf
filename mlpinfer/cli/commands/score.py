"""`mlpinfer score`: accuracy and throughput of a network on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mlpinfer._json import to_json
from mlpinfer.cli import loading, options, output
from mlpinfer.io.data.read_options import ReadOptions

if TYPE_CHECKING:
    from mlpinfer.engine.predictor import Predictor
    from mlpinfer.evaluation.mistakes import Mistakes
    from mlpinfer.evaluation.parts import StoredData
    from mlpinfer.evaluation.report import ScoreReport
    from mlpinfer.io.data.dataset import Dataset
    from mlpinfer.model.network import Network


@dataclass(frozen=True, kw_only=True)
class PassOptions:
    """Which passes are made over the rows: arguments of `mlpinfer.score`."""

    values: str
    repeat: int
    warmup: int
    check_parity: bool


@click.command("score", short_help="Measure how right and how fast a network is.")
@options.weights
@options.network
@options.data
@click.option(
    "--labels", type=click.Path(readable=False), metavar="FILE", help="Their labels: .npy, IDX or CSV."
)
@options.reading
@options.scale
@options.running
@options.together(
    "passes",
    PassOptions,
    options.values,
    options.repeat,
    click.option(
        "--warmup",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="More untimed passes before them.",
    ),
    click.option("--check-parity", is_flag=True, help="Compute all on the CPU too, and compare; on a GPU."),
)
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
    type=click.Path(readable=False),
    metavar="FILE.html",
    callback=options.check_folder,
    help="Write a web page: metrics, the mistakes, latencies. Needs mlpinfer[report].",
)
@options.json_output
@click.pass_context
def command(
    context: click.Context,
    weights: str | None,
    layers: options.NetworkOptions,
    data: str | None,
    labels: str | None,
    reading: ReadOptions,
    scale: float | None,
    running: options.RunOptions,
    passes: PassOptions,
    errors: int,
    cluster: options.ClusterOptions,
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
        from mlpinfer.render.html import check_packages

        check_packages()
    on_cluster = loading.on_cluster(cluster)
    if on_cluster:
        _refuse_more_passes(context)
    mistakes = None
    if on_cluster:
        network = loading.load_network(weights, layers)
        found = _on_cluster(network, data, labels, reading, scale, running, cluster)
    else:
        # The test set is unpacked in the background while NumPy and the weights are loaded.
        mnist = loading.Background(loading.load_mnist) if data is None else None
        with loading.unchanged(data, labels):
            network = loading.load_network(weights, layers)
            dataset = mnist.result() if mnist else loading.load_dataset(data, labels, network, reading)
            predictor = loading.predictor_for(network, scale, dataset.scale, running)
            found, mistakes = _here(predictor, dataset, passes, errors, bool(report))
    # Files first: whoever reads the table may leave.
    if report:
        from mlpinfer.render.html import write_page

        write_page(report, found, mistakes, output.command_line(context))
    if json:
        written = found.to_dict()
        if errors and mistakes:
            written["mistakes"] = to_json(mistakes.first(errors))
        output.write_json(written, json)
    if json != "-":
        from mlpinfer.render.text import print_score

        print_score(found)
        if errors and mistakes:
            from mlpinfer.render.terminal_images import print_mistakes

            print_mistakes(mistakes, errors)


def _here(
    predictor: Predictor, dataset: Dataset | StoredData, passes: PassOptions, errors: int, gallery: bool
) -> tuple[ScoreReport, Mistakes | None]:
    """Score in this process, and find as many mistakes as are asked for or fill a gallery."""
    import numpy as np

    from mlpinfer.evaluation.metrics import ClassificationMetrics
    from mlpinfer.evaluation.score import score

    if errors:
        from mlpinfer.evaluation.mistakes import check_has_mistakes
        from mlpinfer.evaluation.parts import Parts

        check_has_mistakes(predictor, Parts(dataset, predictor.batch_size))
    with np.errstate(all="ignore"):  # infinities and NaN are in the report, not on stderr
        found = score(
            predictor,
            dataset,
            output=passes.values,
            repeat=passes.repeat,
            warmup=passes.warmup,
            check_parity=passes.check_parity,
        )
        if not errors and not (gallery and isinstance(found.metrics, ClassificationMetrics)):
            return found, None
        from mlpinfer.evaluation.mistakes import find_mistakes
        from mlpinfer.render.html import MOST_MISTAKES

        return found, find_mistakes(predictor, dataset, max(errors, MOST_MISTAKES if gallery else 0))


def _refuse_more_passes(context: click.Context) -> None:
    """Refuse options of passes that a cluster does not make."""
    for name in ("values", "repeat", "warmup", "check_parity", "errors", "report"):
        if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option}: expected without --dask, which makes one pass, found both")


def _on_cluster(
    network: Network,
    data: str | None,
    labels: str | None,
    reading: ReadOptions,
    scale: float | None,
    running: options.RunOptions,
    cluster: options.ClusterOptions,
) -> ScoreReport:
    from mlpinfer.cli.progress import progress
    from mlpinfer.io.data import mnist
    from mlpinfer.jobs.score_tasks import score_job, split_score

    if data is None:
        data, labels = mnist.IMAGES, mnist.LABELS
    source = loading.open_inputs((data,), network, reading)
    predictor = loading.predictor_for(network, scale, source.rows.scale, running, on_cluster=True)
    with (
        loading.missing_is_data_error(),
        loading.runner_of(cluster) as runner,
        progress(source.rows.samples) as advance,
    ):
        job = split_score(predictor, source, labels)
        return score_job(predictor, job, runner=runner, progress=advance)
