"""From named arrays to a network: which array is which layer's, and which way round."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlpinfer.errors import WeightsError, quoted
from mlpinfer.network import Network
from mlpinfer.weight_files.raw import RawWeights

_BOOK_KEY = re.compile(r"([Wb])([1-9][0-9]{0,3})")


def to_network(
    raw: RawWeights,
    hidden: str | Sequence[str] | None,
    head: str | None,
    scale: float | None,
    layout: str | None,
) -> Network:
    """Build the network of a file in the book's layout: W1, b1, W2, b2, ..., (in, out).

    The layout means sigmoid and softmax; options overrule it.

    Raises
    ------
    WeightsError
        Naming the key, what was expected and what was found.
    """
    if layout not in (None, "in-out", "out-in"):
        raise WeightsError(f"layout: expected in-out or out-in, found {quoted(layout)}")
    layers = {int(match[2]) for key in raw.arrays if (match := _BOOK_KEY.fullmatch(key))}
    if not layers:
        found = ", ".join(quoted(key, 20) for key in list(raw.arrays)[:6]) or "none"
        raise WeightsError(f"expected arrays W1, b1, W2, b2, ..., found {found}")
    names = [(f"W{i}", f"b{i}") for i in range(1, max(layers) + 1)]
    wanted = {name for pair in names for name in pair}
    if len(wanted) > 2 * len(layers) + 2 or not wanted <= raw.arrays.keys():
        missing = next(name for pair in names for name in pair if name not in raw.arrays)
        raise WeightsError(f"{missing}: expected, because W1 to b{max(layers)} make a network, but missing")
    extra = [f"{quoted(key)} left out: not a layer's W or b" for key in raw.arrays if key not in wanted]
    weights = [raw.arrays[W].T if layout == "out-in" else raw.arrays[W] for W, _ in names]
    biases = [raw.arrays[b] for _, b in names]
    notes = [*raw.notes, *extra]
    return Network.from_arrays(
        weights, biases, hidden or "sigmoid", head or "softmax", scale, names=names, notes=notes
    )
