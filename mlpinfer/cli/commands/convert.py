"""`mlpinfer convert`: a weight file in another format."""

from __future__ import annotations

import os

import click

from mlpinfer._text import printable
from mlpinfer.cli import loading, options


@click.command("convert", short_help="Write a weight file in another, safe format.")
@click.argument("source", type=click.Path(readable=False), metavar="IN")
@click.argument("target", type=click.Path(readable=False), metavar="OUT")
@options.network
@options.scale
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
def command(
    source: str,
    target: str,
    layers: options.NetworkOptions,
    scale: float | None,
    force: bool,
) -> None:
    """Read the network in IN and write it to OUT: .safetensors, .npz, .onnx, or .pkl as in the book.

    What is to be written is read back and compared first: weights, activations and scale must be
    the same.
    """
    from mlpinfer.io.weights.convert import ROWS, convert

    if os.path.lexists(target) and not force:
        raise click.UsageError(f"{target}: is there already; give --force to replace it")
    network = loading.load_network(source, layers, scale)
    difference = convert(network, target)
    sizes = "-".join(map(str, network.sizes))
    click.echo(f"{printable(target)}: {sizes}, {', '.join((*network.hidden, network.head))}")
    click.echo(f"largest difference on {ROWS} random rows: {difference:g}")
