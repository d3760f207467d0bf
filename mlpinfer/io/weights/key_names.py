"""Which array of a file is which layer's: names of keys, and the order of the layers.

| keys | made by | weights |
|---|---|---|
| ``W1``, ``b1`` | the book, mlpinfer | (in, out) |
| ``fc1.weight``, ``fc1.bias`` | PyTorch, most safetensors | (out, in) |
| ``dense/kernel``, ``dense/bias`` | Keras, Flax | (in, out) |
| ``coefs_.0``, ``intercepts_.0`` | scikit-learn | (in, out) |
| anything else | | told by the length of the biases, or by an option |

Layers that are numbered are taken in the order of their numbers. Where names are words, only shapes
that fit together in a single way, or the order of a format that keeps one, can tell.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io.errors import FormatError
from mlpinfer.io.weights.raw_tensors import MAX_ARRAYS, RawTensors

#: Keys of a layer's weights and of its biases, where it has any.
Pair = tuple[str, str | None]

_BOOK = re.compile(r"([Wb])([1-9][0-9]{0,3})")
_SKLEARN = re.compile(r"(coefs_|intercepts_)\.([0-9]{1,4})")
_SUFFIXES = {"weight": "out-in", "kernel": "in-out"}
#: Arrays that would change what a network computes, beside the book's W and b.
_LAYER_LIKE = re.compile(r"(?i)(.*[./_])?(weights?|bias(es)?|kernel|gamma|beta)[0-9]*|[wb][0-9]+")
#: Batch normalisation's, in the last word of a key.
_STATISTICS = re.compile(r"(?i)(^|_)(running|moving)_\w")
_MAX_KEY = 1_000
#: Orders of more layers than this are not searched for.
_MAX_SEARCHED = 10


class LayerKeys(NamedTuple):
    """Pairs of keys, and what their names say.

    Attributes
    ----------
    pairs : list of Pair
        In the order of the layers, if `ordered`.
    layout : {"in-out", "out-in"} or None
    ordered : bool
    by_the_book : bool
        Whether the names alone mean sigmoid and softmax.
    """

    pairs: list[Pair]
    layout: str | None
    ordered: bool
    by_the_book: bool = False


def find_layers(raw: RawTensors) -> LayerKeys:
    """Pair the keys of weights and biases.

    Raises
    ------
    FormatError
        If a key is missing, or one stands there that is not a linear layer's.
    """
    if len(raw.arrays) > MAX_ARRAYS:
        raise FormatError(f"expected at most {MAX_ARRAYS} arrays, found {len(raw.arrays)}")
    for key in raw.arrays:
        if len(key) > _MAX_KEY:
            raise FormatError(f"expected names of at most {_MAX_KEY} characters, found {quoted(key)}")
    if any(key[0] == "W" and _BOOK.fullmatch(key) for key in raw.arrays if key):
        return LayerKeys(_find_book(raw), "in-out", ordered=True, by_the_book=True)
    for suffix, layout in _SUFFIXES.items():
        if any(re.fullmatch(rf"(.*[./])?{suffix}", key) for key in raw.arrays):
            pairs = _find_suffixed(raw, suffix)
            return _by_number(pairs, layout)
    if any(_SKLEARN.fullmatch(key) for key in raw.arrays):
        count = sum(key.startswith("coefs_.") for key in raw.arrays)
        pairs = [(f"coefs_.{i}", f"intercepts_.{i}") for i in range(count)]
        _refuse_others(raw, pairs)
        return LayerKeys(pairs, "in-out", ordered=True)
    return _by_number(_find_any(raw), None)


def in_order(raw: RawTensors, pairs: list[Pair], layout: str) -> list[Pair]:
    """Return pairs whose names are words in the one order in which they make a network.

    Raises
    ------
    FormatError
        If there are several.
    """

    def ends(pair: Pair) -> tuple[int, int]:
        shape = raw.arrays[pair[0]].shape
        inputs, outputs = shape if len(shape) == 2 else (*shape, 1)
        return (inputs, outputs) if layout == "in-out" else (outputs, inputs)

    def chains(order: Sequence[Pair]) -> bool:
        return all(ends(a)[1] == ends(b)[0] for a, b in itertools.pairwise(order))

    by_name = sorted(pairs, key=lambda pair: natural(pair[0]))
    place = {key: i for i, key in enumerate(raw.arrays)}
    by_file = sorted(pairs, key=lambda pair: place[pair[0]])
    if len(pairs) <= _MAX_SEARCHED:
        orders = chained(pairs, ends)
    else:
        orders = [order for order in (by_name, by_file) if chains(order)]
    if not orders:
        return by_file if raw.ordered else by_name  # Network.from_arrays says what does not fit
    if len(orders) == 1:
        return orders[0]
    if raw.ordered and chains(by_file) and (by_name == by_file or not chains(by_name)):
        return by_file
    shown_names = ", ".join(shown(W) for W, _ in by_name[:6]) + ", ..." * (len(by_name) > 6)
    raise FormatError(f"expected names that tell the order of the layers, found {shown_names}; number them")


def natural(key: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``dense_2`` before ``dense_10``."""
    parts = re.split(r"([0-9]{1,9})", key)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def shown(key: str) -> str:
    """A key as it is where it is plain, else quoted."""
    return key if re.fullmatch(r"[\w./ -]{1,60}", key, re.ASCII) else quoted(key)


