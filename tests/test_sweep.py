import json

import numpy as np
import pytest

from mlpinfer import Dataset, DatasetError, DeviceError, InputError, Network
from mlpinfer import sweep as sweeping
from mlpinfer.render.text import sweep_sentences
from mlpinfer.report import Latency, Spread
from mlpinfer.sweep import SweepPoint, sweep


@pytest.fixture(scope="module")
def data(mnist):
    return Dataset(mnist[0][:600], None, 1 / 255, "some")


def test_every_setting_is_measured(network, data):
    report = sweep(network, data, batch_sizes=(100, 7, 7), threads=(1, 2), repeat=2)
    settings = [(p.device, p.asked_threads, p.batch_size) for p in report.points]
    assert settings == [("cpu", 1, 7), ("cpu", 1, 100), ("cpu", 2, 7), ("cpu", 2, 100)]
    for point in report.points:
        assert point.samples_per_second == pytest.approx(600 / point.seconds.median)
        assert 0 < point.seconds.min <= point.seconds.median <= point.seconds.max
        assert 0 < point.batch_latency_ms.p50 <= point.batch_latency_ms.p99
        assert point.threads <= point.asked_threads
    assert report.recommended in report.points
    assert report.crossover is None
    bound = report.bound
    parts = [bound.launches, bound.transfer, bound.memory, bound.arithmetic]
    assert min(parts) >= 0
    assert (
        sum(parts)
        == pytest.approx(bound.row_us)
        == pytest.approx(1e6 / report.recommended.samples_per_second)
    )
    assert getattr(bound, bound.limit) == max(parts)
    assert report.network.scale == 1 / 255


def point(device, batch_size, rate, threads=1):
    return SweepPoint(
        device, threads, threads, "plan", batch_size, rate, Spread(1, 1, 1), Latency(1, 1, 1, 1)
    )


def test_the_recommended_batch_is_the_smallest_that_is_fast_enough():
    points = [point("cpu", 10, 800), point("cpu", 100, 960), point("cpu", 1_000, 1_000)]
    assert sweeping._recommended(points).batch_size == 100
    assert sweeping._recommended([*points, point("gpu:0", 10_000, 5_000)]).device == "gpu:0"
    fewer = [point("cpu", 100, 1_000, threads=2), point("cpu", 100, 990, threads=1)]
    assert sweeping._recommended(fewer).threads == 1


@pytest.mark.parametrize(
    ("cpu", "gpu", "crossover"),
    [
        ((10, 10, 10), (1, 20, 30), 10),
        ((10, 10, 10), (20, 5, 30), 100),  # faster at 1, but not from there on
        ((10, 10, 10), (20, 30, 40), 1),
        ((10, 10, 10), (1, 2, 3), None),
        ((10, 10, 10), (), None),
    ],
)
def test_from_which_batch_size_a_gpu_is_faster(cpu, gpu, crossover):
    sizes = (1, 10, 100)
    points = [point("cpu", size, rate) for size, rate in zip(sizes, cpu, strict=True)]
    points += [point("gpu:0", size, rate) for size, rate in zip(sizes, gpu, strict=False)]
    assert sweeping._crossover(points) == crossover


@pytest.mark.parametrize(
    ("rates", "stages", "read", "limit"),
    [
        ((1e5, 1e6), None, 0.0, "launches"),  # 10 us a batch of one: 0.9 of 1 us a row in batches of ten
        ((1e6, 1e6), None, 0.0, "arithmetic"),
        ((1e6, 1e6), None, 0.9e-4, "memory"),
        ((1e6, 1e6), {"upload": 0.6e-4, "compute": 1.0, "download": 0.2e-4}, 1.0, "transfer"),
    ],
)
def test_what_bounds_it_is_derived_from_what_was_measured(monkeypatch, rates, stages, read, limit):
    class Predictor:
        def stages(self, x, values):
            return stages

    monkeypatch.setattr(sweeping, "_read_seconds", lambda x: read)
    points = [point("cpu", size, rate) for size, rate in zip((1, 10), rates, strict=True)]
    bound = sweeping._bound(Predictor(), points, points[-1], np.zeros((100, 2)), "labels")
    assert bound.limit == limit
    assert bound.row_us == pytest.approx(1)
    assert getattr(bound, limit) == pytest.approx(
        {"launches": 1, "arithmetic": 1, "memory": 0.9}.get(limit, 0.8)
    )


def test_the_sentences(network, data):
    report = sweep(network, data, batch_sizes=(10, 100), repeat=1)
    recommended, bound = sweep_sentences(report)
    assert f"{report.recommended.samples_per_second:,.0f} rows/s" in recommended
    assert bound.lower().startswith((f"{report.bound.limit} bounds it", "launches bound it"))


def test_the_command(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:500])
    how = ["sweep", "--data", "rows.npy", "--scale", "1/255", "--batch-sizes", "10, 100", "--repeat", 1]
    done = run(*how, "--plot", "sweep.png", "--json", "sweep.json")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("recommended", "Recommended: ", "rows/s", " it: of "):
        assert text in done.stdout
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert [point["batch_size"] for point in report["points"]] == [10, 100]
    assert json.loads(run(*how, "--plot", "sweep.svg", "--json", "-").stdout)["schema"] == "mlpinfer.sweep/1"
    assert "<svg" in (tmp_path / "sweep.svg").read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--batch-sizes", "0"], 2, "0 is not in the range"),
        (["--batch-sizes", "ten"], 2, "'ten' is not a valid integer"),
        (["--plot", "sweep.pdf"], 2, "--plot: expected a name that ends in .png or .svg, found sweep.pdf"),
        (["--devices", "tpu"], 2, "tpu"),
        (["--data", "none.npy"], 5, "expected a data file"),
    ],
)
def test_what_cannot_be_swept_is_refused(run, options, code, message):
    done = run("sweep", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert message in done.stderr


def test_arguments_that_do_not_fit_are_refused(network, data):
    for options in ({"values": "scores"}, {"repeat": 0}, {"batch_sizes": ()}):
        with pytest.raises(InputError, match="sweep: expected"):
            sweep(network, data, **options)
    with pytest.raises(DatasetError, match=r"expected rows of 784 features, found shape \(3,\)"):
        sweep(network, Dataset(np.ones((2, 3))))
    with pytest.raises((InputError, DeviceError)):
        sweep(Network.random([784, 10]), data, devices=("tpu",))
