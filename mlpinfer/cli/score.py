"""`mlpinfer score`: accuracy and throughput of a network on a data set."""

from __future__ import annotations

import click

from mlpinfer.cli import options


@click.command("score", short_help="Measure how right and how fast a network is.")
@options.weights
@options.network
@click.option(
    "--data",
    metavar="PATH",
    help="Rows or images: .npy, .npz, IDX, CSV, PNG, JPEG, a folder of them.  [default: the MNIST test set]",
)
@click.option("--labels", metavar="FILE", help="Their labels: .npy, IDX or CSV.")
@options.label_column
@options.invert
@options.scale
@options.batch_size
@options.device
@options.threads
@options.precision
@options.threshold
@click.option("--values", type=click.Choice(["labels", "proba"]), default="labels", show_default=True,
              help="What the timed passes compute; proba adds the softmax.")  # fmt: skip
@click.option(
    "--repeat", type=click.IntRange(1), default=3, show_default=True, help="Timed passes over all rows."
)
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="More untimed passes before them."
)
@click.option("--check-parity", is_flag=True, help="Compute all on the CPU too, and compare; on a GPU.")
@options.json_output
def command(
    weights: str | None,
    hidden: str | None,
    head: str | None,
    layout: str | None,
    data: str | None,
    labels: str | None,
    label_column: str | None,
    invert: bool,
    scale: float | None,
    batch_size: int,
    device: str,
    threads: int | None,
    precision: str,
    threshold: float,
    values: str,
    repeat: int,
    warmup: int,
    check_parity: bool,
    json: str | None,
) -> None:
    """Measure how right and how fast a network is.

    With no options, the shipped 784-50-100-10 network on the 10,000 images of the MNIST test set.
    Throughput is end to end; batch latency is a pass of its own on one thread.
    """
    import numpy as np

    if labels and not data:
        raise click.UsageError("--labels: expected --data with it, found none")
    mnist = options.Background(options.load_dataset, None, None) if data is None else None
    from mlpinfer.predictor import Predictor
    from mlpinfer.scoring import score

    network = options.load_network(weights, hidden, head, layout)
    if mnist:
        dataset = mnist.result()
    else:
        side = network.image_side
        dataset = options.load_dataset(data, labels, side=side, invert=invert, label_column=label_column)
    predictor = Predictor(network, device, batch_size, threads, precision, scale, threshold)
    with np.errstate(all="ignore"):  # infinities and NaN are in the report, not on stderr
        report = score(
            predictor,
            dataset,
            values=values,
            repeat=repeat,
            warmup=warmup,
            check_parity=check_parity,
        )
    if json != "-":
        from mlpinfer.render.text import print_score

        print_score(report)
    if json:
        options.write_json(report.to_dict(), json)
