"""Many threads, many predictors: every result right, and nothing left behind."""

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mlpinfer import Network, Predictor
from tests.conftest import EVALUATORS, ROOT

evaluators = pytest.mark.parametrize("evaluator", EVALUATORS[:2])  # the plan, and the best


def held():
    """File descriptors and threads of this process, the system's count."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def load(network, x, seconds):
    """Call two predictors from 16 and 4 threads; return calls and wrong results of each thread."""
    other = Network.random([784, 300, 20], hidden="relu", head="identity", scale=1 / 255)
    jobs = []
    for made, callers in ((Predictor(network, batch_size=50, threads=2, scale=1 / 255), 16),
                          (Predictor(other, batch_size=33, threads=2), 4)):  # fmt: skip
        methods = [made.predict, made.decision_function]
        if made.network.head != "identity":
            methods.append(made.predict_proba)
        jobs += [([(method, method(x)) for method in methods], seed) for seed in range(callers)]
    deadline = time.monotonic() + seconds
    counts, wrong = [], []

    def call(methods, seed):
        rng, calls = np.random.default_rng(seed), 0
        try:
            while calls == 0 or time.monotonic() < deadline:
                method, expected = methods[calls % len(methods)]
                # Whole batches, so that products are of the same shapes and give the same bits.
                size = rng.choice([1, 7, 50, 330, 1_650])
                begin = int(rng.integers(0, len(x) - size))
                found = method(x[begin : begin + size])
                if found.dtype == np.int64:
                    right = np.array_equal(found, expected[begin : begin + size])
                else:
                    right = np.allclose(found, expected[begin : begin + size], rtol=1e-4, atol=1e-4)
                calls += 1
                if not right:
                    wrong.append((seed, calls))
            counts.append(calls)
        except BaseException as error:
            wrong.append((seed, repr(error)))

    threads = [threading.Thread(target=call, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert not any(thread.is_alive() for thread in threads)
    return counts, wrong


def check_load(network, mnist, seconds):
    load(network, mnist[0][:2_000], 0)  # what is loaded and opened once
    before = held()
    counts, wrong = load(network, mnist[0][:2_000], seconds)
    assert wrong == []
    assert len(counts) == 20
    assert held() == before
    return sum(counts)


@evaluators
def test_threads_on_one_predictor_beside_another(network, mnist, evaluator, monkeypatch):
    monkeypatch.setenv("MLPINFER_EVALUATOR", evaluator)
    check_load(network, mnist, 1.5)


@pytest.mark.slow
@evaluators
def test_threads_on_one_predictor_beside_another_for_a_minute(network, mnist, evaluator, monkeypatch):
    monkeypatch.setenv("MLPINFER_EVALUATOR", evaluator)
    print(check_load(network, mnist, 60), "calls")


#: Makes predictors of all kinds, uses and closes them; prints what memory has grown by, in bytes.
MANY = """
import gc, os, pickle, sys
import numpy as np
from mlpinfer import Network, Predictor, load_network
from mlpinfer.io.weights.load import shipped

networks = [load_network(shipped()), Network.random([784, 300, 1], hidden="relu", head="sigmoid"),
            Network.random([784, 64, 10], hidden="tanh", head="identity")]
x = np.random.default_rng(0).integers(0, 255, (600, 784)).astype(np.uint8)

def resident():
    gc.collect()
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

def held():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

def make(number):
    precision = "float64" if number % 7 == 0 else "float32"
    options = {"batch_size": 1 + number % 200, "threads": 1 + number % 3, "precision": precision, "scale": 1 / 255}
    predictor = Predictor(networks[number % 3], **options)
    predictor.predict(x if number % 10 == 0 else x[:20])
    if number % 3:
        predictor.close()
    if number % 11 == 0:
        pickle.loads(pickle.dumps(predictor)).predict(x[:20])
    try:
        predictor.predict(x[:, 1:])
    except ValueError:
        pass

count = int(sys.argv[1])
for number in range(max(200, count // 5)):
    make(number)
before, things = resident(), held()
for number in range(count):
    make(number)
assert held() == things, (things, held())
print(resident() - before)
"""


def growth(count, evaluator):
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(count)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "MLPINFER_EVALUATOR": evaluator},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@evaluators
def test_predictors_that_are_gone_take_no_memory(evaluator):
    assert growth(1_000, evaluator) < 8 * 2**20


@pytest.mark.slow
@evaluators
def test_ten_thousand_predictors_that_are_gone_take_no_memory(evaluator):
    grown = growth(10_000, evaluator)
    print(grown, "bytes")
    assert grown < 8 * 2**20


def test_files_that_were_read_are_closed(tmp_path, mnist):
    from mlpinfer.io.data.open import open_rows

    paths = []
    for suffix in ("npy", "csv", "idx", "npz"):
        path = tmp_path / f"x.{suffix}"
        x = mnist[0][:20]
        if suffix == "npy":
            np.save(path, x)
        elif suffix == "npz":
            np.savez(path, x=x)
        elif suffix == "csv":
            np.savetxt(path, x, fmt="%d", delimiter=",")
        else:
            from mlpinfer.io.data import idx

            path.write_bytes(idx.encode(x))
        paths.append(path)
    before = held()
    for _ in range(20):
        for path in paths:
            assert open_rows([path]).read(0, 20).shape == (20, 784)
    assert held() == before
