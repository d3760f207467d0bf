"""Pictures, drawn with matplotlib (extra ``report``), which is imported here alone."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import numpy as np

from mlpinfer.errors import InputError, MlpInferError
from mlpinfer.files import write_whole
from mlpinfer.network import Network

#: No more units than this are drawn.
MAX_UNITS = 100


def draw_weights(network: Network, path: str | os.PathLike[str]) -> None:
    """Draw what each unit of the first layer looks for, as an image, to a PNG file.

    Red is positive, blue negative, white zero; one scale of colours for all units.

    Raises
    ------
    InputError
        If the inputs are not the pixels of a square image.
    MlpInferError
        If matplotlib is missing.
    """
    side = math.isqrt(network.sizes[0])
    if side < 2 or side * side != network.sizes[0]:
        raise InputError(f"--plot: expected the pixels of a square image, found {network.sizes[0]} inputs")
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


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    with write_whole(path) as file:
        file.write(picture.getvalue())


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure  # without pyplot: no windows, no global state
    except ImportError:
        raise MlpInferError("drawing needs a package: pip install 'mlpinfer[report]'") from None
    return Figure((max(width, 4), max(height, 2)), dpi=120, layout="constrained")
