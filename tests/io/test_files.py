import contextlib
import gzip
import io
import os
import zipfile

import numpy as np
import pytest

from mlpinfer.io import archives, files
from mlpinfer.io.archives import unpack_into, unzip
from mlpinfer.io.errors import FormatError
from mlpinfer.io.files import atomic_write, read_file
from tests.hostile import zips


def test_reads_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_file(tmp_path / "a") == b"abc"


def test_only_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (tmp_path, "folder"), ("/dev/zero", "device")):
        with pytest.raises(FormatError, match=f"expected a regular file, found a {kind}"):
            read_file(path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    with pytest.raises(FormatError, match="null"):
        read_file("a\0b")


def test_a_file_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(FormatError, match="at most 10 bytes, found 11"):
        read_file(tmp_path / "big")


def unpacked(packed):
    return gzip.GzipFile(fileobj=io.BytesIO(packed))


def test_a_gzip_file_is_unpacked_in_order(monkeypatch):
    monkeypatch.setattr(archives, "_PIECE_BYTES", 100)
    out, rest, nothing = np.empty((10, 25), ">u4"), np.empty(3, np.uint8), np.empty(0, np.uint8)
    source = unpacked(gzip.compress(b"abcd" * 150) + gzip.compress(b"abcd" * 100 + b"end"))
    for array in (nothing, out, rest, nothing):
        unpack_into(array, source)
    assert out.tobytes() == b"abcd" * 250
    assert rest.tobytes() == b"end"


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (gzip.compress(b"ab"), "cut short: 3 bytes expected, 2 found"),
        (gzip.compress(b"abc")[:12], "cut short"),
        (gzip.compress(b"ab")[:-8] + bytes(8), "damaged"),
        (gzip.compress(b"ab") + b"more", "damaged"),
        (gzip.compress(b"abc")[:10] + b"\xff" * 20, "damaged"),
    ],
)
def test_damaged_gzip_is_refused(packed, message):
    with pytest.raises(FormatError, match=message):
        unpack_into(np.empty(3, np.uint8), unpacked(packed))


def test_more_than_the_limit_is_not_unpacked():
    out = np.broadcast_to(np.uint8(0), 2**31 + 1)
    with pytest.raises(FormatError, match="expected at most"):
        unpack_into(out, unpacked(gzip.compress(bytes(10))))


def test_a_device_and_a_pipe_are_written_to_and_a_link_is_followed(tmp_path):
    with atomic_write("/dev/null") as file:
        file.write(b"gone")
    assert not os.path.isfile("/dev/null")
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_an_error_names_the_path_that_was_given(tmp_path):
    for path in (tmp_path / "no" / "file", tmp_path):
        with pytest.raises(OSError, match=r"o such file|directory") as caught, atomic_write(path):
            pass
        assert caught.value.filename == str(path)


def test_a_failed_write_leaves_nothing(tmp_path):
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), atomic_write(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_write_appears_whole_with_the_usual_mode(tmp_path):
    seen = []
    target = tmp_path / "out"
    with atomic_write(target) as file:
        file.write(b"all")
        seen.append(target.exists())
    (tmp_path / "plain").touch()
    assert seen == [False]
    assert target.read_bytes() == b"all"
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    class Large(io.FileIO):
        def read(self, size):
            raise MemoryError

    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(files, "open_regular", lambda path: Large(path))
    with pytest.raises(FormatError, match=r"does not fit into memory"):
        read_file(tmp_path / "a")


def test_members_of_a_zip_are_counted_before_there_is_an_object_for_each(monkeypatch):
    data = zips.many("a", 10_001)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(FormatError, match="at most 10000 files in the zip, found more"):
        unzip(data)


def test_members_of_a_zip_that_overlap_are_refused():
    with pytest.raises(FormatError, match="its members overlap"):
        unzip(zips.overlapping("name", 100, bytes(2**20)))


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.stat().st_mode & 0o777 == 0o600
