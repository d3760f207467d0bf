"""`mlpinfer inspect`: what a weight file holds, and what its layers compute."""

from __future__ import annotations

import click

from mlpinfer.cli import options


@click.command("inspect", short_help="Show the layers of a weight file, and what they compute.")
@click.argument("file", metavar="FILE")
@options.network
@click.option("--folded", is_flag=True, help="Show the equivalent network that is run.")
@click.option(
    "--trace", "row", metavar="INPUT", help="Run one row: numbers (0,1) or a data file, FILE or FILE:ROW."
)
@options.scale
@click.option("--plot", metavar="FILE.png", help="Draw the weights of the first layer as images.")
@options.json_output
def command(
    file: str,
    hidden: str | None,
    head: str | None,
    layout: str | None,
    folded: bool,
    row: str | None,
    scale: float | None,
    plot: str | None,
    json: str | None,
) -> None:
    """Show the layers of the network in FILE: shapes, parameters, multiply-adds, weights.

    With --trace, what every layer computes for one row: the affine values Z and the activations A.
    """
    from mlpinfer.folding import fold
    from mlpinfer.predictor import Predictor
    from mlpinfer.summary import summarize

    network = options.load_network(file, hidden, head, layout)
    predictor = None
    if row is not None:
        x, data_scale = options.load_row(row)
        if scale is None and network.scale is None:
            scale = data_scale
        predictor = Predictor(network, precision="float64", scale=scale)
        trace = predictor.trace(x)
    if folded:
        network = fold(network)
    summary = summarize(network)
    if plot:
        from mlpinfer.render.pictures import draw_weights

        draw_weights(network, plot)
    if json != "-":
        from mlpinfer.render.text import print_summary, print_trace

        print_summary(summary)
        if predictor:
            print_trace(trace)
    if json:
        values = summary.to_dict()
        if predictor:
            values["trace"] = [{"affine": z.tolist(), "activation": a.tolist()} for z, a in trace]
        options.write_json(values, json)
