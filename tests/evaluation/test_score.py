import json
import types

import numpy as np
import pytest

from mlpinfer import Dataset, DatasetError, InputError, Network, Predictor, score
from mlpinfer.evaluation import metrics, timing
from mlpinfer.evaluation.parts import Parts


@pytest.fixture(scope="module")
def report(network, mnist):
    x, t = mnist
    data = Dataset(x[:1037], t[:1037], 1 / 255, "some")
    return score(Predictor(network, batch_size=100), data, repeat=2)


def test_report(report, network):
    assert report.network.layers == (784, 50, 100, 10)
    assert report.network.scale == 1 / 255
    assert report.network.sha256 == network.sha256
    assert (report.batch.size, report.batch.full, report.batch.tail) == (100, 10, 37)
    assert report.metrics.n_correct == round(report.metrics.accuracy * 1037)
    assert np.sum(report.metrics.confusion) == 1037
    assert sum(row.support for row in report.metrics.per_class) == 1037
    timing = report.timing
    assert 0 < timing.seconds.min <= timing.seconds.median <= timing.seconds.max
    assert timing.samples_per_second == pytest.approx(1037 / timing.seconds.median)
    assert 0 < timing.batch_latency_ms.p50 <= timing.batch_latency_ms.p99
    assert timing.includes == ("cast", "affine", "activation", "labels")


def test_the_threads_that_ran_are_reported(network, mnist):
    few = score(Predictor(network, threads=64), Dataset(mnist[0][:100], None, 1 / 255), repeat=1)
    many = score(Predictor(network, threads=2), Dataset(mnist[0], None, 1 / 255), repeat=1)
    assert (few.device.threads, many.device.threads) == (1, 2)


def test_latency_is_of_full_batches():
    calls = []

    class Slow:
        def compute(self, x, output):
            calls.append(len(x))

        batch_size = 4
        backend = types.SimpleNamespace(synchronize=lambda: None)
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *exception: None  # noqa: E731

        def variant(self, threads):
            return self

    timing.latencies(Slow(), Parts.of(np.zeros((11, 2))), "labels")
    assert set(calls) == {4}
    assert timing._percentile([3.0, 1, 2], 50) == 2
    assert timing._percentile([1.0, 2], 50) == 1
    assert timing._percentile([1.0, 2], 99) == 2


def test_parts_add_up(network, mnist, monkeypatch):
    data = Dataset(mnist[0][:1037], mnist[1][:1037], 1 / 255)
    whole = score(Predictor(network), data, repeat=1).metrics
    monkeypatch.setattr(metrics, "_CHUNK_ROWS", 100)
    parts = score(Predictor(network), data, repeat=1).metrics
    assert parts.confusion == whole.confusion
    assert parts.log_loss == pytest.approx(whole.log_loss, rel=1e-6)


def test_report_as_json(report):
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["schema"] == "mlpinfer.score/1"
    assert list(values) == [
        "schema",
        "network",
        "data",
        "device",
        "batch",
        "metrics",
        "timing",
        "parity",
        "cluster",
        "environment",
    ]
    assert values["metrics"]["accuracy"] == report.metrics.accuracy


def test_scale_of_the_predictor_goes_before_that_of_the_data(network, mnist):
    data = Dataset(mnist[0][:200], mnist[1][:200], 1 / 255)
    assert score(Predictor(network), data, repeat=1).network.scale == 1 / 255
    assert score(Predictor(network, scale=1), data, repeat=1).network.scale == 1


def test_without_labels_there_are_no_metrics(network, mnist):
    assert score(Predictor(network), Dataset(mnist[0][:50], None, 1 / 255), repeat=1).metrics is None


def test_regression_and_infinite_values():
    network = Network.from_arrays([[[1.0], [1.0]]], [0], head="identity")
    x = np.array([[1, 2], [3, 4], [5, 6.0]])
    report = score(Predictor(network), Dataset(x, np.array([3, 7, 12])), repeat=1)
    assert report.metrics == metrics.RegressionMetrics(
        mse=1 / 3, mae=1 / 3, r2=pytest.approx(1 - 1 / 40.6667)
    )
    x[0] = np.inf
    with np.errstate(invalid="ignore"):
        values = score(Predictor(network), Dataset(x, np.array([3, 7, 12])), repeat=1).to_dict()
    assert values["metrics"]["mse"] is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((3, 27, 27)), None, r"expected rows of 784 features, found shape \(27, 27\)"),
        (np.ones((3, 784)), [0, 1, 10], "labels: expected 0 to 9, found 0 to 10"),
        (np.ones((3, 784)), [0, -1, 1], "labels: expected 0 to 9"),
        (np.ones((3, 784)), [0, 0.5, 1], "expected one whole number a row"),
        (np.ones((3, 784)), ["a", "b", "c"], "expected one whole number a row"),
        (np.ones((2, 784)), np.ones((2, 10)), "expected one-hot rows"),
        (np.ones((2, 784)), np.ones((2, 3)), "expected one whole number a row"),
    ],
)
def test_data_that_does_not_fit_is_refused(network, x, y, message):
    with pytest.raises(DatasetError, match=message):
        score(Predictor(network), Dataset(x, None if y is None else np.array(y)))


