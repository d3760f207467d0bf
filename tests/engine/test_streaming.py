"""Rows through a device, held on one that is make-believe: what crosses, when, and in which pieces."""

import gc
import threading
import warnings

import numpy as np
import pytest

from mlpinfer import Dataset, DeviceError, InputError, Network, Predictor, score
from mlpinfer.engine import streaming
from mlpinfer.evaluation import parts as parting
from mlpinfer.evaluation import score as score_module
from mlpinfer.evaluation import timing
from mlpinfer.evaluation.parts import Parts, StoredData
from mlpinfer.io.data.rows import ArrayRows
from tests.fake_device import DeviceArray, FakeDevice, on_device


@pytest.fixture
def fake(monkeypatch):
    """`Predictor(device="gpu")` is on this device."""
    device = FakeDevice()

    def get_backend(name):
        return device if name == "gpu" else real(name)

    import mlpinfer.engine.predictor

    real = mlpinfer.engine.predictor.get_backend
    monkeypatch.setattr(mlpinfer.engine.predictor, "get_backend", get_backend)
    return device


@pytest.mark.parametrize("batch_size", [1, 7, 100, 10_000])
def test_labels_are_those_of_the_cpu_whatever_the_chunks(fake, network, mnist, batch_size, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 784 * 150)
    x = mnist[0][:1_037]
    predictor = Predictor(network, "gpu", batch_size, scale=1 / 255)
    np.testing.assert_array_equal(predictor.predict(x), Predictor(network, scale=1 / 255).predict(x))
    assert max(n for (n,) in fake.logged("dot")) <= batch_size
    assert sum(shape[0] for shape, _ in fake.logged("upload")) == len(x)
    assert len(fake.logged("upload")) == {1: 7, 7: 8, 100: 11, 10_000: 7}[batch_size]


def test_what_crosses(fake, network, mnist):
    x = mnist[0][:300]
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    weights = fake.logged("send")
    assert {shape for shape, _ in weights} == {(784, 50), (50,), (50, 100), (100,), (100, 10), (10,)}
    assert len(weights) == 6
    for _ in range(3):
        predictor.predict(x)
    assert fake.logged("send") == weights  # once
    assert fake.logged("upload") == [((300, 784), np.uint8)] * 3  # bytes as they are, all batches at once
    assert fake.logged("download") == [((300,), np.int64)] * 3  # and one label a row
    assert fake.logged("fetch") == []
    fake.log.clear()
    predictor.predict_proba(x.astype(np.float64))
    assert fake.logged("upload") == [((300, 784), np.float32)]  # narrowed before it travels
    assert fake.logged("download") == [((300, 10), np.float32)]


def test_rows_on_the_device_never_leave_it(fake, network, mnist):
    x = on_device(mnist[0][:300].copy())
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    fake.log.clear()
    for values, dtype in ((predictor.predict, np.int64), (predictor.predict_proba, np.float32)):
        found = values(x)
        assert isinstance(found, DeviceArray)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.get(), values(x.get()), atol=1e-6)
        kinds = [entry[0] for entry in fake.log[: fake.log.index(("dot", 100)) + 9]]
        assert set(kinds) == {"dot"}
        fake.log.clear()
    assert predictor.predict(x[0]).shape == ()


def test_results_are_bitwise_the_same_for_any_number_of_lanes(fake, network, mnist, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 784 * 100)
    one, *others = (
        Predictor(network, "gpu", 50, n, scale=1 / 255).decision_function(mnist[0][:2_000]) for n in (1, 2, 5)
    )
    for other in others:
        np.testing.assert_array_equal(other, one)


def test_lanes_and_workspaces_are_used_again(fake, network, mnist, monkeypatch):
    predictor = Predictor(network, "gpu", 100, threads=2, scale=1 / 255)
    predictor.predict(mnist[0][:1_000])
    monkeypatch.setattr(fake.xp, "empty", None, raising=False)
    monkeypatch.setattr(fake, "pinned", None)
    predictor.predict(mnist[0][:900])
    predictor.close()
    with pytest.raises(TypeError):
        predictor.predict(mnist[0][:900])


