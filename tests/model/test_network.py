import dataclasses
import pickle

import array_api_strict
import numpy as np
import pytest

from mlpinfer import InputError, Layer, Network, WeightsError, fold
from mlpinfer.model.checks import checked_scale


def test_the_book_s_sizes_and_parameters():
    network = Network.random([784, 50, 100, 10])
    assert network.sizes == (784, 50, 100, 10)
    assert network.parameters == 45_360
    assert network.hidden == ("sigmoid", "sigmoid")
    assert network.head == "softmax"
    assert Network.random([784, 128, 64, 10]).parameters == 109_386


def test_it_shows_itself_in_a_line():
    network = Network.random([4, 3, 2], hidden="tanh", scale=0.5)
    assert repr(network) == "Network(4-3-2, hidden='tanh', head='softmax', scale=0.5)"


def test_a_layer_leaves_the_caller_s_arrays_alone():
    W, b = np.ones((3, 2)), np.ones(2)
    layer = Layer(W, b, "relu")
    assert W.flags.writeable
    for array in (layer.W, pickle.loads(pickle.dumps(layer)).b):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_forward_is_the_formula():
    network = Network.random([4, 3, 2], hidden="tanh")
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    (W1, b1), (W2, b2) = ((layer.W, layer.b) for layer in network.layers)
    z = np.tanh(x @ W1 + b1) @ W2 + b2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(network.forward(x), p, rtol=1e-6)
    np.testing.assert_allclose(network.forward(x[0]), p[0], rtol=1e-6)
    np.testing.assert_allclose(network.trace(x)[1].affine, z, rtol=1e-5)


def test_forward_on_the_array_api_standard():
    xp = array_api_strict
    network = Network.random([4, 3, 2], scale=0.5)
    x = np.ones((5, 4), np.float32)
    y = network.forward(xp.asarray(x), xp)
    assert isinstance(y, type(xp.asarray(x)))
    np.testing.assert_allclose(np.asarray(y), network.forward(x), rtol=1e-6)


def test_a_single_neuron_is_a_gate():
    gate = Network.from_arrays([[5, 5]], [-7.5], head="sigmoid")
    assert gate.sizes == (2, 1)
    np.testing.assert_array_equal(
        gate.forward([[0, 0], [0, 1], [1, 0], [1, 1]]).round(), [[0], [0], [0], [1]]
    )


def test_scale_is_applied():
    raw, scaled = Network.random([3, 2]), Network.random([3, 2], scale=1 / 255)
    x = np.array([[255.0, 0, 51]], np.float32)
    np.testing.assert_allclose(scaled.forward(x), raw.forward(x / 255), rtol=1e-6)


def test_weights_are_private_and_read_only():
    W = np.ones((2, 3), np.float32)
    network = Network.from_arrays([W], [np.zeros(3)])
    W[:] = 5
    assert (network.layers[0].W == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        network.layers[0].W[0, 0] = 2
    for other in (fold(network), network.astype(np.float64), pickle.loads(pickle.dumps(network))):
        with pytest.raises(ValueError, match="read-only"):
            other.layers[0].W[0, 0] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.scale = 1


@pytest.mark.parametrize("sizes", [[3], [], [3, 0], [3, -1]])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(InputError, match="sizes: expected two or more"):
        Network.random(sizes)


def test_digest_tells_networks_apart():
    network = Network.random([4, 3, 2])
    digests = {
        network.sha256,
        Network.random([4, 3, 2], seed=1).sha256,
        Network.random([4, 3, 2], hidden="relu").sha256,
        Network.random([4, 3, 2], scale=2).sha256,
        network.astype(np.float64).sha256,
    }
    assert len(digests) == 5
    assert Network.random([4, 3, 2]).sha256 == network.sha256


ok = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("weights", "biases", "options", "message"),
    [
        (
            [np.ones((784, 50)), np.ones((49, 100))],
            [np.ones(50), np.ones(100)],
            {},
            r"W2: expected shape \(50,",
        ),
        ([ok], [np.ones(4)], {}, r"b1: expected shape \(3,\) to fit W1, found \(4,\)"),
        ([ok], [np.ones((1, 3))], {}, "b1: expected shape"),
        ([ok, ok], [np.ones(3)], {}, "2 weights and 1 biases"),
        ([], [], {}, "expected one bias for each"),
        ([np.full((2, 3), np.nan)], [np.ones(3)], {}, "W1: expected finite numbers"),
        ([ok], [[1, np.inf, 2]], {}, "b1: expected finite numbers"),
        ([np.array([[None, 1]])], [np.ones(2)], {}, "W1: expected float16"),
        ([ok.astype(complex)], [np.ones(3)], {}, "W1: expected float16"),
        ([ok.astype(str)], [np.ones(3)], {}, "W1: expected float16"),
        ([[[1, 2], [3]]], [np.ones(2)], {}, "W1: expected an array of numbers"),
        ([np.ones((0, 3))], [np.ones(3)], {}, "W1: expected shape"),
        ([np.ones((1, 2, 3))], [np.ones(3)], {}, "W1: expected shape"),
        ([ok], [np.ones(3)], {"head": "relu"}, "head: expected softmax, sigmoid or identity"),
        ([ok], [np.ones(3)], {"head": "sigmoid"}, "head sigmoid: expected 1 output"),
        ([ok[:, :1]], [np.ones(1)], {}, "head softmax: expected 2 or more outputs"),
        ([ok, ok.T], [np.ones(3), np.ones(2)], {"hidden": "softmax"}, "hidden: .* it is a head"),
        ([ok, ok.T], [np.ones(3), np.ones(2)], {"hidden": "swish"}, "hidden: expected an activation"),
        ([ok, ok.T], [np.ones(3), np.ones(2)], {"hidden": ["relu"] * 2}, "hidden: expected 1 activations"),
        ([ok], [np.ones(3)], {"scale": np.inf}, "scale: expected a finite number"),
        ([ok], [np.ones(3)], {"scale": "1/255"}, "scale: expected a number"),
        ([ok], [np.ones(3)], {"scale": 10**400}, "scale: expected a finite number"),
        ([ok], [np.ones(3)], {"head": ["softmax"]}, "head: expected softmax"),
        ([ok], [np.ones(3)], {"hidden": 5}, "hidden: expected a name"),
        ([ok, ok.T], [np.ones(3), np.ones(2)], {"hidden": [5]}, "hidden: expected an activation"),
    ],
)
def test_what_does_not_fit_is_refused(weights, biases, options, message):
    with pytest.raises(WeightsError, match=message):
        Network.from_arrays(weights, biases, **options)


def test_float64_weights_are_kept_and_refused_by_name_in_float32():
    network = Network.from_arrays([np.array([[1e300, 1]])], [np.zeros(2)])
    assert network.layers[0].W[0, 0] == 1e300
    with pytest.raises(WeightsError, match=r"W1: 1e\+300 does not fit float32"):
        network.astype(np.float32)


def test_integers_and_big_endian_become_native_floats():
    network = Network.from_arrays([np.ones((2, 3), ">i4")], [np.ones(3, ">f4")])
    assert network.layers[0].W.dtype == np.float64
    assert network.layers[0].b.dtype == np.float32
    assert network.layers[0].b.dtype.isnative


def test_no_scale_is_no_scale():
    assert checked_scale(None) is None
    assert checked_scale(1) == 1.0
