"""Best times of many benchmark processes, and the Markdown tables made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from cold import Cold
from test_images import BATCH_SIZES
from test_mlpinfer import SGEMM

WHOLE, PLAN, EACH = ["mlpinfer"], ["mlpinfer-plan"], ["mlpinfer-threads", "mlpinfer-callers"]
PEERS = {
    "book": ["book"],
    "scikit-learn": ["scikit-learn"],
    "PyTorch, eager": ["torch-eager-threads", "torch-eager-callers"],
    "PyTorch, frozen": ["torch-frozen-threads", "torch-frozen-callers"],
    "ONNX Runtime": ["onnxruntime-threads", "onnxruntime-callers"],
    "OpenVINO": ["openvino-threads", "openvino-callers"],
}
Table = Sequence[Sequence[str]]


class Results:
    """The best time of each benchmark over all processes that measured it."""

    def __init__(self) -> None:
        self.machine: dict[str, Any] = {"libraries": {}}
        self._seconds: dict[tuple, float] = {}
        self._extra: dict[tuple, dict[str, Any]] = {}

    def add(self, output: Mapping[str, Any]) -> None:
        """Take in one file of pytest-benchmark."""
        found = output["measured_on"]
        self.machine = {**found, "libraries": self.machine["libraries"] | found["libraries"]}
        for benchmark in output["benchmarks"]:
            key = _key(benchmark["name"].partition("[")[0], benchmark["params"] or {})
            seconds = benchmark["stats"]["min"]
            self._seconds[key] = min(seconds, self._seconds.get(key, seconds))
            self._extra[key] = benchmark["extra_info"]

    def seconds(self, test: str, **params: Any) -> float:
        return self._seconds[_key(test, params)]

    def gflops(self, test: str, **params: Any) -> float:
        key = _key(test, params)
        return self._extra[key]["flops"] / self._seconds[key] / 1e9

    def rate(self, test: str, names: Sequence[str], **params: Any) -> tuple[float, str] | None:
        """Thousand rows a second of the best of `names`, and which it was; None if none was measured."""
        keys = {name: _key(test, {"contender": name, **params}) for name in names}
        rates = [
            (self._extra[key]["rows"] / self._seconds[key] / 1e3, name)
            for name, key in keys.items()
            if key in self._seconds
        ]
        return max(rates, default=None)

    def differing(self) -> dict[str, int]:
        """Labels unlike the textbook's, the most of each contender that had any."""
        found: dict[str, int] = {}
        for key, extra in self._extra.items():
            if count := extra.get("labels_different"):
                name = dict(key[1])["contender"]
                found[name] = max(count, found.get(name, 0))
        return found


def _key(test: str, params: Mapping[str, Any]) -> tuple:
    return test, tuple(sorted(params.items()))


def markdown(table: Table) -> str:
    head, *rows = table
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---:"] * len(head), *rows])


def machine_line(results: Results, rounds: int) -> str:
    found = results.machine
    environment = found["environment"]
    libraries = "".join(f", {name} {version}" for name, version in found["libraries"].items())
    return (
        f"{environment['cpu']}, {found['cores']} cores, {environment['os']}, Python {environment['python']}, "
        f"NumPy {environment['numpy']} with {environment['blas']}, mlpinfer {environment['mlpinfer']}"
        f"{libraries}; best of {rounds} interleaved rounds; {date.today()}"
    )


def rates(results: Results, test: str, ours: Sequence[str], **params: Any) -> Table:
    """Thousand rows a second, and how often faster than the book and than the best of the others."""
    plan = {"plan": PLAN} if ours is WHOLE else {}
    rows = [["batch", "mlpinfer", *plan, *PEERS, "÷ book", "÷ best peer"]]
    for batch_size in BATCH_SIZES:
        mine, *slower = (
            results.rate(test, names, batch_size=batch_size, **params)
            for names in (ours, *plan.values(), *PEERS.values())
        )
        theirs = slower[len(plan) :]
        best = max((rate for rate in theirs if rate), default=None)
        cells = [_cell(rate) for rate in (mine, *slower)]
        rows.append([f"{batch_size:,}", *cells, _ratio(mine, theirs[0]), _ratio(mine, best)])
    return rows


