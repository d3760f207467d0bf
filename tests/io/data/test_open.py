import gzip
import io
import os
import resource
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mlpinfer import Dataset, DatasetError, MlpInferError, load_data
from mlpinfer.io.data import idx
from mlpinfer.io.data.open import check_features, open_rows
from mlpinfer.io.data.read_options import ReadOptions
from tests.hostile import images as hostile_images

DTYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]


@given(data=st.data(), dtype=st.sampled_from(DTYPES), packed=st.booleans())
def test_idx_round_trip(tmp_path_factory, data, dtype, packed):
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5)))
    raw = idx.encode(array)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    _, found = rows_of(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "expected rows, found an empty file"),
        (b"\0\0\x08", "cut short"),
        (b"\1\0\x08\1\0\0\0\1x", "expected .npy, .npz, IDX, CSV, PNG or JPEG, found none of these"),
        (b"\0\0\x0a\1\0\0\0\1x", "expected an IDX file"),
        (b"\0\0\x08\0x", "expected an IDX file"),
        (b"\0\0\x08\1\0\0\0\0", "above zero"),
        (b"\0\0\x08\1\0\0\0\2x", "cut short: 2 bytes expected, 1 found"),
        (b"\0\0\x08\1\0\0\0\1xy", "1 bytes more than its header says"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "cut short"),
        (struct.pack(">HBB9I", 0, 8, 9, *[1] * 9) + b"x", "1 to 8 dimensions"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damaged_idx_is_refused(tmp_path, raw, message, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(raw))
    with pytest.raises(DatasetError) as caught:
        rows_of(path)
    assert str(path) in str(caught.value)
    if pack is bytes:
        assert message in str(caught.value)


@pytest.fixture
def images(tmp_path):
    def write(shape, dtype=np.uint8, labels=None):
        (tmp_path / "x").write_bytes(idx.encode(np.ones(shape, dtype)))
        (tmp_path / "y").write_bytes(idx.encode(np.zeros(labels or shape[:1], np.uint8)))
        return tmp_path / "x", tmp_path / "y"

    return write


def test_images_of_bytes_carry_a_scale_and_other_arrays_do_not(images):
    data = load_data(*images((5, 3, 3)))
    assert (data.samples, data.features, data.scale, data.name) == (5, 9, 1 / 255, "x")
    assert load_data(*images((5, 9), np.float32)).scale is None
    assert load_data(*images((5, 3, 3)), scale=1).scale == 1


def test_rows_and_labels_must_agree(images):
    with pytest.raises(DatasetError, match="expected 5 labels, one a row, found 4"):
        load_data(*images((5, 3, 3), labels=(4,)))
    x, y = images((5, 3, 3))
    y.write_bytes(idx.encode(np.eye(5, dtype=np.uint8)))
    assert load_data(x, y).y.shape == (5, 5)  # one-hot
    with pytest.raises(DatasetError, match="expected labels, found images"):
        load_data(*images((5, 3, 3), labels=(5, 3, 3)))


def test_arrays_that_are_no_rows_are_refused():
    for x in (np.ones(3), np.ones((0, 3)), np.array([["a"]]), np.array([[None]])):
        with pytest.raises(DatasetError, match="expected"):
            Dataset(x)


# -- other formats, and many files --------------------------------------------------------------------


def rows_of(*inputs, **how):
    rows = open_rows(inputs, ReadOptions(**how))
    return rows, rows.read(0, rows.samples)


@given(
    data=st.data(),
    dtype=st.sampled_from([*DTYPES, np.uint16, np.int64, np.float16, np.bool_, np.dtype(">f4")]),
    fortran=st.booleans(),
)
def test_npy_round_trip(tmp_path_factory, data, dtype, fortran):
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5)))
    path = tmp_path_factory.mktemp("npy") / "file"
    with path.open("wb") as file:
        np.save(file, np.asfortranarray(array) if fortran else array)
    rows, x = rows_of(path)
    if not fortran:
        assert rows.mapped == np.dtype(dtype).isnative
    np.testing.assert_array_equal(x, array)
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(array))] * 2)))
    np.testing.assert_array_equal(rows.read(begin, end), array[begin:end])
    np.testing.assert_array_equal(rows.map(begin, end), array[begin:end])


