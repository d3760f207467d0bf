"""Rewrite a network into an equivalent one that takes fewer passes over memory.

Three identities, each exact but for rounding (the rewriting is done in float64):

- the input scale moves into the first layer, ``(s x) @ W = x @ (s W)``;
- a linear layer joins the next, ``(x @ V + c) @ W + b = x @ (V @ W) + (c @ W + b)``;
- sigmoid becomes tanh, ``sigmoid(z) = tanh(z / 2) / 2 + 1 / 2``: the first half goes into the layer
  before, the other two into the layer behind.

The last one costs the sigmoid's lower tail its relative precision: computed in a precision with
spacing eps, an output of the next layer is off by at most eps / 2 times the sum of its |weights|.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpinfer.model.network import Layer, Network


def fold(network: Network) -> Network:
    """Return the equivalent network, with float64 weights and no scale.

    The head stays what it is. Linear layers are joined only where that costs no more
    multiply-adds: 1000-10-1000 stays two layers.
    """
    layers = [
        Layer(layer.W.astype(np.float64), layer.b.astype(np.float64), layer.activation)
        for layer in network.layers
    ]
    if network.scale is not None:
        first = layers[0]
        layers[0] = Layer(first.W * network.scale, first.b, first.activation)
    layers = _sigmoid_to_tanh(_join_linear(layers))
    return Network(tuple(layers), scale=None, notes=network.notes)


def _join_linear(layers: list[Layer]) -> list[Layer]:
    joined = layers[:1]
    for layer in layers[1:]:
        before = joined[-1]
        cheaper = before.inputs * layer.outputs <= before.W.size + layer.W.size
        arrays = (before.W, before.b, layer.W, layer.b)
        if before.activation == "identity" and cheaper and all(map(_ordinary, arrays)):
            W, b = before.W @ layer.W, before.b @ layer.W + layer.b
            joined[-1] = Layer(W, b, layer.activation)
            continue
        joined.append(layer)
    return joined


def _ordinary(array: np.ndarray[Any, Any]) -> bool:
    """Tell whether products of such numbers neither overflow nor vanish in float32."""
    sizes = np.abs(array[array != 0])
    return bool(((sizes > 1e-15) & (sizes < 1e15)).all())


def _sigmoid_to_tanh(layers: list[Layer]) -> list[Layer]:
    result: list[Layer] = []
    for i, layer in enumerate(layers):
        W, b, activation = layer.W, layer.b, layer.activation
        if i and layers[i - 1].activation == "sigmoid":
            b = b + W.sum(axis=0) / 2
            W = W / 2
        if activation == "sigmoid" and i < len(layers) - 1:
            W, b, activation = W / 2, b / 2, "tanh"
        result.append(Layer(W, b, activation))
    return result
