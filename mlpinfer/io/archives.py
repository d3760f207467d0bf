"""gzip and zip files, unpacked with every size checked before it is believed."""

from __future__ import annotations

import io
import os
import zlib
from typing import TYPE_CHECKING, BinaryIO

from mlpinfer._text import quoted, said
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import MAX_FILE_BYTES

if TYPE_CHECKING:
    import zipfile


#: Deflate cannot expand its input more than this (zlib's technical notes, "Maximum Expansion Factor").
DEFLATE_RATIO = 1032


#: Read at a time of a file that is unpacked.
_PIECE_BYTES = 2**20


#: The most members of a zip.
MAX_MEMBERS = 10_000


class Gunzip:
    """A gzip file, unpacked piece by piece; never more than was asked for, and little read ahead.

    Parameters
    ----------
    file : binary file
        At the beginning of a gzip file of one member.

    Raises
    ------
    FormatError
        From every method, where the file is damaged, cut short, or holds more than was read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = file.seek(0, os.SEEK_END)  # compressed bytes that have not been unpacked
        file.seek(0)
        self._tail = b""
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, count: int) -> bytes:
        """Return exactly `count` unpacked bytes."""
        if count > MAX_FILE_BYTES:
            raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes, found {count}")
        if count > self._left * DEFLATE_RATIO + 4096:
            raise FormatError(f"cut short: {count} bytes expected from {self._left} compressed ones")
        data = self._unpack(count) if count else b""
        if len(data) != count:
            raise FormatError(f"cut short: {count} bytes expected, {len(data)} found")
        return data

    def finish(self) -> None:
        """Check that nothing is left and that the checksum was right."""
        if self._unpack(1) or self._inflate.unused_data or self._file.read(1):
            raise FormatError("longer than its header says")
        if not self._inflate.eof:
            raise FormatError("cut short: the gzip trailer is missing")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unpack(self, count: int) -> bytes:
        pieces, missing = [], count
        while missing and not self._inflate.eof:
            self._tail = self._tail or self._file.read(_PIECE_BYTES)
            if not self._tail:
                break
            before = len(self._tail)
            try:
                pieces.append(self._inflate.decompress(self._tail, missing))
            except zlib.error:
                raise FormatError("the gzip data is damaged") from None
            self._tail = self._inflate.unconsumed_tail
            self._left -= before - len(self._tail)
            missing -= len(pieces[-1])
        return b"".join(pieces)


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
