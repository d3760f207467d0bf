"""The MNIST test set, 10,000 images of handwritten digits, bundled with the package.

By Yann LeCun and Corinna Cortes, CC BY-SA 3.0; the official files, compressed again.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.data_files import PIXEL_SCALE, Dataset, load_data
from mlpinfer.errors import DatasetError

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_mnist")
IMAGES = os.path.join(_FOLDER, "t10k-images-idx3-ubyte.gz")
LABELS = os.path.join(_FOLDER, "t10k-labels-idx1-ubyte.gz")
#: SHA-256 of images and labels as raw values: the official files less their headers.
_IMAGES_SHA256 = "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
_LABELS_SHA256 = "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"


def load_mnist_dataset() -> Dataset:
    """Return the test set as it is on disk: uint8 images (10000, 28, 28), scale 1/255.

    Raises
    ------
    DatasetError
        If the bundled files are not the official ones.
    """
    data = load_data(IMAGES, LABELS)
    for array, digest in ((data.x, _IMAGES_SHA256), (data.y, _LABELS_SHA256)):
        if hashlib.sha256(array).hexdigest() != digest:  # type: ignore[arg-type]
            raise DatasetError(f"{_FOLDER}: the bundled test set is damaged, install mlpinfer again")
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
