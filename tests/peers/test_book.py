"""The book's own way, as a script of its readers runs it, against ours."""

import gzip
import pickle
import runpy
import warnings
from pathlib import Path

import numpy as np

from mlpinfer import Predictor
from mlpinfer.io.data import mnist
from mlpinfer.io.weights.load import shipped
from tests.conftest import ROOT

predict = runpy.run_path(str(ROOT / "bench" / "book_script.py"))["predict"]


def test_the_book_s_loop(network):
    x = np.frombuffer(gzip.decompress(Path(mnist.IMAGES).read_bytes()), np.uint8, offset=16)
    x = x.reshape(-1, 784).astype(np.float32) / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module name of NumPy 1
        weights = pickle.loads(Path(shipped()).read_bytes())
    expected = np.vstack([predict(weights, x[i : i + 100]) for i in range(0, len(x), 100)])
    predictor = Predictor(network, batch_size=100)
    np.testing.assert_array_equal(predictor.predict(x), expected.argmax(1))
    # What is left of float32 behind logits of this size, on either side.
    tolerance = 1e-6 * np.abs(predictor.decision_function(x)).max(axis=1, keepdims=True, initial=1)
    assert (np.abs(predictor.predict_proba(x) - expected) <= tolerance).all()
