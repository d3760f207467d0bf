"""A GPU, by mlpinfer and by PyTorch: one batch of rows on the device, and rows from the host.

    pytest bench/test_gpu.py

Every call is synchronised before its time is taken. Rows on the device are taken in turn from several
copies, so that the card's cache does not hold them all. The peers compute in float32, as mlpinfer does
(TF32 off).
"""

import itertools

import numpy as np
import pytest
from gpu_peers import PEERS

from mlpinfer import DeviceError, Predictor
from mlpinfer.engine.backends.select import get_backend

try:
    get_backend("gpu")
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)

BATCH_SIZES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
#: What the copies of one batch take, at the least: several times the cache of any card.
ROTATING_BYTES = 512 * 1024**2
MANY = 1_000_000


@pytest.fixture(scope="session")
def many(images):
    return np.tile(images["uint8"], (MANY // 10_000, 1))


@pytest.fixture(scope="session")
def many_labels(textbook_labels):
    return np.tile(textbook_labels["uint8"], MANY // 10_000)


def rotating(x):
    """Return as many copies of `x` as are needed to leave the cache, at most 64, in a circle."""
    return itertools.cycle([x.copy() for _ in range(max(1, min(64, ROTATING_BYTES // x.nbytes)))])


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_device_mlpinfer(benchmark, batch_size, networks, many, many_labels):
    import cupy

    predictor = Predictor(networks["uint8"], "gpu", batch_size)
    copies = rotating(cupy.asarray(many[:batch_size]))

    def run():
        labels = predictor.predict(next(copies))
        predictor.backend.synchronize()
        return labels

    run()
    labels = cupy.asnumpy(benchmark(run))
    benchmark.extra_info["rows"] = batch_size
    np.testing.assert_array_equal(labels, many_labels[:batch_size])


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("peer", PEERS)
def test_device_torch(benchmark, peer, batch_size, networks, many, many_labels):
    import torch

    rows = torch.from_numpy(many[:batch_size]).cuda()
    labels_of = PEERS[peer](networks["uint8"], rows)
    count = max(1, min(64, ROTATING_BYTES // rows.nbytes))
    copies = itertools.cycle([rows.clone() for _ in range(count)])

    def run():
        labels = labels_of(next(copies))
        torch.cuda.synchronize()
        return labels

    run()
    labels = benchmark(run).cpu().numpy()
    benchmark.extra_info["rows"] = batch_size
    assert np.count_nonzero(labels != many_labels[:batch_size]) <= 5e-4 * batch_size


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_host_mlpinfer(benchmark, batch_size, networks, many, many_labels):
    rows = MANY if batch_size >= 1_000 else min(MANY, batch_size * 1_000)
    predictor = Predictor(networks["uint8"], "gpu", batch_size)
    predictor.predict(many[:rows])
    labels = benchmark(predictor.predict, many[:rows])
    benchmark.extra_info["rows"] = rows
    np.testing.assert_array_equal(labels, many_labels[:rows])


@pytest.mark.parametrize("peer", ["torch-eager"])
def test_host_torch(benchmark, peer, networks, many, many_labels):
    """From page-locked memory, which is more than rows of NumPy have."""
    import torch

    pinned = torch.from_numpy(many).pin_memory()
    labels_of = PEERS[peer](networks["uint8"], None)
    labels = benchmark(lambda: labels_of(pinned.cuda(non_blocking=True)).cpu().numpy())
    benchmark.extra_info["rows"] = MANY
    assert np.count_nonzero(labels != many_labels) <= 5e-4 * MANY


def test_copy_rate(benchmark, many):
    """What host rows are compared with: bytes a second from page-locked memory to the device."""
    import cupy
    import cupyx

    pinned = cupyx.empty_pinned(many.shape, many.dtype)
    pinned[...] = many
    device = cupy.empty(many.shape, many.dtype)
    stream = cupy.cuda.Stream(non_blocking=True)

    def copy():
        device.set(pinned, stream=stream)
        stream.synchronize()

    benchmark(copy)
    benchmark.extra_info["rows"] = MANY
    np.testing.assert_array_equal(cupy.asnumpy(device[-1_000:]), many[-1_000:])
