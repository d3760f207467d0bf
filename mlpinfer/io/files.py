"""Bounded reads and whole-or-nothing writes.

Every file that mlpinfer reads or writes goes through this module, so that the two promises are
kept in one place: no declared size is believed before it is checked, and an output file appears
whole or not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mlpinfer.io.errors import FormatError

if TYPE_CHECKING:
    import numpy.typing as npt

#: The largest weight or data file that is read into memory, in bytes.
MAX_FILE_BYTES = 2 * 1024**3


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Raises
    ------
    FormatError
        If it is not a regular file, or cannot be read.
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
        raise FormatError(f"cannot be read: {why}") from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise FormatError(f"expected a regular file, found a {_kind(mode)}")
    return open(fd, "rb")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`; errors as `open_regular`."""
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_FILE_BYTES:
            raise FormatError(f"expected at most {MAX_FILE_BYTES} bytes, found {status.st_size}")
        try:
            # One byte more than promised, so that a file growing meanwhile is noticed, not followed.
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise FormatError(f"cannot be read: {error.strerror}") from None
        except MemoryError:
            raise FormatError("does not fit into memory") from None
    if len(data) != status.st_size:
        raise FormatError("changed while it was read, try again")
    return data


def read_into(out: npt.NDArray[Any], file: BinaryIO, offset: int) -> None:
    """Fill a contiguous array with the bytes behind `offset` of an open file.

    Raises
    ------
    FormatError
        If the file is too short, or cannot be read.
    """
    try:
        file.seek(offset)
        found = cast(Any, file).readinto(out)  # NumPy's arrays are no buffers to mypy before Python 3.12
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}") from None
    if found != out.nbytes:
        raise FormatError("changed while it was read, try again")


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for test, name in kinds.items() if test(mode)), "device")


def mode_of(path: str) -> int | None:
    """Return the permissions of a file or a folder, or None if there is none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def set_mode(path: str, mode: int | None) -> None:
    """Give a file or a folder these permissions, if the file system can; None leaves them as they are."""
    if mode is not None:
        with suppress(OSError):
            os.chmod(path, mode)


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
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
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
                # No more users may read the new file than could read the one that it replaces.
                set_mode(temporary, mode_of(target))
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
