import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpinfer import Network, Predictor, fold
from tests.strategies import networks


@given(network=networks(), seed=st.integers(0, 1000))
def test_folded_equals_unfolded(network, seed):
    x = np.random.default_rng(seed).standard_normal((5, network.sizes[0]))
    folded = fold(network)
    assert folded.scale is None
    assert folded.head == network.head
    assert "sigmoid" not in folded.hidden
    np.testing.assert_allclose(folded.forward(x), network.forward(x), rtol=1e-9, atol=1e-12)


def test_a_stack_of_linear_layers_is_one():
    network = Network.random([6, 8, 5, 3], hidden="identity", head="identity")
    assert fold(network).sizes == (6, 3)


def test_a_bottleneck_stays_two_layers():
    assert fold(Network.random([100, 3, 100], hidden="identity")).sizes == (100, 3, 100)


@pytest.mark.parametrize("size", [1e200, 1e16, 1e-16, 1e-200])
def test_what_would_overflow_or_vanish_is_not_joined(size):
    W = np.full((2, 2), size)
    network = Network.from_arrays([W, W], [np.zeros(2)] * 2, "identity", "identity")
    assert fold(network).sizes == network.sizes


def test_the_cost_of_folding_sigmoid_is_within_its_bound():
    network = Network.from_arrays([[[1.0]], [[1e6]]], [[-16], [0]], "sigmoid", "identity")
    x = np.array([[0.0], [1], [-2]], np.float32)
    found = Predictor(network).predict(x)
    assert np.abs(found - network.forward(x)).max() <= np.finfo(np.float32).eps / 2 * 1e6
    np.testing.assert_allclose(
        Predictor(network, precision="float64").predict(x), network.forward(x), rtol=1e-6
    )