def test_weights_are_sent_again_after_close(fake, network, mnist):
    with Predictor(network, "gpu", scale=1 / 255) as predictor:
        expected = predictor.predict(mnist[0][:50])
    assert len(fake.logged("send")) == 6
    assert fake.log[-1] == "close"
    np.testing.assert_array_equal(predictor.predict(mnist[0][:50]), expected)
    assert len(fake.logged("send")) == 12


def test_workspaces_are_not_shared_between_streams(fake, network):
    plan = Predictor(network, "gpu", scale=1 / 255)._evaluator
    streams = [fake.stream(), fake.stream()]
    buffers = []
    for stream in streams:
        with stream, plan._workspace(5) as views:
            buffers.append(views[0])
    assert not np.shares_memory(*buffers)


@pytest.mark.parametrize("batch_size", [1, 50, 1_000])
def test_out_of_memory_halves_what_is_sent_and_says_so_once(fake, network, mnist, batch_size):
    x = mnist[0][:1_000]
    predictor = Predictor(network, "gpu", batch_size, scale=1 / 255)
    before = fake.used
    fake.memory = before + 700_000  # less than one lane of all rows
    gc.disable()  # what fills the memory must be free without it
    try:
        with pytest.warns(
            RuntimeWarning, match=r"gpu:0 is out of memory: .*; from now on fewer rows"
        ) as noted:
            found = predictor.predict(x)
    finally:
        gc.enable()
    assert len(noted) == 1
    np.testing.assert_array_equal(found, Predictor(network, scale=1 / 255).predict(x))
    fake.log.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(x)
    assert 20 < max(shape[0] for shape, _ in fake.logged("upload")) <= 300
    assert max(n for (n,) in fake.logged("dot")) <= batch_size
    if batch_size <= 50:
        assert max(n for (n,) in fake.logged("dot")) == batch_size  # batches stay whole
    predictor.close()
    assert fake.used == before
    fake.memory = before + 500
    with pytest.raises(DeviceError, match="gpu:0 is out of memory"):
        predictor.predict(x)


def test_no_rows_and_one_row(fake, network, mnist):
    predictor = Predictor(network, "gpu", scale=1 / 255)
    assert predictor.predict(mnist[0][:0]).shape == (0,)
    assert predictor.predict_proba(mnist[0][:0]).shape == (0, 10)
    assert predictor.predict(mnist[0][0]) == 7


def test_lanes_grow_without_leaving_anything_behind(fake, network, mnist):
    predictor = Predictor(network, "gpu", scale=1 / 255)
    for rows in range(1, 40):
        predictor.predict(mnist[0][:rows])
        predictor.predict_proba(mnist[0][:rows])
    used = fake.used
    predictor.close()
    assert used < 40 * 3 * (784 * 5 + 160 * 4 + 40) + 6 * 50_000


def test_an_error_in_a_lane_reaches_the_caller(fake, network, mnist, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 784 * 100)
    predictor = Predictor(network, "gpu", 100, threads=3, scale=1 / 255)

    def fail(x, out):
        raise MemoryError

    monkeypatch.setattr(fake, "upload", fail)
    with pytest.raises(MemoryError):
        predictor.predict(mnist[0][:1_000])
    assert threading.active_count() == 1


def test_the_clock_stops_behind_the_device(fake, network, mnist, monkeypatch):
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    clock = iter(range(10))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: fake.log.append("clock") or next(clock))
    fake.log.clear()
    timing.timed(predictor, mnist[0][:300], "labels")
    assert fake.log[0] == "clock"
    assert fake.log[-2:] == ["synchronize", "clock"]


def test_stages_wait_for_each_other(fake, network, mnist):
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    rows = Parts.of(mnist[0][:300])
    fake.log.clear()
    stages = timing.stages(predictor, rows, "labels")
    assert min(stages.upload, stages.compute, stages.download) > 0
    kinds = [entry if entry == "synchronize" else entry[0] for entry in fake.log]
    assert kinds[:2] == ["upload", "synchronize"]
    assert kinds[2:12] == ["dot"] * 9 + ["synchronize"]
    assert kinds[12:14] == ["download", "synchronize"]
    assert timing.stages(Predictor(network, scale=1 / 255), rows, "labels") is None


