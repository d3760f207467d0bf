import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpinfer.model import activations, ops

ELEMENTWISE = ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "softmax"]
REFERENCE = {
    "identity": lambda x: x,
    "sigmoid": lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))),
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "softmax": lambda x: (
        np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)
    ),
}
floats = st.floats(-1e4, 1e4, width=32)
shapes = hnp.array_shapes(min_dims=1, max_dims=2, max_side=12)


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(x=hnp.arrays(np.float32, shapes, elements=floats))
def test_close_to_float64(name, x):
    expected = REFERENCE[name](x.astype(np.float64))
    found = activations.activation(name)(np, x)
    assert found.dtype == np.float32
    assert found.shape == x.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_out_and_in_place(name):
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    expected = activations.activation(name)(np, x)
    out = np.full_like(x, np.nan)
    assert activations.activation(name)(np, x, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert activations.activation(name)(np, x, out=x) is x
    np.testing.assert_array_equal(x, out)


@given(data=st.data(), n=st.integers(1, 9), d=st.integers(1, 200), h=st.integers(1, 30))
def test_affine_error_bound(data, n, d, h):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x, W, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, d), (d, h), (h,)))
    exact = x.astype(np.float64) @ W + b
    bound = 8 * np.finfo(np.float32).eps * (np.abs(x).astype(np.float64) @ np.abs(W) + np.abs(b))
    out = np.empty((n, h), np.float32)
    assert (np.abs(ops.affine(np, x, W, b) - exact) <= bound).all()
    assert (np.abs(ops.affine(np, x, W, b, out=out) - exact) <= bound).all()


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_runs_on_the_array_api_standard(shape):
    xp = array_api_strict
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    W, b = np.ones((5, 3), np.float32), np.arange(3, dtype=np.float32)
    z = ops.affine(xp, xp.asarray(x), xp.asarray(W), xp.asarray(b))
    assert isinstance(z, type(xp.asarray(b)))
    np.testing.assert_allclose(np.asarray(z), x @ W + b, rtol=1e-6)
    for name in [*ELEMENTWISE, "leaky_relu(0.2)"]:
        y = activations.activation(name)(xp, xp.asarray(x))
        assert isinstance(y, type(z))
        assert y.dtype == xp.float32
        np.testing.assert_allclose(np.asarray(y), activations.activation(name)(np, x), rtol=1e-6)


def test_devices_do_not_mix():
    """A namespace with devices of its own refuses arrays of two, so nothing here may make one."""
    xp = array_api_strict
    other = xp.Device("device1")
    x = xp.asarray(np.ones((2, 3), np.float32), device=other)
    W, b = xp.asarray(np.ones((3, 2), np.float32), device=other), xp.asarray([1.0, 2.0], device=other)
    z = ops.affine(xp, x, W, xp.astype(b, xp.float32))
    for name in ELEMENTWISE:
        assert activations.activation(name)(xp, z).device == other
    with pytest.raises(ValueError, match="device"):
        ops.affine(xp, x, xp.asarray(np.ones((3, 2), np.float32)), None)


@pytest.mark.parametrize("x", [[1e4, -1e4, 0.0], [[1e38, 1e38], [-1e38, 1e38]], [-np.inf, 0.0]])
def test_softmax_is_stable(x):
    p = ops.softmax(np, np.array(x, np.float32))
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    assert np.isfinite(p).all()


def test_sigmoid_keeps_both_tails():
    p = ops.sigmoid(np, np.array([-100, -20, 0, 20, np.inf, -np.inf]))
    np.testing.assert_allclose(p, [np.exp(-100.0), np.exp(-20) / (1 + np.exp(-20)), 0.5, 1, 1, 0], rtol=1e-7)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_stays_nan(name):
    with np.errstate(invalid="ignore"):
        assert np.isnan(activations.activation(name)(np, np.array([np.nan, 1], np.float32))[0])


def test_names_have_one_spelling():
    assert activations.canonical("leaky_relu") == "leaky_relu(0.01)"
    assert activations.canonical("leaky_relu(.5)") == "leaky_relu(0.5)"
    assert activations.activation("leaky_relu(0.5)")(np, np.array([-2.0]))[0] == -1
    for name in ("ReLU", "gelu", "leaky_relu(nan)", "leaky_relu(1e999)", "leaky_relu()", ""):
        with pytest.raises(ValueError, match="expected an activation"):
            activations.canonical(name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gpu_agrees_with_the_cpu(name):
    from mlpinfer.engine.backends.select import get_backend

    gpu = get_backend("gpu")
    x = np.random.default_rng(0).standard_normal((40, 10)).astype(np.float32) * 5
    on_device = gpu.asarray(x)
    for out in (None, on_device):
        y = gpu.to_host(activations.activation(name)(gpu.xp, on_device, out=out))
        np.testing.assert_allclose(y, activations.activation(name)(np, x), rtol=2e-6, atol=1e-6)
