"""The command line. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from typing import Any, NoReturn

import click

from mlpinfer._version import VERSION
from mlpinfer.errors import DatasetError, DeviceError, InputError, MlpInferError, WeightsError

#: Commands and the modules they live in.
COMMANDS = {
    name: f"mlpinfer.cli.{name}" for name in ("convert", "devices", "inspect", "predict", "score", "sweep")
}
_EXIT_CODES = ((DeviceError, 3), (WeightsError, 4), (DatasetError, 5), (InputError, 2), (MlpInferError, 1))


class _Interrupted(Exception):
    """Ctrl-C, kept from click, which would print an empty line for it."""


class _Lazy(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command


def _version(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"mlpinfer {VERSION}")
        ctx.exit()


@click.group(
    cls=_Lazy,
    epilog="Exit codes: 0 done, 1 failed while running, 2 usage, 3 device not available, 4 weights refused, "
    "5 data refused, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    allow_from_autoenv=False,
    help="Show the traceback of an error.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_version,
    help="Show the version.",
)
def group() -> None:
    """Batch inference for multilayer perceptrons, on NumPy or CuPy."""


def run() -> NoReturn:
    """Be the process: run the command line and leave at once.

    All output is flushed by then. What the interpreter would still do is free memory, module by
    module, which takes longer than reading the test set does; the system frees it all the same.
    """
    code = 1
    try:
        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
    os._exit(code)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; every error becomes one line on stderr and an exit code."""
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args  # before or behind the command
    args = [arg for arg in args if arg != "--debug"]
    # BLAS computes on one thread of each of our workers: spare the start from making threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
    # A warning is a note: one line, without the line of code that it came from.
    warnings.showwarning = lambda message, *_, **__: click.echo(
        f"mlpinfer: {' '.join(str(message).split())}", err=True
    )
    try:
        code = group.main(args, prog_name="mlpinfer", standalone_mode=False, auto_envvar_prefix="MLPINFER")
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a closed pipe is met inside this try
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except (_Interrupted, KeyboardInterrupt, click.Abort):
        click.echo("mlpinfer: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader has left; Python must not complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        click.echo(f"mlpinfer: {_one_line(error)}", err=True)
        sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def _one_line(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    elif isinstance(error, MlpInferError):
        text = str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error}; --debug shows where"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
