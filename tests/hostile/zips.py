"""Attacks on the zip around npz and PyTorch's files."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

from tests.hostile import build


def _central(data: bytes, at: int, code: str, value: int) -> bytes:
    """Change a field of the first member in the central directory."""
    raw = bytearray(data)
    struct.pack_into(code, raw, raw.index(b"PK\1\2") + at, value)
    return bytes(raw)


def _end(data: bytes, at: int, code: str, value: int) -> bytes:
    raw = bytearray(data)
    struct.pack_into(code, raw, raw.rindex(b"PK\5\6") + at, value)
    return bytes(raw)


def bomb(name: str, size: int) -> bytes:
    """A member of zeros, a thousandth of its size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        for _ in range(size // 2**20):
            member.write(bytes(2**20))
    return file.getvalue()


def overlapping(name: str, count: int, data: bytes) -> bytes:
    """Many members that are the same bytes of the file."""
    file = build.zipped({name: data}, zipfile.ZIP_DEFLATED)
    start = file.index(b"PK\1\2")
    entry = file[start : file.rindex(b"PK\5\6")]
    entries = [entry.replace(name.encode(), f"{i:0{len(name)}}".encode()) for i in range(count - 1)]
    directory = entry + b"".join(entries)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), start, 0)
    return file[:start] + directory + end


def many(name: str, count: int) -> bytes:
    """More entries in the directory than any file of weights has: each costs a hundred times its bytes."""
    data = overlapping(name, 2, b"")
    start = data.index(b"PK\1\2")
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[0] * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    size = len(entry) * count
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    where = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + entry * count + wide + where + last


def attacks(good: bytes, name: str) -> Iterator[tuple[str, str, bytes, str]]:
    """Danger, name, file and message, from a valid file and the name of one of its arrays."""
    yield "declared_sizes", "member", _central(good, 24, "<L", 2**31), "than it can hold|damaged"
    yield "declared_sizes", "packed_member", _central(good, 20, "<L", 2**31), "than it can hold|damaged"
    yield "declared_sizes", "directory", _end(good, 12, "<L", 2**31), "damaged zip"
    yield "declared_sizes", "offset", _end(good, 16, "<L", 2**31), "damaged zip"
    yield "declared_sizes", "entries", many(name, 400_000), "expected at most 10000 files"
    yield "compression", "bomb", bomb(name, 2**26), "expected|malformed|damaged"
    yield "compression", "overlap", overlapping(name, 1000, bytes(2**20)), "its members overlap"
    yield "compression", "method", _central(good, 10, "<H", 14), "stored or deflated|damaged"
    yield "compression", "unknown_method", _central(good, 10, "<H", 99), "stored or deflated|damaged"
    yield "compression", "claim", _central(good, 24, "<L", 2**32 - 2), "than it can hold|damaged"
    yield "parsers", "encrypted", _central(good, 8, "<H", 1), "stored or deflated"
    yield "parsers", "version", _central(good, 6, "<H", 255), "damaged zip"
    yield "parsers", "checksum", _central(good, 16, "<L", 7), "damaged"
    yield "parsers", "where", _central(good, 42, "<L", 9), "damaged"
    yield "parsers", "cut", good[:-30], "damaged zip"
    yield (
        "parsers",
        "bytes_behind",
        good + good[good.rindex(b"PK\5\6") :][:10],
        "damaged|expected",
    )
    twice = overlapping(name, 2, bytes(99))
    yield "parsers", "name_twice", twice.replace(b"0" * len(name), name.encode()), "found one twice"
    yield "parsers", "empty", b"PK\3\4" + b"PK\5\6" + bytes(18), "expected|damaged"
