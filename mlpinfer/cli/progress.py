"""What is said on stderr: how far a job is, and notes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from mlpinfer._text import printable


def note(text: str) -> None:
    """Print a line; where nobody can read it, that is no reason to fail."""
    with contextlib.suppress(OSError):
        click.echo("\n".join(map(printable, text.split("\n"))), err=True)


@contextlib.contextmanager
def progress(rows: int) -> Iterator[Callable[[int], None]]:
    """Show rows a second and the time that is left, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.completed:,} of {task.total:,} rows  {task.fields[rate]}")
    with Progress(
        BarColumn(), speed, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=rows, rate="")

        def advance(done: int) -> None:
            bar.advance(task, done)
            per_second = bar.tasks[task].speed
            bar.update(task, rate=f"{per_second:,.0f} rows/s" if per_second else "")

        yield advance
