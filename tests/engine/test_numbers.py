"""Numbers at the ends of their range, on every evaluator: saturated, subnormal, zero, equal."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpinfer import Network, Predictor, WeightsError, fold, load_network, save_network

pytestmark = pytest.mark.usefixtures("evaluator")

precisions = st.sampled_from(["float32", "float64"])
TINY = np.float32(1e-40)  # below 1.2e-38, the smallest normal one


def constant(logits, head="softmax"):
    """A network of two features that has these logits whatever it is given."""
    return Network.from_arrays([np.zeros((2, len(logits)))], [np.asarray(logits, np.float64)], head=head)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_saturated_logits_have_probabilities(precision, device):
    for logits, expected in (
        ([1e4, -1e4, 0], [1, 0, 0]),
        ([-1e4, -1e4, -1e4], [1 / 3] * 3),
        ([1e4, 1e4, -1e4], [0.5, 0.5, 0]),
        ([3e38, -3e38, 0], [1, 0, 0]),
    ):
        predictor = Predictor(constant(logits), device, precision=precision)
        with np.errstate(over="ignore"):  # of 3e38 minus -3e38
            np.testing.assert_allclose(predictor.predict_proba([1.0, 2.0]), expected, atol=1e-6)
        assert predictor.predict([1.0, 2.0]) == np.argmax(logits)
    for logit, p in ((1e4, 1), (-1e4, 0), (0, 0.5)):
        predictor = Predictor(constant([logit], "sigmoid"), device, precision=precision)
        np.testing.assert_array_equal(predictor.predict_proba([1.0, 2.0]), [1 - p, p])
        assert predictor.predict([1.0, 2.0]) == (logit > 0)


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "relu", "leaky_relu(0.1)"])
def test_saturated_layers_are_as_the_textbook_has_them(hidden):
    rng = np.random.default_rng(0)
    sizes = [30, 40, 20, 5]
    W = [rng.choice([-1e4, 1e4], size) for size in itertools.pairwise(sizes)]
    W[-1] = rng.standard_normal(W[-1].shape)  # of relu what comes before is large enough
    network = Network.from_arrays([w.astype(np.float32) for w in W], [np.zeros(n) for n in sizes[1:]], hidden)
    x = rng.choice([-1.0, 1.0], (50, 30)).astype(np.float32)
    expected = network.astype(np.float64).forward(x)
    predictor = Predictor(network, batch_size=7)
    found = predictor.predict_proba(x)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(predictor.predict(x), found.argmax(axis=1))
    if hidden in ("sigmoid", "tanh"):  # sums of thousands are exact, and their signs too
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20),
    precision=precisions,
)
def test_probabilities_sum_to_one(logits, precision):
    predictor = Predictor(constant(logits), precision=precision)
    p = predictor.predict_proba(np.ones((3, 2)))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert ((p >= 0) & (p <= 1)).all()
    z = predictor.decision_function(np.ones((3, 2)))
    np.testing.assert_array_equal(z, np.tile(np.asarray(logits, z.dtype), (3, 1)))
    np.testing.assert_array_equal(predictor.predict(np.ones((3, 2))), z.argmax(axis=1))
    coin = Predictor(constant(logits[:1], "sigmoid"), precision=precision).predict_proba(np.ones((3, 2)))
    np.testing.assert_allclose(coin.sum(axis=1), 1, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 1_000), scale=st.sampled_from([1e-30, 1, 30, 1e4]), outputs=st.integers(2, 60))
def test_probabilities_of_large_weights_sum_to_one(seed, scale, outputs):
    rng = np.random.default_rng(seed)
    W = [rng.standard_normal((20, 30)) * scale, rng.standard_normal((30, outputs)) * scale]
    network = Network.from_arrays(
        [w.astype(np.float32) for w in W], [np.zeros(30), np.zeros(outputs)], "tanh"
    )
    p = Predictor(network).predict_proba(rng.standard_normal((40, 20)))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(
    levels=st.lists(st.integers(-2, 2), min_size=2, max_size=200),
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    precision=precisions,
)
def test_the_lowest_of_a_tie_is_the_label(levels, rows, batch_size, precision):
    """Small integers are exact, so that equal logits are equal bits."""
    W = np.array([levels, [0] * len(levels)], np.float64)
    predictor = Predictor(Network.from_arrays([W], [np.zeros(len(levels))]), "cpu", batch_size, 2, precision)
    x = np.ones((rows, 2))
    x[1::2, 0] = -3
    x[2::3, 0] = 0  # all logits are equal
    expected = [levels.index(min(levels) if a < 0 else max(levels)) if a else 0 for a in x[:, 0]]
    assert predictor.predict(x).tolist() == expected
    assert predictor.predict_proba(x).argmax(axis=1).tolist() == expected


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_zeros_of_both_signs_tie(precision, device):
    for logits in ([-0.0, 0.0, 0.0], [0.0, -0.0, 0.0], [-0.0, -0.0, 0.0]):
        assert Predictor(constant(logits), device, precision=precision).predict([1.0, 2.0]) == 0
    network = Network.random([20, 30, 10], hidden="tanh")
    predictor = Predictor(network, device, precision=precision)
    zeros = np.zeros((5, 20), np.float32)
    np.testing.assert_array_equal(predictor.decision_function(-zeros), predictor.decision_function(zeros))
    sign = Network.from_arrays([np.array([[1.0, -1.0]])], [np.array([-0.0, -0.0])], head="identity")
    assert (Predictor(sign, device, precision=precision).predict([[-0.0], [0.0]]) == 0).all()


@settings(deadline=None)
@given(features=st.integers(1, 300), rows=st.integers(1, 60), batch_size=st.integers(1, 40))
def test_a_row_of_zeros_is_the_biases_whatever_stands_beside_it(features, rows, batch_size):
    rng = np.random.default_rng(features)
    network = Network.from_arrays(
        [rng.standard_normal((features, 12)), rng.standard_normal((12, 4))],
        [rng.standard_normal(12), rng.standard_normal(4)],
        hidden="tanh",
    )
    first, last = network.layers
    expected = np.tanh(first.b) @ last.W + last.b
    predictor = Predictor(network, batch_size=batch_size, scale=1)
    for dtype in (np.uint8, np.float32):
        x = rng.integers(0, 2, (rows, features)).astype(dtype)
        x[::2] = 0
        found = predictor.decision_function(x)[::2]
        np.testing.assert_allclose(found, np.tile(expected, (len(found), 1)), atol=1e-5)
        np.testing.assert_array_equal(predictor.decision_function(np.zeros_like(x))[::2], found)


def test_subnormal_weights_are_kept_and_multiplied(tmp_path):
    W = np.full((8, 3), TINY, np.float32) * np.array([1, 2, 3], np.float32)
    network = Network.from_arrays([W], [np.zeros(3, np.float32)], head="identity")
    kept = network.layers[0].W
    assert ((kept > 0) & (kept < np.finfo(np.float32).tiny)).all()
    x = np.ones((30, 8), np.float32)
    np.testing.assert_allclose(Predictor(network).predict(x), x @ W, rtol=1e-4)
    np.testing.assert_allclose(Predictor(network).predict(x * 1e38), (x * 1e38) @ W, rtol=1e-4)
    labels = Predictor(Network.from_arrays([W], [np.zeros(3, np.float32)]))
    assert labels.predict(x).tolist() == [2] * 30
    for suffix in ("npz", "safetensors", "onnx", "pkl"):
        path = tmp_path / f"w.{suffix}"
        save_network(network, path)
        again = load_network(path, head="identity")
        np.testing.assert_array_equal(again.layers[0].W, W)


def test_float64_weights_beyond_float32_are_refused_by_the_name_of_the_file(tmp_path):
    W, b = np.ones((4, 3)), np.zeros(3)
    for name, arrays in (("W1", ([W * -1e39, W[:3]], [b, b])), ("b2", ([W, W[:3]], [b, b + 4e38]))):
        network = Network.from_arrays(*arrays)
        np.testing.assert_array_equal(network.layers[0].W, arrays[0][0])
        save_network(network, tmp_path / "w.npz")
        kept = load_network(tmp_path / "w.npz")
        assert kept.sha256 == network.sha256
        for refused in (network, kept):
            with pytest.raises(
                WeightsError, match=rf"^{name}: .*does not fit float32, use float64 precision"
            ):
                Predictor(refused)
        assert Predictor(kept, precision="float64").predict(np.ones((1, 4))).tolist() == [0]
    # The largest that there are fit, and what rounds to them.
    edge = float(np.finfo(np.float32).max)
    Predictor(Network.from_arrays([np.full((1, 2), edge * (1 + 1e-9))], [[0, 0]]))


def test_weights_that_leave_float32_when_they_are_folded_are_refused():
    """The scale goes into the first weights; it must not make infinities of them in silence."""
    network = Network.from_arrays([np.full((2, 2), 1e30, np.float32)], [[0, 0]], scale=1e30)
    with pytest.raises(WeightsError, match="float32"):
        Predictor(network)
    assert np.isfinite(Predictor(network, precision="float64").decision_function([1.0, 1.0])).all()
    assert np.isfinite(fold(network.astype(np.float64)).layers[0].W).all()
