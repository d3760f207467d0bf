"""Where results of a command go: stdout or files."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

import click


def command_line(context: click.Context) -> str:
    """Return the command that is run, with the options that came from the environment."""
    source = click.core.ParameterSource.ENVIRONMENT
    names = [p.name for p in context.command.params if context.get_parameter_source(p.name or "") == source]
    variables = [f"{context.auto_envvar_prefix}_{(name or '').upper()}" for name in names]
    given = [f"{variable}={shlex.quote(os.environ[variable])}" for variable in variables]
    return " ".join([*given, shlex.join(["mlpinfer", *sys.argv[1:]])])


def write_json(values: dict[str, Any], file: str) -> None:
    """Write one JSON object to a file, whole or not at all, or to stdout where `file` is ``-``."""
    from mlpinfer._json import to_json

    text = json.dumps(to_json(values), indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
        return
    from mlpinfer.io.files import atomic_write

    with atomic_write(file) as output:
        output.write(text.encode() + b"\n")
