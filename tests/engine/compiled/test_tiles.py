"""Products by AMX's tiles: on processors that have them, and everywhere in plain C."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from mlpinfer import Network, load_network
from mlpinfer.engine.compiled.availability import EMULATED
from mlpinfer.io.weights.load import shipped
from tests.engine.compiled.test_evaluator import COMPILED, predictor

TILED = [name for name in ("amx", EMULATED) if name in COMPILED]
#: The best instruction set without tiles.
VECTORS = next(name for name in COMPILED if name not in TILED)
needs_amx = pytest.mark.skipif("amx" not in COMPILED, reason="needs a processor with AMX")
#: The unit roundoff of float32.
U = 2.0**-24


def float64_logits(network, x):
    """Return what the last layer gives in float64."""
    for layer, hidden in zip(network.layers, (*network.hidden, "identity"), strict=True):
        x = x.astype(np.float64) @ layer.W.astype(np.float64) + layer.b
        x = {"relu": lambda z: np.maximum(z, 0), "sigmoid": lambda z: 1 / (1 + np.exp(-z))}.get(
            hidden, lambda z: z
        )(x)
    return x


def largest_error(name, network, x, scale=1):
    """Return the largest error of a logit, over max(1, |logit|)."""
    expected = float64_logits(network, x * np.float64(scale))
    found = predictor(name, network, scale=scale).decision_function(x)
    return (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("file", ["mnist_784-50-100-10.pkl", "mnist_784-128-64-10.pt"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_logits_of_the_test_set_are_as_exact_as_by_vectors(name, file, dtype, mnist):
    network = load_network(shipped(file), hidden="sigmoid", head="softmax")
    x, scale = (mnist[0], 1 / 255) if dtype == "uint8" else (mnist[0] / np.float32(255), 1)
    error = largest_error(name, network, x, scale)
    assert error <= 2e-5
    assert error <= 2 * largest_error(VECTORS, network, x, scale)


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("sizes", [(64, 128, 128, 10), (784, 512, 512, 10), (64, 1_024, 1_024, 10)])
def test_logits_of_dense_rows_are_as_exact_as_by_vectors(name, sizes):
    network = Network.random(sizes, hidden="relu")
    x = np.random.default_rng(0).standard_normal((1_000 if sizes[1] < 512 else 200, sizes[0]), np.float32)
    error = largest_error(name, network, x)
    assert error <= 2e-5
    assert error <= 2 * largest_error(VECTORS, network, x)


def hard_rows(rng, features):
    """Return rows whose sums cancel, whose values are huge and tiny together, or at the edges of what tiles take."""
    values = rng.standard_normal((8, features))
    cancelling = np.where(np.arange(features) % 2, -1, 1) * np.repeat(values[0, ::2], 2)
    rows = [
        cancelling,
        cancelling * (1 + 1e-7 * values[1]),
        values[2] * 10.0 ** rng.integers(-30, 15, features),
        values[3] * 10.0 ** rng.integers(-38, -28, features),
        values[4] * 10.0 ** rng.integers(14, 20, features),
        np.sign(values[5]) * 2.0**50,
        np.sign(values[5]) * 2.0**-100,
        np.nextafter(np.float32(2.0**-100), np.float32(0)) * np.sign(values[6]),
        np.full(features, np.nextafter(np.float32(1), np.float32(0))),
        values[7] * 1e-42,  # subnormal
    ]
    # Between ordinary rows, so that a tile has both.
    return np.insert(rng.standard_normal((10, features)), range(10), rows, axis=0).astype(np.float32)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("spread", [0, 4, 25])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_sums_keep_the_bound_of_float32(name, spread, dtype):
    rng = np.random.default_rng(spread)
    features, outputs = 1_090, 120
    W = rng.standard_normal((features, outputs)) * 10.0 ** rng.integers(
        -spread, spread + 1, (features, outputs)
    )
    network = Network.from_arrays([W.astype(np.float32)], [np.zeros(outputs, np.float32)], head="identity")
    x = hard_rows(rng, features)
    if dtype == "uint8":
        x = rng.integers(0, 256, (40, features)).astype(np.uint8)
        x[1], x[3], x[5, ::2] = 255, 1, 0
    with np.errstate(over="ignore"):
        found = predictor(name, network, scale=1).predict(x)
        exact_x, exact_W = x.astype(np.float64), network.layers[0].W.astype(np.float64)
        expected, sizes = exact_x @ exact_W, np.abs(exact_x) @ np.abs(exact_W)
    # Products below the smallest normal number may be lost.
    bound = (features + 8) * (U * sizes + 2.0**-126)
    assert (np.abs(found - expected) <= bound)[sizes < 3e38].all()
    assert (sizes < 3e38).sum() > 10 * outputs


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("hidden", ["relu", "tanh", "leaky_relu"])
def test_what_is_not_finite_is_as_numpy_has_it_in_wide_layers(name, hidden):
    network = Network.random([200, 130, 120, 4], hidden=hidden)
    x = np.random.default_rng(0).standard_normal((70, 200), np.float32)
    for row, value in enumerate([np.nan, np.inf, -np.inf, 3e38, 1e-40, 2e15]):
        x[3 * row, 17] = value
    with np.errstate(all="ignore"):
        expected = network.forward(x)
        compiled = predictor(name, network)
        found, logits = compiled.predict_proba(x), compiled.decision_function(x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The rows beside are as they are alone.
    ordinary = np.isfinite(x).all(axis=1)
    np.testing.assert_array_equal(compiled.decision_function(x[ordinary]), logits[ordinary])


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("sizes", [(784, 40, 3), (2_100, 150, 130, 5), (64, 113, 4)])
def test_every_number_of_rows_gives_the_same_bits(name, dtype, sizes):
    network = Network.random(sizes, hidden="relu")
    rng = np.random.default_rng(0)
    x = rng.integers(1, 256, (70, sizes[0])) * (rng.random((70, sizes[0])) < rng.random((70, 1)))
    x = x.astype(np.uint8) if dtype == "uint8" else (x / np.float32(255)).astype(np.float32)
    compiled = predictor(name, network, scale=1)
    expected = compiled.decision_function(x)
    for rows in (1, 2, 4, 5, 6, 15, 16, 17, 31, 32, 33, 36, 37, 48, 63, 64, 65, 69):
        np.testing.assert_array_equal(compiled.decision_function(x[:rows]), expected[:rows])
        np.testing.assert_array_equal(compiled.decision_function(x[rows:]), expected[rows:])


@needs_amx
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("sizes", [(784, 50, 100, 10), (100, 300, 131, 7), (2_100, 128, 3)])
def test_the_processor_s_tiles_are_those_in_plain_c(dtype, sizes):
    network = Network.random(sizes, hidden="relu")
    rng = np.random.default_rng(0)
    x = (
        rng.integers(0, 256, (75, sizes[0])).astype(np.uint8)
        if dtype == "uint8"
        else hard_rows(rng, sizes[0])
    )
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(
            predictor("amx", network, scale=1).decision_function(x),
            predictor(EMULATED, network, scale=1).decision_function(x),
        )


# Of a fork beside threads that wait, as those of BLAS do.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_threads_forks_and_signals_change_no_bit(name):
    network = Network.random([200, 256, 128, 10])
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((rows, 200), np.float32) for rows in (1, 5, 40, 100)]
    batches += [rng.integers(0, 256, (rows, 200)).astype(np.uint8) for rows in (1, 5, 40, 100)]
    compiled = predictor(name, network, threads=1, scale=1)
    expected = [compiled.decision_function(x) for x in batches]

    def wrong(rounds):
        return sum(
            not np.array_equal(compiled.decision_function(x), logits)
            for _ in range(rounds)
            for x, logits in zip(batches, expected, strict=True)
        )

    found, signals, rounds = [], [], 3 if name == EMULATED else 100
    threads = [threading.Thread(target=lambda: found.append(wrong(rounds))) for _ in range(4)]

    def handle(*_):
        signals.append(wrong(1))
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            found.append(wrong(1))
        # A child goes on with the evaluator.
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(min(wrong(2), 100))
            found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert signals
    assert found.count(0) == len(found) >= 8
    assert signals.count(0) == len(signals)


@needs_amx
def test_no_permission_means_no_tiles():
    """The kernel refuses tiles to processes with a stack for signals that could not hold them."""
    code = (
        "import ctypes\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = [('sp', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]\n"
        "memory = ctypes.create_string_buffer(6_000)\n"
        "stack = Stack(ctypes.addressof(memory), 0, len(memory))\n"
        "assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0\n"
        "from mlpinfer.engine.compiled.availability import find_compiled\n"
        "print(find_compiled().instruction_set)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MLPINFER_EVALUATOR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "x86-64-v4\n"
