"""The arithmetic of a multilayer perceptron, written once for every array library.

Every function takes the array namespace `xp` first (NumPy, CuPy, or any namespace of the Python
array API standard) and returns an array of that namespace. `out=` writes into an array that the
caller owns and may be the input itself; it needs a namespace whose functions have `out=`.

Shapes: N rows, D features, H units of a layer. Every activation takes (H,) and (N, H) alike.
"""

from __future__ import annotations

from typing import Any

#: An array of any library. NumPy's own type would be a promise that CuPy's arrays do not keep.
Array = Any


def affine(xp: Any, x: Array, W: Array, b: Array | None, out: Array | None = None) -> Array:
    """Return ``x @ W + b``.

    Parameters
    ----------
    xp : array namespace
    x : array, shape (N, D) or (D,)
    W : array, shape (D, H), same dtype as `x`
    b : array, shape (H,), or None for none
    out : array, shape (N, H) or (H,), optional
        Contiguous, of the dtype of `x`, not overlapping `x`.
    """
    if out is None:
        z = xp.matmul(x, W)
        return z if b is None else z + b
    xp.dot(x, W, out=out)  # as matmul, at less overhead a call
    return out if b is None else xp.add(out, b, out=out)


def identity(xp: Any, x: Array, out: Array | None = None) -> Array:
    """Return `x`."""
    return _into(x, out)


def sigmoid(xp: Any, x: Array, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, without overflow and exact in both tails.

    exp is only ever taken of -|x|: for x < 0 numerator and denominator are multiplied by exp(x).
    """
    e = xp.exp(-xp.abs(x))
    y = xp.where(x < 0, e, xp.ones_like(e))
    if out is None:
        return y / (1 + e)
    e += 1
    return xp.divide(y, e, out=out)


def tanh(xp: Any, x: Array, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent of `x`."""
    return xp.tanh(x) if out is None else xp.tanh(x, out=out)


def relu(xp: Any, x: Array, out: Array | None = None) -> Array:
    """Return ``max(x, 0)``; NaN stays NaN."""
    return xp.maximum(x, 0) if out is None else xp.maximum(x, 0, out=out)


def leaky_relu(xp: Any, x: Array, out: Array | None = None, slope: float = 0.01) -> Array:
    """Return `x` where it is positive and ``slope * x`` elsewhere."""
    return _into(xp.where(x > 0, x, x * slope), out)


def softmax(xp: Any, x: Array, out: Array | None = None) -> Array:
    """Return ``exp(x) / sum(exp(x))`` over the last axis, row by row.

    Subtracting each row's largest value changes nothing in exact arithmetic and keeps every
    exponent at or below zero, so that nothing overflows (Goodfellow, Bengio and Courville,
    *Deep Learning*, section 4.1).
    """
    top = xp.max(x, axis=-1, keepdims=True)  # (N, 1) or (1,)
    if out is None:
        e = xp.exp(x - top)
        return e / xp.sum(e, axis=-1, keepdims=True)
    xp.subtract(x, top, out=out)
    xp.exp(out, out=out)
    return xp.divide(out, xp.sum(out, axis=-1, keepdims=True), out=out)


def _into(y: Array, out: Array | None) -> Array:
    if out is None or out is y:
        return y
    out[...] = y
    return out
