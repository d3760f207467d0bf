"""The fused GPU kernel: it compiles within its registers, and its labels and logits are the plan's.

On an emulator, `emulator/`, which is compiled from the kernel's source; on a GPU where there is one.
"""

import ctypes
import dataclasses
import functools
import importlib.metadata
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.gpu_kernel import fused
from mlpinfer import Network, Predictor, fold, load_network
from mlpinfer.engine.compiled.availability import VARIABLE
from mlpinfer.io.weights.load import shipped
from mlpinfer.model.network import Layer

H200_SHARED_BYTES = 227 * 1024
EMULATOR = Path(__file__).parent / "emulator"
POISON = {"labels": np.int64(-7), "logits": np.float32(-1.5e30)}
GUARDS = 64


class Emulated:
    """A kernel on this machine's processor."""

    def __init__(self, options, folder):
        names = [
            EMULATOR / "instructions.h",
            EMULATOR.parent / "network.cu",
            EMULATOR / "launch.h",
        ]
        code, library = folder / "kernel.cpp", folder / "kernel.so"
        code.write_text("\n".join(name.read_text() for name in names))
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
        checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
        command = ["g++", *flags, *checks, *options, str(code), "-o", str(library)]
        subprocess.run(command, check=True, timeout=120)
        self._library = ctypes.CDLL(str(library))

    def launch(self, values, x, rows, packed, whole, cut, blocks, shift=0):
        function = getattr(self._library, f"emulate_{values}")
        function.restype = ctypes.c_char_p
        x, packed = aligned(x), aligned(packed)
        at_x, at_packed, at_out = (
            ctypes.c_void_p(a.ctypes.data) for a in (x[shift:], packed, whole[GUARDS:])
        )
        problem = function(at_x, ctypes.c_longlong(rows), at_packed, at_out, ctypes.c_float(cut), blocks)
        assert not problem, problem.decode()


class OnGpu:
    """The same on a GPU."""

    def __init__(self, options, folder):
        import cupy

        self._cupy = cupy
        self._module = cupy.RawModule(code=fused.source(), options=options)

    def launch(self, values, x, rows, packed, whole, cut, blocks):
        function = self._module.get_function(values)
        function.max_dynamic_shared_size_bytes = packed.nbytes
        x, packed, out = map(self._cupy.asarray, (x, packed, whole))
        arguments = [x, np.int64(rows), packed, out[GUARDS:]]
        if values == "labels":
            arguments.append(np.float32(cut))
        function((blocks,), (fused.THREADS,), tuple(arguments), shared_mem=packed.nbytes)
        whole[:] = self._cupy.asnumpy(out)


def aligned(array):
    """Return a copy that begins at a multiple of 16 bytes."""
    whole = np.empty(array.nbytes + 16, np.uint8)
    part = whole[-whole.ctypes.data % 16 :][: array.nbytes]
    part[:] = array.reshape(-1).view(np.uint8)
    return part


@pytest.fixture(scope="module", params=[Emulated, pytest.param(OnGpu, marks=pytest.mark.gpu)])
def evaluate(request, tmp_path_factory):
    """Labels or logits by the kernel; all are written, and nothing beside them."""

    @functools.cache
    def kernel(options):
        return request.param(options, tmp_path_factory.mktemp("kernel"))

    def evaluate(values, network, x, cut=0.0, blocks=3):
        folded, poison = fold(network), POISON[values]
        shape = (len(x),) if values == "labels" else (len(x), network.sizes[-1])
        whole = np.full(int(np.prod(shape)) + 2 * GUARDS, poison)
        packed = fused.pack(folded, x.dtype)
        kernel(fused.options(folded, x.dtype)).launch(values, x, len(x), packed, whole, cut, blocks)
        before, out, behind = np.split(whole, [GUARDS, len(whole) - GUARDS])
        assert (before == poison).all(), "written before the output's beginning"
        assert (behind == poison).all(), "written behind the output's end"
        assert (out != poison).all(), "not written"
        return out.reshape(shape)

    return evaluate


@functools.cache
def shipped_network(number):
    path = Path(shipped()).parent / ("mnist_784-50-100-10.pkl", "mnist_784-128-64-10.pt")[number]
    options = {"hidden": "sigmoid", "head": "softmax"} if number else {}
    return dataclasses.replace(load_network(path, **options), scale=1 / 255)


