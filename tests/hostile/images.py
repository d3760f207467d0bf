"""Attacks in PNG and JPEG files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.hostile.attack import Attack

MAGIC = b"\x89PNG\r\n\x1a\n"
_EXPECTED = "expected a PNG or JPEG image"


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def begin(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return MAGIC + chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))


def png(width: int = 4, height: int = 4, *chunks: bytes, pixels: bytes | None = None) -> bytes:
    raw = zlib.compress(bytes((width + 1) * height) if pixels is None else pixels)
    return begin(width, height) + b"".join(chunks) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "JPEG", **options)
    return file.getvalue()


def _sized_jpeg(height: int, width: int) -> bytes:
    data = bytearray(jpeg())
    struct.pack_into(">2H", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def scans(count: int, side: int) -> bytes:
    """A progressive JPEG of many scans: each goes over all pixels, and takes a few bytes."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def _others() -> Iterator[tuple[str, bytes]]:
    """Formats that Pillow knows and that are not for pixels of a stranger's making."""
    for kind in ("GIF", "BMP", "TIFF", "PPM", "ICO", "PDF", "EPS", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, kind)
        yield kind.lower(), file.getvalue()


def attacks() -> Iterator[Attack]:
    def attack(danger, name, data, message=_EXPECTED):
        return Attack(f"image_{danger}_{name}", "image", danger, data, message)

    yield attack(
        "images", "pixels", png(2**15, 2**15, pixels=b"x"), "at most 100000000 pixels|decompression bomb"
    )
    yield attack(
        "images", "wide", begin(2**31 - 1, 1) + chunk(b"IDAT", b"x"), "at most 100000000|expected a PNG"
    )
    yield attack(
        "images", "jpeg_pixels", _sized_jpeg(65000, 65000), "at most 100000000 pixels|expected a PNG"
    )
    yield attack("images", "scans", scans(20_000, 4000), "scans")
    for name, data in _others():
        yield attack("images", name, data, "expected")
    yield attack("images", "postscript_behind", MAGIC + b"%!PS-Adobe-3.0 EPSF-3.0\n(fired) (w) file")
    yield attack("images", "jpeg_and_postscript", b"\xff\xd8\xff" + b"%!PS-Adobe-3.0\n")
    yield attack("declared_sizes", "chunk", begin(4, 4) + struct.pack(">I", 2**31 - 1) + b"IDATx")
    yield attack("declared_sizes", "dimensions", png(4000, 4000, pixels=b"x"))
    yield attack("declared_sizes", "no_pixels", png(0, 0))
    yield attack("declared_sizes", "jpeg_segment", b"\xff\xd8\xff\xe1\xff\xffExif\0\0")
    yield attack("declared_sizes", "jpeg_empty", _sized_jpeg(0, 0))
    text = zlib.compress(bytes(2**26))
    yield attack("compression", "text", png(4, 4, chunk(b"zTXt", b"a\0\0" + text)))
    yield attack(
        "compression", "texts", png(4, 4, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20)))] * 80)
    )
    yield attack("compression", "profile", png(4, 4, chunk(b"iCCP", b"a\0\0" + text)), None)
    yield attack("compression", "international", png(4, 4, chunk(b"iTXt", b"a\0\1\0\0\0" + text)))
    yield attack("compression", "pixels", png(4, 4, pixels=bytes(2**26)), None)
    yield attack("parsers", "checksum", png()[:-20] + bytes(20))
    yield attack("parsers", "cut", png()[:40])
    yield attack("parsers", "no_header", MAGIC + chunk(b"IDAT", b""))
    yield attack("parsers", "type", begin(4, 4, 3, 9))
    yield attack("parsers", "filter", png(pixels=b"\xff" * 20))
    yield attack("parsers", "jpeg_cut", jpeg()[:200])
    yield attack("parsers", "jpeg_markers", b"\xff\xd8\xff" + b"\xff" * 100_000)
    yield attack("parsers", "jpeg_tables", jpeg().replace(b"\xff\xc4", b"\xff\xc5"))
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\3\0\xff\xff\xff\xff\0\0\0\0" * 99
    yield attack("parsers", "jpeg_exif", jpeg(exif=exif), None)
    circle = b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
    yield attack("parsers", "exif_circle", png(4, 4, chunk(b"eXIf", circle)), None)
    yield attack("parsers", "animation", png(4, 4, chunk(b"acTL", struct.pack(">2I", 2**31 - 1, 0))), None)
