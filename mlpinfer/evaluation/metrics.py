"""How right a network is, by task. N rows, K classes or values.

Definitions follow scikit-learn's: log loss is the mean negative log likelihood in nats (also called
cross-entropy, NLL), precision and recall are 0 where nothing was predicted or nothing is there.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError, InputError
from mlpinfer.model.network import Network

#: A confusion matrix has the square of it, and a report has them all.
MOST_CLASSES = 2_000
#: Rows are judged in chunks of this many, whose logits take little memory.
_CHUNK_ROWS = 65_536
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class against the rest; `support` counts its rows."""

    label: int
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """`confusion` counts rows by true label (outer) and predicted label (inner)."""

    accuracy: float
    n_correct: int
    log_loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class RegressionMetrics:
    """Mean squared error, mean absolute error (L1), and R^2, averaged over the K values."""

    mse: float
    mae: float
    r2: float


class Accumulator(abc.ABC):
    """Judges what was predicted, some rows at a time; the rows of others can be added."""

    @abc.abstractmethod
    def update(self, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        """Add some rows, with their truth as `as_truth` returns it."""

    @abc.abstractmethod
    def merge(self, other: Self) -> None:
        """Add the rows of another accumulator of the same network."""

    @abc.abstractmethod
    def result(self) -> ClassificationMetrics | RegressionMetrics:
        """Return the metrics of all rows so far."""


class LabelAccumulator(Accumulator):
    """Judge labels, some rows at a time.

    Parameters
    ----------
    n_classes : int

    Raises
    ------
    InputError
        If there are more classes than a confusion matrix has room for.

    Attributes
    ----------
    confusion : ndarray, shape (K, K), int64
        Rows by true (outer) and predicted label.
    loss : float
        Sum of the rows' log losses.
    """

    def __init__(self, n_classes: int) -> None:
        if n_classes > MOST_CLASSES:
            raise InputError(
                f"score: expected at most {MOST_CLASSES:,} classes, found {n_classes:,}; use predict"
            )
        self.confusion: Labels = np.zeros((n_classes, n_classes), np.int64)
        self.loss = 0.0

    def update(self, truth: Labels, predicted: Labels) -> None:
        """Add the labels of some rows, shape (N,) both."""
        self.confusion += confusion_matrix(truth, predicted, len(self.confusion))

    def update_loss(self, truth: Labels, logits: Floats) -> None:
        """Add the log losses of the same rows: scores compute logits in a pass of their own."""
        self.loss += float(log_losses(truth, logits).sum())

    def merge(self, other: Self) -> None:
        """Add the rows of another accumulator."""
        self.confusion += other.confusion
        self.loss += other.loss

    @property
    def n_wrong(self) -> int:
        """Number of rows whose label is not the true one."""
        return int(self.confusion.sum() - np.trace(self.confusion))

    def result(self) -> ClassificationMetrics:
        """Return the metrics of all rows so far."""
        hits, rows = int(np.trace(self.confusion)), int(self.confusion.sum())
        return ClassificationMetrics(
            accuracy=hits / rows,
            n_correct=hits,
            log_loss=self.loss / rows,
            per_class=_per_class(self.confusion),
            confusion=tuple(tuple(row) for row in self.confusion.tolist()),
        )


class ValueAccumulator(Accumulator):
    """Judge predicted values, some rows at a time.

    Parameters
    ----------
    n_values : int
        Values a row has.

    Attributes
    ----------
    rows : int
    squared, absolute : ndarray, shape (K,), float64
        Sums of ``(t - y)^2`` and of ``|t - y|``.
    mean, spread : ndarray, shape (K,), float64
        Of the true values: the mean, and the sum of squared differences from it.
    """

    def __init__(self, n_values: int) -> None:
        self.rows = 0
        self.squared, self.absolute, self.mean, self.spread = np.zeros((4, n_values))

    def update(self, truth: Floats, predicted: Floats) -> None:
        """Add the values of some rows, shape (N, K) both."""
        t, residual = truth.astype(np.float64), truth.astype(np.float64) - predicted
        part = ValueAccumulator(t.shape[1])
        part.rows, part.mean = len(t), t.mean(axis=0)
        part.squared, part.absolute = (residual**2).sum(axis=0), np.abs(residual).sum(axis=0)
        part.spread = ((t - part.mean) ** 2).sum(axis=0)
        self.merge(part)

    def merge(self, other: Self) -> None:
        """Add the rows of another accumulator."""
        if not self.rows:  # The formulae would make NaN of means that are infinite or huge.
            vars(self).update(vars(other))
            return
        # Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.
        rows, apart = self.rows + other.rows, other.mean - self.mean
        self.squared = self.squared + other.squared
        self.absolute = self.absolute + other.absolute
        self.mean = self.mean + apart * (other.rows / rows)
        self.spread = self.spread + other.spread + apart**2 * (self.rows * other.rows / rows)
        self.rows = rows

    def result(self) -> RegressionMetrics:
        """Return the metrics of all rows so far."""
        # A constant truth has no variance to explain: 1 if it was met exactly, else 0.
        least = self.rows * (8 * np.finfo(np.float64).eps * self.mean) ** 2  # what rounding leaves of it
        varies = ~(self.spread <= least)  # so that what is not a number stays so
        r2 = np.where(varies, 1 - self.squared / np.where(varies, self.spread, 1), self.squared == 0)
        mse, mae = (float(sums.mean() / self.rows) for sums in (self.squared, self.absolute))
        return RegressionMetrics(mse=mse, mae=mae, r2=float(r2.mean()))


def accumulator_for(network: Network) -> Accumulator:
    """Return an accumulator of no rows, of what the network predicts.

    Raises
    ------
    InputError
        As `LabelAccumulator`.
    """
    if not network.is_classifier:
        return ValueAccumulator(network.sizes[-1])
    return LabelAccumulator(network.n_classes)


def as_truth(y: npt.NDArray[Any], network: Network, name: str) -> npt.NDArray[Any]:
    """Return what rows should give in the shape of what the network predicts: labels (N,) or values (N, K).

    Raises
    ------
    DatasetError
        If they are no labels of the network's classes, or not one value for each of its outputs.
    """
    if network.is_classifier:
        return as_labels(y, network.n_classes)
    outputs = network.sizes[-1]
    if y.reshape(len(y), -1).shape[1] != outputs:
        raise DatasetError(f"{name}: expected {outputs} values a row, found shape {y.shape}")
    return y.reshape(len(y), outputs)


def confusion_matrix(truth: Labels, predicted: Labels, classes: int) -> Labels:
    """Count rows by true and predicted label, shape (K, K), int64.

    Parameters
    ----------
    truth, predicted : ndarray, shape (N,), int64
        Labels from 0 to `classes` - 1.
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def log_losses(truth: Labels, logits: Floats) -> Floats:
    """Return ``-log(p[true label])`` of each row, shape (N,); their mean is the log loss.

    Computed from logits, ``logsumexp(z) - z[true]``, so that no probability is rounded to 0.

    Parameters
    ----------
    truth : ndarray, shape (N,), int64
    logits : ndarray, shape (N, K)
        Before softmax; with K = 1, before sigmoid.
    """
    z = logits.astype(np.float64)
    if z.shape[1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)  # sigmoid(z) is the softmax of (0, z)
    top = z.max(axis=1)
    with np.errstate(invalid="ignore"):  # infinite logits have no log loss: NaN
        normalizer = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        losses: Floats = normalizer - z[np.arange(len(z)), truth]
    return losses


def as_labels(y: npt.NDArray[Any], classes: int) -> Labels:
    """Return labels as int64, shape (N,), from integers (N,) or (N, 1), or one-hot rows (N, K).

    Raises
    ------
    DatasetError
        If they are not labels from 0 to `classes` - 1.
    """
    if y.ndim == 2 and y.shape[1] == classes:
        if not ((y == 0) | (y == 1)).all() or not (y.sum(axis=1) == 1).all():
            raise DatasetError(f"labels: expected one-hot rows of {classes}, found other values")
        labels: Labels = np.argmax(y, axis=1)
        return labels
    flat = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if flat.ndim != 1 or flat.dtype.kind not in "fiub" or not (flat == np.floor(flat)).all():
        raise DatasetError(f"labels: expected one whole number a row, found shape {y.shape} of {y.dtype}")
    if len(flat) and (flat.min() < 0 or flat.max() >= classes):
        raise DatasetError(f"labels: expected 0 to {classes - 1}, found {flat.min()} to {flat.max()}")
    return flat.astype(np.int64)


def chunks(begin: int, end: int) -> list[tuple[int, int]]:
    """Return where each chunk of rows `begin` to `end`, in which they are judged, begins and ends."""
    return [(at, min(at + _CHUNK_ROWS, end)) for at in range(begin, end, _CHUNK_ROWS)]


def _per_class(confusion: npt.NDArray[np.int64]) -> tuple[ClassMetrics, ...]:
    hits = np.diag(confusion)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return tuple(
        ClassMetrics(label=label, precision=float(p), recall=float(r), f1=float(f), support=int(count))
        for label, (p, r, f, count) in enumerate(zip(precision, recall, f1, support, strict=True))
    )