@pytest.mark.parametrize("kind", ["npy", "fortran", "big_endian", "idx", "several"])
def test_rows_are_read_as_they_are_mapped(tmp_path, kind):
    x = np.random.default_rng(0).integers(0, 2**15, (20_000, 3, 2)).astype(np.int16)
    if kind == "idx":
        (tmp_path / "x").write_bytes(idx.encode(x))
    else:
        order = np.asfortranarray if kind == "fortran" else np.ascontiguousarray
        for i in range(2 if kind == "several" else 1):
            np.save(tmp_path / f"{i}.npy", order(x).astype(">i2" if kind == "big_endian" else "i2"))
    rows, expected = open_rows([tmp_path]), np.concatenate([x, x]) if kind == "several" else x
    for begin, end in ((0, 20_000), (5, 6), (19_990, 20_000), (0, 0), (10, rows.samples)):
        found, mapped = rows.read(begin, end), rows.map(begin, end)
        np.testing.assert_array_equal(found, expected[begin:end])
        np.testing.assert_array_equal(mapped, expected[begin:end])
        assert found.flags.writeable
        assert found.dtype == mapped.dtype


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (npy(np.ones((2, 3)))[:-1], "expected (2, 3) of float64, found 47 bytes"),
        (npy(np.ones((2, 3))) + b"x", "found 49 bytes"),
        (npy(np.ones((2, 3)))[:40], "header"),
        (npy(np.array([{}, None])), "expected floats or integers"),
        (npy(np.ones((2, 3), complex)), "expected floats or integers"),
        (npy(np.ones((0, 3))), "expected rows of features"),
        (npy(np.ones(())), "expected rows of features"),
        (npy(np.ones((2, 3))).replace(b"(2, 3)", b"(2, 9**9)"), "header"),
        (npy(np.ones((2, 3))).replace(b"(2, 3), }", b"(2147483647, 2147483647), }")[:400], "possible shape"),
    ],
)
def test_damaged_npy_is_refused(tmp_path, raw, message):
    path = tmp_path / "rows.npy"
    path.write_bytes(raw)
    with pytest.raises(DatasetError) as caught:
        open_rows([path])
    assert message in str(caught.value)


def test_npz_has_rows_and_labels(tmp_path):
    x, t = np.ones((4, 3), np.uint8), np.arange(4)
    for names in (("x", "y"), ("images", "labels"), ("x_test", "y_test")):
        np.savez_compressed(tmp_path / "both.npz", **dict(zip(names, (x, t), strict=True)))
        data = load_data(tmp_path / "both.npz")
        np.testing.assert_array_equal(data.x, x)
        np.testing.assert_array_equal(data.y, t)
    np.savez(tmp_path / "one.npz", features=x)
    np.testing.assert_array_equal(load_data(tmp_path / "one.npz").x, x)
    np.savez(tmp_path / "other.npz", weights=x, biases=x)
    with pytest.raises(DatasetError, match=r"expected an array called x, .*found weights, biases"):
        load_data(tmp_path / "other.npz")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_csv(tmp_path, header, end, begin):
    path = tmp_path / "rows.csv"
    lines = ["a,t,b"] * header + ["1,0,2.5", "", '"-3",1,4e-3', "5,2,nan"]
    path.write_text(begin + end.join(lines) + end, encoding="utf-8", newline="")
    rows, x = rows_of(path, label_column="t" if header else 1)
    np.testing.assert_array_equal(x, [[1, 2.5], [-3, 0.004], [5, np.nan]])
    assert rows.y.tolist() == [0, 1, 2]
    for begin, end in ((1, 2), (2, 3), (0, 1), (1, 3), (0, 0)):  # forwards and back
        np.testing.assert_array_equal(rows.read(begin, end), x[begin:end])
    assert rows_of(path)[1].shape == (3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "expected rows of numbers, found none"),
        ("a,b\n", "behind the header, found none"),
        ("1,2\n3\n", "line 2: expected 2 columns, found 1"),
        ("1,2\n3,x\n", "line 2, column 1 of 0 to 1: expected a number, found 'x'"),
        ('1,2\n3,"4\n', "expected CSV"),
        ("1,2\n" + "9" * 200_000 + ",1\n", "expected CSV"),
        ("1,2\n\udcff,3\n", "expected CSV"),
    ],
)
def test_damaged_csv_is_refused(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError) as caught:
        rows_of(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\r\n1,2\r\n\r\n3,x\r\n", "line 4, column 'b': expected a number, found 'x'"),
        ("\n\na,b\r1,2\r3\r", "line 5: expected 2 columns, found 1"),
        ('a,b\n"1",2\n3,""\n', "line 3, column 'b': expected a number, found ''"),
        ('a,b\n1,2\n"3\n",x\n', "line 4, column 'b': expected a number, found 'x'"),
        ("a,b\n" + "1,2\n" * 10_000 + "1,2,3\n1\n", "line 10002: expected 2 columns, found 3"),
        ("a\n1\n \n", "line 3, column 'a': expected a number, found ' '"),
        ('1,2\n1,2,3\n"1",2\n1,"2"x\n', "line 2: expected 2 columns, found 3"),
        ('1,2\n"1",2\n1,"2"x\n', "line 3: expected CSV: "),
        ("a\n \n1\n", "line 2, column 'a': expected a number, found ' '"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 2**18])
