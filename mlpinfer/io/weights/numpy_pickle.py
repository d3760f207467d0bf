"""The pickle of the book: a dict of NumPy arrays, read without NumPy's or pickle's constructors.

A crafted pickle can crash or corrupt a process through NumPy's own reconstructors alone, so these
are stood in for: an array is made by `np.frombuffer` from a dtype chosen here and bytes measured here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted
from mlpinfer.io.errors import FormatError
from mlpinfer.io.npy_format import DTYPES, is_shape
from mlpinfer.io.weights import restricted_unpickler
from mlpinfer.io.weights.raw_tensors import RawTensors

#: Key of the activations and the scale, where they are not the book's.
_METADATA = "metadata"


def decode(data: bytes) -> RawTensors:
    """Read a pickled dict of arrays.

    Raises
    ------
    FormatError
        If it is anything else, or would run anything.
    """
    value = restricted_unpickler.run(data, _STAND_INS)
    if type(value) not in (dict, restricted_unpickler.Ordered):
        raise FormatError(f"expected a pickled dict of arrays W1, b1, ..., found {quoted(value)}")
    raw = RawTensors({})
    for key, item in value.items():
        if type(key) is not str:
            raise FormatError(f"expected names as keys, found {quoted(key)}")
        if type(item) is list and item and all(type(part) is _Array for part in item):
            # scikit-learn's coefs_ and intercepts_, a list of arrays each
            raw.arrays |= {f"{key}.{i}": part.value() for i, part in enumerate(item)}
        elif key == _METADATA and type(item) is dict and all(type(part) is str for part in item.values()):
            raw.metadata = item
        elif type(item) is float or (type(item) is int and item.bit_length() < 64):
            raw.arrays[key] = np.asarray(item, np.float64)
        elif type(item) is _Array:
            raw.arrays[key] = item.value()
        else:
            raw.notes.append(f"{quoted(key)} left out: expected an array, found {quoted(item)}")
    return raw


class _Dtype(restricted_unpickler.Placeholder):
    """Stand-in for ``numpy.dtype(code, align, copy)`` and the byte order that BUILD adds."""

    def __init__(self, code: object, align: object, copy: object) -> None:
        if type(code) is not str or code not in DTYPES:
            raise FormatError(f"expected an array of floats or integers, found dtype {quoted(code)}")
        if type(align) not in (int, bool) or type(copy) not in (int, bool):
            raise FormatError("malformed dtype")
        self._code = code
        self._dtype: np.dtype[Any] | None = None

    def build(self, state: object) -> None:
        if self._dtype is not None or type(state) is not tuple or len(state) != 8:
            raise FormatError("malformed dtype")
        version, order, *rest = state
        plain = all(
            type(found) is type(wanted) and found == wanted
            for found, wanted in zip((version, *rest), (3, None, None, None, -1, -1, 0), strict=True)
        )
        if not plain or type(order) is not str or order not in ("<", ">", "|", "="):
            raise FormatError("refused: a dtype with fields, metadata or flags")
        self._dtype = np.dtype(self._code if order == "|" else order + self._code)

    @staticmethod
    def built(value: object) -> np.dtype[Any]:
        if type(value) is not _Dtype or value._dtype is None:
            raise FormatError("malformed array: its dtype is missing")
        return value._dtype


class _Array(restricted_unpickler.Placeholder):
    """An array to be: empty until BUILD, or `_frombuffer`, fills it once."""

    def __init__(self) -> None:
        self._value: npt.NDArray[Any] | None = None

    def build(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[0]) is not int or state[0] != 1:
            raise FormatError("malformed array")
        _, shape, dtype, fortran, data = state
        if type(fortran) not in (bool, int):
            raise FormatError("malformed array: its memory order is missing")
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: object, dtype: object, shape: object, order: object) -> None:
        if self._value is not None:
            raise FormatError("refused: an array filled twice")
        numpy_dtype = _Dtype.built(dtype)
        if type(shape) is not tuple or len(shape) > 8 or any(type(n) is not int for n in shape):
            raise FormatError("malformed array: its shape is not a tuple of at most 8 integers")
        if not is_shape(shape):
            raise FormatError(f"expected an array of a possible shape, found {quoted(max(shape))} in it")
        raw = _bytes(data)
        expected = math.prod(shape) * numpy_dtype.itemsize
        if len(raw) != expected or order not in ("C", "F"):
            raise FormatError(f"array of shape {shape}: expected {expected} bytes, found {len(raw)}")
        self._value = np.frombuffer(raw, numpy_dtype).reshape(shape, order=order)

    def value(self) -> npt.NDArray[Any]:
        if self._value is None:
            raise FormatError("refused: an array without contents")
        return self._value


def _bytes(value: object) -> bytes:
    """Bytes, or the str that Python 2 wrote for them, or that latin-1 made of them."""
    if type(value) is bytes:
        return value
    try:
        return value.encode("latin1") if type(value) is str else _no_bytes(value)
    except UnicodeEncodeError:
        return _no_bytes(value)


def _no_bytes(value: object) -> bytes:
    raise FormatError(f"malformed array: expected bytes, found {quoted(value)}")


def _ndarray(*args: object) -> None:
    raise FormatError("refused: numpy.ndarray called directly")


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _ndarray or type(shape) is not tuple or len(shape) != 1 or type(shape[0]) is not int:
        raise FormatError("malformed array: expected a plain numpy.ndarray")
    if shape[0] != 0 or _bytes(code) != b"b":
        raise FormatError("malformed array: expected to begin empty")
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.fill(data, dtype, shape, order if type(order) is str else None)
    return array


def _scalar(dtype: object, data: object) -> _Array:
    return _frombuffer(data, dtype, (), "C")


def _encode_latin1(text: object, encoding: object) -> bytes:
    """Stand-in for ``_codecs.encode``, by which protocols 0 to 2 write bytes."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise FormatError("refused: _codecs.encode of anything but latin1")
    return _bytes(text)


_STAND_INS: restricted_unpickler.Globals = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode_latin1,
    ("collections", "OrderedDict"): restricted_unpickler.ordered_dict,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")  # NumPy 1 and NumPy 2
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


def encode(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the pickle of a dict of arrays, as the book's own: protocol 3, readable by any NumPy.

    Written opcode by opcode because NumPy 2's own pickles name a module that NumPy before 1.26
    does not have. `metadata` goes in under a key of its own, which the book's readers pass over.
    """
    items = b"".join(_text(key) + _encode_array(array) for key, array in arrays.items())
    if metadata:
        texts = b"".join(_text(key) + _text(value) for key, value in metadata.items())
        items += _text(_METADATA) + b"}(" + texts + b"u"
    return b"\x80\x03}(" + items + b"u."


def _encode_array(array: npt.NDArray[Any]) -> bytes:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    order = little.dtype.str[0]  # "<", or "|" for single bytes
    dtype = (
        b"cnumpy\ndtype\n" + _text(little.dtype.str[1:]) + b"K\x00K\x01\x87R"
        b"(K\x03" + _text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
    data = little.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01" + shape + dtype + b"\x89B" + struct.pack("<I", len(data)) + data + b"tb"
    )


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw
