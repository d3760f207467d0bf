"""Every metric against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from mlpinfer.evaluation import metrics
from mlpinfer.model import ops


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 60), classes=st.integers(1, 7))
def test_classification(seed, rows, classes):
    rng = np.random.default_rng(seed)
    labels = list(range(max(2, classes)))
    truth = rng.integers(0, len(labels), rows)
    z = rng.standard_normal((rows, classes)) * 3
    predicted = (z[:, 0] > 0).astype(int) if classes == 1 else z.argmax(1)
    p = ops.sigmoid(np, z) if classes == 1 else ops.softmax(np, z)
    accumulator = metrics.LabelAccumulator(len(labels))
    accumulator.update(truth, predicted)
    accumulator.update_loss(truth, z)
    found = accumulator.result()
    assert found.accuracy == sklearn.accuracy_score(truth, predicted)
    assert found.log_loss == pytest.approx(
        sklearn.log_loss(truth, np.hstack([1 - p, p]) if classes == 1 else p, labels=labels), rel=1e-6
    )
    np.testing.assert_array_equal(found.confusion, sklearn.confusion_matrix(truth, predicted, labels=labels))
    expected = sklearn.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    rows_found = np.array([(row.precision, row.recall, row.f1, row.support) for row in found.per_class]).T
    np.testing.assert_allclose(rows_found, expected)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 60), outputs=st.integers(1, 4))
def test_regression(seed, rows, outputs):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.standard_normal((2, rows, outputs))
    if seed % 3 == 0:
        truth[:, 0] = 1
    if seed % 6 == 0:
        predicted[:, 0] = 1
    cut = seed % (rows - 1) + 1  # any two parts add up to the whole
    accumulator = metrics.ValueAccumulator(outputs)
    for part in (slice(cut), slice(cut, None)):
        accumulator.update(truth[part], predicted[part])
    found = accumulator.result()
    assert found.mse == pytest.approx(sklearn.mean_squared_error(truth, predicted))
    assert found.mae == pytest.approx(sklearn.mean_absolute_error(truth, predicted))
    assert found.r2 == pytest.approx(sklearn.r2_score(truth, predicted))