def test_what_is_wrong_with_csv_is_found_by_its_line(tmp_path, monkeypatch, text, message, size):
    monkeypatch.setattr("mlpinfer.io.data.csv._BLOCK_CHARACTERS", size)
    (tmp_path / "x.csv").write_text(text, newline="")
    with pytest.raises(DatasetError, match=message):
        rows_of(tmp_path / "x.csv")


def test_what_is_wrong_with_a_row_of_csv_is_said_of_it_alone(tmp_path):
    (tmp_path / "x.csv").write_text("1\n" * 500 + "x\n" + "2\n" * 5_000)
    rows = open_rows([tmp_path / "x.csv"])
    for begin, end in ((0, 500), (501, 5_501), (100, 400)):
        assert rows.read(begin, end).shape == (end - begin, 1)
        with pytest.raises(DatasetError, match="line 501, "):
            rows.read(500, 600)


@pytest.mark.parametrize("left", ["", "a,b\n", "\n\n", "a,b\n1,2\n"])
def test_csv_that_is_cut_meanwhile_is_refused(tmp_path, left):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3,4\n")
    rows = open_rows([tmp_path / "x.csv"])
    (tmp_path / "x.csv").write_text(left)
    with pytest.raises(DatasetError, match="changed while it was read"):
        rows.read(0, 2)


@pytest.mark.parametrize("space", "\x1c\x1d\x1e\x1f")
def test_only_what_python_takes_for_blanks_stands_around_numbers(tmp_path, space):
    (tmp_path / "x.csv").write_text("1,2\n" * 50 + f"1{space},2\n")
    with pytest.raises(DatasetError, match="line 51, column 0 of 0 to 1: expected a number"):
        rows_of(tmp_path / "x.csv")


@pytest.mark.parametrize("length", [200_000, 20_000_000])
def test_csv_of_long_cells_is_refused_when_it_is_opened(tmp_path, length):
    (tmp_path / "x.csv").write_text("1\n" * 100_000 + "1" * length + "\n2\n")
    with pytest.raises(DatasetError, match=r"expected CSV|expected rows of at most"):
        open_rows([tmp_path / "x.csv"])


def test_a_csv_file_that_was_read_to_its_end_is_not_kept(tmp_path):
    (tmp_path / "x.csv").write_text("1\n" * 1_000)
    rows, _ = rows_of(tmp_path / "x.csv")
    assert not rows._block.rows


NUMBERS = st.one_of(
    st.floats(width=64).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f" {x:+.3e} "),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["inf", "-Infinity", "NaN", "1.", ".5", "٣"]),
)


