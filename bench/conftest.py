"""The option `--contender`, what is compared on, and what a measurement depends on."""

from __future__ import annotations

import sys
from importlib import metadata

import numpy as np
import pytest
import threadpoolctl
from contenders import CONTENDERS

from mlpinfer import DeviceError, load_mnist, load_network
from mlpinfer.engine.backends.numpy_backend import usable_cores
from mlpinfer.engine.backends.select import get_backend
from mlpinfer.evaluation.environment import environment
from mlpinfer.io.weights.load import shipped

#: Module and package of what a contender may have imported.
LIBRARIES = {
    "sklearn": "scikit-learn",
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def pytest_addoption(parser):
    parser.addoption(
        "--contender", action="append", choices=list(CONTENDERS), help="run what is compared for NAME alone"
    )


def chosen(config) -> list[str]:
    """Contenders to run: those named, or mlpinfer on every device present."""
    if named := config.getoption("contender"):
        return named
    try:
        get_backend("gpu")
    except DeviceError:
        return ["mlpinfer"]
    return ["mlpinfer", "mlpinfer-gpu"]


def pytest_generate_tests(metafunc):
    if "contender" in metafunc.fixturenames:
        metafunc.parametrize("contender", chosen(metafunc.config))


def pytest_collection_modifyitems(config, items):
    if config.getoption("contender"):
        others = [item for item in items if "contender" not in item.fixturenames]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pytest_benchmark_update_json(config, output_json):
    """At the end of the process: what it has loaded is what it measured.

    Not in `machine_info`, which `--benchmark-compare` wants to find as it would itself write it.
    """
    backend = get_backend("gpu" if "mlpinfer-gpu" in chosen(config) else "cpu")
    output_json["measured_on"] = {
        "environment": vars(environment(backend)),
        "cores": usable_cores(),
        "libraries": {
            name: metadata.version(name) for module, name in LIBRARIES.items() if module in sys.modules
        },
        "threadpools": threadpoolctl.threadpool_info(),
    }


@pytest.fixture(scope="session")
def cores() -> int:
    return usable_cores()


@pytest.fixture(scope="session")
def networks():
    """The shipped network, for rows of each dtype."""
    return {"uint8": load_network(shipped(), scale=1 / 255), "float32": load_network(shipped())}


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    """The MNIST test set, (10000, 784), as bytes and as float32 in [0, 1]."""
    return {"uint8": load_mnist(normalize=False)[0].copy(), "float32": load_mnist()[0].copy()}


@pytest.fixture(scope="session")
def textbook_labels(networks, images):
    """Labels of the textbook pass, for rows of each dtype."""
    return {dtype: networks[dtype].forward(x).argmax(1) for dtype, x in images.items()}
