"""Attacks in .npy files, alone and in an npz."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np

from tests.builders import npy
from tests.hostile import build, zips
from tests.hostile.attack import Attack
from tests.hostile.programs import Fires

_ROWS = "(4, 2)"
_DATA = bytes(32)


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Fires()], object), allow_pickle=True)
    return file.getvalue()


#: Danger, member, message: the same for both.
_MEMBERS = {
    "object": ("dtype_state", npy("'|O'"), "found dtype '|O'"),
    "void": ("dtype_state", npy("'|V8'"), "found dtype '|V8'"),
    "structure": ("dtype_state", npy("[('a', '<f4')]"), "found dtype"),
    "subarray": ("dtype_state", npy("('<f4', (2,))"), "expected a dict of descr"),
    "native": ("dtype_state", npy("'f4'"), "found dtype 'f4'"),
    "fields": ("dtype_state", npy("{'names': ['a'], 'formats': ['O']}"), "expected a dict of descr"),
    "text": ("conversion", npy("'<U4'"), "found dtype"),
    "complex": ("conversion", npy("'<c8'"), "found dtype"),
    "dates": ("conversion", npy("'<M8[s]'"), "found dtype"),
    "long_double": ("conversion", npy("'<f16'"), "found dtype"),
    "objects": ("nested_pickles", _objects(), "found dtype '|O'"),
    "objects_again": ("nested_pickles", _objects().replace(b"'|O'", b"'O' "), "found dtype|expected a dict"),
    "lying_objects": ("nested_pickles", _objects().replace(b"'|O'", b"'<f4'"), "expected|found"),
    "bytes": ("declared_sizes", npy(shape="(1000000, 2)"), "found 8 bytes"),
    "overflow": ("declared_sizes", npy(shape="(4294967296, 4294967296)"), "possible shape"),
    "digits": ("declared_sizes", npy(shape=f"({'9' * 5000},)"), "expected a dict of descr"),
    "header": ("declared_sizes", b"\x93NUMPY\2\0\xff\xff\xff\x7f{", "expected an .npy header"),
    "dimensions": ("declared_sizes", npy(shape=f"({'1,' * 2000})"), "possible shape"),
    "first": ("zero_dimensions", npy(shape="(0, 1000000000000)", data=b""), "possible shape"),
    "last": ("zero_dimensions", npy(shape="(1000000000000, 0)", data=b""), "possible shape"),
    "many": ("zero_dimensions", npy(shape="(0, 2147483647, 2147483647)", data=b""), "possible shape"),
    "scalar": ("zero_dimensions", npy(shape="(0,)", data=b""), "expected"),
    "code": ("parsers", npy("__import__('os').system('touch fired')"), "expected a dict of descr"),
    "code_in_a_shape": ("parsers", npy(shape="(__import__('os').getpid(),)"), "expected a dict of descr"),
    "nested": ("parsers", npy("(" * 5000), "expected a dict of descr"),
    "signs": ("parsers", npy("-" * 5000 + "1"), "expected a dict of descr"),
    "spaces": ("parsers", npy(shape="(1, 2)" + " " * 9000 + "x"), "expected a dict of descr"),
    "version": ("parsers", b"\x93NUMPY\x04\0" + npy()[8:], "version 1 to 3"),
    "twice": ("parsers", npy(fortran="False, 'descr': '|O'"), "expected a dict of descr"),
    "not_ascii": ("parsers", npy("'\xff\xfe'"), "found dtype"),
    "sum": ("parsers", npy(shape="(1 + 1,)"), "expected a dict of descr"),
    "negative": ("parsers", npy(shape="(-1, 2)"), "expected a dict of descr"),
    "no_header": ("parsers", b"\x93NUMPY", "expected an .npy file"),
}
_METADATA = {
    "nested": b"[" * 100_000,
    "nested_objects": b'{"a":' * 50_000,
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "not_utf8": b'{"a": "\xff"}',
    "number": b'{"scale": 1}',
    "list": b'["hidden"]',
}


def _shapes() -> Iterator[tuple[str, str, dict[str, np.ndarray], str]]:
    a = build.layers()
    yield "conversion", "nan", a | {"b1": a["b1"] * np.float32(np.nan)}, "NaN or infinity"
    yield "conversion", "infinity", a | {"W1": a["W1"] + np.float64(np.inf)}, "NaN or infinity"
    yield "conversion", "booleans", a | {"b1": a["b1"] > 1}, "expected float16"
    yield "shapes", "missing", {"W1": a["W1"]}, "b1: expected"
    yield "shapes", "chain", a | {"W2": np.ones((9, 2))}, "W2: expected shape"
    yield "shapes", "biases", a | {"b1": np.ones(9)}, "b1: expected shape"
    yield "shapes", "extra_layer", a | {"fc3.weight": np.ones((2, 2))}, "fc3.weight: expected"
    yield "shapes", "no_arrays", {}, "expected"


def attacks() -> Iterator[Attack]:
    for name, (danger, member, message) in _MEMBERS.items():
        fires = "numpy" if name.startswith("objects") else None
        fires = fires if b"'|O'" in member else None
        yield Attack(f"npy_{danger}_{name}", "npy", danger, member, message, fires)
        zipped = build.zipped({"W1.npy": member, "b1.npy": build.npy_file(np.ones(2))})
        yield Attack(f"npz_{danger}_{name}", "npz", danger, zipped, message, fires)
        rows = build.zipped({"x.npy": build.npy_file(np.ones((4, 2))), "y.npy": member})
        yield Attack(f"npz_labels_{danger}_{name}", "npz_rows", danger, rows, message)
    for name, text in _METADATA.items():
        members = {f"{key}.npy": build.npy_file(a) for key, a in build.layers().items()}
        data = build.zipped(members | {"metadata.json": text})
        yield Attack(f"npz_parsers_metadata_{name}", "npz", "parsers", data, "damaged metadata")
    for danger, name, arrays, message in _shapes():
        yield Attack(f"npz_{danger}_{name}", "npz", danger, build.npz(arrays), message)
    for danger, name, data, message in zips.attacks(build.npz(build.layers()), "W1.npy"):
        yield Attack(f"npz_{danger}_zip_{name}", "npz", danger, data, message)
    # Rows
    good = build.npy_file(np.ones((4, 2)))
    x = np.ones((4, 3))
    labels = {"of_no_shape": np.float64(3), "too_few": np.ones(3), "none": np.ones(0)}
    for name, y in labels.items():
        data = build.npz({"x": x, "y": y})
        yield Attack(f"npz_labels_{name}", "npz_rows", "shapes", data, "expected 4 labels, one a row")
    yield Attack("npz_rows_scalar", "npz_rows", "shapes", build.npz({"x": np.float64(1)}), "expected rows")
    yield Attack("npy_declared_sizes_cut", "npy", "declared_sizes", good[:-1], "found 63 bytes")
    yield Attack("npy_declared_sizes_longer", "npy", "declared_sizes", good + b"x", "found 65 bytes")
    size = 2**36
    header = npy("'|u1'", shape=f"({size // 2**21}, {2**21})", data=b"")
    sparse = build.sparse(size + len(header), header)
    yield Attack("npy_declared_sizes_sparse", "npy", "declared_sizes", sparse, "into memory")
    yield Attack(
        "npy_parsers_cut_length", "npy", "parsers", b"\x93NUMPY\1\0" + struct.pack("<H", 99), "header"
    )