@given(st.data(), st.integers(1, 4), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 40), st.booleans())
def test_csv_is_read_as_python_reads_numbers(tmp_path_factory, data, width, end, size, quotes):
    cells = data.draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=8))
    empty = data.draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells)))
    lines = [
        ",".join(f'"{cell}"' if quotes and i == 1 else cell for cell in row) + end * (1 + blank)
        for i, (row, blank) in enumerate(zip(cells, empty, strict=True))
    ]
    path = tmp_path_factory.getbasetemp() / "law.csv"
    path.write_text("".join(lines), encoding="utf-8", newline="")
    expected = np.array([[float(cell) for cell in row] for row in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlpinfer.io.data.csv._BLOCK_CHARACTERS", size)
        rows = open_rows([path], ReadOptions(header=False))
        np.testing.assert_array_equal(rows.read(0, rows.samples), expected)
        for i in range(len(cells)):
            np.testing.assert_array_equal(rows.read(i, i + 1), expected[i : i + 1])
        if width > 1:
            labelled = open_rows([path], ReadOptions(header=False, label_column=1))
            np.testing.assert_array_equal(labelled.y.astype(float), expected[:, 1])
            np.testing.assert_array_equal(labelled.read(0, len(cells)), np.delete(expected, 1, axis=1))


def test_label_columns_that_are_not_there(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    for column in ("c", 2, "-1"):
        with pytest.raises(DatasetError, match="label column: expected one of 'a, b', found"):
            open_rows([tmp_path / "rows.csv"], ReadOptions(label_column=column))


def test_images(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.full((90, 60, 3), 200, np.uint8)).save(tmp_path / "b.jpg")
    rows, x = rows_of(tmp_path, side=28)
    assert (x.shape, x.dtype, rows.scale) == ((2, 28, 28), np.uint8, 1 / 255)
    np.testing.assert_array_equal(x[0], pixels)
    assert abs(int(x[1].mean()) - 200) < 3
    np.testing.assert_array_equal(rows_of(tmp_path / "a.png", side=28, invert=True)[1][0], 255 - pixels)
    with pytest.raises(DatasetError, match="expected a network of square images"):
        open_rows([tmp_path])
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"b\.jpg: expected a PNG or JPEG image"):
        rows_of(tmp_path, side=28)


def test_rows_of_another_width_are_refused_with_a_hint(tmp_path):
    check_features("x", (7, 4), 28)
    for shape, hint in (((5,), "is one the label"), ((1,), "CSV has commas"), ((3,), r"found shape \(3,\)$")):
        with pytest.raises(DatasetError, match=hint):
            check_features("x.csv", shape, 4)
        with pytest.raises(DatasetError, match=r"\)$"):
            check_features("x.npy", shape, 4)


def test_images_need_pillow(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MlpInferError, match=r"reading images needs pillow: pip install pillow"):
        open_rows([tmp_path], ReadOptions(side=28))


def test_several_files_are_one_sequence(tmp_path):
    parts = [np.full((n, 4), n, np.float32) for n in (3, 1, 5)]
    for i, part in enumerate(parts):
        np.save(tmp_path / f"{i}.npy", part)
    expected = np.concatenate(parts)
    for inputs in ([tmp_path], [tmp_path / "*.npy"], [tmp_path / f"{i}.npy" for i in range(3)]):
        rows, x = rows_of(*inputs)
        np.testing.assert_array_equal(x, expected)
        assert rows.mapped
        for begin in range(9):
            for end in range(begin, 10):
                np.testing.assert_array_equal(rows.read(begin, end), expected[begin:end])
    np.save(tmp_path / "3.npy", np.ones((2, 5)))
    with pytest.raises(DatasetError, match=r"3\.npy: expected rows of shape \(4,\) .*, found \(5,\)"):
        open_rows([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="expected a folder of data files, found none in it"):
        open_rows([tmp_path / "empty"])
    for nothing in (tmp_path / "*.csv", tmp_path / "no.npy"):
        with pytest.raises(FileNotFoundError):
            open_rows([nothing])


def test_a_gzipped_file_is_read_in_any_order(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (50, 3, 2)).astype(np.uint8)
    data = idx.encode(array)
    (tmp_path / "x.gz").write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))  # two members
    rows = open_rows([tmp_path / "x.gz"])
    assert not rows.mapped
    for begin, end in ((0, 10), (10, 50), (20, 30), (45, 50), (0, 50)):
        np.testing.assert_array_equal(rows.read(begin, end), array[begin:end])


def test_labels_of_other_formats(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "t.npy", np.array([0, 1, 2]))
    (tmp_path / "t.csv").write_text("label\n0\n1\n2\n")
    for name in ("t.npy", "t.csv"):
        data = load_data(tmp_path / "x.npy", tmp_path / name)
        assert data.y.tolist() == [0, 1, 2]
        assert data.y.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "header", "expected"),
    [
        ("0,1\n2,3\n", None, [[0, 1], [2, 3]]),
        ("0,1\n2,3\n", True, [[2, 3]]),  # pixels, say, with numbers for names
        ("0,1\n2,3\n", False, [[0, 1], [2, 3]]),
        ("a,1\n2,3\n", True, [[2, 3]]),
        ("a,b\n2,3\n", None, [[2, 3]]),
    ],
)
def test_header_of_csv(tmp_path, text, header, expected):
    (tmp_path / "x.csv").write_text(text)
    assert rows_of(tmp_path / "x.csv", header=header)[1].tolist() == expected


