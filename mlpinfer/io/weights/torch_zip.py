"""PyTorch's .pt and .pth: a zip of one pickle and a file for each storage, read without PyTorch.

The pickle names tensors as views of storages (``torch._utils._rebuild_tensor_v2``) and storages by
persistent ids; both are stood in for here, as NumPy's constructors are in `numpy_pickle`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io.errors import FormatError
from mlpinfer.io.weights import restricted_unpickler
from mlpinfer.io.weights.raw_tensors import RawTensors, bfloat16_to_float32

#: NumPy codes of the storages that are read. bfloat16 is read as its bits.
_STORAGES = {
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "BFloat16Storage": "u2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "BoolStorage": "b1",
}
_KEY = re.compile(r"[0-9]{1,9}")
#: Where training scripts put the state_dict in a checkpoint.
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")


def is_torch_zip(members: Mapping[str, bytes]) -> bool:
    """Tell PyTorch's zip from an npz by its members."""
    return any(name.endswith("/data.pkl") or name == "data.pkl" for name in members)


def decode(members: Mapping[str, bytes]) -> RawTensors:
    """Read the tensors of a saved state_dict, or of the state_dict in a checkpoint.

    Raises
    ------
    FormatError
        If the file is damaged, holds TorchScript, or would run anything.
    """
    pickles = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
    folder = pickles[0].removesuffix("data.pkl")
    if len(pickles) > 1 or f"{folder}constants.pkl" in members:
        raise FormatError("expected a state_dict, found TorchScript; save model.state_dict() instead")
    storages = _Storages(members, folder)
    try:
        value = restricted_unpickler.run(members[pickles[0]], _STAND_INS, storages.load)
    except restricted_unpickler.AsksToRun as error:
        raise FormatError(f"{error}, not a whole module: save model.state_dict()") from None
    notes: list[str] = []
    for key in _CHECKPOINT_KEYS:
        if _is_dict(value) and _is_dict(value.get(key)):
            notes.append(f"read {quoted(key)} of a checkpoint, and nothing else of it")
            value = value[key]
    if not _is_dict(value):
        raise FormatError(f"expected a state_dict, a dict of tensors, found {quoted(value)}")
    arrays = {}
    for name, item in value.items():
        if type(name) is not str:
            raise FormatError(f"expected names of tensors, found {quoted(name)}")
        if type(item) is not _Tensor:
            raise FormatError(f"{quoted(name)}: expected a tensor, found {quoted(item)}")
        arrays[name] = item.array
    return RawTensors(arrays, {}, notes, ordered=True)


def _is_dict(value: object) -> bool:
    return type(value) in (dict, restricted_unpickler.Ordered)


class _StorageType:
    """Stand-in for a class such as ``torch.FloatStorage``; never called, only named."""

    def __init__(self, name: str) -> None:
        self.name, self.code = name, _STORAGES[name]

    def __call__(self, *args: object) -> None:
        raise FormatError("refused: a torch storage called directly")


class _Storage:
    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values


class _Storages:
    """Resolves persistent ids ``('storage', type, key, location, numel)`` to the zip's members."""

    def __init__(self, members: Mapping[str, bytes], folder: str) -> None:
        self._members, self._folder = members, folder
        order = members.get(f"{folder}byteorder", b"little")
        if order not in (b"little", b"big"):
            raise FormatError("damaged: expected byteorder little or big")
        self._order = "<" if order == b"little" else ">"
        self._loaded: dict[tuple[str, str], _Storage] = {}

    def load(self, key: object) -> _Storage:
        if type(key) is not tuple or len(key) != 5 or type(key[0]) is not str or key[0] != "storage":
            raise FormatError("malformed storage in the pickle")
        _, kind, number, _, numel = key
        if type(kind) is not _StorageType or type(number) is not str or not _KEY.fullmatch(number):
            raise FormatError("malformed storage in the pickle")
        record = self._members.get(f"{self._folder}data/{number}")
        if record is None:
            raise FormatError(f"storage {number}: expected in the zip, but missing")
        dtype = np.dtype(self._order + kind.code)
        if type(numel) is not int or len(record) != numel * dtype.itemsize:
            raise FormatError(
                f"storage {number}: expected {quoted(numel)} x {dtype}, found {len(record)} bytes"
            )
        if (number, kind.name) not in self._loaded:  # tensors may share a storage; it is widened once
            values = np.frombuffer(record, dtype)
            values = bfloat16_to_float32(values) if kind.name.startswith("BFloat16") else values
            self._loaded[number, kind.name] = _Storage(values)
        return self._loaded[number, kind.name]


class _Tensor(restricted_unpickler.Placeholder):
    """An array that was checked to lie in its storage."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def build(self, state: object) -> None:
        raise FormatError("refused: the pickle would set the state of a tensor")


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> _Tensor:
    """Stand-in for ``torch._utils._rebuild_tensor_v2``: a view of a storage."""
    if type(storage) is not _Storage or type(offset) is not int or not 1 <= len(rest) <= 3:
        raise FormatError("malformed tensor")
    shape, strides = _whole(size), _whole(stride)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=False))
    if len(shape) != len(strides) or offset < 0 or 0 in shape or last >= storage.values.size:
        raise FormatError("refused: a tensor that reaches beyond its storage")
    if math.prod(shape) > storage.values.size or any(
        step == 0 and n > 1 for n, step in zip(shape, strides, strict=True)
    ):
        raise FormatError("refused: a tensor that repeats its storage")
    itemsize = storage.values.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage.values[offset:], shape, [step * itemsize for step in strides], writeable=False
    )
    return _Tensor(view)


def _whole(value: object) -> tuple[int, ...]:
    if (
        type(value) is not tuple
        or len(value) > 8
        or any(type(n) is not int or not 0 <= n < 2**40 for n in value)
    ):
        raise FormatError("malformed tensor: expected a shape and strides of at most 8 whole numbers")
    return value


def _rebuild_parameter(tensor: object, *rest: object) -> _Tensor:
    """Stand-in for ``torch._utils._rebuild_parameter``: a tensor and what training needs."""
    if type(tensor) is not _Tensor or len(rest) != 2:
        raise FormatError("malformed parameter")
    return tensor


_STAND_INS: restricted_unpickler.Globals = {
    ("collections", "OrderedDict"): restricted_unpickler.ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(name) for name in _STORAGES},
}
