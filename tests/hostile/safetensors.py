"""Attacks in safetensors files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import numpy as np

from tests.builders import entry, safetensors_file
from tests.hostile import build
from tests.hostile.attack import Attack

F = "F32"
#: Danger, header, bytes of the arrays.
_HEADERS = {
    "hole": ("safetensors", {"a": entry(F, [1], 0, 4), "b": entry(F, [1], 8, 12)}, 12),
    "overlap": ("safetensors", {"a": entry(F, [1], 0, 4), "b": entry(F, [1], 0, 4)}, 4),
    "backwards": ("safetensors", {"a": entry(F, [1], 4, 0)}, 4),
    "not_at_the_beginning": ("safetensors", {"a": entry(F, [1], 4, 8)}, 8),
    "bytes_behind": ("safetensors", {"a": entry(F, [1], 0, 4)}, 5),
    "bytes_missing": ("safetensors", {"a": entry(F, [1], 0, 4)}, 3),
    "beyond": ("safetensors", {"a": entry(F, [100], 0, 400)}, 4),
    "twice": ("safetensors", b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + b'"b":1}', 4),
    "other_shape": ("declared_sizes", {"a": entry(F, [2], 0, 4)}, 4),
    "overflow": ("declared_sizes", {"a": entry(F, [2**40, 2**40], 0, 4)}, 4),
    "offsets": ("declared_sizes", {"a": entry(F, [1], 2**64 - 4, 2**64)}, 4),
    "huge_number": ("declared_sizes", {"a": entry(F, [10**30], 0, 4)}, 4),
    "negative": ("declared_sizes", {"a": entry(F, [-1], 0, 4)}, 4),
    "fraction": ("parsers", {"a": entry(F, [1.0], 0, 4)}, 4),
    "not_utf8": ("parsers", b'{"\xff":1}', 0),
    "nested": ("parsers", b'{"a":' + b"[" * 100_000, 0),
    "no_json": ("parsers", b"{", 0),
    "list": ("parsers", b"{}]", 0),
    "surrogate": ("parsers", b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
    "metadata_number": ("parsers", {"__metadata__": {"scale": 1}, "a": entry(F, [1], 0, 4)}, 4),
    "metadata_nested": ("parsers", {"__metadata__": {"scale": {"a": "b"}}, "a": entry(F, [1], 0, 4)}, 4),
}
_ACCEPTED = {
    "empty_first": ("zero_dimensions", {"W1": entry(F, [0, 2**50], 0, 0)}, "possible shape"),
    "empty_last": ("zero_dimensions", {"W1": entry(F, [2**50, 0], 0, 0)}, "possible shape"),
    "empty_many": ("zero_dimensions", {"W1": entry(F, [0, 2**31, 2**31], 0, 0)}, "possible shape|damaged"),
    "empty_huge": ("zero_dimensions", {"W1": entry(F, [0, 2**63, 2], 0, 0)}, "expected|damaged"),
    "thousand_dimensions": ("zero_dimensions", {"W1": entry(F, [1] * 1000 + [0], 0, 0)}, "expected|damaged"),
    "booleans": ("conversion", {"W1": entry("BOOL", [4, 3], 0, 12)}, "expected floats or integers"),
    "eight_bits": (
        "conversion",
        {"W1": entry("F8_E4M3", [4, 3], 0, 12)},
        "expected floats or integers|damaged",
    ),
    "complex": ("conversion", {"W1": entry("C64", [3, 1], 0, 24)}, "expected floats or integers|damaged"),
}


def _values() -> Iterator[tuple[str, str, bytes, str]]:
    a = build.layers()
    nan = a | {"b1": a["b1"] * np.float32(np.nan)}
    yield "conversion", "nan", build.safetensors(nan), "NaN or infinity"
    yield (
        "conversion",
        "infinity",
        build.safetensors(a | {"b2": a["b2"] + np.float32(np.inf)}),
        "NaN or infinity",
    )
    yield "conversion", "scale", build.safetensors(a, scale="1_0"), "scale: expected a number"
    yield "conversion", "huge_scale", build.safetensors(a, scale="1e999"), "scale: expected a finite"
    yield "shapes", "chain", build.safetensors(a | {"W2": np.ones((9, 2), "f4")}), "W2: expected shape"
    yield "shapes", "missing", build.safetensors({k: v for k, v in a.items() if k != "b2"}), "b2: expected"
    yield "shapes", "biases", build.safetensors(a | {"b1": np.ones(9, "f4")}), "b1: expected shape"
    yield (
        "shapes",
        "extra",
        build.safetensors(build.state_dict() | {"ln.weight": np.ones(3, "f4")}),
        "ln.weight: exp",
    )
    yield "shapes", "layout", build.safetensors(a, layout="\x1b[2J\n" * 99), "layout: expected in-out"
    many = {f"a{'b' * (i % 7)}.{i:x}q.weight": entry(F, [0, 2], 0, 0) for i in range(60_000)}
    yield "shapes", "many_names", safetensors_file(many), "expected"
    escapes = {"\x1b[2J\n\0": np.ones(3, "f4"), "é" * 500: np.ones(4, "f4")}
    yield "shapes", "escapes", build.safetensors(escapes), "expected arrays W1"


def attacks() -> Iterator[Attack]:
    def attack(danger, name, data, message):
        return Attack(f"safetensors_{danger}_{name}", "safetensors", danger, data, message)

    for name, (danger, header, count) in _HEADERS.items():
        yield attack(danger, name, safetensors_file(header, bytes(count)), "damaged safetensors")
    for name, (danger, header, message) in _ACCEPTED.items():
        end = header["W1"]["data_offsets"][1]
        header = header | {"b1": entry(F, [3], end, end + 12)}
        yield attack(danger, name, safetensors_file(header, bytes(end + 12)), message)
    for danger, name, data, message in _values():
        yield attack(danger, name, data, message)
    yield attack("declared_sizes", "header", struct.pack("<Q", 2**63) + b"{}", "damaged safetensors")
    yield attack(
        "declared_sizes", "header_beyond", struct.pack("<Q", 2**26) + b"{" + bytes(99), "damaged safetensors"
    )
    spaces = json.dumps({"W1": entry(F, [1], 0, 4)}).encode()[:-1]
    long = build.sparse(2**28, struct.pack("<Q", 100_000_001) + spaces)
    yield attack("safetensors", "long_header", long, "damaged safetensors")
    header = safetensors_file(
        {"W1": entry("U8", [2**29, 1], 0, 2**29), "b1": entry("U8", [1], 2**29, 2**29 + 1)}
    )
    large = build.sparse(len(header) + 2**29 + 1, header)
    yield attack("declared_sizes", "more_than_the_memory", large, "into memory|damaged")
