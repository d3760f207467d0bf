"""What the targets share: seeds, and the one rule that holds for all of them."""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["mlpinfer", "pickletools", "zipfile", "csv", "json"]):
    import csv  # noqa: F401
    import json  # noqa: F401
    import pickletools  # noqa: F401
    import zipfile  # noqa: F401

    import mlpinfer.io.weights.convert  # noqa: F401
    from mlpinfer import DatasetError, WeightsError, load_data, load_network
    from mlpinfer.io.data import csv as csv_rows  # noqa: F401
    from mlpinfer.io.data import idx, images, npy  # noqa: F401
    from mlpinfer.io.weights import npz, numpy_pickle, onnx, safetensors, torch_zip  # noqa: F401

from tests.hostile import build, legitimate

#: Byte flips hardly ever pass a checksum: behind the first byte stands what is packed whole, or not.
_PACK: dict[str, Callable[[bytes], bytes]] = {
    "torch": lambda data: build.torch_file(data, {"data/0": bytes(16), "data/1": bytes(64)}),
    "npz": lambda data: build.zipped({"W1.npy": data, "b1.npy": build.npy_file(build.layers()["b1"])}),
    "idx": gzip.compress,
}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "torch": lambda data: next(m for n, m in _members(data).items() if n.endswith("data.pkl")),
    "npz": lambda data: _members(data)["W1.npy"],
    "idx": lambda data: gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data,
}


def _members(data: bytes) -> dict[str, bytes]:
    from mlpinfer.io.archives import unzip

    return unzip(data)


def seeds(kind: str) -> list[bytes]:
    """Valid files, as the target takes them."""
    files = [file.data for file in legitimate.files() if file.format == kind]
    if kind not in _PACK:
        return files
    return [b"\0" + data for data in files] + [b"\1" + _UNPACK[kind](data) for data in files]


def main(kind: str) -> None:
    """Fuzz the reader of one format; options of libFuzzer are on the command line."""
    folder = tempfile.mkdtemp()
    corpus = os.path.join(folder, "corpus")
    os.mkdir(corpus)
    for i, data in enumerate(seeds(kind)):
        with open(os.path.join(corpus, str(i)), "wb") as file:
            file.write(data)
    path = os.path.join(folder, "file")
    weights = kind in ("pickle", "torch", "npz", "safetensors", "onnx")

    unnamed: set[str] = set()

    def target(data: bytes) -> None:
        if kind in _PACK:
            data = _PACK[kind](data[1:]) if data[:1] == b"\1" else data[1:]
        with open(path, "wb") as file:
            file.write(data)
        try:
            if weights:
                load_network(path, hidden="relu", head="identity")
            else:
                load_data(path, side=4)
        except (WeightsError, DatasetError) as error:
            message = str(error)
            if len(message) >= 500 or not message.isprintable():
                raise AssertionError("a message that is long or not printable") from error
            why = message.rpartition(": ")[2]
            if why.startswith("damaged (") and why not in unnamed:  # caught, but by the last net alone
                unnamed.add(why)
                print(f"{why}: {data!r}", file=sys.stderr)

    atheris.Setup([*sys.argv, "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048", corpus], target)
    atheris.Fuzz()
