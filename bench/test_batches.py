"""One by one against batches: the whole test set through `Predictor.predict`, on every device present."""

import numpy as np
import pytest

from mlpinfer import DeviceError, Predictor, load_mnist, load_network
from mlpinfer.backends import get_backend
from mlpinfer.environment import environment
from mlpinfer.weight_files import shipped


def devices():
    yield "cpu"
    try:
        get_backend("gpu")
        yield "gpu"
    except DeviceError:
        pass


@pytest.mark.parametrize("batch_size", [1, 100, 1_000, 10_000])
@pytest.mark.parametrize("device", devices())
def test_score(benchmark, device, batch_size):
    x, t = load_mnist(normalize=False)
    predictor = Predictor(load_network(shipped()), device, batch_size, scale=1 / 255)
    benchmark.extra_info.update(vars(environment(predictor.backend)), threads=predictor.threads)
    labels = benchmark(predictor.predict, x)
    assert (labels == t).sum() == 9777
    np.testing.assert_array_equal(labels, Predictor(load_network(shipped()), scale=1 / 255).predict(x))
