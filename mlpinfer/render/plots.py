"""Pictures, drawn with matplotlib (extra ``report``)."""

from __future__ import annotations

import io
import logging
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlpinfer.errors import InputError, missing_package
from mlpinfer.evaluation.sweep import SweepPoint, SweepReport
from mlpinfer.io.files import atomic_write
from mlpinfer.model.network import Network

#: No more units than this are drawn.
MAX_UNITS = 100
#: Confusion matrices of more classes are drawn without their counts.
MOST_COUNTED = 20
ACCENT = "#3b7dd8"
#: Stands for the colour of the text around a picture until it is in the page.
_INK = "#010203"


def draw_weights(network: Network, path: str | os.PathLike[str]) -> None:
    """Draw what each unit of the first layer looks for, as an image, to a PNG or SVG file.

    Red is positive, blue negative, white zero; one scale of colours for all units.

    Raises
    ------
    InputError
        If the inputs are not the pixels of a square image.
    MlpInferError
        If matplotlib is missing.
    """
    side = network.image_side
    if side is None:
        raise InputError(
            f"{path}: expected weights of a square image's pixels, found {network.sizes[0]} inputs"
        )
    W = network.layers[0].W.astype(np.float64).T[:MAX_UNITS].reshape(-1, side, side)
    columns = math.ceil(math.sqrt(len(W) * 1.6))
    rows = math.ceil(len(W) / columns)
    figure = _figure(columns * 0.9, rows * 0.9 + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = float(np.abs(W).max()) or 1.0
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(W):
            axis.imshow(W[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set_title(str(i), fontsize=6, pad=1)
    figure.suptitle(
        f"weights of layer 1, {len(W)} of {network.sizes[1]} units, from {-limit:.3g} to {limit:.3g}"
    )
    save_figure(figure, path)


def confusion_svg(confusion: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix, true labels in rows, as SVG to stand in a page.

    Shades are of each row's share, so that rare classes show; numbers are counts.
    """
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    size = min(7.0, 1.5 + 0.5 * classes)
    figure = _figure(size, size)
    axes = figure.subplots()
    shades = np.sqrt(shares)  # so that few mistakes among many rows show
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= MOST_COUNTED:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for row, column in np.argwhere(counts).tolist():
            dark = shades[row, column] > 0.7
            axes.text(
                column, row, counts[row, column], ha="center", va="center", color="white" if dark else "black"
            )
    return _svg(figure, "confusion")


def latency_svg(milliseconds: Sequence[float], marks: dict[str, float]) -> str:
    """Draw a histogram of batch latencies, with marks such as percentiles, as SVG to stand in a page."""
    figure = _figure(6.5, 2.6)
    axes = figure.subplots()
    axes.hist(milliseconds, bins=min(40, max(12, math.isqrt(len(milliseconds)))), color=ACCENT)
    for name, value in marks.items():
        axes.axvline(value, color=_INK, linewidth=1, linestyle=":")
        axes.annotate(name, (value, 1), xycoords=("data", "axes fraction"), va="bottom", ha="center")
    axes.set_xlabel("milliseconds a batch, one thread")
    axes.set_ylabel("batches")
    return _svg(figure, "latency")


def draw_sweep(report: SweepReport, path: str | os.PathLike[str]) -> None:
    """Draw throughput and batch latency over batch size, to a PNG or SVG file.

    Raises
    ------
    MlpInferError
        If matplotlib is missing.
    """
    figure = _figure(9.0, 4.0)
    from matplotlib.ticker import EngFormatter

    throughput, latency = figure.subplots(1, 2)
    lines: dict[str, list[SweepPoint]] = {}
    for point in report.points:
        threads = f", threads={point.asked_threads}" if point.asked_threads else ""
        lines.setdefault(f"{point.device}{threads}", []).append(point)
    for name, points in lines.items():
        sizes = [point.batch_size for point in points]
        throughput.plot(sizes, [point.samples_per_second for point in points], marker="o", label=name)
        p50, p99 = ([getattr(point.batch_latency_ms, q) / 1e3 for point in points] for q in ("p50", "p99"))
        (line,) = latency.plot(sizes, p50, marker="o", label=f"{name}: p50")
        latency.plot(sizes, p99, linestyle=":", color=line.get_color(), label=f"{name}: p99")
    best = report.recommended
    throughput.axvline(
        best.batch_size,
        color="grey",
        linestyle="--",
        label=f"recommended: {best.batch_size:,} on {best.device}",
    )
    throughput.set_ylim(0, 1.1 * max(point.samples_per_second for point in report.points))
    throughput.yaxis.set_major_formatter(EngFormatter())
    throughput.set_ylabel("rows a second, end to end")
    latency.set_ylabel("batch latency, seconds")
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter(EngFormatter("s"))
    for axes in (throughput, latency):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("rows in a batch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    data = ascii(report.data.name)[1:-1]  # the font may not have what else there is
    title = f"{'-'.join(map(str, report.network.layers))}, {report.precision}, {data}"
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def check_packages() -> None:
    """See that pictures can be drawn, before anything is computed for them; errors as `draw_sweep`."""
    _figure(1, 1)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, by the name's end, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format=os.path.splitext(path)[1][1:].lower())
    with atomic_write(path) as file:
        file.write(picture.getvalue())


def _svg(figure: Any, name: str) -> str:
    """Return a figure as an SVG element without ground, its ink in the colour of the text around it.

    All ids in it begin with `name`: a page may have several.
    """
    import matplotlib

    for axes in figure.axes:
        axes.tick_params(colors=_INK)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        axes.spines[:].set_color(_INK)
        for text in axes.texts:
            if text.get_color() == "black" and not axes.images:
                text.set_color(_INK)
    picture = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mlpinfer"}):
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = picture.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1)


def _figure(width: float, height: float) -> Any:
    # It would say at length that it has no folder to remember fonts in, and draws all the same.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from matplotlib.figure import Figure  # without pyplot: no windows, no global state
    except ImportError:
        raise missing_package("drawing", "matplotlib") from None
    return Figure((max(width, 4), max(height, 2)), dpi=120, layout="constrained")