@functools.cache
def random_network(sizes, hidden="tanh", scale=None):
    head = "softmax" if sizes[-1] > 1 else "sigmoid"
    return dataclasses.replace(Network.random(list(sizes), seed=1, hidden=hidden, head=head), scale=scale)


@pytest.fixture
def planned(monkeypatch):
    """Return what the float32 plan says."""
    monkeypatch.setenv(VARIABLE, "plan")
    return lambda network, x: Predictor(network, scale=network.scale or 1)


# -- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("batch", "rows"), [(1, 50), (15, 450), (16, 480), (17, 510), (100, 2_000), (10_000, 10_000)]
)
def test_labels_of_the_test_set(evaluate, planned, mnist, number, batch, rows):
    network, x = shipped_network(number), mnist[0][:rows]
    found = np.concatenate([evaluate("labels", network, x[i : i + batch]) for i in range(0, rows, batch)])
    logits = planned(network, x).decision_function(x)
    wrong = np.flatnonzero(found != logits.argmax(1))
    margins = np.diff(np.sort(logits[wrong])[:, -2:], axis=1)[:, 0]
    # The closest margins are 0.0004 and 0.005; halves move logits by up to 0.005.
    assert len(wrong) == 0, f"of images {wrong}; the plan's margins are {margins}"


SHAPES = [
    *[(16, 1), (1, 1), (2, 5, 1), (784, 10), (33, 3)],
    *[
        (30, 20, 10, 4),
        (17, 9, 31, 2),
        (64, 128, 128, 128),
        (100, 17, 128),
        (63, 40, 7),
        (130, 8, 8, 8, 8, 8),
    ],
]
DTYPES = fused.INPUTS
#: One dtype for each shape; .ci/nightly takes all of them.
CASES = [
    pytest.param(
        sizes,
        dtype,
        id=f"{'-'.join(map(str, sizes))}-{dtype}",
        marks=[] if i % 3 == j else pytest.mark.slow,
    )
    for i, sizes in enumerate(SHAPES)
    for j, dtype in enumerate(DTYPES)
]


@pytest.mark.parametrize(("sizes", "dtype"), CASES)
def test_networks_of_any_shape(evaluate, planned, sizes, dtype):
    network = random_network(sizes, "tanh", 1 / 255 if dtype == np.uint8 else None)
    random = np.random.default_rng(0)
    x = (
        random.integers(0, 256, (77, sizes[0]))
        if dtype == np.uint8
        else random.standard_normal((77, sizes[0]))
    )
    x = x.astype(dtype)
    expected = planned(network, x).decision_function(x)
    found = evaluate("logits", network, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2 * np.abs(expected).max())
    labels = found[:, 0] > 0 if sizes[-1] == 1 else found.argmax(1)
    np.testing.assert_array_equal(evaluate("labels", network, x), labels)
    # One block has so many at once that its warps go on to a second tile, and some to a third.
    many = np.tile(x, (9, 1))[:-3]
    np.testing.assert_array_equal(evaluate("logits", network, many, blocks=1), np.tile(found, (9, 1))[:-3])


@pytest.mark.parametrize("hidden", ["sigmoid", "relu", "leaky_relu(0.2)", "leaky_relu(-1.5)", "identity"])
def test_every_activation(evaluate, planned, hidden):
    network = random_network((40, 24, 24, 3), hidden)
    x = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    expected = planned(network, x).decision_function(x)
    found = evaluate("logits", network, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1e-25, 1e-6, 1e6, 1e25])
def test_weights_that_halves_do_not_hold(evaluate, planned, size):
    network = random_network((20, 12, 3))
    layers = tuple(dataclasses.replace(layer, W=layer.W * np.float32(size)) for layer in network.layers)
    network = dataclasses.replace(network, layers=layers)
    x = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    expected = planned(network, x).decision_function(x)
    np.testing.assert_allclose(
        evaluate("logits", network, x), expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max()
    )