def _cell(rate: tuple[float, str] | None) -> str:
    if rate is None:
        return "–"
    way = rate[1].rpartition("-")[2]
    return f"{rate[0]:,.0f}" + {"threads": " t", "callers": " c"}.get(way, "")


def _ratio(mine: tuple[float, str] | None, other: tuple[float, str] | None) -> str:
    return f"{mine[0] / other[0]:.2f}" if mine and other else "–"


def arithmetic(results: Results) -> Table:
    limit = results.gflops("test_sgemm")
    rows = [["product or network", "batch", "GFLOP/s", "of sgemm"]]
    rows.append([f"sgemm, {SGEMM:,} x {SGEMM:,}", "", f"{limit:.1f}", "1.00"])
    measured = [
        (f"784-50-100-10, {d}", 10_000, "test_arithmetic", {"dtype": d}) for d in ("uint8", "float32")
    ]
    for batch_size in (100, 1_000, 10_000):
        params = {"batch_size": batch_size}
        measured.append(("64-1024-1024-10, float32", batch_size, "test_arithmetic_wide", params))
    for name, batch_size, test, params in measured:
        gflops = results.gflops(test, **params)
        rows.append([name, f"{batch_size:,}", f"{gflops:.1f}", f"{gflops / limit:.2f}"])
    return rows


def threads(results: Results) -> Table:
    cores = results.machine["cores"]
    rows = [["batch", "1 thread, ms", f"{cores} threads, ms", "times as fast"]]
    for batch_size in BATCH_SIZES:
        one, all_ = (results.seconds("test_threads", threads=n, batch_size=batch_size) for n in (1, cores))
        rows.append([f"{batch_size:,}", f"{one * 1e3:.2f}", f"{all_ * 1e3:.2f}", f"{one / all_:.2f}"])
    return rows


def ten_times(results: Results) -> Table:
    rows = [["rows of", "10,000 rows, ms", "100,000 rows, ms", "times as long"]]
    for dtype in ("uint8", "float32"):
        one, ten = (results.seconds("test_ten_times_the_rows", times=n, dtype=dtype) for n in (1, 10))
        rows.append([dtype, f"{one * 1e3:.2f}", f"{ten * 1e3:.2f}", f"{ten / one:.2f}"])
    return rows


def cold(measured: Mapping[str, Cold]) -> Table:
    rows = [["process", "mlpinfer, ms", "book's script, ms", "ratio"]]
    for name, found in measured.items():
        milliseconds = (f"{seconds * 1e3:.0f}" for seconds in (found.seconds, found.book_seconds))
        rows.append([f"`{name}`", *milliseconds, f"{found.ratio:.2f}"])
    return rows


def sections(results: Results, processes: Mapping[str, Cold], rounds: int) -> Iterator[str]:
    """Everything that was measured, in Markdown."""
    yield f"Measured on {machine_line(results, rounds)}."
    names = [name for group in (WHOLE, EACH, *PEERS.values()) for name in group]
    if results.rate("test_images", names, dtype="uint8", batch_size=1):
        different = ", ".join(f"{name} {count}" for name, count in results.differing().items()) or "none"
        yield f"Labels unlike the textbook's: {different}."
        for title, ours in (("Whole set", WHOLE), ("One call a batch", EACH)):
            for dtype in ("uint8", "float32"):
                table = rates(results, "test_images", ours, dtype=dtype)
                yield f"### {title}, from {dtype}\n\n" + markdown(table)
        for title, test in (
            ("784-128-64-10, from uint8", "test_wider"),
            ("64-128-128-10 ReLU, dense float32", "test_dense"),
            ("64-1024-1024-10 ReLU, dense float32", "test_wide_dense"),
        ):
            yield f"### Whole set, {title}\n\n" + markdown(rates(results, test, WHOLE))
    yield "### Arithmetic\n\n" + markdown(arithmetic(results))
    yield "### Threads\n\n" + markdown(threads(results))
    yield "### Ten times the rows\n\n" + markdown(ten_times(results))
    if processes:
        yield "### As a process\n\n" + markdown(cold(processes))
