"""The rows that a network labels wrongly, and how sure it was of them."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlpinfer import metrics
from mlpinfer.data_files import Dataset
from mlpinfer.errors import InputError
from mlpinfer.ops import Array
from mlpinfer.predictor import Predictor
from mlpinfer.scoring import parts


class Mistake(NamedTuple):
    """A row that was labelled wrongly; `confidence` is the probability given to the predicted label.

    `image` has the row's pixels, shape (H, H), uint8, where the network's inputs may be a square image.
    """

    row: int
    label: int
    predicted: int
    confidence: float
    image: npt.NDArray[np.uint8] | None


class Mistakes(NamedTuple):
    """How many rows were labelled wrongly, and some of them, the most confident first."""

    total: int
    shown: tuple[Mistake, ...]


def find_mistakes(predictor: Predictor, data: Dataset, most: int) -> Mistakes:
    """Find the rows that are labelled wrongly, and return up to `most` of them.

    Parameters
    ----------
    predictor : Predictor
        With a scale, where the rows need one.
    data : Dataset
        With labels.
    most : int

    Raises
    ------
    DatasetError
        If labels do not fit the network.
    InputError
        If the network has an identity head, or the data no labels.
    """
    if predictor.network.head == "identity" or data.y is None:
        found = "an identity head" if data.y is not None else "none"
        raise InputError(f"mistakes: expected a classifier and labels, found {found}")
    x, side = data.x.reshape(data.samples, -1), predictor.network.image_side
    classes = len(predictor.classes_)
    total, worst = 0, list[tuple[float, int, int, int]]()
    for part in parts(data.samples):
        truth, predicted = metrics.as_labels(data.y[part], classes), predictor.predict(x[part])
        wrong = np.flatnonzero(truth != predicted)
        total += len(wrong)
        if not len(wrong):
            continue
        confidence = predictor.predict_proba(x[part][wrong])[np.arange(len(wrong)), predicted[wrong]]
        rows = (wrong + part.start).tolist()
        found_here = zip(
            confidence.tolist(), rows, truth[wrong].tolist(), predicted[wrong].tolist(), strict=True
        )
        worst = heapq.nsmallest(most, [*worst, *found_here], key=lambda row: (-row[0], row[1]))
    shown = (
        Mistake(row, label, predicted, confidence, _image(x[row], side))
        for confidence, row, label, predicted in worst
    )
    return Mistakes(total, tuple(shown))


def _image(row: Array, side: int | None) -> npt.NDArray[np.uint8] | None:
    if side is None:
        return None
    if row.dtype != np.uint8:  # from its least value, black, to its greatest, white
        values = np.nan_to_num(row.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        values = values - values.min()
        row = np.rint(values * (255 / (values.max() or 1.0)))
    image: npt.NDArray[np.uint8] = row.astype(np.uint8).reshape(side, side)
    return image
