"""`mlpinfer inspect`: what a weight file holds, and what its layers compute."""

from __future__ import annotations

import click

from mlpinfer.cli import loading, options, output


@click.command("inspect", short_help="Show the layers of a weight file, and what they compute.")
@click.argument("file", type=click.Path(readable=False), metavar="FILE")
@options.network
@click.option("--folded", is_flag=True, help="Show the equivalent network that is run.")
@click.option(
    "--trace",
    "row",
    metavar="INPUT",
    help="Run one row: numbers (0,1) or one of a data file, FILE or FILE:ROW, from 0.",
)
@options.scale
@options.plot("Draw the weights of the first layer as images.")
@options.json_output
def command(
    file: str,
    layers: options.NetworkOptions,
    folded: bool,
    row: str | None,
    scale: float | None,
    plot: str | None,
    json: str | None,
) -> None:
    """Show the layers of the network in FILE: shapes, parameters, multiply-adds, weights.

    With --trace, what every layer computes for one row: the affine values Z and the activations A.
    """
    import dataclasses

    import numpy as np

    from mlpinfer.model.checks import check_scaled, first_known
    from mlpinfer.model.folding import fold
    from mlpinfer.model.summary import summarize

    network = loading.load_network(file, layers, scale)
    trace = None
    if row is not None:
        x, data_scale = loading.load_row(row, network.image_side)
        if len(x) != network.sizes[0]:
            raise click.UsageError(f"--trace: expected {network.sizes[0]} numbers, found {len(x)}")
        network = dataclasses.replace(network, scale=first_known(network.scale, data_scale))
        check_scaled(x.dtype, network.scale, "--trace: ")
    if folded:
        network = fold(network)
    if row is not None:
        with np.errstate(all="ignore"):
            trace = network.astype(np.float64).trace(x)
    summary = summarize(network)
    if plot:
        from mlpinfer.render.plots import draw_weights

        draw_weights(network, plot)
    if json:
        values = summary.to_dict()
        if trace:
            values["trace"] = [{"affine": z.tolist(), "activation": a.tolist()} for z, a in trace]
        output.write_json(values, json)
    if json != "-":
        from mlpinfer.render.text import print_summary, print_trace

        print_summary(summary)
        if trace:
            print_trace(trace)
