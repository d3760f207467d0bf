"""Attacks in IDX and CSV files."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator

import numpy as np

from mlpinfer.io.data import idx
from tests.hostile import build
from tests.hostile.attack import Attack

GOOD = idx.encode(np.ones((4, 3), np.uint8))


def header(*dimensions: int, code: int = 8, zeros: int = 0) -> bytes:
    return struct.pack(f">HBB{len(dimensions)}I", zeros, code, len(dimensions), *dimensions)


#: Danger, file, message; each plain and gzipped.
_IDX = {
    "magic": ("idx", header(1, zeros=1) + b"x", "found none of these|expected an IDX file"),
    "type": ("idx", header(1, code=10) + b"x", "expected an IDX file"),
    "no_dimension": ("idx", header() + b"x", "expected an IDX file"),
    "nine": ("idx", header(*[1] * 9) + b"x", "1 to 8 dimensions"),
    "all_dimensions": ("idx", header(*[1] * 255) + b"x", "1 to 8 dimensions"),
    "short": ("idx", GOOD[:-1], "cut short"),
    "long": ("idx", GOOD + b"x", "more than its header|longer than its header"),
    "only_magic": ("idx", GOOD[:3], "cut short"),
    "no_values": ("idx", GOOD[:12], "cut short"),
    "count": ("declared_sizes", header(2**32 - 1, 28, 28) + bytes(99), "cut short|at most"),
    "product": ("declared_sizes", header(*[2**32 - 1] * 8), "cut short|at most"),
    "wide": ("declared_sizes", header(1, 2**32 - 1, code=14) + b"x", "cut short|at most"),
    "limit": ("declared_sizes", header(2**31 - 1, 1) + b"x", "cut short"),
    "zero": ("zero_dimensions", header(0), "above zero"),
    "zero_rows": ("zero_dimensions", header(0, 2**32 - 1), "above zero"),
    "zero_width": ("zero_dimensions", header(2**32 - 1, 0), "above zero"),
}


def _gzips() -> Iterator[tuple[str, str, bytes, str]]:
    good = gzip.compress(GOOD, mtime=0)
    yield "compression", "bomb", gzip.compress(header(2, 2) + bytes(2**26)), "longer than its header"
    yield (
        "compression",
        "bomb_within",
        gzip.compress(header(2**30, 2) + bytes(2**24)),
        "at most|cut short|memory",
    )
    yield "compression", "claim", gzip.compress(header(2**30, 1) + bytes(99)), "cut short"
    yield "compression", "two_members", good + good, "longer than its header"
    yield "compression", "bytes_behind", good + b"more", "damaged"
    yield "compression", "empty_members", gzip.compress(b"") * 50_000 + good, None
    yield "compression", "in_itself", gzip.compress(good), "expected an IDX file"
    yield "parsers", "checksum", good[:-8] + bytes(8), "damaged"
    yield "parsers", "no_trailer", good[:-8], "cut short"
    yield "parsers", "cut", good[:-12], "cut short"
    yield "parsers", "blocks", good[:10] + b"\xff" * 20, "damaged"
    yield "parsers", "method", good[:2] + b"\x07" + good[3:], "damaged"
    yield "parsers", "flags", good[:3] + b"\xff" + good[4:], "damaged|cut short"
    yield "parsers", "name", good[:3] + b"\x08" + good[4:10] + b"a" * 2**20, "cut short|damaged"
    yield "parsers", "magic_alone", b"\x1f\x8b", "cut short"
    yield "parsers", "empty_blocks", good[:10] + b"\0\0\0\xff\xff" * 200_000 + good[10:], None


def idx_attacks() -> Iterator[Attack]:
    for name, (danger, data, message) in _IDX.items():
        yield Attack(f"idx_{danger}_{name}", "idx", danger, data, message)
        yield Attack(f"idx_{danger}_{name}_gzip", "idx", danger, gzip.compress(data), message)
    for danger, name, data, message in _gzips():
        yield Attack(f"idx_{danger}_{name}", "idx", danger, data, message)
    begin = header(2**26, 1024)
    sparse = build.sparse(len(begin) + 2**36, begin)
    yield Attack("idx_declared_sizes_sparse", "idx", "declared_sizes", sparse, "into memory")
    floats = header(2**27, 1, code=14)
    cast = build.sparse(len(floats) + 2**30, floats)
    yield Attack("idx_declared_sizes_cast", "idx", "declared_sizes", cast, "into memory")


_CSV = {
    "long_line": ("declared_sizes", b"1," * 2**23 + b"1\n", "rows of at most"),
    "long_cell": ("declared_sizes", b"1,2\n" + b"9" * 200_000 + b",1\n", "expected CSV"),
    "many_names": ("declared_sizes", b"a," * 2**20 + b"a\n1\n", "expected"),
    "quoted_lines": ("declared_sizes", b"1\n" + b'"\n",' * 2**18 + b"1\n", "expected"),
    "digits": ("declared_sizes", b"1,2\n" + b"1" * 100_000 + b",x\n", "expected a number"),
    "open_quote": ("parsers", b'1,2\n3,"4\n', "expected CSV"),
    "quote_behind": ("parsers", b'1,2\n"3"4,5\n', "expected CSV"),
    "not_utf8": ("parsers", b"1,2\n\xff,3\n", "expected CSV"),
    "utf16": ("parsers", "1,2\n3,4\n".encode("utf-16"), "expected"),
    "nul": ("parsers", b"1,2\n" * 20 + b"\0,3\n", "expected"),
    "short_row": ("parsers", b"1,2\n3\n", "expected 2 columns, found 1"),
    "long_row": ("parsers", b"1,2\n" + b"3," * 99_999 + b"3\n", "expected 2 columns"),
    "nothing": ("parsers", b"\n\n\n", "found none"),
    "header_alone": ("parsers", b"a,b\n", "found none"),
    "escapes": ("parsers", "1,2\n\x9b2J,3\n".encode(), "expected a number"),
    "formula": ("parsers", b"1,2\n=cmd|'/C calc'!A0,3\n", "expected a number"),
    "bidi": ("parsers", "1,2\n\u202e3,4\n".encode(), "expected a number"),
    "underscore": ("conversion", b"1,2\n1_0,3\n", "expected a number"),
    "hexadecimal": ("conversion", b"1,2\n0x10,3\n", "expected a number"),
    "complex": ("conversion", b"1,2\n1j,3\n", "expected a number"),
    "date": ("conversion", b"1,2\n2024-01-01,3\n", "expected a number"),
    "boolean": ("conversion", b"1,2\nTrue,3\n", "expected a number"),
    "comma": ("conversion", b'1,2\n"3,5",3\n', "expected a number"),
    "text_header": ("conversion", b"a,1\n2,3\n", "names of all columns"),
}


def csv_attacks() -> Iterator[Attack]:
    for name, (danger, data, message) in _CSV.items():
        yield Attack(f"csv_{danger}_{name}", "csv", danger, data, message)
