import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpinfer import Dataset, DatasetError, load_data
from mlpinfer.data_files import idx

DTYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]


@given(data=st.data(), dtype=st.sampled_from(DTYPES), packed=st.booleans())
def test_idx_round_trip(tmp_path_factory, data, dtype, packed):
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5)))
    raw = idx.encode(array)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    found = idx.load(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "cut short"),
        (b"\0\0\x08", "cut short"),
        (b"\1\0\x08\1\0\0\0\1x", "expected an IDX file"),
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
        idx.load(path)
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