def test_one_output(evaluate):
    network = random_network((2, 5, 1), "relu")
    x = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    logits = evaluate("logits", network, x)[:, 0]
    for cut in (0.0, float(np.median(logits)), float(logits[7]), np.inf):
        np.testing.assert_array_equal(evaluate("labels", network, x, cut), logits > np.float32(cut))


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-8, 6e4, 1e5, np.inf, -np.inf, np.nan]), st.floats(-3, 3, width=32)
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 70), blocks=st.integers(1, 4))
@pytest.mark.parametrize("sizes", [(5, 4, 3), (33, 12), (3, 2, 130 - 2)], ids=str)
def test_rows_depend_on_themselves_alone(evaluate, sizes, data, rows, blocks):
    network = random_network(sizes, "relu")
    few = data.draw(st.lists(st.lists(NUMBERS, min_size=sizes[0], max_size=sizes[0]), min_size=1, max_size=5))
    x = np.array(few, np.float32)[np.arange(rows) % len(few)]
    one_by_one = np.concatenate(
        [evaluate("logits", network, x[i : i + 1], blocks=1) for i in range(min(rows, len(few)))]
    )
    logits = evaluate("logits", network, x, blocks=blocks)
    np.testing.assert_array_equal(logits, one_by_one[np.arange(rows) % len(few)])
    np.testing.assert_array_equal(evaluate("labels", network, x, blocks=blocks), logits.argmax(1))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("hidden", ["relu", "leaky_relu(0.2)", "tanh"])
