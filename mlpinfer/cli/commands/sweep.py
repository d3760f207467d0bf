"""`mlpinfer sweep`: which batch size and device are fastest, and what bounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlpinfer.cli import loading, options, output
from mlpinfer.io.data.read_options import ReadOptions

if TYPE_CHECKING:
    Items = click.ParamType[tuple[Any, ...]]
else:
    Items = click.ParamType  # takes no argument before click 8.4


class Listed(Items):
    """Values separated by commas."""

    def __init__(self, item: click.ParamType[Any]) -> None:
        self.item, self.name = item, "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Parse each value."""
        if isinstance(value, tuple):
            return value
        return tuple(self.item.convert(part.strip(), param, ctx) for part in value.split(","))


@click.command("sweep", short_help="Find the fastest batch size and device, and what bounds it.")
@options.weights
@options.network
@options.data
@options.reading
@options.scale
@click.option(
    "--batch-sizes",
    type=Listed(click.IntRange(1)),
    metavar="LIST",
    default="1,10,100,1000,10000",
    show_default=True,
    help="Rows in one forward call, each in turn.",
)
@click.option(
    "--devices",
    type=Listed(click.STRING),
    metavar="LIST",
    help="cpu, gpu, gpu:N.  [default: all that `mlpinfer devices` says are ready]",
)
@click.option(
    "--threads",
    type=Listed(click.IntRange(1)),
    metavar="LIST",
    help="Workers, each number in turn.  [default: all cores]",
)
@options.precision
@options.values
@options.repeat
@options.plot("Draw throughput and latency over batch size.")
@options.json_output
def command(
    weights: str | None,
    layers: options.NetworkOptions,
    data: str | None,
    reading: ReadOptions,
    scale: float | None,
    batch_sizes: tuple[int, ...],
    devices: tuple[str, ...] | None,
    threads: tuple[int, ...] | None,
    precision: str,
    values: str,
    repeat: int,
    plot: str | None,
    json: str | None,
) -> None:
    """Measure throughput and batch latency at every batch size, on every device.

    Recommends the smallest batch size within 5 % of the best throughput, says from which batch size a
    GPU is faster than the CPU, and what takes most of the time: launches, transfer, memory or arithmetic.
    """
    import numpy as np

    from mlpinfer.engine.devices import inventory
    from mlpinfer.evaluation.sweep import MOST_ROWS, sweep

    network = loading.load_network(weights, layers)
    dataset = loading.load_first_rows(data, MOST_ROWS, network, reading)
    if devices is None:
        devices = tuple(status.device for status in inventory().devices if status.available)
    with np.errstate(all="ignore"):
        report = sweep(
            network,
            dataset,
            batch_sizes=batch_sizes,
            devices=devices,
            threads=threads or (None,),
            precision=precision,
            scale=scale,
            output=values,
            repeat=repeat,
        )
    if plot:
        from mlpinfer.render.plots import draw_sweep

        draw_sweep(report, plot)
    if json:
        output.write_json(report.to_dict(), json)
    if json != "-":
        from mlpinfer.render.text import print_sweep

        print_sweep(report)
