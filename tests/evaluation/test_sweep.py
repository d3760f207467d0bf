import json
import types

import numpy as np
import pytest

from mlpinfer import Dataset, DatasetError, DeviceError, InputError, Network
from mlpinfer.evaluation import sweep as sweeping
from mlpinfer.evaluation.report import Latency, Spread, Stages
from mlpinfer.evaluation.sweep import SweepPoint, sweep
from mlpinfer.render.text import sweep_sentences


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
        device=device,
        asked_threads=threads,
        threads=threads,
        evaluator="plan",
        batch_size=batch_size,
        samples_per_second=rate,
        seconds=Spread(min=1, median=1, max=1),
        batch_latency_ms=Latency(p50=1, p90=1, p95=1, p99=1),
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
    ("rates", "read", "limit", "parts"),
    [
        ((1e5, 1e6), 0.0, "launches", (1, 0, 0, 0)),  # 10 us a batch of one: all of 1 us in batches of ten
        ((1e6, 1e6), 0.0, "arithmetic", (0, 0, 0, 1)),
        ((0.5e6, 1e6), 0.0, "arithmetic", (1 / 9, 0, 0, 8 / 9)),
        ((1e6, 1e6), 0.9e-4, "memory", (0, 0, 0.9, 0.1)),
    ],
)
def test_what_bounds_a_cpu(monkeypatch, rates, read, limit, parts):
    monkeypatch.setattr(sweeping, "_read_seconds", lambda x, threads: read)
    bound = bound_of(rates, "cpu", None)
    assert (bound.limit, bound.row_us) == (limit, pytest.approx(1))
    assert (bound.launches, bound.transfer, bound.memory, bound.arithmetic) == pytest.approx(parts)


@pytest.mark.parametrize(
    ("rates", "stages", "limit", "parts"),
    [
        ((1e6, 1e6), (0.6, 0.95, 0.05), "arithmetic", (0, 0.6, 0, 0.95)),  # the longest stage
        ((1e6, 1e6), (0.97, 0.3, 0.05), "transfer", (0, 0.97, 0, 0.3)),
        ((1e6, 1e6), (0.1, 0.3, 0.8), "transfer", (0, 0.8, 0, 0.3)),
        ((1e5, 1e6), (0.1, 0.9, 0.1), "launches", (0.9, 0.1, 0, 0)),
    ],
)
def test_what_bounds_a_gpu(rates, stages, limit, parts):
    upload, compute, download = (share * 1e-4 for share in stages)
    bound = bound_of(rates, "gpu:0", Stages(upload=upload, compute=compute, download=download))
    assert bound.limit == limit
    assert (bound.launches, bound.transfer, bound.memory, bound.arithmetic) == pytest.approx(parts)


def bound_of(rates, device, stages):
    points = [point(device, size, rate) for size, rate in zip((1, 10), rates, strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "stages", lambda predictor, parts, output: stages)
        return sweeping._bound(None, points, points[-1], np.zeros((100, 2)), "labels")


def test_one_batch_size_says_nothing_of_bounds():
    assert bound_of((1e6,), "cpu", None) is None


def test_rows_that_a_cache_holds_are_not_read_from_memory():
    assert sweeping._read_seconds(np.zeros((100, 784)), 2) == 0
    assert sweeping._read_seconds(np.zeros((40_000, 784), np.uint8), 2) > 0


def test_no_batch_has_more_rows_than_there_are(network, data):
    report = sweep(network, data, batch_sizes=(100, 10_000, 10**18), repeat=1)
    assert [point.batch_size for point in report.points] == [100, 600]


def test_a_device_of_two_names_is_measured_once(network, data):
    report = sweep(network, data, devices=("cpu", "cpu"), batch_sizes=(100,), repeat=1)
    assert len(report.points) == 1


def of(points, crossover=None, bound=None):
    return types.SimpleNamespace(points=points, recommended=points[-1], crossover=crossover, bound=bound)


def bound(limit, **parts):
    none = dict.fromkeys(("launches", "transfer", "memory", "arithmetic"), 0)
    return sweeping.Bound(limit=limit, **none | parts)


def test_the_sentences():
    cpu, gpu = point("cpu", 100, 1_234_567.0, threads=2), point("gpu:0", 1_000, 5e6)
    on_cpu = bound("memory", row_us=0.81, launches=0.081, memory=0.5, arithmetic=0.229)
    assert sweep_sentences(of([cpu], bound=on_cpu)) == [
        "* Recommended: 100 rows a batch on the cpu, 2 threads: 1,234,567 rows/s.",
        "Memory bounds it: of 0.81 us that a row takes there, launches 10%, memory 62%, arithmetic 28%.",
    ]
    on_gpu = bound("launches", row_us=0.2, launches=0.15, transfer=0.1, arithmetic=0.02)
    assert sweep_sentences(of([cpu, gpu], 10, on_gpu))[1:] == [
        "Launches bound it: a row takes 0.2 us there; apart, launches 0.15 us, transfer 0.1 us, "
        "arithmetic 0.02 us, which overlap.",
        "The GPU is faster than the CPU from 10 rows a batch on.",
    ]
    assert sweep_sentences(of([cpu]))[1:] == ["What bounds it is not known of one batch size."]
    assert "The GPU was not faster" in sweep_sentences(of([cpu, gpu]))[-1]
    assert len(sweep_sentences(of([gpu]))) == 2  # no word of a CPU that was not measured


def test_the_command(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:500])
    how = ["sweep", "--data", "rows.npy", "--scale", "1/255", "--batch-sizes", "10, 100", "--repeat", 1]
    done = run(*how, "--plot", "sweep.png", "--json", "sweep.json")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("  *\n", "* Recommended: ", "rows/s", " it: of "):
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
        (["--plot", "sweep.pdf"], 2, "expected a name that ends in .png or .svg, found sweep.pdf"),
        (["--devices", "tpu"], 2, "tpu"),
        (["--plot", ""], 2, "expected a file in a folder"),
        (["--plot", "same.svg", "--json", "same.svg"], 2, "expected another file than for --plot"),
        (["--data", "none.npy"], 5, "expected a data file"),
    ],
)
def test_what_cannot_be_swept_is_refused(run, options, code, message):
    done = run("sweep", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert message in done.stderr


def test_arguments_that_do_not_fit_are_refused(network, data):
    for option, value in {
        "output": "scores",
        "repeat": 0,
        "batch_sizes": (),
        "devices": (),
        "threads": (),
    }.items():
        with pytest.raises(InputError, match=f"^{option}: expected .*, found "):
            sweep(network, data, **{option: value})
    with pytest.raises(DatasetError, match=r"expected rows of 784 features, found shape \(3,\)"):
        sweep(network, Dataset(np.ones((2, 3))))
    with pytest.raises((InputError, DeviceError)):
        sweep(Network.random([784, 10]), data, devices=("tpu",))


def test_names_are_no_formulas_and_need_no_font(run, tmp_path, mnist):
    name = "a$\\frac$数.npy"
    np.save(tmp_path / name, mnist[0][:100])
    done = run(
        "sweep", "--data", name, "--scale", 1, "--batch-sizes", "1,100", "--plot", "s.svg", "--json", "-"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["data"]["name"] == name
