"""Things that are no file, under the name of one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

from tests.hostile.attack import Attack


def _folder_of(name: str | bytes, make: Callable[[str], None]) -> Callable[[str], None]:
    def inside(path: str) -> None:
        os.mkdir(path)
        make(os.path.join(path, os.fsdecode(name)))

    return inside


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        folder, name = os.path.split(path)
        here = os.open(folder, os.O_RDONLY)
        try:
            bound.bind(f"/proc/self/fd/{here}/{name}")  # the name of a socket is short
        finally:
            os.close(here)


def _write(text: bytes) -> Callable[[str], None]:
    def write(path: str) -> None:
        with open(path, "wb") as file:
            file.write(text)

    return write


_REGULAR = "expected a regular file, found a"


def attacks() -> Iterator[Attack]:
    for reader in ("weights", "data"):
        places: dict[str, tuple[Callable[[str], None], str]] = {
            "pipe": (os.mkfifo, f"{_REGULAR} pipe"),
            "socket": (_bind, "cannot be read"),
            "zero": (lambda path: os.symlink("/dev/zero", path), f"{_REGULAR} device"),
            "null": (lambda path: os.symlink("/dev/null", path), f"{_REGULAR} device"),
            "memory": (lambda path: os.symlink("/proc/self/mem", path), "cannot be read|none of these"),
            "circle": (lambda path: os.symlink(os.path.basename(path), path), "cannot be read"),
            "empty": (_write(b""), "none of these|cut short|empty file"),
        }
        if reader == "weights":
            places["folder"] = _folder_of("file", _write(b"x")), f"{_REGULAR} folder"
        else:
            places["folder_of_pipes"] = _folder_of("pipe", os.mkfifo), f"{_REGULAR} pipe"
            places["name"] = _folder_of("a\x1b[2J\nb", _write(b"x")), r"a\x1b[2J\nb: expected rows"
            places["name_of_bytes"] = _folder_of(b"\xff\xfe", _write(b"x")), r"\udcff\udcfe: expected rows"
        for name, (make, message) in places.items():
            yield Attack(f"{reader}_not_a_file_{name}", reader, "not_a_file", make, message)
