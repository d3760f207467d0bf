"""Reports as terminal tables. Importing this module imports rich."""

from __future__ import annotations

import re
import shutil
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlpinfer._text import printable
from mlpinfer.engine.compiled.availability import Compiled
from mlpinfer.engine.devices import Inventory
from mlpinfer.evaluation.metrics import ClassificationMetrics, RegressionMetrics
from mlpinfer.evaluation.report import ScoreReport
from mlpinfer.evaluation.sweep import SweepReport
from mlpinfer.model.network import LayerTrace
from mlpinfer.model.ops import Array
from mlpinfer.model.summary import NetworkSummary

#: A table of classes is no longer than this; JSON has them all.
_MAX_CLASSES = 20
#: Nor a line of a trace; JSON has them all.
_MAX_NUMBERS = 20
#: What a column of text that may be folded has, at the least.
_LEAST_FOLDED = 12
#: At the end of a line, among the codes of colours.
_BLANKS_BEHIND = re.compile(r"(?: |\x1b\[[0-9;]*m)+$", re.MULTILINE)
#: Of a file, which wraps nothing.
_FILE_COLUMNS = 500


class Stdout(Console):
    """A console on stdout, whose lines end where their text does."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as `rich.console.Console` does, but for blanks at the ends of lines."""
        with self.capture() as captured:
            super().print(*objects, **how)
        text = _BLANKS_BEHIND.sub(lambda found: found[0].replace(" ", ""), captured.get())
        self.file.write(text)


def _console() -> Stdout:
    """Return a console as wide as the terminal, or COLUMNS; nothing wraps the lines of a file."""
    unknown = 80 if sys.stdout.isatty() else _FILE_COLUMNS
    return Stdout(highlight=False, width=shutil.get_terminal_size((unknown, 0)).columns)


def _print_numbers(console: Stdout, table: Table) -> None:
    """Print a table whose numbers are whole, be the terminal as narrow as it may."""
    foldable = [column for column in table.columns if column.overflow == "fold"]
    for column in foldable:
        column.max_width = _LEAST_FOLDED
    wide = Stdout(highlight=False, width=_FILE_COLUMNS)
    wide.width = max(console.width, wide.measure(table).maximum)
    for column in foldable:
        column.max_width = None
    wide.print(table)


def print_score(report: ScoreReport) -> None:
    """Print a score report on stdout."""
    console = _console()
    facts = _facts()
    network, device, timing = report.network, report.device, report.timing
    sizes = "-".join(map(str, network.layers))
    activations = ", ".join(dict.fromkeys((*network.hidden, network.head)))
    facts.add_row("network", f"{sizes}  {activations}  {network.parameters:,} parameters")
    facts.add_row(
        "data", f"{_safe(report.data.name)}  {report.data.samples:,} rows  scale {scale_text(network.scale)}"
    )
    facts.add_row("device", f"{device.actual}{_asked(report)}  {device.name}")
    workers = f"{_count(device.threads, 'thread')}  " if device.backend == "numpy" else ""
    facts.add_row("", f"{device.backend}  {workers}{device.precision}  {device.evaluator}")
    if report.cluster:
        cluster = report.cluster
        facts.add_row("cluster", f"{_count(cluster.workers, 'worker')}, {_count(cluster.tasks, 'task')}")
    facts.add_row("batches", batches_text(report))
    facts.add_row("")
    _add_metrics(facts, report.metrics)
    rate, seconds, latency = timing.samples_per_second, timing.seconds, timing.batch_latency_ms
    facts.add_row("throughput", f"[bold]{rate:,.0f} rows/s[/bold]  end to end: {', '.join(timing.includes)}")
    spread = f"median {seconds.median * 1e3:.4g} ms, {seconds.min * 1e3:.4g} to {seconds.max * 1e3:.4g}"
    if timing.cold_seconds is not None:
        spread += f"  (first pass {timing.cold_seconds * 1e3:.4g} ms)"
    facts.add_row("", spread)
    if timing.stages:
        stages = ", ".join(f"{name} {seconds * 1e3:.4g} ms" for name, seconds in vars(timing.stages).items())
        facts.add_row("", f"{stages}  (one after the other; above they overlap)")
    if latency:
        facts.add_row("batch latency", f"p50 {latency.p50:.4g} ms, p99 {latency.p99:.4g} ms  on one thread")
    if report.parity:
        facts.add_row("parity", parity_text(report))
    facts.add_row("")
    console.print(facts)
    if isinstance(report.metrics, ClassificationMetrics):
        _print_numbers(console, _class_table(report.metrics))


