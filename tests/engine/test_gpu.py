"""What only a GPU can show: that CuPy does what `tests/fake_device.py` makes believe."""

import gc
import threading

import numpy as np
import pytest

from mlpinfer import Dataset, DeviceError, Network, Predictor, score
from mlpinfer.engine import streaming

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def many(mnist):
    return np.tile(mnist[0], (10, 1))


@pytest.mark.parametrize("batch_size", [1, 100, 10_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_labels_are_those_of_the_cpu(network, mnist, batch_size, dtype):
    x = mnist[0][: 500 if batch_size == 1 else None].astype(dtype)
    expected = Predictor(network, scale=1 / 255).predict(x)
    np.testing.assert_array_equal(Predictor(network, "gpu", batch_size, scale=1 / 255).predict(x), expected)


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "relu", "leaky_relu(0.2)", "identity"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid", "identity"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_activation(hidden, head, precision):
    network = Network.random([30, 20, 10, 1 if head == "sigmoid" else 4], hidden=hidden, head=head)
    x = np.random.default_rng(0).standard_normal((333, 30))
    x[5], x[6] = np.nan, 0
    values = "predict" if head == "identity" else "predict_proba"
    found, expected = (
        getattr(Predictor(network, device, 100, precision=precision), values)(x) for device in ("gpu", "cpu")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "float32" else 1e-12)


def test_a_memory_mapped_file_goes_through_the_lanes(network, many, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 2**20)
    np.save(tmp_path / "rows.npy", many)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    one, many_lanes = (
        Predictor(network, "gpu", 1_000, n, scale=1 / 255).decision_function(mapped) for n in (1, 8)
    )
    np.testing.assert_array_equal(many_lanes, one)
    expected = Predictor(network, scale=1 / 255).decision_function(many)
    np.testing.assert_allclose(one, expected, atol=1e-4)


def test_rows_on_the_device_stay_there(network, mnist):
    import cupy

    x = cupy.asarray(mnist[0])
    predictor = Predictor(network, "gpu", 1_000, scale=1 / 255)
    labels = predictor.predict(x)
    assert isinstance(labels, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(labels), predictor.predict(mnist[0]))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        found = predictor.predict(x)
        stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(found), cupy.asnumpy(labels))


def test_several_threads(network, many):
    predictor = Predictor(network, "gpu", 5_000, threads=2, scale=1 / 255)
    expected = predictor.predict(many)
    wrong = []

    def call():
        wrong.extend((predictor.predict(many) != expected).sum() for _ in range(3))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert wrong == [0] * 12


def test_memory_is_given_back(network, many):
    import cupy

    pool = cupy.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    before = pool.total_bytes()
    predictor = Predictor(network, "gpu", scale=1 / 255)
    predictor.predict(many)
    assert pool.total_bytes() > before
    predictor.close()
    assert pool.total_bytes() == before
    assert (predictor.predict(many) >= 0).all()
    predictor.close()


def test_out_of_memory_goes_on_with_less(network, many):
    import cupy

    expected = Predictor(network, scale=1 / 255).predict(many)
    pool = cupy.get_default_memory_pool()
    predictor = Predictor(network, "gpu", 65_536, threads=1, scale=1 / 255)
    pool.free_all_blocks()
    try:
        pool.set_limit(size=pool.used_bytes() + 64 * 2**20)
        with pytest.warns(RuntimeWarning, match="ran out of memory"):
            found = predictor.predict(many)
        np.testing.assert_array_equal(found, expected)
        predictor.close()
        pool.set_limit(size=pool.used_bytes() + 512)
        with pytest.raises(DeviceError, match="out of memory"):
            predictor.predict(many)
    finally:
        pool.set_limit(size=0)


def test_score_checks_parity(network, mnist):
    report = score(Predictor(network, "gpu", 1_000), Dataset(*mnist, 1 / 255), check_parity=True)
    assert report.metrics.n_correct == 9777
    assert report.parity.labels_different == 0
    assert report.parity.largest_difference < 1e-5
    assert all(seconds > 0 for seconds in vars(report.timing.stages).values())
