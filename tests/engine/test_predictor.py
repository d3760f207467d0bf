import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpinfer import InputError, Network, Predictor, WeightsError, load_network
from mlpinfer.io.weights.load import shipped
from tests.strategies import networks

pytestmark = pytest.mark.usefixtures("evaluator")


def test_labels_of_the_test_set_are_those_of_the_textbook(network, mnist, device):
    x, t = mnist
    expected = network.forward(x / np.float32(255)).argmax(1)
    assert (expected == t).sum() == 9777
    for batch_size in (1, 7, 100, 9_999, 10_000, 20_000):
        predictor = Predictor(network, device, batch_size, scale=1 / 255)
        np.testing.assert_array_equal(predictor.predict(x), expected)


@pytest.mark.parametrize("name", ["mnist_784-50-100-10.pkl", "mnist_784-128-64-10.pt"])
def test_folded_labels_equal_the_textbook_s_on_every_image(name, mnist):
    network = load_network(shipped(name), hidden="sigmoid", head="softmax", scale=1 / 255)
    expected = network.forward(mnist[0])
    for batch_size in (1, 100, 10_000):
        predictor = Predictor(network, batch_size=batch_size)
        np.testing.assert_array_equal(predictor.predict(mnist[0]), expected.argmax(1))
        np.testing.assert_allclose(predictor.predict_proba(mnist[0]), expected, rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(
    network=networks(),
    rows=st.integers(0, 70),
    batch_size=st.integers(1, 80),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.float64]),
    precision=st.sampled_from(["float32", "float64"]),
)
def test_plan_equals_forward(network, rows, batch_size, threads, dtype, precision):
    x = (np.random.default_rng(rows).random((rows, network.sizes[0])) * 3).astype(dtype)
    scale = network.scale or 1
    predictor = Predictor(network, "cpu", batch_size, threads, precision, scale)
    expected = np.asarray(Network(network.layers, scale).forward(x))
    tolerance = 1e-5 if precision == "float32" else 1e-9
    if network.head == "identity":
        found = predictor.predict(x)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 10)
    else:
        found = predictor.predict_proba(x)
        expected = np.hstack([1 - expected, expected]) if network.head == "sigmoid" else expected
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert predictor.predict(x).dtype == np.int64
        np.testing.assert_array_equal(predictor.predict(x), found.argmax(1) if len(x) else [])
    assert len(found) == len(predictor.decision_function(x)) == rows
    assert found.dtype == precision


def test_results_are_bitwise_the_same_for_any_number_of_threads(network, mnist):
    x = mnist[0]
    one, *others = (
        Predictor(network, "cpu", 100, n, scale=1 / 255).decision_function(x) for n in (1, 2, 3, 5)
    )
    for other in others:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(784,), (28, 28)])
def test_one_row_gives_one_value(network, mnist, shape, device):
    predictor = Predictor(network, device, scale=1 / 255)
    x = mnist[0][0].reshape(shape)
    assert predictor.predict(x) == 7
    assert predictor.predict(x).shape == ()
    assert predictor.predict_proba(x).shape == (10,)
    assert [z.shape for z, _ in predictor.trace(x)] == [(50,), (100,), (10,)]


@pytest.mark.parametrize("shape", [(5, 784), (5, 28, 28), (5, 1, 28, 28)])
def test_images_of_every_shape(network, mnist, shape):
    predictor = Predictor(network, scale=1 / 255)
    x = mnist[0][:5]
    np.testing.assert_array_equal(predictor.predict(x.reshape(shape)), predictor.predict(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 27, 27)), r"rows of 784 features or images of 28 x 28, found shape \(3, 27, 27\)"),
        (np.ones(()), "found shape"),
        (np.ones(783), "found shape"),
        (np.ones((784, 3)), "found shape"),
        (np.ones((3, 2, 28, 28)), "found shape"),
        (np.ones((3, 28, 28, 1)), "found shape"),
        (np.ones((3, 784), complex), "found dtype complex128"),
        (np.full((3, 784), "a"), "found dtype <U1"),
        (np.full((3, 784), None), "found dtype object"),
        ([[1, 2], [3]], "expected an array of numbers, found list"),
        (
            np.ones((3, 784), np.uint8),
            "uint8 rows and no known scale: give scale .* 1/255 for pixels, or 1",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(network, x, message):
    with pytest.raises(InputError, match=message):
        Predictor(network).predict(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number from 1, found 0"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"threads": True}, "threads"),
        ({"precision": "float16"}, "precision: expected float32 or float64"),
        ({"scale": 0}, "scale: expected a finite number other than 0"),
        ({"threshold": 1}, "threshold: expected a number between 0 and 1"),
        ({"threshold": "x"}, "threshold: expected a number between 0 and 1"),
        ({"device": "tpu"}, "device: expected auto, cpu, gpu or gpu:N, found 'tpu'"),
    ],
)
def test_options_that_do_not_fit_are_refused(network, options, message):
    with pytest.raises(InputError, match=message):
        Predictor(network, **options)


def test_an_identity_head_has_values_and_no_probabilities():
    predictor = Predictor(Network.random([4, 3, 2], head="identity"))
    assert predictor.predict(np.ones((5, 4))).shape == (5, 2)
    assert not hasattr(predictor, "classes_")
    with pytest.raises(InputError, match="expected a softmax or sigmoid head"):
        predictor.predict_proba(np.ones((5, 4)))


