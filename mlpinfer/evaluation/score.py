"""Score a data set: how right, and how fast, in one run.

The first pass is cold, and is timed apart; it computes the logits that the log loss is made of.
Throughput is end to end, host rows in, host values out, with the device synchronised before the
clock stops; the labels that come out of it are those that are judged. Latency is measured apart,
one batch at a time on one thread, so that no timer sits inside the throughput run.
Rows in files are read in parts before the clock starts, so that files may be larger than memory.
"""

from __future__ import annotations

import numpy as np

from mlpinfer._text import quoted
from mlpinfer.engine.predictor import Predictor
from mlpinfer.errors import InputError
from mlpinfer.evaluation import metrics
from mlpinfer.evaluation.environment import environment
from mlpinfer.evaluation.parts import Parts, StoredData
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
from mlpinfer.evaluation.timing import (
    latencies,
    latency_of,
    stages,
    steps,
    timed,
    timed_pass,
)
from mlpinfer.io.data.dataset import Dataset
from mlpinfer.io.data.open import check_features


def score(
    predictor: Predictor,
    data: Dataset | StoredData,
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
    data : Dataset or StoredData
        What is stored is read in parts, in every pass, while the clock stands still.
    output : {"labels", "proba"}
        What the timed passes compute. Labels need no softmax; probabilities do.
    repeat, warmup : int
        Timed passes over all rows, and untimed ones before them, besides the first.
    check_parity : bool
        Compute everything on the CPU too, and compare; for a predictor on a GPU.

    Raises
    ------
    DatasetError
        If rows or labels do not fit the network, or cannot be read.
    InputError
    """
    _check_options(predictor, output, repeat, warmup, check_parity)
    parts = Parts(data, predictor.batch_size)
    check_features(data.name, parts.row_shape, predictor.n_features_in_)
    if predictor.scale is None and data.scale is not None:
        predictor = predictor.variant(scale=data.scale)
    _check_truth(predictor, parts)
    accumulator = metrics.accumulator_for(predictor.network)
    cold = _first_pass(predictor, parts, accumulator)
    # The first pass computed logits: what else is wanted may have kernels of its own to compile.
    for _ in range(warmup + (output == "proba" or predictor.backend.name != "numpy")):
        timed_pass(predictor, parts, output)
    seconds = [timed_pass(predictor, parts, output) for _ in range(repeat - 1)]
    seconds.append(_last_pass(predictor, parts, output, accumulator))
    batches = latencies(predictor, parts, output)
    spread = Spread.of(seconds)
    return ScoreReport(
        network=NetworkInfo.of(predictor),
        data=DataInfo(name=data.name, samples=data.samples, features=data.features),
        device=_device_info(predictor, parts),
        batch=BatchInfo.of(data.samples, predictor.batch_size),
        metrics=accumulator.result() if parts.has_labels else None,
        timing=Timing(
            cold_seconds=cold,
            seconds=spread,
            samples_per_second=data.samples / spread.median,
            batch_latency_ms=latency_of(batches),
            includes=steps(predictor, output),
            stages=stages(predictor, parts, output),
        ),
        parity=_parity(predictor, parts) if check_parity else None,
        cluster=None,
        environment=environment(predictor.backend),
        latencies_ms=tuple(seconds * 1e3 for seconds in batches),
    )


def _check_options(predictor: Predictor, output: str, repeat: int, warmup: int, check_parity: bool) -> None:
    if output not in ("labels", "proba"):
        raise InputError(f"output: expected labels or proba, found {quoted(output)}")
    if output == "proba" and not predictor.network.is_classifier:
        raise InputError(
            "values: expected labels for an identity head, which has no probabilities, found proba"
        )
    metrics.accumulator_for(predictor.network)  # Refuses too many classes.
    if repeat < 1 or warmup < 0:
        raise InputError(f"expected repeat of 1 or more and warmup of 0 or more, found {repeat} and {warmup}")
    if check_parity and predictor.backend.name == "numpy":
        raise InputError(
            "check_parity: expected a predictor on a GPU, to compare with the CPU, found one on the cpu"
        )


def _check_truth(predictor: Predictor, parts: Parts) -> None:
    """Refuse labels or values that do not fit before anything is computed."""
    if parts.has_labels:
        one_by_one = predictor.network.is_classifier  # Only labels are looked at each.
        for span in parts.spans:
            for chunk in metrics.chunks(*span) if one_by_one else [span]:
                parts.truth(predictor.network, *chunk)


def _first_pass(predictor: Predictor, parts: Parts, accumulator: metrics.Accumulator) -> float:
    """Return the seconds of the first pass over all rows, and judge them by their log losses.

    The pass computes logits, in chunks, so that those of 10^8 rows need no memory.
    """
    cold = 0.0
    for first, x in parts:
        for begin, end in metrics.chunks(0, len(x)):
            elapsed, logits = timed(predictor, x[begin:end], "logits")
            cold += elapsed
            if parts.has_labels and isinstance(accumulator, metrics.LabelAccumulator):
                truth = parts.truth(predictor.network, first + begin, first + end)
                accumulator.update_loss(truth, logits)
    return cold


def _last_pass(predictor: Predictor, parts: Parts, output: str, accumulator: metrics.Accumulator) -> float:
    """Return the seconds of a timed pass, and judge the labels or values that it computes.

    Those of a pass that computes probabilities are computed besides, while the clock stands still.
    """
    seconds = 0.0
    for first, x in parts:
        elapsed, predicted = timed(predictor, x, output)
        seconds += elapsed
        if not parts.has_labels:
            continue
        if output != "labels":
            predicted = predictor.predict(x)
        for begin, end in metrics.chunks(0, len(x)):
            truth = parts.truth(predictor.network, first + begin, first + end)
            accumulator.update(truth, predicted[begin:end])
    return seconds


def _parity(predictor: Predictor, parts: Parts) -> Parity:
    """Compare with the same network on the CPU, chunk by chunk."""
    cpu = predictor.variant(device="cpu", threads=None)
    regression = not predictor.network.is_classifier
    output = "labels" if regression else "proba"
    different, largest = 0, 0.0
    for _, rows in parts:
        for begin, end in metrics.chunks(0, len(rows)):
            x = rows[begin:end]
            here, there = (p.compute(x, output) for p in (cpu, predictor))
            with np.errstate(invalid="ignore"):
                distances = np.where(
                    (here == there) | (np.isnan(here) & np.isnan(there)), 0, np.abs(here - there)
                )
            # Where one alone is not a number, no number says how far they are apart.
            largest = max(largest, float(np.nan_to_num(distances, nan=np.inf).max(initial=0)))
            if not regression:
                different += int((cpu.predict(x) != predictor.predict(x)).sum())
    return Parity(
        reference=cpu.backend.device,
        labels_different=None if regression else different,
        largest_difference=largest,
    )


def _device_info(predictor: Predictor, parts: Parts) -> DeviceInfo:
    backend = predictor.backend
    most_rows = max(end - begin for begin, end in parts.spans)
    return DeviceInfo(
        requested=predictor.requested_device,
        actual=backend.device,
        name=backend.describe(),
        backend=backend.name,
        threads=predictor.useful_threads(most_rows),
        precision=predictor.precision,
        evaluator=predictor.evaluator,
    )
