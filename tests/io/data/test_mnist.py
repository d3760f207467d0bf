import hashlib

import numpy as np
import pytest

from mlpinfer import DatasetError, load_mnist
from mlpinfer.io.data import idx, mnist


def test_the_files_are_the_official_ones():
    expected = {
        mnist.IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        mnist.LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
    for path, digest in expected.items():
        rows = idx.IdxRows(path)
        assert hashlib.sha256(idx.encode(rows.read(0, rows.samples))).hexdigest() == digest


def test_normalized_and_raw():
    x, t = load_mnist()
    raw, _ = load_mnist(normalize=False)
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((10_000, 784), np.float32, (10_000,), np.uint8)
    assert (raw.dtype, raw.max(), x.max(), x.min()) == (np.uint8, 255, 1, 0)
    np.testing.assert_allclose(x, raw / 255, rtol=1e-6)
    assert t[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_damaged_bundle_is_noticed(monkeypatch):
    monkeypatch.setitem(mnist._SHA256, mnist.LABELS, "0" * 64)
    with pytest.raises(DatasetError, match="install mlpinfer again"):
        load_mnist()