@pytest.mark.parametrize("head", ["softmax", "identity"])
def test_score_with_parity(fake, mnist, head):
    network = Network.random([784, 20, 10], head=head, scale=1 / 255)
    rng = np.random.default_rng(0)
    y = mnist[1][:500] if head == "softmax" else rng.random((500, 10))
    report = score(Predictor(network, "gpu", 100), Dataset(mnist[0][:500], y), check_parity=True)
    assert report.device.actual == "gpu:0"
    assert report.device.evaluator == "plan"
    assert report.timing.includes[0] == "upload"
    assert set(vars(report.timing.stages)) == {"upload", "compute", "download"}
    assert report.parity.reference == "cpu"
    assert report.parity.labels_different == (0 if head == "softmax" else None)
    assert 0 <= report.parity.largest_difference < 1e-5
    assert report.to_dict()["parity"]["reference"] == "cpu"

    from mlpinfer.render.text import print_score

    print_score(report)


def test_parity_shows_what_differs(fake, network, mnist, capsys):
    predictor = Predictor(network, "gpu", scale=1 / 255)
    labels = predictor._outputs["labels"]

    def wrong(x, out):
        labels.evaluate(x, out)
        out[:3] = on_device(np.full(3, 11))

    predictor._outputs["labels"] = labels._replace(evaluate=wrong)
    assert score_module._parity(predictor, Parts.of(mnist[0][:100])).labels_different == 3


def test_rows_in_files_have_stages_and_parity_too(fake, network, mnist, monkeypatch):
    monkeypatch.setattr(parting, "_PART_BYTES", 784 * 100)
    x, t = mnist[0][:250], mnist[1][:250]
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    labels = predictor._outputs["labels"]

    def wrong(x, out):
        labels.evaluate(x, out)
        out[:3] = on_device(np.full(3, 11))

    stored = StoredData(name="some", rows=ArrayRows("rows", x, t))
    stages = score(predictor, stored, repeat=1).timing.stages
    assert min(stages.upload, stages.compute, stages.download) > 0
    predictor._outputs["labels"] = labels._replace(evaluate=wrong)
    assert score_module._parity(predictor, Parts(stored, 100)).labels_different == 9


def test_parity_does_not_hide_what_is_not_a_number(fake, network, mnist):
    predictor = Predictor(network, "gpu", scale=1 / 255)
    proba = predictor._outputs["proba"]
    predictor._outputs["proba"] = proba._replace(evaluate=lambda x, out: out.fill(np.nan))
    assert score_module._parity(predictor, Parts.of(mnist[0][:100])).largest_difference == np.inf


def test_a_lane_that_fails_is_waited_for(fake, network, mnist, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 784 * 100)
    predictor = Predictor(network, "gpu", 100, scale=1 / 255)
    uploads = iter(range(2))
    upload = fake.upload

    def fail(x, out):
        if next(uploads, None) is None:
            raise KeyboardInterrupt
        upload(x, out)

    monkeypatch.setattr(fake, "upload", fail)
    with pytest.raises(KeyboardInterrupt):
        predictor.predict(mnist[0][:1_000])
    assert fake.log[-3:] == ["synchronize"] * 3  # every lane
    monkeypatch.setattr(fake, "upload", upload)
    np.testing.assert_array_equal(
        predictor.predict(mnist[0][:1_000]), Predictor(network, scale=1 / 255).predict(mnist[0][:1_000])
    )


def test_parity_needs_a_gpu(network, mnist):
    with pytest.raises(InputError, match="check_parity: expected a predictor on a GPU"):
        score(Predictor(network, scale=1 / 255), Dataset(mnist[0], mnist[1]), check_parity=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_copies_obey_the_errstate_of_the_caller(fake, threads):
    rows = np.zeros((1_000, 784))
    rows[-1] = 1e300  # in the part of the last thread, and infinite in float32
    with Predictor(Network.random([784, 3]), "gpu", threads=threads) as predictor:
        with np.errstate(all="ignore"):
            predictor.predict(rows)
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            predictor.predict(rows)
