"""The MNIST test set, 10,000 images of handwritten digits, bundled with the package.

By Yann LeCun and Corinna Cortes, CC BY-SA 3.0; the official files, compressed again.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DatasetError
from mlpinfer.io.data.dataset import Dataset, load_data
from mlpinfer.io.data.rows import PIXEL_SCALE
from mlpinfer.io.errors import data_file
from mlpinfer.io.files import read_file

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_mnist")
IMAGES = os.path.join(_FOLDER, "t10k-images-idx3-ubyte.gz")
LABELS = os.path.join(_FOLDER, "t10k-labels-idx1-ubyte.gz")
#: SHA-256 of the two files as they are bundled; a test holds what is in them to the official digests.
_SHA256 = {
    IMAGES: "197e111ae341b0770be9011ac5e622d0e6cd1c640b32eb0de5dc1dd26cc6e182",
    LABELS: "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}


def load_mnist_dataset() -> Dataset:
    """Return the test set as it is on disk: uint8 images (10000, 28, 28), scale 1/255.

    Raises
    ------
    DatasetError
        If the bundled files are not the official ones.
    """
    for path, digest in _SHA256.items():
        with data_file(path):
            found = hashlib.sha256(read_file(path)).hexdigest()
        if found != digest:
            raise DatasetError(f"{path}: the bundled test set is damaged, install mlpinfer again")
    data = load_data(IMAGES, LABELS)
    return Dataset(data.x, data.y, data.scale, "MNIST test")


def load_mnist(normalize: bool = True) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Return the images and labels of the test set.

    Parameters
    ----------
    normalize : bool
        True for float32 in [0, 1]; False for the raw uint8 pixels.

    Returns
    -------
    x : ndarray, shape (10000, 784), float32 or uint8
    t : ndarray, shape (10000,), uint8
    """
    data = load_mnist_dataset()
    x = data.x.reshape(data.samples, -1)
    assert data.y is not None
    return (x * np.float32(PIXEL_SCALE) if normalize else x), data.y
