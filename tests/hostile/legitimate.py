"""Files that must load, and what they hold."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlpinfer import Network
from mlpinfer.io.data import idx
from mlpinfer.io.weights.save import encode
from tests.builders import model, node, python_2
from tests.hostile import build


@dataclass(frozen=True)
class Legitimate:
    """A file, and the arrays of its network (W1, b1, ...) or its rows (and labels)."""

    name: str
    format: str
    data: bytes
    arrays: list[np.ndarray]

    @property
    def reader(self) -> str:
        return "data" if self.format in ("npy", "npz_rows", "idx", "csv", "image") else "weights"


def pickles() -> Iterator[tuple[str, bytes]]:
    arrays = build.layers()
    for protocol in range(6):
        yield f"protocol_{protocol}", pickle.dumps(arrays, protocol)
        fortran = {key: np.asfortranarray(array) for key, array in arrays.items()}
        yield f"fortran_{protocol}", pickle.dumps(fortran, protocol)
        yield f"ordered_{protocol}", pickle.dumps(OrderedDict(arrays), protocol)
    for dtype in ("<f2", "<f8", ">f2", ">f4", ">f8", "<i8", ">i4", "u1", "i1", "<u2"):
        yield f"dtype_{dtype}", pickle.dumps(build.layers(dtype), 3)
    for core in ("core", "_core"):
        yield f"numpy_{core}", build.pickled({k: build.array_opcodes(a, core) for k, a in arrays.items()})
    yield "flags_as_integers", pickle.dumps(arrays, 3).replace(b"\x89\x88\x87", b"K\0K\1\x87")
    extra = {"epochs": 3, "history": [0.1, 0.2], "config": {"lr": (1, None)}, "mask": np.ones(3)}
    yield "extra_keys", pickle.dumps(arrays | extra, 4)
    items = b"".join(b"S'" + key.encode() + b"'\n" + python_2(a) + b"s" for key, a in arrays.items())
    yield "python_2", b"(d" + items + b"."
    lists = {"coefs_": [arrays["W1"], arrays["W2"]], "intercepts_": [arrays["b1"], arrays["b2"]]}
    yield "scikit_learn", pickle.dumps(lists)
    strided = {key: np.repeat(array, 2, axis=0)[::2] for key, array in arrays.items()}
    yield "strided", pickle.dumps(strided, 5)


def torch_zips() -> Iterator[tuple[str, bytes]]:
    state = build.state_dict()
    for dtype in ("<f2", "<f4", "<f8"):
        yield f"dtype_{dtype}", build.torch(build.state_dict(dtype))
    parameter = b"ctorch._utils\n_rebuild_parameter\n("
    yield "parameters", build.torch(state, lambda t: parameter + t + b"\x88ccollections\nOrderedDict\n)RtR")
    yield "transposed", build.torch({key: np.asfortranarray(a) for key, a in state.items()})
    big = {key: a.astype(">f4").tobytes() for key, a in state.items()}
    yield (
        "big_endian",
        build.torch(state, byteorder=b"big", **{f"data/{i}": d for i, d in enumerate(big.values())}),
    )
    opcodes = {
        key: build.tensor(str(i), "Float", a.size, 0, a.shape, [s // 4 for s in a.strides])
        for i, (key, a) in enumerate(state.items())
    }
    storages = {f"data/{i}": a.tobytes() for i, a in enumerate(state.values())}
    yield "dict", build.torch_zip(opcodes, storages, ordered=False)
    inner = b"}(" + b"".join(build.text(key) + value for key, value in opcodes.items()) + b"u"
    for key in ("state_dict", "model_state_dict", "model"):
        outer = b"\x80\2}(" + build.text(key) + inner + build.text("epoch") + b"K\3u."
        yield f"checkpoint_{key}", build.torch_file(outer, storages)
    flat = b"".join(storages.values())
    at, views = 0, {}
    for key, a in state.items():
        views[key] = build.tensor("0", "Float", len(flat) // 4, at, a.shape, [s // 4 for s in a.strides])
        at += a.size
    yield "one_storage", build.torch_zip(views, {"data/0": flat})
    yield "deflated", build.torch_file(b"\x80\2" + inner + b".", storages, method=zipfile.ZIP_DEFLATED)


def npzs() -> Iterator[tuple[str, bytes]]:
    yield "stored", build.npz(build.layers())
    yield "deflated", build.npz(build.layers(), compressed=True)
    yield "float16", build.npz(build.layers("<f2"))
    yield "big_endian", build.npz(build.layers(">f8"))
    yield "integers", build.npz(build.layers("<i4"))
    yield "fortran", build.npz({key: np.asfortranarray(a) for key, a in build.layers().items()})
    yield "extra_member", build.npz(build.layers() | {"mask": np.ones((2, 2, 2))})


def safetensors_files() -> Iterator[tuple[str, bytes]]:
    for dtype in ("<f2", "<f4", "<f8", "<i4", "u1"):
        yield f"dtype_{dtype}", build.safetensors(build.layers(dtype))
    yield "metadata", build.safetensors(build.layers(), format="pt", layout="in-out")
    yield "state_dict", build.safetensors(build.state_dict())


def onnx_files() -> Iterator[tuple[str, bytes]]:
    a = build.layers()
    constants = list(a.items())
    ours = Network.from_arrays([a["W1"], a["W2"]], [a["b1"], a["b2"]])
    yield "ours", encode(ours, "a.onnx")
    yield "ours_float64", encode(ours.astype(np.float64), "a.onnx")
    last = node("Gemm", ["a", "W2", "b2"], ["y"])
    yield "gemm", model([node("Gemm", ["x", "W1", "b1"], ["h"]), node("Relu", ["h"], ["a"]), last], constants)
    nodes = [
        node("MatMul", ["x", "W1"], ["z"]),
        node("Add", ["z", "b1"], ["h"]),
        node("Tanh", ["h"], ["a"]),
        last,
    ]
    yield "matmul_add", model(nodes, constants)
    nodes = [node("Gemm", ["x", "T", "b1"], ["h"], transB=1), node("Relu", ["h"], ["a"]), last]
    yield "transposed", model(nodes, [*constants, ("T", a["W1"].T.copy())])
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("Gemm", ["f", "W1", "b1"], ["h"]),
        node("Relu", ["h"], ["a"]),
        last,
    ]
    yield "flatten", model(nodes, constants)


X = np.arange(12).reshape(4, 3) * 7 % 11


def npy_files() -> Iterator[tuple[str, bytes, list[np.ndarray]]]:
    for dtype in ("u1", "<f4", ">f8", "<f2", "<i8", "?"):
        x = X.astype(dtype)
        yield f"dtype_{dtype[-2:]}", build.npy_file(x), [x]
    yield "fortran", build.npy_file(np.asfortranarray(X)), [X]
    for version in ((1, 0), (2, 0), (3, 0)):
        yield f"version_{version[0]}", build.npy_file(X, version), [X]
    yield "images", build.npy_file(X.reshape(2, 2, 3)), [X.reshape(2, 2, 3)]


def npz_rows() -> Iterator[tuple[str, bytes, list[np.ndarray]]]:
    y = np.arange(4)
    yield "x_and_y", build.npz({"x": X, "y": y}), [X, y]
    yield "images_and_labels", build.npz({"images": X, "labels": y}, compressed=True), [X, y]
    yield "rows_alone", build.npz({"arr_0": X}), [X]


def idx_files() -> Iterator[tuple[str, bytes, list[np.ndarray]]]:
    for dtype in ("u1", "i1", ">i2", ">i4", ">f4", ">f8"):
        x = X.astype(dtype)
        yield f"plain_{dtype[-2:]}", idx.encode(x), [x]
        yield f"gzip_{dtype[-2:]}", gzip.compress(idx.encode(x)), [x]


def csv_files() -> Iterator[tuple[str, bytes, list[np.ndarray]]]:
    lines = "\n".join(",".join(map(str, row)) for row in X.tolist())
    yield "plain", lines.encode(), [X]
    yield "header", f"a,b,c\n{lines}\n".encode(), [X]
    yield "mark_and_carriage_returns", f"\ufeff{lines}\n".replace("\n", "\r\n").encode(), [X]
    yield "quoted", "\n".join(",".join(f'"{n}"' for n in row) for row in X.tolist()).encode(), [X]
    yield "empty_lines", f"\n\n{lines}\n\n".encode(), [X]


def images() -> Iterator[tuple[str, bytes, list[np.ndarray]]]:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    for name, image in {
        "grey": Image.fromarray(pixels),
        "palette": Image.fromarray(pixels).convert("P"),
        "colour": Image.fromarray(np.stack([pixels] * 3, 2)),
        "alpha": Image.fromarray(np.dstack([pixels] * 3 + [np.full((4, 4), 255, np.uint8)])),
    }.items():
        file = io.BytesIO()
        image.save(file, "PNG")
        yield name, file.getvalue(), [pixels[None]]
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "JPEG", exif=_exif())
    yield "jpeg_turned", file.getvalue(), [np.zeros((1, 4, 4), np.uint8)]
    for kind in ("L", "RGB", "CMYK"):
        file = io.BytesIO()
        Image.new(kind, (4, 4)).save(file, "JPEG")
        yield f"jpeg_{kind}", file.getvalue(), [np.full((1, 4, 4), 255 if kind == "CMYK" else 0, np.uint8)]


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    return exif.tobytes()


def files() -> list[Legitimate]:
    """All of them."""
    network = list(build.layers().values())
    weights = {
        "pickle": pickles,
        "torch": torch_zips,
        "npz": npzs,
        "safetensors": safetensors_files,
        "onnx": onnx_files,
    }
    rows = {"npy": npy_files, "npz_rows": npz_rows, "idx": idx_files, "csv": csv_files, "image": images}
    return [
        *(
            Legitimate(f"{kind}_{name}", kind, data, network)
            for kind, make in weights.items()
            for name, data in make()
        ),
        *(Legitimate(f"{kind}_{name}", kind, *rest) for kind, make in rows.items() for name, *rest in make()),
    ]
