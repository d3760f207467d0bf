"""From named arrays to a network and back: which array is which layer's, and which way round.

| keys | made by | weights |
|---|---|---|
| ``W1``, ``b1`` | the book, mlpinfer | (in, out) |
| ``fc1.weight``, ``fc1.bias`` | PyTorch, most safetensors | (out, in) |
| ``dense/kernel``, ``dense/bias`` | Keras, Flax | (in, out) |
| ``coefs_.0``, ``intercepts_.0`` | scikit-learn | (in, out) |
| anything else | | told by the length of the biases, or by `layout` |
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.files import MAX_FILE_BYTES
from mlpinfer.network import Network
from mlpinfer.weight_files.raw import RawWeights

_BOOK = re.compile(r"([Wb])([1-9][0-9]{0,3})")
_SKLEARN = re.compile(r"(coefs_|intercepts_)\.([0-9]{1,4})")
#: Pairs of keys, of a layer's weights and of its biases where it has any.
Names = list[tuple[str, str | None]]
_SUFFIXES = {"weight": "out-in", "kernel": "in-out"}


class _Found(NamedTuple):
    """Keys of weights and biases, first layer first, and which way round the weights lie."""

    names: Names
    layout: str | None


def to_network(
    raw: RawWeights,
    hidden: str | Sequence[str] | None,
    head: str | None,
    scale: float | None,
    layout: str | None,
) -> Network:
    """Build the network of a file. Options go before metadata, metadata before the keys' meaning.

    Raises
    ------
    WeightsError
        Naming the key, what was expected and what was found; or the options to add, where the file
        says neither which activations it has nor which way round its weights lie.
    """
    layout = layout or raw.metadata.get("layout")
    if layout not in (None, "in-out", "out-in"):
        raise WeightsError(f"layout: expected in-out or out-in, found {quoted(layout)}")
    is_book = any(_BOOK.fullmatch(key) for key in raw.arrays)
    found = _find_book(raw) if is_book else _find_other(raw)
    arrays = raw.arrays
    weights = [arrays[W] for W, _ in found.names]
    biases = [arrays[b] for _, b in found.names if b is not None]
    told = layout or found.layout or _layout_by_shape(weights, biases)
    _check_bytes(weights)
    if told == "out-in":
        weights = [_transposed(W) for W in weights]
    hidden = _metadata_hidden(raw) if hidden is None else hidden
    hidden = "sigmoid" if hidden is None and is_book else hidden
    head = head or raw.metadata.get("head") or ("softmax" if is_book else None)
    if head is None or (hidden is None and len(weights) > 1):
        raise WeightsError(
            "the file does not say its activations: give hidden (--hidden sigmoid, tanh, relu, leaky_relu) "
            "and head (--head softmax, sigmoid, identity)"
        )
    return Network.from_arrays(
        weights,
        [
            np.zeros(_outputs(W), W.dtype) if b is None else arrays[b]
            for W, (_, b) in zip(weights, found.names, strict=True)
        ],
        hidden if hidden is not None else "sigmoid",
        head,
        scale if scale is not None else _metadata_scale(raw),
        names=[(_shown(W), _shown(b or f"bias of {W}")) for W, b in found.names],
        notes=raw.notes,
    )


def to_arrays(network: Network) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Return the arrays of a network in the book's layout, and what they do not say, as strings."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for i, layer in enumerate(network.layers, 1):
        arrays |= {f"W{i}": layer.W, f"b{i}": layer.b}
    metadata = {"layout": "in-out", "head": network.head, "hidden": ",".join(network.hidden)}
    if network.scale is not None:
        metadata["scale"] = repr(network.scale)
    return arrays, metadata


def is_the_book_s(network: Network) -> bool:
    """Tell whether the book's layout alone says all of a network."""
    return set(network.hidden) <= {"sigmoid"} and network.head == "softmax" and network.scale is None


