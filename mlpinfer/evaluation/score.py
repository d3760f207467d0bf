"""Score a data set: how right, and how fast, in one run.

The first pass is cold, and is timed apart; it computes the logits that the log loss is made of.
Throughput is end to end, host rows in, host values out, with the device synchronised before the
clock stops; the labels that come out of it are those that are judged. Latency is measured apart,
one batch at a time on one thread, so that no timer sits inside the throughput run.
"""

from __future__ import annotations

import functools

import numpy as np

from mlpinfer._text import quoted
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import InputError
from mlpinfer.evaluation import metrics
from mlpinfer.evaluation.environment import environment
from mlpinfer.evaluation.report import (
    BatchInfo,
    DataInfo,
    DeviceInfo,
    NetworkInfo,
    Parity,
    ScoreReport,
    Spread,
    Timing,
)
from mlpinfer.evaluation.timing import latencies, latency_of, stages, steps, timed
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.io.data.open import check_features
from mlpinfer.model.ops import Array


def score(
    predictor: Predictor,
    data: Dataset,
    *,
    output: str = "labels",
    repeat: int = 3,
    warmup: int = 0,
    check_parity: bool = False,
) -> ScoreReport:
    """Measure how right and how fast `predictor` is on `data`.

    Parameters
    ----------
    predictor : Predictor
        Where neither it nor its network has a scale, that of the data is applied.
    data : Dataset
    output : {"labels", "proba"}
        What the timed passes compute. Labels need no softmax; probabilities do.
    repeat, warmup : int
        Timed passes over all rows, and untimed ones before them, besides the first.
    check_parity : bool
        Compute everything on the CPU too, and compare; for a predictor on a GPU.

    Raises
    ------
    DatasetError
        If rows or labels do not fit the network.
    InputError
    """
    _check_options(output, repeat, warmup, predictor)
    if check_parity and predictor.backend.name == "numpy":
        raise InputError(
            "check_parity: expected a predictor on a GPU, to compare with the CPU, found one on the cpu"
        )
    features = predictor.n_features_in_
    check_features(data.name, data.x.shape[1:], features)
    if predictor.scale is None and data.scale is not None:
        predictor = predictor.variant(scale=data.scale)
    x = data.x.reshape(data.samples, features)
    _check_truth(predictor, data)
    accumulator = metrics.accumulator_for(predictor.network)
    compute = functools.partial(predictor.compute, output=output)

    cold = _first_pass(predictor, x, data, accumulator)
    # The first pass computed logits: what else is wanted may have kernels of its own to compile.
    for _ in range(warmup + (output == "proba" or predictor.backend.name != "numpy")):
        compute(x)
    seconds, outputs = [], None
    for _ in range(repeat):
        elapsed, outputs = timed(predictor, compute, x)
        seconds.append(elapsed)
    predicted = outputs if output == "labels" else predictor.predict(x)
    measured = _measure(predictor, data, predicted, accumulator)
    batches = latencies(predictor, x, output)
    spread = Spread.of(seconds)
    return ScoreReport(
        network=NetworkInfo.of(predictor),
        data=DataInfo(name=data.name, samples=data.samples, features=data.features),
        device=_device_info(predictor, x),
        batch=BatchInfo.of(data.samples, predictor.batch_size),
        metrics=measured,
        timing=Timing(
            cold_seconds=cold,
            seconds=spread,
            samples_per_second=data.samples / spread.median,
            batch_latency_ms=latency_of(batches),
            includes=steps(predictor, output),
            stages=stages(predictor, x, output),
        ),
        parity=_parity(predictor, x) if check_parity else None,
        cluster=None,
        environment=environment(predictor.backend),
        latencies_ms=tuple(seconds * 1e3 for seconds in batches),
    )


def _check_options(output: str, repeat: int, warmup: int, predictor: Predictor) -> None:
    if output not in ("labels", "proba"):
        raise InputError(f"output: expected labels or proba, found {quoted(output)}")
    if output == "proba" and not predictor.network.is_classifier:
        raise InputError(
            "values: expected labels for an identity head, which has no probabilities, found proba"
        )
    if repeat < 1 or warmup < 0:
        raise InputError(f"expected repeat of 1 or more and warmup of 0 or more, found {repeat} and {warmup}")


def _check_truth(predictor: Predictor, data: Dataset) -> None:
    """Refuse labels or values that do not fit before anything is computed."""
    if data.y is None:
        return
    # Labels in parts, so that int64 of 10^8 of them need no memory.
    parts = [slice(None)] if not predictor.network.is_classifier else metrics.parts(data.samples)
    for part in parts:
        metrics.as_truth(data.y[part], predictor.network, data.name)


def _first_pass(predictor: Predictor, x: Array, data: Dataset, accumulator: metrics.Accumulator) -> float:
    """Return the seconds of the first pass over all rows, and judge them by their log losses.

    The pass computes logits, in parts, so that those of 10^8 rows need no memory.
    """
    cold = 0.0
    for part in metrics.parts(len(x)):
        elapsed, logits = timed(predictor, predictor.decision_function, x[part])
        cold += elapsed
        if data.y is not None and isinstance(accumulator, metrics.LabelAccumulator):
            truth = metrics.as_truth(data.y[part], predictor.network, data.name)
            accumulator.update_loss(truth, logits)
    return cold


def _measure(
    predictor: Predictor, data: Dataset, predicted: Array, accumulator: metrics.Accumulator
) -> metrics.ClassificationMetrics | metrics.RegressionMetrics | None:
    """Judge what a timed pass computed."""
    if data.y is None:
        return None
    for part in metrics.parts(data.samples):
        truth = metrics.as_truth(data.y[part], predictor.network, data.name)
        accumulator.update(truth, predicted[part])
    return accumulator.result()


def _parity(predictor: Predictor, x: Array) -> Parity:
    """Compare with the same network on the CPU, part by part."""
    cpu = predictor.variant(device="cpu", threads=None)
    regression = not predictor.network.is_classifier
    different, largest = 0, 0.0
    for part in metrics.parts(len(x)):
        values = "predict" if regression else "predict_proba"
        here, there = (getattr(p, values)(x[part]) for p in (cpu, predictor))
        with np.errstate(invalid="ignore"):
            distances = np.where(
                (here == there) | (np.isnan(here) & np.isnan(there)), 0, np.abs(here - there)
            )
        # Where one alone is not a number, no number says how far they are apart.
        largest = max(largest, float(np.nan_to_num(distances, nan=np.inf).max(initial=0)))
        if not regression:
            different += int((cpu.predict(x[part]) != predictor.predict(x[part])).sum())
    return Parity(
        reference=cpu.backend.device,
        labels_different=None if regression else different,
        largest_difference=largest,
    )


def _device_info(predictor: Predictor, x: Array) -> DeviceInfo:
    backend = predictor.backend
    return DeviceInfo(
        requested=predictor.requested_device,
        actual=backend.device,
        name=backend.describe(),
        backend=backend.name,
        threads=predictor.useful_threads(len(x)),
        precision=predictor.precision,
        evaluator=predictor.evaluator,
    )
