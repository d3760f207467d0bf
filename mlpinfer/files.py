"""Bounded reads and whole-or-nothing writes.

Every file that mlpinfer reads or writes goes through this module, so that the two promises are
kept in one place: no declared size is believed before it is checked, and an output file appears
whole or not at all.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from mlpinfer.errors import MlpInferError, quoted, said

if TYPE_CHECKING:
    import zipfile

#: The largest weight or data file that is read into memory, in bytes.
MAX_FILE_BYTES = 2 * 1024**3
#: Deflate cannot expand its input more than this (zlib's technical notes, "Maximum Expansion Factor").
DEFLATE_RATIO = 1032
#: Read at a time of a file that is unpacked.
_PIECE_BYTES = 2**20
#: The most members of a zip.
MAX_MEMBERS = 10_000


def open_regular(path: str | os.PathLike[str], refuse: type[MlpInferError]) -> BinaryIO:
    """Open a regular file for reading.

    Parameters
    ----------
    path : str or path-like
    refuse : exception class
        Raised for anything that is not a regular file, or cannot be read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    name = os.fspath(path)
    # O_NONBLOCK: opening a FIFO must not wait for a writer; for a regular file it changes nothing.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(name, flags)
    except FileNotFoundError:
        raise FileNotFoundError(2, "no such file", name) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise refuse(f"{name!a}: cannot be read: {why}") from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise refuse(f"{name}: expected a regular file, found a {_kind(mode)}")
    return open(fd, "rb")


def read_file(path: str | os.PathLike[str], refuse: type[MlpInferError]) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`; errors as `open_regular`."""
    name = os.fspath(path)
    with open_regular(path, refuse) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_FILE_BYTES:
            raise refuse(f"{name}: expected at most {MAX_FILE_BYTES} bytes, found {status.st_size}")
        try:
            # One byte more than promised, so that a file growing meanwhile is noticed, not followed.
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise refuse(f"{name}: cannot be read: {error.strerror}") from None
        except MemoryError:
            raise refuse(f"{name}: does not fit into memory") from None
    if len(data) != status.st_size:
        raise refuse(f"{name}: changed while it was read, try again")
    return data


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for test, name in kinds.items() if test(mode)), "device")


class Gunzip:
    """A gzip file, unpacked piece by piece; never more than was asked for, and little read ahead.

    Parameters
    ----------
    file : binary file
        At the beginning of a gzip file of one member.
    refuse : exception class
        Raised where the file is damaged, cut short, or holds more than was read.
    name : str
        The file's name, for messages.
    """

    def __init__(self, file: BinaryIO, refuse: type[MlpInferError], name: str) -> None:
        self._file, self._refuse, self._name = file, refuse, name
        self._left = file.seek(0, os.SEEK_END)  # compressed bytes that have not been unpacked
        file.seek(0)
        self._tail = b""
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, count: int) -> bytes:
        """Return exactly `count` unpacked bytes."""
        if count > MAX_FILE_BYTES:
            raise self._refuse(f"{self._name}: expected at most {MAX_FILE_BYTES} bytes, found {count}")
        if count > self._left * DEFLATE_RATIO + 4096:
            raise self._refuse(
                f"{self._name}: cut short: {count} bytes expected from {self._left} compressed ones"
            )
        data = self._unpack(count) if count else b""
        if len(data) != count:
            raise self._refuse(f"{self._name}: cut short: {count} bytes expected, {len(data)} found")
        return data

    def finish(self) -> None:
        """Check that nothing is left and that the checksum was right."""
        if self._unpack(1) or self._inflate.unused_data or self._file.read(1):
            raise self._refuse(f"{self._name}: longer than its header says")
        if not self._inflate.eof:
            raise self._refuse(f"{self._name}: cut short: the gzip trailer is missing")

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
                raise self._refuse(f"{self._name}: the gzip data is damaged") from None
            self._tail = self._inflate.unconsumed_tail
            self._left -= before - len(self._tail)
            missing -= len(pieces[-1])
        return b"".join(pieces)


def unzip(data: bytes, refuse: type[MlpInferError]) -> dict[str, bytes]:
    """Return the members of a zip by name, stored or deflated, each no longer than it declares.

    Raises
    ------
    refuse
        If the zip is damaged, encrypted, compressed otherwise, has a name twice, or claims more
        than its bytes can hold.
    """
    import zipfile  # late: slow to import

    # Before zipfile makes an object of each: the directory has this mark once a member.
    if data.count(b"PK\1\2") > MAX_MEMBERS:
        raise refuse(f"expected at most {MAX_MEMBERS} files in the zip, found more")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data), refuse)
            return {
                member.filename: _read_member(archive, member, refuse)
                for member in members
                if not member.is_dir()
            }
    except (refuse, MemoryError):
        raise
    except Exception as error:  # zipfile and zlib raise a dozen unrelated types on damaged files
        raise refuse(f"damaged zip: {said(error)}") from None


def _check_members(members: list[zipfile.ZipInfo], length: int, refuse: type[MlpInferError]) -> None:
    import zipfile

    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise refuse("expected every name in the zip once, found one twice")
    for member in members:
        if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse(f"{quoted(member.filename)}: expected a stored or deflated zip member")
        if member.compress_size > length or member.file_size > member.compress_size * DEFLATE_RATIO:
            raise refuse(f"{quoted(member.filename)}: claims more bytes than it can hold")
    if sum(member.compress_size for member in members) > length:
        raise refuse("damaged zip: its members overlap, and claim more bytes than it can hold")
    if sum(member.file_size for member in members) > MAX_FILE_BYTES:
        raise refuse(f"expected at most {MAX_FILE_BYTES} bytes in the zip, found more")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, refuse: type[MlpInferError]) -> bytes:
    with archive.open(member) as file:
        data = file.read(member.file_size + 1)  # to its end, where zipfile compares the checksum
    if len(data) != member.file_size:
        raise refuse(f"{quoted(member.filename)}: damaged in the zip")
    return data


def move(source: str, target: str) -> None:
    """Rename a file or a folder, so that the new name outlives a power cut."""
    os.replace(source, target)
    with suppress(OSError):  # not every system can open a folder, nor every file system flush it
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears whole or not at all.

    The bytes go to a temporary file beside it, are flushed to the disk, and take the final name by
    a rename when the block ends without an error. A link is followed; a device or a pipe, which no
    rename may replace, is written to as it is.

    Raises
    ------
    OSError
        Naming `path`, not the temporary file.
    """
    target = os.path.realpath(path)
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb") as device:
                yield device
            return
        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")
        try:
            with open(temporary, "xb") as file:  # x: never through a link that somebody laid there
                with suppress(OSError):  # as the file that is replaced: no more may read it than could
                    os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
                move(temporary, target)
        except BaseException:  # a signal too, which may come as soon as the file is there
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
