"""`mlpinfer devices`: where a network can run here, and what a GPU still needs."""

from __future__ import annotations

import click

from mlpinfer.cli import options, output


@click.command("devices", short_help="Show where a network can run, and what a GPU still needs.")
@options.json_output
def command(json: str | None) -> None:
    """Show where a network can run here, and what a GPU still needs."""
    from mlpinfer.engine.devices import inventory

    found = inventory()
    if json:
        output.write_json(found.to_dict(), json)
    if json != "-":
        from mlpinfer.render.text import print_devices

        print_devices(found)