def print_sweep(report: SweepReport) -> None:
    """Print a sweep on stdout: a line a setting, the recommended one marked, and what bounds it."""
    console = _console()
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("device")
    for name in ("threads", "batch", "rows/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for point in report.points:
        asked = f" of {point.asked_threads}" if point.asked_threads not in (None, point.threads) else ""
        numbers = (f"{point.threads}{asked}", f"{point.batch_size:,}", f"{point.samples_per_second:,.0f}")
        latency = (f"{point.batch_latency_ms.p50:.4g}", f"{point.batch_latency_ms.p99:.4g}")
        chosen = point == report.recommended
        mark, style = ("*", "bold") if chosen else ("", "")
        table.add_row(point.device, *numbers, *latency, mark, style=style)
    _print_numbers(console, table)
    for sentence in sweep_sentences(report):
        console.print(f"\n{sentence}", markup=False)


def sweep_sentences(report: SweepReport) -> list[str]:
    """Say in words what a sweep found."""
    best, bound = report.recommended, report.bound
    where = f"{best.batch_size:,} rows a batch on the {best.device}, {_count(best.threads, 'thread')}"
    sentences = [f"* Recommended: {where}: {best.samples_per_second:,.0f} rows/s."]
    if bound is None:
        sentences.append("What bounds it is not known of one batch size.")
    else:
        parts = {name: getattr(bound, name) for name in ("launches", "transfer", "memory", "arithmetic")}
        verb = "bound" if bound.limit == "launches" else "bounds"
        limit = f"{bound.limit.capitalize()} {verb} it: "
        if best.device == "cpu":
            shares = ", ".join(f"{name} {part / bound.row_us:.0%}" for name, part in parts.items() if part)
            sentences.append(f"{limit}of {bound.row_us:.3g} us that a row takes there, {shares}.")
        else:
            each = ", ".join(f"{name} {part:.3g} us" for name, part in parts.items() if part)
            sentences.append(f"{limit}a row takes {bound.row_us:.3g} us there; apart, {each}, which overlap.")
    on_gpu = {point.device != "cpu" for point in report.points}
    if report.crossover:
        sentences.append(f"The GPU is faster than the CPU from {report.crossover:,} rows a batch on.")
    elif len(on_gpu) == 2:
        sentences.append("The GPU was not faster than the CPU at the largest batch size.")
    return sentences


def print_summary(summary: NetworkSummary) -> None:
    """Print the layers of a network on stdout."""
    console = _console()
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("#", "W", "b", "output", "params", "mult-\nadds"):  # short, for 60 columns
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("activation", overflow="fold")
    table.add_column("weights", justify="right", no_wrap=True)
    for number, layer in enumerate(summary.layers, 1):
        shapes = (", ".join(map(str, shape)) for shape in (layer.W, layer.b, layer.output))
        low, high = layer.weight_range
        counts = (f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        weights = f"{low:.3g}..{high:.3g}"
        table.add_row(str(number), *shapes, *counts, layer.activation, weights)
    _print_numbers(console, table)
    sizes = "-".join(map(str, summary.sizes))
    console.print(
        f"\n{sizes}  {summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds a row, "
        f"{summary.bytes:,} bytes, scale {scale_text(summary.scale)}"
    )


def print_trace(trace: list[LayerTrace]) -> None:
    """Print what every layer computed for one row on stdout."""
    console = _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for number, layer in enumerate(trace, 1):
        table.add_row(f"\nZ{number}", "\n" + _numbers(layer.affine))
        table.add_row(f"A{number}", _numbers(layer.activation))
    console.print(table)


def _numbers(values: Array) -> str:
    shown = "  ".join(f"{value:.4g}" for value in values[:_MAX_NUMBERS])
    more = len(values) - _MAX_NUMBERS
    return shown + (f"  ... {more:,} more" if more > 0 else "")


def print_devices(inventory: Inventory) -> None:
    """Print the devices of this machine on stdout."""
    console = _console()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("device", "status", "backend", "name"):
        table.add_column(column, overflow="fold")
    for status in inventory.devices:
        state = "[green]ready[/green]" if status.available else "[red]not available[/red]"
        table.add_row(status.device, state, status.backend, status.name or "")
    console.print(table)
    for status in inventory.devices:
        if status.problem:
            console.print(f"\n{status.device}: {status.problem}", markup=False)
        if status.fix:
            console.print(f"To use it: {status.fix}", markup=False)
    console.print(f"\nOn the CPU networks are run by: {_evaluator(inventory.compiled)}", markup=False)
    if inventory.compiled.fix:
        console.print(f"To use the compiled evaluator: {inventory.compiled.fix}", markup=False)
    driver = f", driver for CUDA {inventory.driver}" if inventory.driver else ""
    packages = ", ".join(inventory.cupy_packages) or "no CuPy"
    console.print(f"\n{inventory.cores} cores, NumPy {inventory.numpy}, {packages}{driver}", style="dim")


def _evaluator(compiled: Compiled) -> str:
    if compiled.instruction_set is None:
        return f"plan (no compiled evaluator: {compiled.problem})"
    others = [name for name in compiled.available if name != compiled.instruction_set]
    also = f" (the processor also runs {', '.join(others)})" if others else ""
    return f"compiled {compiled.instruction_set}{also}"


def scale_text(scale: float | None) -> str:
    """Write a scale as people do: ``1/255``."""
    if scale is None:
        return "none"
    inverse = 1 / scale
    whole = inverse > 1.5 and abs(inverse - round(inverse)) < 1e-9 * inverse
    return f"1/{round(inverse)}" if whole else f"{scale:g}"


def batches_text(report: ScoreReport) -> str:
    """Write batches as ``100 x 100 + 1 x 37``, number times rows."""
    batch = report.batch
    parts = [f"{batch.full:,} x {batch.size:,}"] * bool(batch.full)
    if batch.tail:
        parts.append(f"{batch.tail:,} rows in shorter ones" if report.cluster else f"1 x {batch.tail:,}")
    return " + ".join(parts)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _safe(name: str) -> str:
    """A name from outside: neither rich's markup nor control characters of the terminal."""
    return escape(printable(name))


def _facts() -> Table:
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    return facts


def _asked(report: ScoreReport) -> str:
    asked = report.device.requested
    return "" if asked == report.device.actual else f" (asked: {asked})"


def _add_metrics(facts: Table, metrics: ClassificationMetrics | RegressionMetrics | None) -> None:
    if metrics is None:
        facts.add_row("accuracy", "not known: the data has no labels")
    elif isinstance(metrics, ClassificationMetrics):
        total = sum(row.support for row in metrics.per_class)
        counts = f"{metrics.n_correct:,} of {total:,}, log loss {metrics.log_loss:.4f}"
        facts.add_row("accuracy", f"[bold]{metrics.accuracy:.4f}[/bold]  {counts}")
    else:
        facts.add_row("R^2", f"[bold]{metrics.r2:.4f}[/bold]  MSE {metrics.mse:.4g}, MAE {metrics.mae:.4g}")


def parity_text(report: ScoreReport) -> str:
    """Say how far two devices agree."""
    parity = report.parity
    assert parity is not None
    if parity.labels_different is None:
        return (
            f"values differ from those on the {parity.reference} by {parity.largest_difference:.2g} at most"
        )
    same = report.data.samples - parity.labels_different
    return (
        f"{same:,} of {report.data.samples:,} labels as on the {parity.reference}, "
        f"probabilities differ by {parity.largest_difference:.2g} at most"
    )


def _class_table(metrics: ClassificationMetrics) -> Table:
    rows = list(zip(metrics.per_class, metrics.confusion, strict=True))
    title = None
    if len(rows) > _MAX_CLASSES:
        title = f"the {_MAX_CLASSES} classes of lowest f1, of {len(rows):,}"
        rows = sorted(rows, key=lambda row: row[0].f1)[:_MAX_CLASSES]
    table = Table(box=None, header_style="dim", pad_edge=False, title=title, title_justify="left")
    for name in ("label", "precision", "recall", "f1", "support"):
        table.add_column(name, justify="right")
    table.add_column("mostly taken for")
    for row, taken in rows:
        wrong, label = max((count, -label) for label, count in enumerate(taken) if label != row.label)
        numbers = (f"{value:.4f}" for value in (row.precision, row.recall, row.f1))
        table.add_row(str(row.label), *numbers, f"{row.support:,}", f"{-label} ({wrong:,})" if wrong else "")
    return table
