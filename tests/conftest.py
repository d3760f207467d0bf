"""Fixtures of all tests: every backend of this machine, small networks, the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpinfer import DeviceError, Network, load_network
from mlpinfer.engine.backends.select import get_backend
from mlpinfer.engine.compiled.availability import VARIABLE, find_compiled
from mlpinfer.io.weights.load import shipped

ROOT = Path(__file__).parents[1]
#: Named here, a backend that does not work is a failure, not a skip: MLPINFER_TEST_BACKENDS=numpy,cupy
REQUIRED = os.environ.get("MLPINFER_TEST_BACKENDS", "numpy").split(",")


#: What can run a network on this machine's processor.
EVALUATORS = ("plan", *find_compiled().available)
#: Without the compiled evaluator there is nothing in it to test: mlpinfer was installed without a compiler.
_COMPILED_ONLY = ["engine/compiled/test_evaluator.py", "engine/compiled/test_tiles.py"]
collect_ignore = [] if EVALUATORS[1:] else _COMPILED_ONLY


def pytest_report_header():
    return f"evaluators: {', '.join(EVALUATORS)}"


def pytest_collection_modifyitems(items):
    """Skip, by name, tests of a GPU where there is none and none was required, and of a browser."""
    missing = {}
    if not shutil.which("chromium"):
        missing["browser"] = "needs Chromium, the program `chromium`"
    if "cupy" not in REQUIRED:
        try:
            get_backend("gpu")
        except DeviceError:
            missing["gpu"] = "needs a GPU; `mlpinfer devices` says what is missing"
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    return request.param


@pytest.fixture
def backend(device):
    return get_backend(device)


@pytest.fixture(scope="module", params=EVALUATORS)
def evaluator(request):
    """Each of them in turn, as `Predictor` will choose it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, request.param)
        yield request.param


@pytest.fixture(scope="session")
def network() -> Network:
    """The shipped 784-50-100-10 network."""
    return load_network(shipped())


@pytest.fixture(scope="session")
def mnist():
    from mlpinfer import load_mnist

    return load_mnist(normalize=False)


@pytest.fixture
def book_arrays() -> dict[str, np.ndarray]:
    """A small network in the book's layout, 6-5-4-3."""
    rng = np.random.default_rng(0)
    sizes = [6, 5, 4, 3]
    arrays = {}
    for i in range(3):
        arrays[f"W{i + 1}"] = rng.standard_normal(sizes[i : i + 2]).astype(np.float32)
        arrays[f"b{i + 1}"] = rng.standard_normal(sizes[i + 1]).astype(np.float32)
    return arrays


@pytest.fixture
def run(tmp_path):
    """Run `mlpinfer` as a process in an empty folder."""

    def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mlpinfer", *map(str, args)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
