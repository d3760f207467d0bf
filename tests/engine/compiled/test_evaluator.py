"""The compiled evaluator in every instruction set of this machine; left out where it was not built."""

import ctypes
import mmap
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpinfer import Network, Predictor
from mlpinfer.engine.compiled.availability import EMULATED, VARIABLE
from tests.conftest import EVALUATORS

COMPILED = (*EVALUATORS[1:], EMULATED)


def predictor(name, *args, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, name)
        made = Predictor(*args, **options)
    assert made.evaluator == (name if name == "plan" else f"compiled {name}")
    return made


def rows_of(rng, shape, dtype, density):
    """Rows whose share of values that are not zero varies around `density`."""
    shown = rng.random(shape) < density * rng.uniform(0, 2, (shape[0], 1))
    values = rng.integers(1, 256, shape) if dtype == "uint8" else rng.standard_normal(shape)
    return (values * shown).astype(dtype)


widths = st.integers(1, 256)
activations = st.sampled_from(["identity", "relu", "sigmoid", "tanh", "leaky_relu(0.01)", "leaky_relu(-1.5)"])


@pytest.mark.parametrize("name", COMPILED)
@settings(max_examples=60, deadline=None)
@given(
    features=st.one_of(widths, st.sampled_from([784, 1023, 1024, 1025, 2500])),
    hidden=st.lists(st.tuples(widths, activations), max_size=3),
    outputs=widths,
    head=st.sampled_from(["softmax", "identity"]),
    rows=st.integers(0, 2_000),
    batch_size=st.sampled_from([1, 2, 7, 24, 100, 3_000]),
    dtype=st.sampled_from(["uint8", "float32"]),
    density=st.sampled_from([0, 0.02, 0.25, 0.5, 1]),
)
def test_logits_are_those_of_the_plan(
    name, features, hidden, outputs, head, rows, batch_size, dtype, density
):
    rows %= 100 if name == EMULATED else 2_001  # which is slow
    sizes = [features, *(width for width, _ in hidden), max(outputs, 2)]
    network = Network.random(sizes, hidden=[activation for _, activation in hidden], head=head)
    x = rows_of(np.random.default_rng(rows), (rows, features), dtype, density)
    scale = 1 / 255 if dtype == "uint8" else 1
    options = {"batch_size": batch_size, "threads": 2, "scale": scale}
    expected = predictor("plan", network, **options).decision_function(x)
    compiled = predictor(name, network, **options)
    found = compiled.decision_function(x)
    tolerance = 2e-5 * np.abs(expected).max(axis=1, keepdims=True, initial=1)
    assert (np.abs(found - expected) <= tolerance).all()
    if head == "softmax":
        np.testing.assert_array_equal(compiled.predict(x), found.argmax(axis=1))
    # Neither batches nor neighbours nor threads change a bit.
    other = predictor(name, network, batch_size=5, threads=1, scale=scale)
    np.testing.assert_array_equal(other.decision_function(x), found)
    np.testing.assert_array_equal(other.decision_function(x[::-1]), found[::-1])


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("density", [0.2, 1])
@pytest.mark.parametrize(
    "sizes",
    [(70, 257, 10), (130, 1_025, 300, 3), (64, 72, 2_049, 144, 2), (100, 4_096, 5)],
    ids=lambda sizes: "-".join(map(str, sizes)),
)
def test_wide_layers(name, sizes, dtype, density):
    network = Network.random(list(sizes), hidden="tanh")
    x = rows_of(np.random.default_rng(0), (61, sizes[0]), dtype, density)
    scale = 1 / 255 if dtype == "uint8" else 1
    found = predictor(name, network, batch_size=61, threads=1, scale=scale).decision_function(x)
    expected = predictor("plan", network, scale=scale).decision_function(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    by_two = predictor(name, network, batch_size=7, threads=2, scale=scale)
    np.testing.assert_array_equal(by_two.decision_function(x[::-1]), found[::-1])
    np.testing.assert_array_equal(by_two.predict(x), found.argmax(axis=1))


@pytest.mark.parametrize("name", COMPILED)
def test_skipped_zeros_change_no_bit(name):
    """A column of ones after the others makes the same sums of a row's values and of none of its zeros."""
    rng = np.random.default_rng(0)
    network = Network.random([300, 60, 10], hidden="tanh")
    sparse = rows_of(rng, (50, 300), "float32", 0.2)
    dense = np.hstack([sparse, np.ones((50, 400), np.float32)])
    first = network.layers[0]
    wide = Network.from_arrays(
        [np.vstack([first.W, np.zeros((400, 60), np.float32)]), network.layers[1].W],
        [first.b, network.layers[1].b],
        hidden="tanh",
    )
    np.testing.assert_array_equal(
        predictor(name, wide).decision_function(dense), predictor(name, network).decision_function(sparse)
    )


def tanh_errors(name, x):
    """Errors of tanh, in units in the last place of float64's result rounded to float32."""
    W = np.eye(16, dtype=np.float32)
    through = predictor(name, Network.from_arrays([W, W], [W[0] * 0] * 2, hidden="tanh", head="identity"))
    x = np.resize(x, (-(-len(x) // 16), 16))
    expected = np.tanh(x.astype(np.float64))
    found = through.predict(x)
    return np.abs(found - expected) / np.spacing(np.abs(expected.astype(np.float32)))


@pytest.mark.parametrize("name", COMPILED)
def test_tanh_is_within_8_units_in_the_last_place(name):
    bits = np.arange(0, 0x7F800000, 5_003, dtype=np.uint32)  # 0 to the largest float
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32), np.linspace(-10, 10, 100_000)])
    assert tanh_errors(name, x.astype(np.float32)).max() <= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_tanh_of_every_float_is_within_8_units_in_the_last_place(name):
    for sign in (0, 0x80000000):
        for first in range(0, 0x7F800000, 1 << 24):
            bits = np.arange(first, min(first + (1 << 24), 0x7F800000), dtype=np.uint32) | np.uint32(sign)
            assert tanh_errors(name, bits.view(np.float32)).max() <= 8


@pytest.mark.parametrize("name", EVALUATORS)
@pytest.mark.parametrize("features", [3, 200])
@pytest.mark.parametrize("hidden", ["tanh", "relu", "leaky_relu", "identity"])
def test_what_is_not_finite_is_as_numpy_has_it(name, features, hidden):
    network = Network.random([features, 20, 30, 4], hidden=hidden)
    x = np.zeros((8, features), np.float32)
    for row, value in enumerate([np.nan, np.inf, -np.inf, 3e38]):
        x[row, 1] = value
        x[row + 4] = value
    compiled = predictor(name, network)
    with np.errstate(all="ignore"):
        expected = network.forward(x)
        found, logits = compiled.predict_proba(x), compiled.decision_function(x)
        labels = compiled.predict(x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, logits.argmax(axis=1))


@pytest.mark.parametrize("name", EVALUATORS)
def test_the_first_nan_and_the_first_of_a_tie_are_the_label(name):
    x = np.ones((1, 2), np.float32)
    for b, label in ([2, 7, 7], 1), ([-0.0, 0.0, 0.0], 0), ([-1e38, -3e38, -2e38], 0):
        network = Network.from_arrays([np.zeros((2, 3), np.float32)], [np.array(b, np.float32)])
        assert predictor(name, network).predict(x).tolist() == [label]
    network = Network.from_arrays([np.array([[1, 1, 0]], np.float32)], [np.zeros(3, np.float32)])
    x = np.array([[np.inf], [np.nan], [-np.inf]], np.float32)  # times 0 is NaN
    with np.errstate(invalid="ignore"):
        assert predictor(name, network).predict(x).tolist() == [2, 0, 2]


@pytest.fixture
def guarded():
    """Return arrays whose last byte, or first, stands beside a page that may not be touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    regions = []

    def copy(x, at_end):
        page = mmap.PAGESIZE
        inner = -(-x.nbytes // page) * page
        region = mmap.mmap(-1, inner + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(region))
        for address in (base, base + page + inner):
            assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0
        regions.append((region, base, page, inner))
        offset = page + (inner - x.nbytes if at_end else 0)
        y = np.frombuffer(region, x.dtype, x.size, offset).reshape(x.shape)
        y[...] = x
        return y

    yield copy
    for _, base, page, inner in regions:
        for address in (base, base + page + inner):
            libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("density", [0.1, 1])
def test_nothing_beside_the_arrays_is_touched(name, dtype, density, guarded):
    rng = np.random.default_rng(0)
    for features in (1, 15, 16, 17, 63, 64, 65, 784, 1_024, 1_030):
        network = Network.random([features, 21, 5])
        evaluator = predictor(name, network, scale=1)._evaluator
        for rows in (1, 2, 7, 25):
            x = rows_of(rng, (rows, features), dtype, density)
            for at_end in (True, False):
                labels = guarded(np.full(rows, -1), at_end)
                logits = guarded(np.full((rows, 5), np.nan, np.float32), at_end)
                there = guarded(x, at_end)
                evaluator.labels(there, labels)
                evaluator.logits(there, logits)
                np.testing.assert_array_equal(labels, logits.argmax(axis=1))
                np.testing.assert_array_equal(there, x)


@pytest.mark.parametrize("name", COMPILED)
def test_rows_of_every_memory_layout(name):
    network = Network.random([10, 20, 3])
    x = np.random.default_rng(0).integers(0, 9, (30, 10))
    compiled = predictor(name, network, scale=1)
    expected = compiled.decision_function(x.astype(np.float32))
    unaligned = (
        np.frombuffer(b"-" + x.astype(np.float32).tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    )
    assert not unaligned.flags.aligned
    frozen = x.astype(np.float32)
    frozen.flags.writeable = False
    for rows in (
        unaligned,
        frozen,
        *(
            x.astype(dtype)
            for dtype in ("uint8", "int8", "bool", "float16", "float64", ">f4", ">i2", "int64")
        ),
        *(np.asfortranarray(x.astype(dtype)) for dtype in ("uint8", "float32")),
        np.repeat(x.astype(np.float32), 2, axis=1)[:, ::2],
        np.repeat(x.astype(np.uint8), 2, axis=0)[::2],
    ):
        # Bytes may be multiplied in another way than the same numbers as float32.
        same = np.array(rows, np.uint8 if rows.dtype == np.uint8 else np.float32, order="C")
        found = compiled.decision_function(rows)
        np.testing.assert_array_equal(found, compiled.decision_function(same))
        if (same == x).all():
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", COMPILED)
def test_the_extension_refuses_what_does_not_fit(name):
    from mlpinfer.engine.compiled import _cpu

    W, b = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    layer = (3, 2, W, b, _cpu.TANH, 0.0)
    packed = _cpu.PackedNetwork(name, (layer, (2, 2, W[:2], b, _cpu.IDENTITY, 0.0)), 0.0)
    x, labels = np.ones((5, 3), np.float32), np.empty(5, np.int64)
    packed.labels(x, labels, 2)
    frozen = labels.copy()
    frozen.flags.writeable = False
    for arguments in [
        (x, labels, 0),
        (x, labels, -1),
        (x[:, :2].copy(), labels, 1),
        (x.astype(np.float64), labels, 1),
        (x.astype(np.int8), labels, 1),
        (x.reshape(15), labels, 1),
        (x[None], labels, 1),
        (x, labels[:4], 1),
        (x, labels.astype(np.int32), 1),
        (x, labels.astype(np.float64), 1),
    ]:
        with pytest.raises(ValueError, match="expected"):
            packed.labels(*arguments)
    for out in (labels, np.empty((5, 3), np.float32), np.empty((5, 2), np.float64)):
        with pytest.raises(ValueError, match="expected out of 5 x 2 float32, found"):
            packed.logits(x, out, 1)
    for arguments in [(x.T, labels, 1), (x, frozen, 1), (x, np.empty((5, 2), np.int64)[:, 0], 1)]:
        with pytest.raises((ValueError, BufferError)):
            packed.labels(*arguments)
    for arguments in [(), (x, labels), (x, labels, 1, 1), (x, labels, "1"), (None, labels, 1)]:
        with pytest.raises(TypeError):
            packed.labels(*arguments)
    for layers in [
        (),
        (layer, layer),
        ((3, 4_097, np.ones((3, 4_097), np.float32), np.zeros(4_097, np.float32), 0, 0.0),),
        ((0, 2, W, b, 0, 0.0),),
        ((2**62, 2, W, b, 0, 0.0),),
        ((3, 2, W, b, 9, 0.0),),
        ((3, 2, W[:2], b, 0, 0.0),),
        ((3, 2, W, b[:1], 0, 0.0),),
        ((3, 2, W.astype(np.float64), b, 0, 0.0),),
    ]:
        with pytest.raises(ValueError, match="expected"):
            _cpu.PackedNetwork(name, layers, 0.0)
    for layers in [(1,), (layer[:5],), ((*layer[:2], None, *layer[3:]),)]:
        with pytest.raises(TypeError):
            _cpu.PackedNetwork(name, layers, 0.0)
    with pytest.raises(ValueError, match="expected an instruction set of this processor, found i386"):
        _cpu.PackedNetwork("i386", (layer,), 0.0)


@pytest.mark.parametrize("name", COMPILED)
def test_other_threads_run_meanwhile(name):
    evaluator = predictor(name, Network.random([256, 256, 256, 10]))._evaluator
    rows = 2_000 if name == EMULATED else 50_000
    x, out = np.ones((rows, 256), np.float32), np.empty(rows, np.int64)
    times, done = [], threading.Event()

    def work():
        times.append(time.perf_counter())
        evaluator.labels(x, out)
        times.append(time.perf_counter())
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    turns = []
    while not done.is_set():
        turns.append(time.perf_counter())
    worker.join(30)
    begin, end = times
    margin = (end - begin) / 5
    # In the midst of what is one call, not around it.
    assert sum(begin + margin < turn < end - margin for turn in turns) > 100
