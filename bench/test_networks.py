"""More networks by one contender: wider layers from bytes, and dense rows of numbers through ReLU."""

import numpy as np
import pytest
from contenders import CONTENDERS
from test_images import BATCH_SIZES, PEERS_MAY_DIFFER, rows_to_time

from mlpinfer import Network, load_network
from mlpinfer.io.weights.load import shipped

DENSE, WIDE_DENSE = (64, 128, 128, 10), (64, 1024, 1024, 10)


@pytest.fixture(scope="session")
def wider():
    return load_network(
        shipped("mnist_784-128-64-10.pt"), hidden="sigmoid", head="softmax", scale=1 / 255
    ).astype(np.float32)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_wider(benchmark, contender, batch_size, cores, wider, images):
    x = rows_to_time(images["uint8"], batch_size)
    labels = benchmark(CONTENDERS[contender](wider, batch_size, "uint8", cores), x)
    different = int(np.count_nonzero(labels != wider.forward(x).argmax(axis=1)))
    benchmark.extra_info.update(rows=len(x), threads=cores, labels_different=different)
    assert different <= (0 if contender.startswith("mlpinfer") else PEERS_MAY_DIFFER)


def time_dense(sizes, benchmark, contender, batch_size, cores):
    if contender == "book":
        pytest.skip("the book's script has no ReLU")
    network = Network.random(sizes, hidden="relu", head="softmax")
    rows = np.random.default_rng(0).standard_normal((10_000, sizes[0]), dtype=np.float32)
    x = rows_to_time(rows, batch_size)
    labels = benchmark(CONTENDERS[contender](network, batch_size, "float32", cores), x)
    benchmark.extra_info.update(rows=len(x), threads=cores)
    # Random weights leave near ties, which another order of sums may turn round.
    probabilities = network.forward(x)
    found = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found, probabilities.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_dense(benchmark, contender, batch_size, cores):
    time_dense(DENSE, benchmark, contender, batch_size, cores)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_wide_dense(benchmark, contender, batch_size, cores):
    time_dense(WIDE_DENSE, benchmark, contender, batch_size, cores)
