"""The book's own way, as a script of its readers runs it, against ours."""

import gzip
import pickle
import warnings
from pathlib import Path

import numpy as np

from mlpinfer import Predictor, mnist
from mlpinfer.weight_files import shipped


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    x = x - np.max(x, axis=-1, keepdims=True)
    return np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)


def predict(network, x):
    a = sigmoid(np.dot(x, network["W1"]) + network["b1"])
    a = sigmoid(np.dot(a, network["W2"]) + network["b2"])
    return softmax(np.dot(a, network["W3"]) + network["b3"])


def test_the_book_s_loop(network):
    x = np.frombuffer(gzip.decompress(Path(mnist.IMAGES).read_bytes()), np.uint8, offset=16)
    x = x.reshape(-1, 784).astype(np.float32) / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module name of NumPy 1
        weights = pickle.loads(Path(shipped()).read_bytes())
    expected = np.vstack([predict(weights, x[i : i + 100]) for i in range(0, len(x), 100)])
    predictor = Predictor(network, batch_size=100)
    np.testing.assert_array_equal(predictor.predict(x), expected.argmax(1))
    np.testing.assert_allclose(predictor.predict_proba(x), expected, atol=1e-6)