def test_a_header_that_is_not_plain_is_asked_for(tmp_path):
    (tmp_path / "x.csv").write_text("a,1\n2,3\n")
    with pytest.raises(DatasetError, match=r"names of all columns, found 'a'; say --header"):
        open_rows([tmp_path / "x.csv"])
    with pytest.raises(DatasetError, match="line 1, column 0 of 0 to 1: expected a number, found 'a'"):
        rows_of(tmp_path / "x.csv", header=False)
    (tmp_path / "x.csv").write_text("7,8\n2,3\n")
    rows = open_rows([tmp_path / "x.csv"], ReadOptions(header=True, label_column="8"))
    assert (rows.y.tolist(), rows.read(0, 1).tolist()) == ([3], [[2]])


@pytest.mark.parametrize("kind", ["npy", "idx", "gz", "csv"])
def test_more_files_than_a_process_may_open(tmp_path, kind):
    for i in range(60):
        x = np.full((2, 3), i, np.uint8)
        data = {"npy": npy(x), "idx": idx.encode(x), "csv": b"%d,%d,%d\n" % (i, i, i) * 2}
        data["gz"] = gzip.compress(data["idx"])
        (tmp_path / f"{i:02}").write_bytes(data[kind])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
    try:
        rows, x = rows_of(tmp_path)
        again = rows.read(1, 119)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    np.testing.assert_array_equal(x[:, 0], np.repeat(np.arange(60), 2))
    np.testing.assert_array_equal(again, x[1:119])


@pytest.mark.parametrize("kind", ["npy", "idx", "gz"])
def test_a_file_that_changes_while_it_is_read(tmp_path, kind):
    path = tmp_path / "x"

    def write(rows):
        x = np.ones((rows, 3), np.uint8)
        plain = npy(x) if kind == "npy" else idx.encode(x)
        path.write_bytes(gzip.compress(plain) if kind == "gz" else plain)

    write(10)
    rows = open_rows([path])
    write(9)
    with pytest.raises(DatasetError, match="changed while it was read, try again"):
        rows.read(0, 10)


def test_labels_in_some_files_only_are_refused(tmp_path):
    np.savez(tmp_path / "0.npz", x=np.ones((2, 3)), y=np.zeros(2))
    np.savez(tmp_path / "1.npz", x=np.ones((2, 3)))
    with pytest.raises(DatasetError, match="expected labels in all or none, found them in 1"):
        open_rows([tmp_path])


@pytest.mark.parametrize("y", [np.float64(3), np.ones(3)])
def test_labels_of_an_npz_are_one_a_row(tmp_path, y):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3)), y=y)
    with pytest.raises(DatasetError, match="expected 4 labels, one a row, found"):
        load_data(tmp_path / "a.npz")


def test_a_damaged_npz_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\3\4")
    with pytest.raises(DatasetError, match=r"a\.npz: damaged zip"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(12, "x"), "cannot be mapped into memory: x"), (ValueError("x"), "changed while")],
)
@pytest.mark.parametrize("encode", [npy, idx.encode])
def test_a_file_that_cannot_be_mapped(tmp_path, monkeypatch, encode, error, message):
    def memmap(*args):
        raise error

    (tmp_path / "x").write_bytes(encode(np.ones((2, 3), np.uint8)))
    monkeypatch.setattr(np, "memmap", memmap)
    with pytest.raises(DatasetError, match=message):
        load_data(tmp_path / "x")


