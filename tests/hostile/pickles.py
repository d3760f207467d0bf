"""Attacks in the book's pickle."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from itertools import islice, product
from string import ascii_lowercase

import numpy as np

from tests.builders import array_state
from tests.hostile import build
from tests.hostile.attack import Attack
from tests.hostile.build import array_opcodes, book, pickled, text
from tests.hostile.programs import programs

MINUS = b"J\xff\xff\xff\xff"


def state(order=b"X\1\0\0\0<", version=b"K\3", rest=b"NNN", sizes=MINUS * 2, flags=b"K\0"):
    return b"(" + version + order + rest + sizes + flags + b"tb"


_STATES = {
    "fields": state(
        b"X\1\0\0\0|", rest=b"N" + text("a") + b"\x85}" + text("a") + b"NK\0\x86s", sizes=b"K\x08K\1"
    ),
    "names_alone": state(b"X\1\0\0\0|", rest=b"N)}", sizes=b"K\x08K\1"),
    "subarray": state(rest=b"NK\2\x85\x86NN"),
    "metadata": state(version=b"K\4", flags=b"K\0}"),
    "negative_size": state(sizes=b"J\0\0\0\x80" + MINUS),
    "alignment": state(sizes=MINUS + b"K\0"),
    "flags": state(flags=b"K\x3f"),
    "object_flags": state(flags=b"K\1"),
    "order": state(b"X\1\0\0\0!"),
    "order_of_bytes": state(b"C\1<"),
    "booleans": state(sizes=MINUS * 2, flags=b"\x89"),
    "short": b"(K\3X\1\0\0\0<NNNtb",
    "twice": state() + state(),
    "dict": b"}b",
}
_CODES = [
    "O8",
    "V8",
    "U4",
    "S8",
    "M8[ns]",
    "m8",
    "f16",
    "c16",
    "f4,f4",
    "(2,)f4",
    "i3",
    "object",
    "<f4",
    "f4\0",
    "",
]
_ARRAYS = {
    "twice": ({"build": b"b(K\1)K\0K\0K\0tb"}, "malformed array|filled twice|dtype is missing"),
    "not_empty": ({"begin": b"J\0\0\0\x40\x85"}, "expected to begin empty"),
    "letter": ({"letter": b"C\1O"}, "expected to begin empty"),
    "short": ({"data": b"C\7" + bytes(7)}, "expected 8 bytes, found 7"),
    "long": ({"data": b"C\x09" + bytes(9)}, "expected 8 bytes, found 9"),
    "no_bytes": ({"data": b"]"}, "expected bytes"),
    "array_as_bytes": ({"data": array_opcodes(np.zeros(2, np.float32))}, "expected bytes"),
    "negative": ({"shape": MINUS + MINUS[:0] + b"J\xfe\xff\xff\xff\x86"}, "a possible shape"),
    "overflow": ({"shape": b"\x8a\x08" + struct.pack("<q", 2**62) + b"K\4\x86"}, "a possible shape"),
    "booleans": ({"shape": b"\x88K\2\x86"}, "at most 8 integers"),
    "many": ({"shape": b"(" + b"K\1" * 100 + b"t"}, "at most 8 integers"),
    "no_dtype": ({"code": b"", "flags": b"", "state": b""}, "malformed"),
    "version": ({"version": b"K\2"}, "malformed array"),
}
_FILES = {
    "protocol_6": (b"\x80\6N.", "unexpected protocol"),
    "protocol_1": (b"\x80\1N.", "unexpected protocol"),
    "no_stop": (b"\x80\4}", "expected an opcode"),
    "nothing": (b"\x80\4.", "a value is missing"),
    "trailing": (pickle.dumps(build.layers(), 4) + b"cposix\nsystem\n", "bytes behind its end"),
    "two": (pickle.dumps(build.layers(), 3) * 2, "bytes behind its end"),
    "cut": (pickle.dumps(build.layers(), 4)[:-40], "malformed pickle"),
    "values_left": (b"\x80\4NN.", "values left on the stack"),
}


def _values() -> Iterator[tuple[str, object, str]]:
    b1 = build.layers()["b1"]
    yield "text", np.array(["1", "2", "3"]), "found dtype"
    yield "complex", b1.astype(complex), "found dtype"
    yield "dates", b1.astype("M8[s]"), "found dtype"
    yield "structure", np.zeros(3, "f4,f4"), "found dtype|refused"
    yield "nan", b1 * np.float32(np.nan), "found NaN or infinity"
    yield "infinity", np.array([1, np.inf, 2], np.float32), "found NaN or infinity"
    yield "booleans", b1 > 3, "expected float16, float32, float64 or integers"
    yield "plain_text", "1_0", "b1: expected|missing"
    yield "list", [1.0, 2.0, 3.0], "missing"
    yield "huge", 2**2000, "missing"
    yield "boolean", True, "missing"
    yield "float", 1e300, "b1: expected shape"


def _shapes() -> Iterator[tuple[str, dict[str, object], str]]:
    a = build.layers()
    yield "missing_weights", {k: v for k, v in a.items() if k != "W2"}, "W2: expected"
    yield "missing_biases", {k: v for k, v in a.items() if k != "b1"}, "b1: expected"
    yield "gap", {"W1": a["W1"], "b1": a["b1"], "W3": a["W2"], "b3": a["b2"]}, "W2: expected"
    yield "chain", a | {"W2": np.ones((4, 2), np.float32)}, "W2: expected shape"
    yield "three_dimensions", a | {"W1": np.ones((4, 3, 1), np.float32)}, "W1: expected shape"
    yield "long_biases", a | {"b2": np.ones(3, np.float32)}, "b2: expected shape"
    yield "scalar", a | {"W1": np.float32(1)}, "W1: expected shape"
    yield "batch_norm", a | {"gamma1": a["b1"], "beta1": a["b1"]}, "gamma1: expected"
    yield "far_layer", a | {"W9999": a["W2"], "b9999": a["b2"]}, "W3: expected"
    yield "long_name", a | {"x" * 5000: a["b1"]}, "names of at most 1000"
    yield "escape_in_a_name", {"\x1b[2J\n\0": 1, "é" * 90: a["b1"]}, "expected arrays W1"
    yield "head", a | {"metadata": {"layout": "\x1b[2J" * 99}}, "layout: expected"
    yield "scale", a | {"metadata": {"scale": "1" * 5000}}, "scale: expected"


def _many(value: bytes, keys) -> bytes:
    """One array under many names; two opcodes each."""
    return b"\x80\4" + value + b"q\0" + b"0}(" + b"".join(text(key) + b"h\0" for key in keys) + b"u."


def _slow() -> Iterator[tuple[str, bytes, str | None]]:
    """Names, few enough to be read, that cost more than their number to tell apart."""
    W, b = (array_opcodes(np.ones(shape, np.float32)) for shape in ((1, 1), (1,)))
    words = ["".join(letters) for letters in islice(product(ascii_lowercase, repeat=4), 45_000)]
    yield (
        "many_names",
        _many(array_opcodes(np.ones((2, 2), np.float32)), [f"{w}.weight" for w in words]),
        "expected",
    )
    yield "many_arrays", _many(b, words), "expected"
    moving = "running_" * 60 + "1" * 500 + "!"
    keys = ["W1", "b1", *(f"{i}{moving}" for i in range(2_000))]
    yield "names_of_many_parts", _many(b, keys), None
    loops = [array_opcodes(np.ones((2, 2), np.float32)), array_opcodes(np.ones((3, 3), np.float32))]
    items = {f"{w}.weight": loops[i == 9] for i, w in enumerate(words[:10])}
    yield "orders", pickled(items), "expected shape"
    yield "wide", pickled({"W1": W} | {f"b{i}": b for i in range(1, 2500)}), "W2: expected"


def attacks() -> Iterator[Attack]:
    def attack(danger, name, data, message, fires=None):
        return Attack(f"pickle_{danger}_{name}", "pickle", danger, data, message, fires)

    for program in programs():
        fires = "pickle" if program.fires else None
        data = pickled(book(extra=program.opcodes))
        yield attack(program.danger, program.name, data, program.message, fires)
    for name, opcodes in _STATES.items():
        yield attack("dtype_state", name, array_state(state=opcodes), "malformed dtype|refused: a dtype")
    for code in _CODES:
        data = array_state(code=text(code))
        yield attack(
            "dtype_state", f"code_{code}", data, "expected an array of floats or integers, found dtype"
        )
    for code, begin in (("M8", bytes(8)), ("O8", b"A" * 8)):  # a null pointer, and a pointer of the file's
        changes = {"code": text(code), "shape": b"K\1K\1\x86", "data": b"C\x08" + begin}
        data = array_state(state=state(b"X\1\0\0\0|", rest=b"N)}", sizes=b"K\x08K\1"), **changes)
        yield attack("dtype_state", f"crash_{code}", data, "found dtype")
    for name, (changes, message) in _ARRAYS.items():
        yield attack("reconstruct", name, array_state(**changes), message)
    for name, shape in {
        "bytes": (10**12, 0),
        "many": (0, 2**31 - 1, 2**31 - 1),
        "last": (2, 0, 2**40),
    }.items():
        data = array_state(shape=build.whole_tuple(shape), data=b"C\0")
        yield attack("zero_dimensions", name, data, "a possible shape")
    for name, (data, message) in _FILES.items():
        yield attack("opcodes", name, data, message)
    for name, value, message in _values():
        yield attack("conversion", name, pickle.dumps(build.layers() | {"b1": value}, 4), message)
    for name, arrays, message in _shapes():
        yield attack("shapes", name, pickle.dumps(arrays, 4), message)
    for name, data, message in _slow():
        yield attack("shapes", name, data, message)
    yield attack("declared_sizes", "sparse_file", build.sparse(2**31 + 1, b"\x80\4"), "expected at most")
    yield attack("declared_sizes", "more_than_the_memory", build.sparse(2**31 - 1, b"\x80\4"), "into memory")
