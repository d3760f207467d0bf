"""gzip and zip files, unpacked with every size checked before it is believed."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlpinfer._text import quoted, said
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import MAX_FILE_BYTES

if TYPE_CHECKING:
    import gzip
    import zipfile


#: Deflate cannot expand its input more than this (zlib's technical notes, "Maximum Expansion Factor").
DEFLATE_RATIO = 1032


#: Read at a time of a file that is unpacked.
_PIECE_BYTES = 2**20


#: The most members of a zip.
MAX_MEMBERS = 10_000


def unpack_into(out: npt.NDArray[Any], file: gzip.GzipFile) -> None:
    """Fill a contiguous array with what comes next in a gzip file, read in pieces.

    Raises
    ------
    FormatError
        If the file is damaged, cut short, or holds less.
    """
    if out.nbytes > MAX_FILE_BYTES:
        raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes, found {out.nbytes}")
    values, at = out.reshape(-1).view(np.uint8), 0
    with gzip_errors():
        while piece := file.read(min(_PIECE_BYTES, len(values) - at)):
            values[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
    if at < len(values):
        raise FormatError(f"cut short: {len(values)} bytes expected, {at} found")


@contextmanager
def gzip_errors() -> Iterator[None]:
    """Raise whatever the gzip module finds wrong as `FormatError`."""
    import gzip

    try:
        yield
    except EOFError:
        raise FormatError("cut short: the end of the gzip data is missing") from None
    except (gzip.BadGzipFile, zlib.error):
        raise FormatError("the gzip data is damaged") from None


def unzip(data: bytes) -> dict[str, bytes]:
    """Return the members of a zip by name, stored or deflated, each no longer than it declares.

    Raises
    ------
    FormatError
        If the zip is damaged, encrypted, compressed otherwise, has a name twice, or claims more
        than its bytes can hold.
    """
    import zipfile  # late: slow to import

    # Before zipfile makes an object of each: the directory has this mark once a member.
    if data.count(b"PK\1\2") > MAX_MEMBERS:
        raise FormatError(f"expected at most {MAX_MEMBERS} files in the zip, found more")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data))
            return {
                member.filename: _read_member(archive, member) for member in members if not member.is_dir()
            }
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # zipfile and zlib raise a dozen unrelated types on damaged files
        raise FormatError(f"damaged zip: {said(error)}") from None


def _check_members(members: list[zipfile.ZipInfo], length: int) -> None:
    import zipfile

    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise FormatError("expected every name in the zip once, found one twice")
    for member in members:
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{quoted(member.filename)}: expected a stored or deflated zip member")
        if member.compress_size > length or member.file_size > member.compress_size * DEFLATE_RATIO:
            raise FormatError(f"{quoted(member.filename)}: claims more bytes than it can hold")
    if sum(member.compress_size for member in members) > length:
        raise FormatError("damaged zip: its members overlap, and claim more bytes than it can hold")
    if sum(member.file_size for member in members) > MAX_FILE_BYTES:
        raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes in the zip, found more")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        data = file.read(member.file_size + 1)  # to its end, where zipfile compares the checksum
    if len(data) != member.file_size:
        raise FormatError(f"{quoted(member.filename)}: damaged in the zip")
    return data
