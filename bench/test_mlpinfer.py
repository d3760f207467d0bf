"""mlpinfer against the machine and against itself: arithmetic, threads, ten times the rows."""

import itertools

import numpy as np
import pytest
from test_images import BATCH_SIZES

from mlpinfer import Network, Predictor
from mlpinfer.engine.backends.numpy_backend import usable_cores

WIDE = (64, 1024, 1024, 10)
SGEMM = 2_000


def flops(sizes, rows):
    """Two a multiply-add of the products; biases and activations are not counted."""
    return 2 * rows * sum(a * b for a, b in itertools.pairwise(sizes))


@pytest.fixture(scope="session")
def wide():
    """A network whose layers are large enough to keep the processor's arithmetic busy, and its rows."""
    rows = np.random.default_rng(0).standard_normal((10_000, WIDE[0]), dtype=np.float32)
    return Network.random(WIDE, hidden="relu", head="softmax"), rows


def test_sgemm(benchmark):
    """What arithmetic is compared with: NumPy's BLAS with its own threads on all cores."""
    a, b = np.random.default_rng(0).standard_normal((2, SGEMM, SGEMM), dtype=np.float32)
    benchmark.extra_info["flops"] = flops([SGEMM, SGEMM], SGEMM)
    benchmark(np.matmul, a, b, np.empty_like(a))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arithmetic(benchmark, dtype, cores, networks, images, textbook_labels):
    network, x = networks[dtype], images[dtype]
    benchmark.extra_info["flops"] = flops(network.sizes, len(x))
    labels = benchmark(Predictor(network, batch_size=10_000, threads=cores).predict, x)
    np.testing.assert_array_equal(labels, textbook_labels[dtype])


@pytest.mark.parametrize("batch_size", [100, 1_000, 10_000])
def test_arithmetic_wide(benchmark, batch_size, cores, wide):
    network, x = wide
    benchmark.extra_info["flops"] = flops(WIDE, len(x))
    labels = benchmark(Predictor(network, batch_size=batch_size, threads=cores).predict, x)
    # Random weights leave near ties, which another order of sums may turn round.
    probabilities = network.forward(x)
    found = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found, probabilities.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("threads", sorted({1, usable_cores()}))
def test_threads(benchmark, threads, batch_size, networks, images, textbook_labels):
    labels = benchmark(
        Predictor(networks["uint8"], batch_size=batch_size, threads=threads).predict, images["uint8"]
    )
    np.testing.assert_array_equal(labels, textbook_labels["uint8"])


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_ten_times_the_rows(benchmark, dtype, times, cores, networks, images, textbook_labels):
    x = np.tile(images[dtype], (times, 1))
    labels = benchmark(Predictor(networks[dtype], batch_size=100, threads=cores).predict, x)
    np.testing.assert_array_equal(labels, np.tile(textbook_labels[dtype], times))