def test_a_sigmoid_head_has_two_classes_and_a_threshold():
    gate = Network.from_arrays([[5, 5]], [-7.5], head="sigmoid")
    x = [[0, 0], [0, 1], [1, 0], [1, 1]]
    predictor = Predictor(gate)
    assert predictor.classes_.tolist() == [0, 1]
    assert predictor.predict(x).tolist() == [0, 0, 0, 1]
    p = predictor.predict_proba(x)
    assert p.shape == (4, 2)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp([7.5, 2.5, 2.5, -2.5])), rtol=1e-5)
    assert Predictor(gate, threshold=0.05).predict(x).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_caller_s_errstate_holds_in_every_thread(network, threads):
    x = np.full((10_000, 784), 1e300)
    predictor = Predictor(network, threads=threads)
    with np.errstate(all="ignore"):
        predictor.predict(x)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        predictor.predict(x)


def test_a_call_from_another_thread_gives_the_same_bits(network, mnist):
    predictor = Predictor(network, batch_size=1_000, threads=1, scale=1 / 255)
    expected = predictor.decision_function(mnist[0])
    found = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: found.append(predictor.decision_function(mnist[0])))
        thread.start()
        thread.join(60)
    for other in found:
        np.testing.assert_array_equal(other, expected)


def test_ties_go_to_the_lowest_label():
    network = Network.from_arrays([np.zeros((2, 4))], [[1, 3, 3, 0]])
    assert Predictor(network).predict([[1, 2], [3, 4]]).tolist() == [1, 1]
    coin = Network.from_arrays([np.zeros((2, 1))], [0], head="sigmoid")
    assert Predictor(coin).predict([[1, 2]]).tolist() == [0]


def test_nan_rows_stay_theirs():
    network = Network.random([3, 4, 2])
    x = np.ones((3, 3), np.float32)
    x[1] = np.nan
    p = Predictor(network).predict_proba(x)
    assert np.isnan(p).any(1).tolist() == [False, True, False]


def test_infinite_inputs_are_as_the_textbook_has_them():
    network = Network.random([3, 4, 5, 2])
    x = np.array([[np.inf, 1, 2], [1, -np.inf, 2], [1, 2, 3]], np.float32)
    # OpenBLAS multiplies its own padding by infinity too, on some processors: right values, and a warning.
    with np.errstate(invalid="ignore"):
        expected = network.forward(x)
        np.testing.assert_allclose(Predictor(network).predict_proba(x), expected, atol=1e-6)
    assert np.isfinite(expected).all()


def test_pickled_and_used_as_a_context(network, mnist):
    x = mnist[0][:300]
    with Predictor(network, batch_size=7, threads=2, scale=1 / 255, precision="float64") as predictor:
        expected = predictor.predict_proba(x)
        again = pickle.loads(pickle.dumps(predictor))
    assert (again.batch_size, again.threads, again.scale, again.precision) == (7, 2, 1 / 255, "float64")
    np.testing.assert_array_equal(again.predict_proba(x), expected)
    np.testing.assert_array_equal(predictor.predict_proba(x), expected)


def test_float64_weights_need_float64_precision():
    network = Network.from_arrays([[[1e300, 1]]], [[0, 0]])
    with pytest.raises(WeightsError, match=r"W1: 1e.300 does not fit float32, use float64 precision"):
        Predictor(network)
    assert Predictor(network, precision="float64").predict([[1.0]]) == [0]


def test_inputs_are_left_as_they_were_and_may_be_read_only(network, mnist):
    x = (mnist[0][:50] / np.float32(255)).copy()
    before = x.copy()
    x.flags.writeable = False
    Predictor(network, batch_size=7).predict_proba(x)
    np.testing.assert_array_equal(x, before)
    strided = np.asfortranarray(x)
    np.testing.assert_allclose(
        Predictor(network).predict_proba(strided), Predictor(network).predict_proba(x), atol=1e-6
    )


def test_concurrent_calls_are_right(network, mnist):
    x = mnist[0][:2_000]
    predictor = Predictor(network, batch_size=50, threads=2, scale=1 / 255)
    expected = predictor.predict(x)
    wrong = []

    def call(seed):
        rows = np.random.default_rng(seed).integers(0, len(x), 1_500)
        for _ in range(5):
            wrong.append((predictor.predict(x[rows]) != expected[rows]).sum())

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert wrong == [0] * 30


def test_an_error_in_a_worker_reaches_the_caller(network, mnist, monkeypatch):
    predictor = Predictor(network, batch_size=100, threads=2, scale=1 / 255)

    def fail(x, out):
        raise MemoryError

    monkeypatch.setitem(predictor._outputs, "labels", predictor._outputs["labels"]._replace(evaluate=fail))
    with pytest.raises(MemoryError):
        predictor.predict(mnist[0])
    assert threading.active_count() == 1


@pytest.mark.gpu
def test_cupy_in_cupy_out(network, mnist):
    import cupy

    x = mnist[0][:200]
    expected = Predictor(network, scale=1 / 255).predict_proba(x)
    for device in ("cpu", "gpu"):
        found = Predictor(network, device, 64, scale=1 / 255).predict_proba(cupy.asarray(x))
        assert isinstance(found, cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(found), expected, atol=1e-5)


def test_a_file_s_name_is_no_network():
    with pytest.raises(InputError, match="expected a Network, found str; load_network reads one"):
        Predictor("weights.pkl")


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("threshold", np.float64(2), "2.0"),
        ("batch_size", np.int64(-1), "-1"),
        ("precision", np.float32, "<float32>"),
    ],
)
def test_what_was_found_is_shown(network, option, value, found):
    with pytest.raises(InputError, match=f"^{option}: expected .*, found {found}$"):
        Predictor(network, **{option: value})
