"""A folded network as the fused GPU kernel takes it: what fits, constants, packed weights.

The kernel, ``gpu/network.cu``, multiplies half-precision numbers and sums in float32. **It has not run
on a GPU yet**, and nothing chooses it: it compiles, and its arithmetic is held by an emulator in the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.model import activations
from mlpinfer.model.network import Network

#: Units of a layer: what registers hold.
MAX_WIDTH = 128
#: What rows may be of.
INPUTS = tuple(map(np.dtype, (np.uint8, np.float16, np.float32)))
#: A column's largest weight, if it is not zero, and other numbers: float32 holds all that comes of them.
_SMALLEST, _LARGEST = 1e-30, 1e30
#: What rounds to infinity as a half.
_HALF_LIMIT = 65_520
#: Warps in a block, tiles of 16 rows in a warp, groups of a row that are on their way. Chosen by counting
#: registers and bytes in flight; to be measured.
_WARPS, _ROW_TILES, _AHEAD = 8, 2, 3
THREADS, TILE_ROWS = 32 * _WARPS, 16 * _ROW_TILES
#: A column's largest weight is brought below this, where halves are finest beside it.
_TOP = 2**15
#: The kernel takes a byte for a subnormal half, which is the byte times 2^-24.
_BYTE_UNIT = 2**24

_ACTIVATIONS = {"identity": "IDENTITY", "relu": "RELU", "tanh": "TANH"}


def fits(folded: Network, dtype: npt.DTypeLike, shared_bytes: int) -> bool:
    """Tell whether the kernel can evaluate a folded network.

    Rows of floats, and behind a ReLU what becomes of them, are taken to be numbers that halves hold: beyond
    65,504 they are infinite. Of bytes it is known, and a network whose values could be larger does not fit.

    Parameters
    ----------
    folded : Network
    dtype : dtype
        One of `INPUTS`.
    shared_bytes : int
        Shared memory that a block may have on the device.
    """
    if max(folded.sizes[1:]) > MAX_WIDTH or packed_bytes(folded) > shared_bytes:
        return False
    slopes = [activations.slope_of(name) or 0.0 for name in folded.hidden]
    largest = np.concatenate([np.abs(layer.W).max(axis=0) for layer in folded.layers])
    biases = np.concatenate([np.abs(layer.b) for layer in folded.layers])
    held = (largest == 0) | ((largest > _SMALLEST) & (largest < _LARGEST))
    if not held.all() or not (biases < _LARGEST).all() or not all(abs(slope) < _LARGEST for slope in slopes):
        return False
    return np.dtype(dtype) != np.uint8 or _largest_of_bytes(folded, slopes) < _HALF_LIMIT


def _largest_of_bytes(folded: Network, slopes: list[float]) -> float:
    """Return a bound of what hidden layers pass on, whatever bytes go in."""
    size, most = 255.0, 0.0
    for layer, slope in zip(folded.layers, slopes, strict=False):  # the last layer passes nothing on
        size = float((size * np.abs(layer.W.astype(np.float64)).sum(axis=0) + np.abs(layer.b)).max())
        size = 1.0 if layer.activation == "tanh" else size * max(1.0, abs(slope))
        most = max(most, size)
    return most


def packed_bytes(folded: Network) -> int:
    """Return the bytes that `pack` returns, all of which a block keeps in shared memory."""
    return sum(
        256 * _up(layer.inputs, 16) * _up(layer.outputs, 8) + 64 * _up(layer.outputs, 8)
        for layer in folded.layers
    )


def source() -> str:
    """Return the kernel's source."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text() for name in ("instructions.cuh", "network.cu"))


def options(folded: Network, dtype: npt.DTypeLike) -> tuple[str, ...]:
    """Return the compiler's options that say which network it is, and which of `INPUTS` rows are.

    The module has two functions, of `THREADS` threads and `packed_bytes` of dynamic shared memory:
    ``labels(x, rows, packed, out, cut)`` writes int64, ``logits(x, rows, packed, out)`` float32.
    """
    names = [*folded.hidden, "identity"]
    slopes = [activations.slope_of(name) for name in names]
    lists = {
        "WIDTHS": map(str, folded.sizes),
        "ACTIVATIONS": (
            _ACTIVATIONS[name] if slope is None else "LEAKY_RELU"
            for name, slope in zip(names, slopes, strict=True)
        ),
        "SLOPES": (f"(float){float(np.float32(slope or 0))!r}" for slope in slopes),
    }
    numbers = {"ITEM": np.dtype(dtype).itemsize, "WARPS": _WARPS, "ROW_TILES": _ROW_TILES, "AHEAD": _AHEAD}
    return (
        "--std=c++17",
        *(f"-D{name}={','.join(values)}" for name, values in lists.items()),
        *(f"-D{name}={value}" for name, value in numbers.items()),
    )


