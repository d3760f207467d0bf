"""The rows that a network labels wrongly, and how sure it was of them."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlpinfer._json import NOT_IN_JSON
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import InputError
from mlpinfer.evaluation import metrics
from mlpinfer.evaluation.parts import Parts, StoredData
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.model.ops import Array

Image = npt.NDArray[np.uint8]
#: Confidence, row, true label and predicted label.
_Wrong = tuple[float, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A row that was labelled wrongly; `confidence` is the probability given to the predicted label.

    `image` has the row's pixels, shape (H, H), uint8, where the network's inputs may be a square image.
    """

    row: int
    label: int
    predicted: int
    confidence: float
    image: Image | None = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """How many rows were labelled wrongly, and some of them, the most confident first."""

    total: int
    shown: tuple[Mistake, ...]

    def first(self, most: int) -> Mistakes:
        """Return the same with up to `most` of them shown."""
        return Mistakes(total=self.total, shown=self.shown[:most])


def find_mistakes(predictor: Predictor, data: Dataset | StoredData, most: int) -> Mistakes:
    """Find the rows that are labelled wrongly, and return up to `most` of them.

    Parameters
    ----------
    predictor : Predictor
        With a scale, where the rows need one.
    data : Dataset or StoredData
        With labels.
    most : int

    Raises
    ------
    DatasetError
        If labels do not fit the network, or what is stored cannot be read.
    InputError
        If the network has an identity head or more than 2,000 classes, or the data no labels.
    """
    parts = Parts(data, predictor.batch_size)
    check_has_mistakes(predictor, parts)
    accumulator = metrics.LabelAccumulator(predictor.network.n_classes)
    worst = list[_Wrong]()
    for first, x in parts:
        for begin, end in metrics.chunks(0, len(x)):
            truth = parts.truth(predictor.network, first + begin, first + end)
            predicted = predictor.predict(x[begin:end])
            accumulator.update(truth, predicted)
            wrong = np.flatnonzero(truth != predicted)
            if not len(wrong):
                continue
            label = predicted[wrong]
            confidence = predictor.predict_proba(x[begin:end][wrong])[np.arange(len(wrong)), label]
            columns = (confidence, wrong + (first + begin), truth[wrong], label)
            found_here = zip(*(column.tolist() for column in columns), strict=True)
            worst = heapq.nsmallest(most, [*worst, *found_here], key=_least_confident_last)
    images = _images(parts, [row for _, row, _, _ in worst], predictor.network.image_side)
    shown = (
        Mistake(row=row, label=label, predicted=predicted, confidence=confidence, image=images.get(row))
        for confidence, row, label, predicted in worst
    )
    return Mistakes(total=accumulator.n_wrong, shown=tuple(shown))


def check_has_mistakes(predictor: Predictor, parts: Parts) -> None:
    """Refuse what no label can be wrong of; errors as `find_mistakes`."""
    if not predictor.network.is_classifier:
        raise InputError("mistakes: expected a classifier, found an identity head, which has no labels")
    if not parts.has_labels:
        raise InputError(f"mistakes: expected labels to compare with, found none in {parts.name}")


def shrunk(image: Image, most: int) -> Image:
    """Return the means of blocks of pixels, where the image is wider than `most`."""
    k = math.ceil(len(image) / most)
    side = len(image) // k * k
    blocks = image[:side, :side].reshape(side // k, k, side // k, k)
    small: Image = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return small


def _least_confident_last(mistake: _Wrong) -> tuple[float, int]:
    confidence, row, *_ = mistake
    return (math.inf if math.isnan(confidence) else -confidence), row


def _images(parts: Parts, rows: list[int], side: int | None) -> dict[int, Image]:
    """Return the pixels of rows by their numbers, read in order, because some files are quickest so."""
    if side is None:
        return {}
    return {row: _image(parts.read(row, row + 1)[0], side) for row in sorted(rows)}


def _image(row: Array, side: int) -> Image:
    if row.dtype != np.uint8:  # from its least value, black, to its greatest, white
        values = np.nan_to_num(row.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        values = values - values.min()
        row = np.rint(values * (255 / (values.max() or 1.0)))
    image: Image = row.astype(np.uint8).reshape(side, side)
    return image
