"""Rows in files are scored in parts, and found to be what they are in memory."""

import dataclasses

import numpy as np
import pytest

from mlpinfer import Dataset, DatasetError, Network, Predictor, score
from mlpinfer.cli import loading
from mlpinfer.evaluation import parts as parting
from mlpinfer.evaluation.mistakes import find_mistakes
from mlpinfer.evaluation.parts import Parts, StoredData
from mlpinfer.io.data.open import open_rows
from mlpinfer.io.data.read_options import ReadOptions
from mlpinfer.io.data.rows import ArrayRows

BATCH = 50


class Watched(ArrayRows):
    """Rows that write down what is read of them."""

    def __init__(self, *args):
        self.spans = []
        super().__init__(*args)

    def read(self, begin, end):
        self.spans.append((begin, end))
        return super().read(begin, end)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of three batches of images."""
    monkeypatch.setattr(parting, "_PART_BYTES", 784 * (3 * BATCH + 20))


def without_times(report):
    return dataclasses.replace(report, timing=None, latencies_ms=())


def same_metrics(found, expected):
    """The same but for the order in which rows are added up."""
    loss = {"log_loss": pytest.approx(expected.metrics.log_loss, rel=1e-12)}
    expected = dataclasses.replace(expected, metrics=dataclasses.replace(expected.metrics, **loss))
    return without_times(found) == without_times(expected)


@pytest.mark.parametrize("output", ["labels", "proba"])
def test_a_score_is_that_of_the_same_rows_in_memory(network, mnist, small_parts, output):
    x, t = mnist[0][:1037], mnist[1][:1037]
    predictor = Predictor(network, batch_size=BATCH, threads=1)
    rows = Watched("rows", x, t, 1 / 255)
    found = score(predictor, StoredData(name="some", rows=rows), output=output, repeat=2)
    assert same_metrics(found, score(predictor, Dataset(x, t, 1 / 255, "some"), output=output, repeat=2))
    assert found.metrics.n_correct == (predictor.variant(scale=1 / 255).predict(x) == t).sum()
    parts = [(at, min(at + 150, 1037)) for at in range(0, 1037, 150)]
    passes = 1 + (output == "proba") + 2
    assert [span for span in rows.spans if span[1] - span[0] > BATCH] == [
        span for span in parts if span[1] - span[0] > BATCH
    ] * passes
    assert len(found.latencies_ms) == 20


def test_labels_may_be_another_file(network, mnist, small_parts, tmp_path):
    x, t = mnist[0][:1037], mnist[1][:1037]
    np.save(tmp_path / "x.npy", x.reshape(-1, 28, 28))
    np.savetxt(tmp_path / "t.csv", t, fmt="%d")
    rows, labels = open_rows([tmp_path / "x.npy"]), open_rows([tmp_path / "t.csv"])
    predictor = Predictor(network, batch_size=BATCH, threads=1, scale=1 / 255)
    found = score(predictor, StoredData(name="some", rows=rows, labels=labels), repeat=1)
    assert same_metrics(found, score(predictor, Dataset(x, t, None, "some"), repeat=1))


def test_values_in_files(monkeypatch, tmp_path):
    monkeypatch.setattr(parting, "_PART_BYTES", 8 * 6 * BATCH)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1_037, 6)), rng.standard_normal((1_037, 2))
    network = Network.random([6, 9, 2], hidden="tanh", head="identity")
    np.save(tmp_path / "y.npy", y)
    predictor = Predictor(network, batch_size=BATCH, threads=1)
    stored = StoredData(name="array", rows=ArrayRows("x", x), labels=open_rows([tmp_path / "y.npy"]))
    assert len(Parts(stored, BATCH).spans) == 21
    found, expected = (score(predictor, data, repeat=1) for data in (stored, Dataset(x, y)))
    assert vars(found.metrics) == pytest.approx(vars(expected.metrics), rel=1e-12)


def test_mistakes_are_those_of_the_same_rows_in_memory(network, mnist, small_parts):
    x, t = mnist[0][:2_037], mnist[1][:2_037]
    predictor = Predictor(network, batch_size=BATCH, scale=1 / 255)
    stored = StoredData(name="some", rows=ArrayRows("rows", x, t))
    found, expected = (find_mistakes(predictor, data, 9) for data in (stored, Dataset(x, t)))
    assert found.total == expected.total
    for one, other in zip(found.shown, expected.shown, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        # Products of few rows may differ in their last bits, and each part has its own wrong rows.
        assert one.confidence == pytest.approx(other.confidence, rel=1e-6)
        assert (one.row, one.label, one.predicted) == (other.row, other.label, other.predicted)


def test_a_batch_is_never_cut(monkeypatch):
    monkeypatch.setattr(parting, "_PART_BYTES", 100)
    stored = StoredData(name="some", rows=ArrayRows("rows", np.zeros((25, 4))))
    assert Parts(stored, 10).spans == [(0, 10), (10, 20), (20, 25)]
    assert Parts(stored, 1).spans == [(at, min(at + 3, 25)) for at in range(0, 25, 3)]
    assert Parts(Dataset(np.zeros((25, 4))), 1).spans == [(0, 25)]


def test_labels_that_do_not_fit_are_refused_before_anything_is_computed(network, mnist, small_parts):
    labels = mnist[1][:500].copy()
    labels[400] = 10
    rows = Watched("rows", mnist[0][:500], labels, 1 / 255)
    with pytest.raises(DatasetError, match="labels: expected 0 to 9, found 0 to 10"):
        score(Predictor(network, batch_size=BATCH), StoredData(name="some", rows=rows))
    assert set(rows.spans) <= {(0, 0)}


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.ones((3, 4), complex), None, "some: expected numbers, found complex128"),
        (np.ones((3, 4)), np.ones((2, 1)), "some: expected 3 labels, one a row, found 2"),
        (np.ones((3, 4)), np.ones((3, 2, 2)), r"labels: expected labels, found images of shape \(2, 2\)"),
    ],
)
def test_what_is_stored_has_to_fit_together(x, labels, message):
    with pytest.raises(DatasetError, match=message):
        StoredData(
            name="some",
            rows=ArrayRows("rows", x),
            labels=None if labels is None else ArrayRows("labels", labels),
        )


def test_the_command_loads_what_is_small(monkeypatch, tmp_path, mnist, network):
    np.savez(tmp_path / "xy.npz", x=mnist[0][:300], y=mnist[1][:300])
    file = str(tmp_path / "xy.npz")
    small = loading.load_dataset(file, None, network, ReadOptions())
    assert isinstance(small, Dataset)
    monkeypatch.setattr(loading, "_MAX_LOADED_BYTES", 300 * 784 - 1)
    large = loading.load_dataset(file, None, network, ReadOptions())
    assert isinstance(large, StoredData)
    predictor = Predictor(network, batch_size=BATCH, scale=1 / 255)
    found, expected = (score(predictor, data, repeat=1) for data in (large, small))
    assert without_times(found) == without_times(expected)
    first = loading.load_first_rows(file, 100, network, ReadOptions())
    assert (first.samples, len(first.y)) == (100, 100)