def pack(folded: Network, dtype: npt.DTypeLike) -> npt.NDArray[np.uint8]:
    """Return the weights in the order in which the kernel reads them, then scale and bias of every unit.

    Each column is multiplied by a power of two, exactly, so that halves hold it whatever its size, and
    divided by it again as float32. The weights themselves are rounded to halves.

    Parameters
    ----------
    folded : Network
        That `fits`, without sigmoid behind a hidden layer.
    dtype : dtype
        One of `INPUTS`: of the rows, which decides the order of the first layer's inputs.
    """
    item = np.dtype(dtype).itemsize
    first, *others = folded.layers
    W, unit = _halves(first.W, _input_order(first.inputs, 4 // item))
    weights = [_fragments(group) for group in _cut(W, 64 // item)]
    affine = [_affine(unit * (_BYTE_UNIT if item == 1 else 1), first.b)]
    for layer in others:
        W, unit = _halves(layer.W, _unit_order(layer.inputs))
        weights += [_fragments(pair.T) for pair in _cut(W.T, 16)]
        affine.append(_affine(unit, layer.b))
    parts: list[npt.NDArray[Any]] = [*weights, *affine]
    return np.concatenate([part.view(np.uint8) for part in parts])


def _halves(
    W: npt.NDArray[Any], order: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float64]]:
    """Return weights in an order of inputs, in whole tiles, and what each column is to be multiplied by."""
    inputs, units = W.shape
    largest = np.abs(W.astype(np.float64)).max(axis=0)
    unit = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1]), 1) / _TOP
    halves = np.zeros((len(order), 8 * _up(units, 8)), np.float16)
    present = order < inputs
    halves[present, :units] = (W / unit)[order[present]]
    return halves, unit


def _affine(unit: npt.NDArray[np.float64], b: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return scale and bias of each unit, in whole tiles."""
    pairs = np.zeros((8 * _up(len(b), 8), 2), np.float32)
    pairs[: len(b)] = np.stack([unit, b], axis=1)
    return pairs.reshape(-1)


def _up(count: int, part: int) -> int:
    return -(-count // part)


def _cut(array: npt.NDArray[Any], rows: int) -> list[npt.NDArray[Any]]:
    return [array[begin : begin + rows] for begin in range(0, len(array), rows)]


def _fragments(W: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Put (K, H) weights that the kernel multiplies by together into the order in which it reads them.

    A fragment is 16 inputs of 8 units; lane ``4 g + t`` has inputs ``4 t`` to ``4 t + 3`` of unit g. Two
    fragments lie lane by lane beside each other, so that a lane reads both at once; a last one lies alone.
    """
    K, H = W.shape
    fragments = W.reshape(K // 16, 4, 4, H // 8, 8).transpose(0, 3, 4, 1, 2)  # step, tile, g, t, input
    fragments = fragments.reshape(-1, 32, 4)
    even = len(fragments) // 2 * 2
    pairs = fragments[:even].reshape(-1, 2, 32, 4).transpose(0, 2, 1, 3)
    return np.concatenate([pairs.reshape(-1), fragments[even:].reshape(-1)])


def _input_order(inputs: int, steps: int) -> npt.NDArray[np.intp]:
    """Return which input stands where: in a group of `steps` steps, a lane's are neighbours."""
    total = _up(inputs, 16)
    groups = []
    for begin in range(0, total, steps):
        count = min(steps, total - begin)
        group = np.arange(16 * begin, 16 * (begin + count)).reshape(4, count, 4)  # lane, step, input
        groups.append(group.transpose(1, 0, 2).reshape(-1))
    return np.concatenate(groups)


def _unit_order(units: int) -> npt.NDArray[np.intp]:
    """Return which unit stands where: a lane has two neighbours of each of a step's two tiles."""
    order = np.arange(16 * _up(units, 16)).reshape(-1, 2, 4, 2)  # step, tile, lane, unit
    return order.transpose(0, 2, 1, 3).reshape(-1)
