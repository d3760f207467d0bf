"""From named arrays to a network and back: activations, scale, and which way round weights lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import MAX_FILE_BYTES
from mlpinfer.io.weights import key_names
from mlpinfer.io.weights.key_names import shown
from mlpinfer.io.weights.raw_tensors import RawTensors
from mlpinfer.model.network import Network

Array = npt.NDArray[Any]
#: Which way round weights may lie.
LAYOUTS = ("in-out", "out-in")


def to_network(
    raw: RawTensors,
    hidden: str | Sequence[str] | None,
    head: str | None,
    scale: float | None,
    layout: str | None,
) -> Network:
    """Build the network of a file. Options go before metadata, metadata before the keys' meaning.

    Raises
    ------
    FormatError, WeightsError
        Naming the key, what was expected and what was found; or the options to add, where the file
        says neither which activations it has nor which way round its weights lie.
    """
    layout = layout or raw.metadata.get("layout")
    if layout not in (None, *LAYOUTS):
        raise FormatError(f"layout: expected in-out or out-in, found {quoted(layout)}")
    found = key_names.find_layers(raw)
    told = layout or found.layout or key_names.layout_by_shape(*_arrays(raw, found.pairs))
    pairs = found.pairs if found.ordered else key_names.in_order(raw, found.pairs, told)
    weights = [_turned(raw.arrays[W], told) for W, _ in pairs]
    biases = [None if b is None else _flat(raw.arrays[b]) for _, b in pairs]
    _check_sizes(pairs, weights, biases)
    hidden = _metadata_hidden(raw) if hidden is None else hidden
    hidden = "sigmoid" if hidden is None and (found.by_the_book or len(weights) == 1) else hidden
    head = head or raw.metadata.get("head") or ("softmax" if found.by_the_book else None)
    if head is None or hidden is None:
        missing = {
            "hidden (--hidden sigmoid, tanh, relu, leaky_relu, identity)": hidden,
            "head (--head softmax, sigmoid, identity)": head,
        }
        give = " and ".join(option for option, value in missing.items() if value is None)
        raise FormatError(f"the file does not say its activations: give {give}")
    return Network.from_arrays(
        weights,
        [np.zeros(W.shape[1], W.dtype) if b is None else b for W, b in zip(weights, biases, strict=True)],
        hidden,
        head,
        scale if scale is not None else _metadata_scale(raw),
        names=[(shown(W), shown(b or f"bias of {W}")) for W, b in pairs],
        notes=raw.notes,
    )


def to_arrays(network: Network) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a network in the book's layout, and what they do not say, as strings."""
    arrays: dict[str, Array] = {}
    for i, layer in enumerate(network.layers, 1):
        arrays |= {f"W{i}": layer.W, f"b{i}": layer.b}
    metadata = {"layout": "in-out", "head": network.head, "hidden": ",".join(network.hidden)}
    if network.scale is not None:
        metadata["scale"] = repr(network.scale)
    return arrays, metadata


def needs_no_metadata(network: Network) -> bool:
    """Tell whether the book's layout alone says all of a network."""
    return set(network.hidden) <= {"sigmoid"} and network.head == "softmax" and network.scale is None


def _arrays(raw: RawTensors, pairs: list[key_names.Pair]) -> tuple[list[Array], list[Array]]:
    return [raw.arrays[W] for W, _ in pairs], [raw.arrays[b] for _, b in pairs if b is not None]


def _turned(W: Array, layout: str) -> Array:
    """Weights as (in, out); those of a single neuron, (in,), as (in, 1)."""
    if W.ndim == 1:
        return W.reshape(-1, 1)
    return W.T if layout == "out-in" else W


def _flat(b: Array) -> Array:
    return b.reshape(-1) if b.ndim == 2 and b.shape[0] == 1 else b


def _check_sizes(pairs: list[key_names.Pair], weights: list[Array], biases: list[Array | None]) -> None:
    """Refuse, before anything is copied, what does not fit or would fill the memory.

    Integers become float64, one array may stand for many layers, and an empty one claims any width.
    """
    total = 0
    for (W_name, b_name), W, b in zip(pairs, weights, biases, strict=True):
        if W.ndim != 2 or W.size == 0:
            raise FormatError(f"{shown(W_name)}: expected shape (inputs, outputs), found {W.shape}")
        if b is not None and b.size != W.shape[1]:
            fit = f"expected shape {W.shape[1:]} to fit {shown(W_name)}"
            raise FormatError(f"{shown(str(b_name))}: {fit}, found {b.shape}")
        total += (W.size + W.shape[1]) * (W.itemsize if W.dtype.kind == "f" else 8)
    if total > MAX_FILE_BYTES:
        raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes of weights, found {total}")


def _metadata_hidden(raw: RawTensors) -> list[str] | None:
    hidden = raw.metadata.get("hidden")
    return None if hidden is None else hidden.split(",") if hidden else []


def _metadata_scale(raw: RawTensors) -> float | None:
    text = raw.metadata.get("scale")
    if text is None:
        return None
    try:
        return float(text if "_" not in text else "")  # float() would take 1_0
    except ValueError:
        raise FormatError(f"scale: expected a number, found {quoted(text)}") from None
