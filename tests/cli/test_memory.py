"""Private memory while a memory-mapped array is scored. Mapped pages are the file's, and do not count."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

SCRIPT = """
import sys, threading
import numpy as np
from mlpinfer import Dataset, Predictor, load_network, score
from mlpinfer.io.weights.load import shipped

rows, path = int(sys.argv[1]), sys.argv[2]
x = np.memmap(path, np.uint8, "r", shape=(rows, 784))
predictor = Predictor(load_network(shipped()), batch_size=int(sys.argv[3]), threads=2, scale=1 / 255)
predictor.predict(x[:20_000])

def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

before, peak, done = private(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, private())

watcher = threading.Thread(target=watch)
watcher.start()
if sys.argv[4] == "predict":
    assert len(predictor.predict(x)) == rows
else:
    y = np.zeros(rows, np.uint8)
    before += y.nbytes
    assert score(predictor, Dataset(x, y), repeat=1).data.samples == rows
done.set()
watcher.join()
print(peak - before - 8 * rows)  # beyond the labels, int64
"""


def beyond_the_labels(tmp_path, rows, batch_size, what):
    path = tmp_path / "rows"
    with open(path, "wb") as file:
        file.truncate(rows * 784)  # a hole: no disk, no time to write
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(rows), str(path), str(batch_size), what],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("batch_size", [100, 100_000])
@pytest.mark.parametrize("what", ["predict", "score"])
def test_memory_stays_small(tmp_path, batch_size, what):
    assert beyond_the_labels(tmp_path, 500_000, batch_size, what) < 64 * 2**20


@pytest.mark.slow
def test_memory_is_bounded_for_files_that_are_scored(tmp_path):
    """Of 4 GiB, half a gibibyte is in memory: a part, and the one that is read next."""
    rows, peak = 5_500_000, 0
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 784)}
    with open(tmp_path / "rows.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 784)
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlpinfer",
            "score",
            "--data",
            "rows.npy",
            "--scale",
            "1/255",
            "--repeat",
            "1",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if "RssAnon" in line)])
            time.sleep(0.005)
        said = process.stdout.read()
    assert process.returncode == 0
    assert f"{rows:,} rows" in said
    assert peak < 2**30


@pytest.mark.slow
@pytest.mark.parametrize("what", ["predict", "score"])
def test_memory_stays_small_for_ten_million_rows(tmp_path, what):
    assert beyond_the_labels(tmp_path, 10_000_000, 10_000, what) < 64 * 2**20