def test_what_is_not_finite(evaluate, planned, hidden):
    network = random_network((20, 12, 3), hidden)
    x = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)
    x[1, 3], x[2, 0], x[3, 5] = np.nan, np.inf, -np.inf
    predictor = planned(network, x)
    expected = predictor.decision_function(x)
    assert not np.isfinite(expected[1]).any()
    np.testing.assert_allclose(evaluate("logits", network, x), expected, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(evaluate("labels", network, x)[:2], predictor.predict(x)[:2])


@pytest.mark.parametrize("infinite", [(2, 9), (9, 2), (7, 8), (19, 0)])
def test_the_first_of_several_nan_is_the_label(evaluate, infinite):
    W, b = np.zeros((1, 20), np.float32), np.zeros(20, np.float32)
    W[0, infinite] = 1, -1  # times NaN
    network = Network((Layer(W, b, "softmax"),), scale=None, notes=())
    logits = evaluate("logits", network, np.full((3, 1), np.nan, np.float32))
    assert np.isnan(logits[:, infinite]).all()
    labels = evaluate("labels", network, np.full((3, 1), np.nan, np.float32))
    np.testing.assert_array_equal(labels, logits.argmax(1))


def test_equal_logits(evaluate):
    network = random_network((8, 4, 20))
    layers = tuple(dataclasses.replace(layer, W=layer.W * 0, b=layer.b * 0) for layer in network.layers)
    network = dataclasses.replace(network, layers=layers)
    assert (evaluate("labels", network, np.ones((40, 8), np.float32)) == 0).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_infinite_inputs_end_in_finite_logits_behind_tanh(evaluate, planned):
    network = random_network((20, 12, 3))
    x = np.full((3, 20), np.float32(np.inf))
    x[:, 1:] = 1
    x[1, 0] = 1e9  # a half does not hold it either
    expected = planned(network, x).decision_function(x)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(
        evaluate("logits", network, x), expected, rtol=0, atol=1e-2 * np.abs(expected).max()
    )


def test_the_emulator_sees_what_is_not_aligned(tmp_path):
    folded = fold(random_network((16, 4, 3)))
    kernel = Emulated(fused.options(folded, np.float32), tmp_path)
    x, out = np.ones((64, 16), np.float32), np.empty(64 + 2 * GUARDS, np.int64)
    with pytest.raises(AssertionError, match="not aligned"):
        kernel.launch("labels", x, 63, fused.pack(folded, np.float32), out, 0.0, 1, shift=4)


# -- what fits ------------------------------------------------------------------------------------


def test_what_fits():
    fits = functools.partial(fused.fits, dtype=np.uint8, shared_bytes=H200_SHARED_BYTES)
    assert all(fits(fold(shipped_network(number))) for number in (0, 1))
    assert not fused.fits(fold(shipped_network(1)), np.uint8, 163 * 1024)  # an A100
    assert fits(Network.random([784, 50, 100, 128], hidden="tanh"))
    assert not fits(Network.random([784, 50, 129], hidden="tanh"))
    assert not fits(Network.random([2_000, 100, 10], hidden="tanh"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_that_fit(dtype):
    def fits(W, b):
        return fused.fits(Network((Layer(W, b, "softmax"),), scale=None, notes=()), dtype, H200_SHARED_BYTES)

    layer = Network.random([4, 2]).astype(np.float64).layers[0]
    assert fits(layer.W, layer.b)
    assert fits(layer.W * 0, layer.b)
    assert not fits(layer.W * 1e-35, layer.b)
    assert not fits(layer.W * 1e35, layer.b)
    assert not fits(layer.W, layer.b + 1e300)
    assert not fused.fits(Network.random([4, 3, 2], hidden="leaky_relu(1e39)"), dtype, H200_SHARED_BYTES)


def test_what_bytes_may_become_fits_halves(evaluate):
    layers = random_network((300, 40, 5), "relu").layers
    x = np.tile(np.arange(2, dtype=np.uint8) * 255, (300, 1)).T
    for size, fits in [(1e-2, True), (1, True), (1e3, False)]:
        W = dataclasses.replace(layers[0], W=layers[0].W * np.float32(size))
        network = Network((W, layers[1]), scale=1.0, notes=())
        assert fused.fits(fold(network), np.uint8, H200_SHARED_BYTES) == fits
        if fits:
            assert np.isfinite(evaluate("logits", network, x)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SHAPES, ids=lambda sizes: "-".join(map(str, sizes)))
def test_packed_bytes(sizes, dtype):
    folded = fold(random_network(sizes, "relu"))
    assert fused.pack(folded, dtype).nbytes == fused.packed_bytes(folded)


# -- what the compiler makes of it ----------------------------------------------------------------


@functools.cache
def nvrtc():
    """Return NVIDIA's run-time compiler, which needs no GPU."""
    files = importlib.metadata.files("nvidia-cuda-nvrtc-cu12")
    return ctypes.CDLL(str(next(f.locate() for f in files if f.name.startswith("libnvrtc.so"))))


def compile_for(architecture, folded, dtype):
    """Return registers, bytes of stack and bytes spilled of each function."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert (
        nvrtc().nvrtcCreateProgram(
            ctypes.byref(program), fused.source().encode(), b"network.cu", 0, None, None
        )
        == 0
    )
    options = [*fused.options(folded, dtype), f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    options += ["-ftz=true", "--device-as-default-execution-space"]  # as CuPy adds them
    failed = nvrtc().nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    )
    assert nvrtc().nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
    log = ctypes.create_string_buffer(size.value)
    assert nvrtc().nvrtcGetProgramLog(program, log) == 0
    assert not failed, log.value.decode()
    nvrtc().nvrtcDestroyProgram(ctypes.byref(program))
    # What is spilled, and arrays that are indexed by what is not a constant, are on a stack.
    pattern = (
        r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    found = re.findall(pattern, log.value.decode(), re.DOTALL)
    return {
        name: (int(registers), int(stack), int(stored) + int(loaded))
        for name, stack, stored, loaded, registers in found
    }


COMPILATIONS = [
    pytest.param(
        architecture,
        number,
        dtype,
        id=f"{architecture}-{number}-{dtype}",
        marks=[] if dtype == np.uint8 or (architecture, number) == ("sm_90", 0) else pytest.mark.slow,
    )
    for architecture in ("sm_80", "sm_89", "sm_90")
    for number in (0, 1)
    for dtype in DTYPES
]


@pytest.mark.parametrize(("architecture", "number", "dtype"), COMPILATIONS)
def test_shipped_networks_stay_in_registers(architecture, number, dtype):
    used = compile_for(architecture, fold(shipped_network(number)), dtype)
    assert set(used) == {"labels", "logits"}
    for registers, stack, spilled in used.values():
        assert registers <= 65_536 // fused.THREADS
        assert (stack, spilled) == (0, 0)


def test_the_widest_network_needs_little_beside_registers():
    network = fold(random_network((256, 128, 128, 128)))
    assert fused.fits(network, np.uint8, H200_SHARED_BYTES)
    used = compile_for("sm_90", network, np.uint8)
    assert set(used) == {"labels", "logits"}
    assert all(max(stack, spilled) <= 256 for _, stack, spilled in used.values())
