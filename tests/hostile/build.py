"""Pieces that valid and hostile files are made of."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from tests.builders import entry, safetensors_file

KINDS = {
    "f2": "Half", "f4": "Float", "f8": "Double", "i1": "Char", "u1": "Byte", "i2": "Short", "i4": "Int", "i8": "Long",
}  # fmt: skip


def layers(dtype="<f4", sizes=(4, 3, 2)) -> dict[str, np.ndarray]:
    """W1, b1, ... of small whole numbers, which every dtype holds."""
    rng = np.random.default_rng(1)
    arrays = {}
    for i in range(1, len(sizes)):
        arrays[f"W{i}"] = rng.integers(0, 9, sizes[i - 1 : i + 1]).astype(dtype)
        arrays[f"b{i}"] = rng.integers(0, 9, sizes[i]).astype(dtype)
    return arrays


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def npz(arrays: Mapping[str, np.ndarray], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy_file(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def safetensors(arrays: Mapping[str, np.ndarray], **metadata: str) -> bytes:
    names = {"f2": "F16", "f4": "F32", "f8": "F64"}
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in arrays.items():
        code = array.dtype.str[1:]
        kind = names.get(code) or f"{code[0].upper()}{8 * array.itemsize}"
        header[name] = entry(kind, list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return safetensors_file(header, data)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(n: int) -> bytes:
    return b"J" + struct.pack("<i", n) if -(2**31) <= n < 2**31 else b"\x8a\x08" + struct.pack("<q", n)


def whole_tuple(numbers) -> bytes:
    return b"(" + b"".join(map(whole, numbers)) + b"t"


def tensor(key, kind, numel, offset, size, stride) -> bytes:
    """Opcodes of a tensor in the pickle of a torch zip."""
    storage = b"(" + text("storage") + b"ctorch\n" + f"{kind}Storage".encode() + b"\n" + text(key)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + text("cpu") + whole(numel) + b"tQ" + whole(offset)
        + whole_tuple(size) + whole_tuple(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def torch_zip(items: Mapping[str, bytes], members: Mapping[str, bytes], ordered: bool = True) -> bytes:
    """A torch zip of a state_dict: opcodes by name, and the zip's other members."""
    begin = b"ccollections\nOrderedDict\n)R" if ordered else b"}"
    state = b"\x80\2" + begin + b"(" + b"".join(text(name) + value for name, value in items.items()) + b"u."
    return torch_file(state, members)


def torch_file(state: bytes, members: Mapping[str, bytes], folder: str = "archive/", **options) -> bytes:
    version = {f"{folder}version": b"3\n"}
    rest = {f"{folder}{name}": data for name, data in members.items()}
    return zipped({f"{folder}data.pkl": state} | rest | version, **options)


def torch(arrays: Mapping[str, np.ndarray], wrap=lambda opcodes: opcodes, **members: bytes) -> bytes:
    """A torch zip of (out, in) weights, one storage each."""
    items, storages = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        strides = [step // array.itemsize for step in array.strides]
        kind = KINDS[array.dtype.str[1:]]
        items[name] = wrap(tensor(str(i), kind, array.size, 0, array.shape, strides))
        storages[f"data/{i}"] = array.tobytes(order="A")
    return torch_zip(items, storages | members)


def state_dict(dtype="<f4") -> dict[str, np.ndarray]:
    """The same layers as PyTorch names and lays them."""
    names = {"W1": "fc1.weight", "b1": "fc1.bias", "W2": "fc2.weight", "b2": "fc2.bias"}
    return {names[key]: np.ascontiguousarray(array.T) for key, array in layers(dtype).items()}


def array_opcodes(array: np.ndarray, core: str = "core") -> bytes:
    """Opcodes of an array as NumPy writes it in protocol 2, with bytes instead of ``_codecs.encode``."""
    dtype = b"cnumpy\ndtype\n" + text(array.dtype.str[1:]) + b"K\0K\1\x87R"
    dtype += b"(K\3" + text(array.dtype.str[0]) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    data = array.tobytes(order="A")
    fortran = b"\x88" if array.flags.fnc else b"\x89"
    return (
        b"cnumpy." + core.encode() + b".multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R(K\1"
        + whole_tuple(array.shape) + dtype + fortran + b"B" + struct.pack("<I", len(data)) + data + b"tb"
    )  # fmt: skip


def pickled(items: Mapping[str, bytes], before: bytes = b"") -> bytes:
    """A protocol 4 pickle of a dict of opcodes by key; `before` is run first, and leaves nothing."""
    return b"\x80\4" + before + b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def book(**changes: bytes) -> dict[str, bytes]:
    """Opcodes of a whole network, to put an attack among."""
    return {key: array_opcodes(array) for key, array in layers().items()} | changes


def sparse(size: int, begin: bytes = b"", end: bytes = b""):
    """A file of `size` bytes that takes no room on the disk."""

    def make(path):
        with open(path, "wb") as file:
            file.write(begin)
            file.truncate(size)
            if end:
                file.seek(size - len(end))
                file.write(end)

    return make
