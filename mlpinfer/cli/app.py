"""The command line. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import traceback
import warnings
from typing import Any, NoReturn

import click

from mlpinfer._text import printable
from mlpinfer._version import VERSION
from mlpinfer.cli.progress import note
from mlpinfer.cli.signals import stopped
from mlpinfer.errors import DatasetError, DeviceError, InputError, MlpInferError, WeightsError

#: Commands and the modules they live in.
COMMANDS = {
    name: f"mlpinfer.cli.commands.{name}"
    for name in ("convert", "devices", "inspect", "predict", "score", "sweep")
}
_EXIT_CODES = ((DeviceError, 3), (WeightsError, 4), (DatasetError, 5), (InputError, 2), (MlpInferError, 1))
#: Errors of writing. Without a file's name they are of stdout: `atomic_write` names every other.
_CANNOT_WRITE = (errno.EBADF, errno.EFBIG, errno.ENOSPC)


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command

    # click itself would exit with 1.
    def make_context(self, *args: Any, **how: Any) -> click.Context:
        try:
            return super().make_context(*args, **how)
        except BrokenPipeError:  # --help and --version print here
            raise click.exceptions.Exit(_reader_has_left()) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            ctx.exit(_reader_has_left())


def _version(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"mlpinfer {VERSION}")
        ctx.exit()


@click.group(
    cls=_Lazy,
    epilog="Exit codes: 0 done, 1 failed while running, 2 usage, 3 device not available, 4 weights refused, "
    "5 data refused, 130 interrupted, 141 the reader of stdout has left, 143 terminated, 129 hung up.",
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
    """Batch inference for multilayer perceptrons, on NumPy, CuPy or compiled C."""


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
    warnings.showwarning = lambda message, *_, **__: note(f"mlpinfer: {' '.join(str(message).split())}")
    try:
        code = group.main(args, prog_name="mlpinfer", standalone_mode=False, auto_envvar_prefix="MLPINFER")
        sys.stdout.flush()  # here, so that a closed pipe is met inside this try
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        note(error.ctx.get_help() if error.ctx else "")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        note("mlpinfer: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(_reader_has_left())
    except Exception as error:
        if stop := stopped():
            raise stop from None
        if debug:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        note(f"mlpinfer: {_one_line(error)}")
        sys.exit(_exit_code(error))


def _reader_has_left() -> int:
    """Return the exit code of a program that SIGPIPE ends."""
    # Python must not complain when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _exit_code(error: Exception) -> int:
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def _one_line(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, MlpInferError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = f"out of memory: {str(error) or 'nothing was left'}"
    elif isinstance(error, OSError):
        where = error.filename or ("stdout" if error.errno in _CANNOT_WRITE else "")
        text = f"{where}: {error.strerror}" if where else str(error)
    else:
        text = f"unexpected {type(error).__name__}: {_root(error)}; --debug shows where"
    return printable(" ".join(text.split()))


def _root(error: BaseException) -> BaseException:
    """Return the first cause of a failed import, without the page of advice that NumPy puts around it."""
    while isinstance(error, ImportError) and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__ or error
    return error