def test_a_regular_file_that_cannot_be_read():
    with pytest.raises(DatasetError, match="/proc/self/mem: cannot be read: Input/output error"):
        open_rows(["/proc/self/mem"])


@pytest.mark.parametrize("name", ["a\x1b[31m.csv", "a\n.csv", "a\udcff.csv"])
def test_names_that_would_not_print(tmp_path, name):
    (tmp_path / name).write_text("1,2\n")
    for inputs in (tmp_path, tmp_path / "*.csv"):
        assert open_rows([inputs]).samples == 1
    (tmp_path / name).write_text("1,none\n")
    with pytest.raises(DatasetError, match="line 1: expected numbers") as caught:
        open_rows([tmp_path]).read(0, 1)
    assert str(caught.value).isprintable()


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(hostile_images.scans(20_000, 400))
    with pytest.raises(DatasetError, match=r"expected about ten scans of its pixels, found 20006"):
        load_data(tmp_path / "a.jpg", side=4)
    (tmp_path / "a.jpg").write_bytes(hostile_images.scans(20, 400))
    assert load_data(tmp_path / "a.jpg", side=4).x.shape == (1, 4, 4)


def test_a_gzipped_file_cannot_declare_more_than_it_may_hold(tmp_path, mnist):
    header = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 28, 28)
    (tmp_path / "a.gz").write_bytes(gzip.compress(header))
    Image.fromarray(mnist[0][0].reshape(28, 28)).save(tmp_path / "b.png")
    for inputs in ([tmp_path / "a.gz"], [tmp_path]):
        with pytest.raises(DatasetError, match=r"a\.gz: cut short: \d+ compressed bytes cannot hold"):
            open_rows(inputs, ReadOptions(side=28))


def test_names_of_rows_take_no_list(tmp_path, mnist):
    """A name for each image and, for each row of another file, that file's."""
    np.save(tmp_path / "0.npy", mnist[0][:3].reshape(-1, 28, 28))
    (tmp_path / "1.idx").write_bytes(idx.encode(mnist[0][:3].reshape(-1, 28, 28)))
    for name in ("2.png", "3.png"):
        Image.fromarray(mnist[0][0].reshape(28, 28)).save(tmp_path / name)
    rows = open_rows([tmp_path / "1.idx", tmp_path / "2.png", tmp_path / "3.png"], ReadOptions(side=28))
    names = [os.path.basename(rows.names[i]) for i in range(rows.samples)]
    assert names == ["1.idx"] * 3 + ["2.png", "3.png"]
    assert len(rows.names) == 5


def test_a_row_of_csv_that_quotes_span_over_many_lines_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr("mlpinfer.io.data.csv._MOST_CHARACTERS", 100)
    (tmp_path / "x.csv").write_text("1,2\n" * 100)
    assert open_rows([tmp_path / "x.csv"]).samples == 100
    (tmp_path / "x.csv").write_text('"1\n",' * 100 + "2\n")
    with pytest.raises(DatasetError, match="expected rows of at most 100 characters, found more"):
        open_rows([tmp_path / "x.csv"])


@pytest.mark.parametrize("path", ["loop", "x.npy/y", "n" * 300])
def test_paths_that_lead_nowhere_are_data_that_is_refused(run, tmp_path, path):
    (tmp_path / "loop").symlink_to("loop")
    np.save(tmp_path / "x.npy", np.ones((2, 784)))
    for command in (["score", "--data", path], ["predict", path], ["predict", path, "--out", "o.npy"]):
        done = run(*command)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (5, "", 1), command


def test_rows_of_files_of_several_dtypes_have_one(tmp_path):
    np.save(tmp_path / "1.npy", np.full((3, 2), 7, np.uint8))
    np.save(tmp_path / "2.npy", np.full((3, 2), 0.5))
    rows = open_rows([tmp_path])
    for begin, end in ((0, 0), (0, 2), (2, 4), (4, 6)):
        assert rows.read(begin, end).dtype == rows.map(begin, end).dtype == np.float64
