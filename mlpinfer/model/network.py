"""A multilayer perceptron as data: checked host arrays, immutable, with the textbook forward pass.

Weights are laid out (in, out), so that a layer is ``x @ W + b``. Nothing here is fast on purpose:
`mlpinfer.engine` runs an equivalent of a `Network`, and the tests hold the two together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import InputError, WeightsError
from mlpinfer.model import activations, checks, ops


class LayerTrace(NamedTuple):
    """What one layer computed: `affine` is ``Z = x @ W + b``, `activation` is ``A = h(Z)``."""

    affine: ops.Array
    activation: ops.Array


@dataclass(frozen=True, eq=False)
class Layer:
    """One affine map and the activation behind it, as `Network.from_arrays` makes it of checked copies.

    Attributes
    ----------
    W : ndarray, shape (inputs, outputs), float16, float32 or float64, read-only
    b : ndarray, shape (outputs,), likewise
    activation : str
        A name of `activations.HIDDEN`; behind the last layer, of `activations.HEADS`.
    """

    W: checks.Floats
    b: checks.Floats
    activation: str

    def __post_init__(self) -> None:
        for name in ("W", "b"):  # views: whose arrays they are may go on writing
            array = getattr(self, name).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, (self.W, self.b, self.activation)  # arrays come out of a pickle writable

    @property
    def inputs(self) -> int:
        """Features that go in."""
        return int(self.W.shape[0])

    @property
    def outputs(self) -> int:
        """Units, hence values that come out."""
        return int(self.W.shape[1])

    @property
    def parameters(self) -> int:
        """Weights and biases: ``outputs * (inputs + 1)``."""
        return self.W.size + self.b.size


@dataclass(frozen=True, eq=False)
class Network:
    """Layers whose shapes fit together. Make one with `from_arrays`, `random` or `load_network`.

    Attributes
    ----------
    layers : tuple of Layer
    scale : float or None
        What raw inputs are multiplied by before the first layer, where the file says so.
    notes : tuple of str
        What the reader of the file left out or converted, a line each.
    """

    layers: tuple[Layer, ...]
    scale: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[npt.ArrayLike],
        biases: Sequence[npt.ArrayLike],
        hidden: str | Sequence[str] = "sigmoid",
        head: str = "softmax",
        scale: float | None = None,
        *,
        names: Sequence[tuple[str, str]] | None = None,
        notes: Sequence[str] = (),
    ) -> Network:
        """Build a network from its weights and biases, first layer first.

        Parameters
        ----------
        weights : sequence of array_like, shape (inputs, outputs) each
            A single neuron may be given as (inputs,). Integers become float64.
        biases : sequence of array_like, shape (outputs,) each
            A single neuron's may be a scalar.
        hidden : str or sequence of str
            Activation behind every layer but the last, or one for each of them.
        head : {"softmax", "sigmoid", "identity"}
            What stands behind the last layer.
        scale : float, optional
            What raw inputs are multiplied by, such as ``1/255``.
        names : sequence of (str, str), optional
            What the weights and biases are called in error messages; ``W1``, ``b1``, ... otherwise.
        notes : sequence of str, optional

        Raises
        ------
        WeightsError
            Naming the array, what was expected of it and what was found.
        """
        names = names or [(f"W{i}", f"b{i}") for i in range(1, max(len(weights), len(biases)) + 1)]
        if len(weights) != len(biases) or not len(weights):
            raise WeightsError(
                f"expected one bias for each of one or more weights, found {len(weights)} weights and "
                f"{len(biases)} biases"
            )
        try:
            scale = checks.checked_scale(scale)
            all_activations = [
                *checks.activation_of_each(hidden, len(weights) - 1),
                checks.checked_head(head),
            ]
        except InputError as error:
            raise WeightsError(str(error)) from None
        layers: list[Layer] = []
        for (W_name, b_name), W_like, b_like, activation in zip(
            names, weights, biases, all_activations, strict=True
        ):
            W, b = checks.checked_floats(W_like, W_name), checks.checked_floats(b_like, b_name)
            if W.ndim == 1:
                W = W.reshape(-1, 1)  # a single neuron, (D,) -> (D, 1)
            b = b.reshape(1) if b.ndim == 0 else b
            if W.ndim != 2 or W.size == 0:
                raise WeightsError(f"{W_name}: expected shape (inputs, outputs), found {W.shape}")
            if layers and W.shape[0] != layers[-1].outputs:
                raise WeightsError(
                    f"{W_name}: expected shape ({layers[-1].outputs}, outputs) behind a layer of "
                    f"{layers[-1].outputs} outputs, found {W.shape}"
                )
            if b.shape != W.shape[1:]:
                raise WeightsError(f"{b_name}: expected shape {W.shape[1:]} to fit {W_name}, found {b.shape}")
            layers.append(Layer(W, b, activation))
        checks.check_head(head, layers[-1].outputs)
        return cls(tuple(layers), scale, tuple(notes))

    @classmethod
    def from_sklearn(cls, model: Any) -> Network:
        """Build the network of a fitted ``MLPClassifier`` or ``MLPRegressor`` of scikit-learn.

        Labels are positions in the model's ``classes_``; a warning says so where they differ.

        Raises
        ------
        WeightsError
        """
        from mlpinfer.model.adapters.sklearn import read_sklearn

        return cls.from_arrays(**read_sklearn(model)._asdict())

    @classmethod
    def from_torch(
        cls,
        module: Any,
        hidden: str | Sequence[str] | None = None,
        head: str | None = None,
        scale: float | None = None,
    ) -> Network:
        """Build the network of a ``torch.nn.Module`` of linear layers.

        Parameters
        ----------
        module : torch.nn.Module
            A ``Sequential`` says its activations; for any other module `hidden` and `head` must be
            given, and the linear layers are taken in the order of their definition. Batch normalization
            in a ``Sequential`` is taken into the layer beside it, as ``eval()`` computes it.
        hidden, head, scale
            As in `from_arrays`; they go before what the module says. A module that ends in its last
            linear layer has an identity head: give ``head="softmax"`` for logits of classes.

        Raises
        ------
        WeightsError
        """
        from mlpinfer.model.adapters.torch import read_torch

        return cls.from_arrays(**read_torch(module, hidden, head)._asdict(), scale=scale)

    @classmethod
    def random(
        cls,
        sizes: Sequence[int],
        seed: int = 0,
        hidden: str | Sequence[str] = "sigmoid",
        head: str = "softmax",
        scale: float | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> Network:
        """A network of the given layer sizes with weights from N(0, 1 / inputs).

        Parameters
        ----------
        sizes : sequence of int
            Features, units of each hidden layer, outputs: ``[784, 50, 100, 10]``.
        seed : int
            The same seed gives the same network.
        hidden, head, scale
            As in `from_arrays`.
        dtype : dtype
            Of weights and biases.

        Raises
        ------
        InputError
            If sizes are no whole numbers from 1.
        WeightsError
            As `from_arrays`.
        """
        if len(sizes) < 2 or not all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes):
            raise InputError(f"sizes: expected two or more whole numbers from 1, found {list(sizes)}")
        rng = np.random.default_rng(seed)
        pairs = list(itertools.pairwise(sizes))
        weights = [(rng.standard_normal(pair) / np.sqrt(pair[0])).astype(dtype) for pair in pairs]
        biases = [(rng.standard_normal(outputs) / 10).astype(dtype) for _, outputs in pairs]
        return cls.from_arrays(weights, biases, hidden, head, scale)

    def __repr__(self) -> str:
        names = f"hidden={','.join(self.hidden)!r}, head={self.head!r}, scale={self.scale}"
        return f"Network({'-'.join(map(str, self.sizes))}, {names})"

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Features and the outputs of every layer: ``(784, 50, 100, 10)``."""
        return (self.layers[0].inputs, *(layer.outputs for layer in self.layers))

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Activation behind every layer but the last."""
        return tuple(layer.activation for layer in self.layers[:-1])

    @cached_property
    def image_side(self) -> int | None:
        """Height and width of the square images that its inputs may be: 28 for 784; None for others."""
        side = math.isqrt(self.sizes[0])
        return side if side > 1 and side * side == self.sizes[0] else None

    @property
    def head(self) -> str:
        """What stands behind the last layer."""
        return self.layers[-1].activation

    @property
    def is_classifier(self) -> bool:
        """Whether it labels rows: its head is softmax or sigmoid, not identity."""
        return self.head != "identity"

    @property
    def n_classes(self) -> int:
        """Number of classes; a single sigmoid output tells two apart. 0 for an identity head."""
        return max(2, self.sizes[-1]) if self.is_classifier else 0

    @cached_property
    def sha256(self) -> str:
        """Digest of layers, activations and scale, in hexadecimal: one network, one digest, in any file."""
        digest = hashlib.sha256()
        for layer in self.layers:
            for array in (layer.W, layer.b):
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                digest.update(json.dumps([little.dtype.str, array.shape]).encode())
                digest.update(little.tobytes())
        digest.update(json.dumps([self.hidden, self.head, self.scale]).encode())
        return digest.hexdigest()

    def astype(self, dtype: npt.DTypeLike) -> Network:
        """The same network with weights of another floating dtype.

        Raises
        ------
        WeightsError
            Naming the array with a value that the new dtype cannot hold.
        """

        def cast(array: checks.Floats, name: str) -> checks.Floats:
            with np.errstate(over="ignore"):
                result = array.astype(dtype)
            if not np.isfinite(result).all():
                worst = np.abs(array).max()
                raise WeightsError(
                    f"{name}: {worst:.3g} does not fit {np.dtype(dtype)}, use float64 precision"
                )
            return result

        layers = (
            Layer(cast(layer.W, f"W{i}"), cast(layer.b, f"b{i}"), layer.activation)
            for i, layer in enumerate(self.layers, 1)
        )
        return dataclasses.replace(self, layers=tuple(layers))

    def trace(self, x: ops.Array, xp: Any = np) -> list[LayerTrace]:
        """The textbook pass, keeping what every layer computed.

        Parameters
        ----------
        x : array of `xp`, shape (N, D) or (D,)
            Raw inputs; `scale` is applied where the network has one.
        xp : array namespace
            NumPy, CuPy, or any other of the Python array API standard.

        Returns
        -------
        list of LayerTrace
            Arrays of `xp`, in float32, or float64 where weights are float64.
        """
        dtypes = [array.dtype for layer in self.layers for array in (layer.W, layer.b)]
        dtype = getattr(xp, np.result_type(np.float32, *dtypes).name)
        a = xp.asarray(x, dtype=dtype)
        if self.scale is not None:
            a = a * self.scale
        traced: list[LayerTrace] = []
        for layer in self.layers:
            z = ops.affine(xp, a, xp.asarray(layer.W, dtype=dtype), xp.asarray(layer.b, dtype=dtype))
            a = activations.activation(layer.activation)(xp, z)
            traced.append(LayerTrace(z, a))
        return traced

    def forward(self, x: ops.Array, xp: Any = np) -> ops.Array:
        """The textbook pass: probabilities, or values behind an identity head, shape (N, K) or (K,)."""
        return self.trace(x, xp)[-1].activation