def chained(pairs: list[Pair], ends: Callable[[Pair], tuple[int, int]]) -> list[list[Pair]]:
    """Return orders in which the outputs of each layer are the inputs of the next: two, if there are more."""

    @functools.cache  # there are fewer sets of layers than orders
    def behind(left: frozenset[Pair], outputs: int | None) -> list[list[Pair]]:
        if not left:
            return [[]]
        orders = [
            [pair, *rest]
            for pair in pairs
            if pair in left and outputs in (None, ends(pair)[0])
            for rest in behind(left - {pair}, ends(pair)[1])
        ]
        return orders[:2]

    return behind(frozenset(pairs), None)


def _by_number(pairs: list[Pair], layout: str | None) -> LayerKeys:
    """Order pairs whose names differ in their numbers alone."""
    if len({re.sub(r"[0-9]+", "", W) for W, _ in pairs}) > 1:
        return LayerKeys(pairs, layout, ordered=False)
    return LayerKeys(sorted(pairs, key=lambda pair: natural(pair[0])), layout, ordered=True)


def _find_book(raw: RawTensors) -> list[Pair]:
    layers = {int(match[2]) for key in raw.arrays if (match := _BOOK.fullmatch(key))}
    pairs: list[Pair] = [(f"W{i}", f"b{i}") for i in range(1, len(layers) + 1)]
    wanted = {name for pair in pairs for name in pair}
    if missing := [name for pair in pairs for name in pair if name not in raw.arrays]:
        raise FormatError(f"{missing[0]}: expected, because W1 to b{max(layers)} make a network, but missing")
    for key, array in raw.arrays.items():
        if key in wanted:
            continue
        if array.ndim in (1, 2) and (_LAYER_LIKE.fullmatch(key) or _STATISTICS.search(_last_word(key))):
            raise FormatError(
                f"{shown(key)}: expected W1, b1, W2, b2, ... alone, found another layer's array"
            )
        raw.notes.append(f"{quoted(key)} left out: not a layer's W or b")
    return pairs


def _last_word(key: str) -> str:
    return re.split(r"\W", key)[-1]


def _find_suffixed(raw: RawTensors, suffix: str) -> list[Pair]:
    """Pair ``NAME.weight`` with ``NAME.bias``."""
    stems = [key.removesuffix(suffix) for key in raw.arrays if key.endswith(suffix)]
    pairs: list[Pair] = [
        (stem + suffix, stem + "bias" if stem + "bias" in raw.arrays else None) for stem in stems
    ]
    _refuse_others(raw, pairs)
    for W, _ in pairs:
        if raw.arrays[W].ndim != 2:
            shape = raw.arrays[W].shape
            raise FormatError(f"{shown(W)}: expected the weights of a linear layer, found shape {shape}")
    return pairs


def _find_any(raw: RawTensors) -> list[Pair]:
    """Pair arrays of two dimensions with those of one, by their names."""
    keys = sorted(raw.arrays, key=natural)
    weights = [key for key in keys if raw.arrays[key].ndim == 2 and raw.arrays[key].shape[0] != 1]
    biases = [key for key in keys if key not in weights and raw.arrays[key].ndim in (1, 2)]
    if not weights or len(weights) != len(biases) or len(weights) + len(biases) != len(keys):
        found = ", ".join(quoted(key, 20) for key in keys[:6]) or "none"
        raise FormatError(
            f"expected arrays W1, b1, W2, b2, ... or NAME.weight, NAME.bias, ..., found {found}"
        )
    return list(zip(weights, biases, strict=True))


def _refuse_others(raw: RawTensors, pairs: Sequence[Pair]) -> None:
    wanted = {name for pair in pairs for name in pair}
    for key in raw.arrays:
        if key not in wanted:
            found = "this"
            if _STATISTICS.search(_last_word(key)):
                found = "batch normalization; make it part of them first, as Network.from_torch does"
            raise FormatError(
                f"{shown(key)}: expected weights and biases of linear layers only, found {found}"
            )
    for missing in wanted - raw.arrays.keys() - {None}:
        raise FormatError(f"{shown(str(missing))}: expected beside the other layers, but missing")


def layout_by_shape(weights: list[npt.NDArray[Any]], biases: list[npt.NDArray[Any]]) -> str:
    """Tell the layout by the biases: one a column is (in, out), one a row (out, in).

    Raises
    ------
    FormatError
        If all weights are square.
    """
    fits = {
        "in-out": all(W.shape[-1] == b.size for W, b in zip(weights, biases, strict=True)),
        "out-in": all(W.shape[0] == b.size for W, b in zip(weights, biases, strict=True)),
    }
    layouts = [layout for layout, fit in fits.items() if fit]
    if len(layouts) == 2:
        raise FormatError("square weights without telling names: give layout (--layout in-out or out-in)")
    return layouts[0] if layouts else "in-out"  # where neither fits, from_arrays says which array does not