def natural(key: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``dense_2`` before ``dense_10``."""
    parts = re.split(r"([0-9]{1,9})", key)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _find_book(raw: RawWeights) -> _Found:
    layers = {int(match[2]) for key in raw.arrays if (match := _BOOK.fullmatch(key))}
    missing = next(
        (f"{kind}{i}" for i in range(1, len(layers) + 1) for kind in "Wb" if f"{kind}{i}" not in raw.arrays),
        None,
    )
    if missing:
        raise WeightsError(f"{missing}: expected, because W1 to b{max(layers)} make a network, but missing")
    names: Names = [(f"W{i}", f"b{i}") for i in range(1, len(layers) + 1)]
    wanted = {name for pair in names for name in pair}
    raw.notes += [f"{quoted(key)} left out: not a layer's W or b" for key in raw.arrays if key not in wanted]
    return _Found(names, "in-out")


def _find_other(raw: RawWeights) -> _Found:
    names: Names
    for suffix, layout in _SUFFIXES.items():
        if any(re.fullmatch(rf"(.*[./])?{suffix}", key) for key in raw.arrays):
            return _Found(_find_suffixed(raw, suffix), layout)
    if any(_SKLEARN.fullmatch(key) for key in raw.arrays):
        count = sum(key.startswith("coefs_.") for key in raw.arrays)
        names = [(f"coefs_.{i}", f"intercepts_.{i}") for i in range(count)]
        _refuse_others(raw, names)
        return _Found(names, "in-out")
    keys = sorted(raw.arrays, key=natural)
    weights = [key for key in keys if raw.arrays[key].ndim == 2]
    biases = [key for key in keys if raw.arrays[key].ndim == 1]
    if not weights or len(weights) != len(biases) or len(weights) + len(biases) != len(keys):
        shown = ", ".join(quoted(key, 20) for key in keys[:6]) or "none"
        raise WeightsError(
            f"expected arrays W1, b1, W2, b2, ... or NAME.weight, NAME.bias, ..., found {shown}"
        )
    return _Found(list(zip(weights, biases, strict=True)), None)


def _find_suffixed(raw: RawWeights, suffix: str) -> Names:
    """Pair ``NAME.weight`` with ``NAME.bias``, in the order of the numbers in their names."""
    stems = [key.removesuffix(suffix) for key in raw.arrays if key.endswith(suffix)]
    names = [(stem + suffix, stem + "bias" if stem + "bias" in raw.arrays else None) for stem in stems]
    _refuse_others(raw, names)
    for W, _ in names:
        if raw.arrays[W].ndim != 2:
            shape = raw.arrays[W].shape
            raise WeightsError(f"{_shown(W)}: expected the weights of a linear layer, found shape {shape}")
    ordered = sorted(names, key=lambda pair: natural(pair[0]))
    if ordered == names or len({re.sub(r"[0-9]+", "", stem) for stem in stems}) == 1:
        return ordered
    # The names are words, so the order of the file may be the one that fits. Both must not.
    fitting = [order for order in (ordered, names) if _fits(raw, [W for W, _ in order], suffix)]
    if len(fitting) == 2:
        by_name, by_file = (", ".join(_shown(W) for W, _ in order) for order in fitting)
        raise WeightsError(f"expected names that tell the order of the layers, found {by_name} or {by_file}")
    return fitting[0] if fitting else ordered


def _fits(raw: RawWeights, keys: list[str], suffix: str) -> bool:
    shapes = [raw.arrays[key].shape[:: -1 if _SUFFIXES[suffix] == "out-in" else 1] for key in keys]
    return all(before[1] == after[0] for before, after in itertools.pairwise(shapes))


def _refuse_others(raw: RawWeights, names: Names) -> None:
    wanted = {name for pair in names for name in pair}
    for key in raw.arrays:
        if key not in wanted:
            raise WeightsError(
                f"{_shown(key)}: expected weights and biases of linear layers only, found this"
            )
    for missing in wanted - raw.arrays.keys() - {None}:
        raise WeightsError(f"{_shown(str(missing))}: expected beside the other layers, but missing")


def _layout_by_shape(weights: list[npt.NDArray[Any]], biases: list[npt.NDArray[Any]]) -> str:
    """Tell the layout by the biases: one a column is (in, out), one a row (out, in)."""
    fits = {
        "in-out": all(W.shape[1:] == b.shape for W, b in zip(weights, biases, strict=True)),
        "out-in": all(W.shape[:1] == b.shape for W, b in zip(weights, biases, strict=True)),
    }
    layouts = [layout for layout, fit in fits.items() if fit]
    if len(layouts) == 2:
        raise WeightsError("square weights without telling names: give layout (--layout in-out or out-in)")
    return layouts[0] if layouts else "in-out"  # where neither fits, from_arrays says which array does not


def _check_bytes(weights: list[npt.NDArray[Any]]) -> None:
    """Refuse what would not fit once integers are float64, or one array is used for many layers."""
    total = sum(W.size * (W.itemsize if W.dtype.kind == "f" else 8) for W in weights)
    if total > MAX_FILE_BYTES:
        raise WeightsError(f"expected at most {MAX_FILE_BYTES} bytes of weights, found {total}")


def _transposed(W: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return W.T if W.ndim == 2 else W


def _outputs(W: npt.NDArray[Any]) -> int:
    return int(W.shape[1]) if W.ndim == 2 else 1


def _metadata_hidden(raw: RawWeights) -> list[str] | None:
    hidden = raw.metadata.get("hidden")
    return None if hidden is None else hidden.split(",") if hidden else []


def _metadata_scale(raw: RawWeights) -> float | None:
    text = raw.metadata.get("scale")
    if text is None:
        return None
    try:
        return float(text if "_" not in text else "")  # float() would take 1_0
    except ValueError:
        raise WeightsError(f"scale: expected a number, found {quoted(text)}") from None


def _shown(key: str) -> str:
    """A key as it is where it is plain, else quoted."""
    return key if re.fullmatch(r"[\w./ -]{1,60}", key, re.ASCII) else quoted(key)