def test_options_that_do_not_fit_are_refused(network, mnist):
    data = Dataset(mnist[0][:10], None, 1 / 255)
    for options in ({"output": "scores"}, {"repeat": 0}, {"warmup": -1}):
        with pytest.raises(InputError, match="expected"):
            score(Predictor(network), data, **options)
    with pytest.raises(InputError, match="no probabilities"):
        score(Predictor(Network.random([784, 2], head="identity")), data, output="proba")


def test_one_hot_labels_are_labels():
    labels = np.array([2, 0, 1])
    np.testing.assert_array_equal(metrics.as_labels(np.eye(3)[labels], 3), labels)
    np.testing.assert_array_equal(metrics.as_labels(labels[:, None], 3), labels)


def test_metrics_by_hand():
    truth, logits = np.array([0, 0, 1, 1]), np.log([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    accumulator = metrics.LabelAccumulator(2)
    accumulator.update(truth, np.array([0, 1, 1, 1]))
    accumulator.update_loss(truth, logits)
    found = accumulator.result()
    assert accumulator.n_wrong == 1
    assert found.confusion == ((1, 1), (0, 2))
    assert (found.accuracy, found.n_correct) == (0.75, 3)
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.4, 0.5, 0.9]).mean())
    zero, one = found.per_class
    assert (zero.precision, zero.recall, zero.f1, zero.support) == (1, 0.5, pytest.approx(2 / 3), 2)
    assert (one.precision, one.recall, one.f1, one.support) == (
        pytest.approx(2 / 3),
        1,
        pytest.approx(0.8),
        2,
    )


def test_binary_log_loss_is_not_rounded_away():
    z = np.array([[-200.0], [200.0]])
    assert metrics.log_losses(np.array([1, 0]), z) == pytest.approx(200)


def test_classes_that_never_occur_are_listed():
    accumulator = metrics.LabelAccumulator(3)
    accumulator.update(np.array([0]), np.array([0]))
    found = accumulator.result()
    assert [row.support for row in found.per_class] == [1, 0, 0]
    assert found.per_class[2].f1 == 0


def judged_values(truth, predicted, cuts=1):
    """Judge values in so many parts, in an accumulator each, and add them up."""
    whole = metrics.ValueAccumulator(truth.shape[1])
    for part in zip(np.array_split(truth, cuts), np.array_split(predicted, cuts), strict=True):
        accumulator = metrics.ValueAccumulator(truth.shape[1])
        accumulator.update(*part)
        whole.merge(accumulator)
    return whole.result()


def test_values_that_are_constant_huge_or_no_numbers():
    rng = np.random.default_rng(0)
    truth, predicted = np.full((10_007, 1), 1234.567891), rng.standard_normal((10_007, 1))
    for cuts in (1, 5):
        assert judged_values(truth, predicted, cuts).r2 == 0
    for value in (np.nan, np.inf):
        with np.errstate(invalid="ignore"):
            found = judged_values(np.array([[1], [2], [value]]), np.zeros((3, 1)))
        assert np.isnan(found.r2)
    huge = np.full((3, 1), 1e200)  # whose square is infinite
    with np.errstate(over="ignore"):
        assert judged_values(huge, huge) == metrics.RegressionMetrics(mse=0, mae=0, r2=1)


def test_accumulators_of_parts_add_up():
    rng = np.random.default_rng(0)
    truth, predicted, logits = *rng.integers(0, 3, (2, 50)), rng.standard_normal((50, 3))
    whole, merged = metrics.LabelAccumulator(3), metrics.LabelAccumulator(3)
    whole.update(truth, predicted)
    whole.update_loss(truth, logits)
    for part in (slice(20), slice(20, 50)):
        accumulator = metrics.LabelAccumulator(3)
        accumulator.update(truth[part], predicted[part])
        accumulator.update_loss(truth[part], logits[part])
        merged.merge(accumulator)
    assert merged.n_wrong == whole.n_wrong == (truth != predicted).sum()
    assert merged.result().confusion == whole.result().confusion
    assert merged.result().log_loss == pytest.approx(whole.result().log_loss)
    assert metrics.LabelAccumulator(3).n_wrong == 0


def test_more_classes_than_a_confusion_matrix_has_room_for_are_refused():
    predictor = Predictor(Network.random([2, 2_001]))
    with pytest.raises(InputError, match="expected at most 2,000 classes, found 2,001; use predict"):
        score(predictor, Dataset(np.ones((3, 2)), np.zeros(3, int)))
