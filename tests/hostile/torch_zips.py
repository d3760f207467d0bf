"""Attacks in PyTorch's zips."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice, product
from string import ascii_lowercase

import numpy as np

from tests.conftest import ROOT
from tests.hostile import build, zips
from tests.hostile.attack import Attack
from tests.hostile.build import tensor, text, torch_zip
from tests.hostile.programs import programs

FIXTURES = ROOT / "tests" / "fixtures"
#: Sixteen bytes, where a weight of 2 x 2 lies.
_STORAGE = {"data/0": bytes(range(16))}


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"\x80\2N"))
    return file.getvalue()


def _one(key="0", kind="Float", numel=4, offset=0, size=(2, 2), stride=(2, 1)) -> bytes:
    return torch_zip({"fc.weight": tensor(key, kind, numel, offset, size, stride)}, _STORAGE)


_TENSORS = {
    "offset": (_one(offset=1), "beyond its storage"),
    "negative_offset": (_one(offset=-1), "beyond its storage"),
    "huge_offset": (_one(offset=2**62), "beyond its storage"),
    "size": (_one(size=(3, 2)), "beyond its storage"),
    "stride": (_one(stride=(3, 1)), "beyond its storage"),
    "overflow": (_one(size=(2, 2), stride=(2**39, 1)), "beyond its storage"),
    "negative_stride": (_one(stride=(-1, 1)), "whole numbers"),
    "repeated": (_one(stride=(0, 1)), "repeats its storage"),
    "repeated_far": (_one(size=(2**30, 2), stride=(0, 1)), "repeats its storage"),
    "overlap": (_one(size=(2, 3), stride=(1, 1)), "repeats its storage"),
    "ranks": (_one(size=(2,)), "beyond its storage|whole numbers"),
    "many_dimensions": (_one(size=(1,) * 9, stride=(1,) * 9), "at most 8"),
    "numel": (_one(numel=5), "expected 5 x float32"),
    "numel_of_all": (_one(numel=2**61), "float32, found 16 bytes"),
    "negative_numel": (_one(numel=-4), "float32, found 16 bytes"),
    "path": (_one(key="../0"), "malformed storage"),
    "other_digits": (_one(key="٠"), "malformed storage"),
    "missing": (_one(key="7"), "expected in the zip"),
    "complex": (_one(kind="ComplexDouble"), "torch.ComplexDoubleStorage"),
    "quantised": (_one(kind="QInt8"), "torch.QInt8Storage"),
    "untyped": (_one(kind="Untyped"), "torch.UntypedStorage"),
}


def _dicts() -> Iterator[tuple[str, bytes, str]]:
    opcodes = {"fc.weight": tensor("0", "Float", 4, 0, (2, 2), (2, 1))}
    yield (
        "persistent_text",
        build.torch_file(b"\x80\2}" + text("a") + text("0") + b"Qs.", _STORAGE),
        "malformed storage",
    )
    yield (
        "persistent_list",
        build.torch_file(b"\x80\2}" + text("a") + b"](" + b"N" * 5 + b"eQs.", _STORAGE),
        "malformed",
    )
    yield "module", build.torch_file(b"\x80\2c__torch__\nNet\n)\x81.", _STORAGE), "__torch__.Net"
    yield "no_tensor", build.torch_file(b"\x80\2}" + text("a") + b"K\1s.", _STORAGE), "expected a tensor"
    yield "no_dict", build.torch_file(b"\x80\2K\1.", _STORAGE), "expected a state_dict"
    yield (
        "state_of_a_tensor",
        torch_zip({k: v + b"}b" for k, v in opcodes.items()}, _STORAGE),
        "state of a tensor",
    )
    yield "byteorder", torch_zip(opcodes, _STORAGE | {"byteorder": b"middle"}), "byteorder little or big"
    yield "constants", torch_zip(opcodes, _STORAGE | {"constants.pkl": b"\x80\2)."}), "TorchScript"
    pair = {"a/data.pkl": b"\x80\2}.", "b/data.pkl": b"\x80\2}."}
    yield "two_pickles", build.zipped(pair), "TorchScript"
    yield "short_record", torch_zip(opcodes, {"data/0": bytes(15)}), "found 15 bytes"
    yield "tar", _tar(), "none of these"
    yield "legacy", (FIXTURES / "torch_legacy.pt").read_bytes(), "legacy format"
    yield "script", (FIXTURES / "torch_script.pt").read_bytes(), "TorchScript"
    damaged = bytearray(torch_zip(opcodes, {"data/0": b"unlikely bytes!!"}))
    damaged[damaged.index(b"unlikely")] ^= 1
    yield "checksum", bytes(damaged), "damaged"


def _values() -> Iterator[tuple[str, str, bytes, str]]:
    state = build.state_dict()
    nan = state["fc1.bias"] * np.float32(np.nan)
    yield "conversion", "nan", build.torch(state | {"fc1.bias": nan}), "found NaN or infinity"
    inf = state["fc1.weight"] + np.float32(np.inf)
    yield "conversion", "infinity", build.torch(state | {"fc1.weight": inf}), "found NaN or infinity"
    booleans = torch_zip({"fc.weight": tensor("0", "Bool", 4, 0, (2, 2), (2, 1))}, {"data/0": b"\0\1\0\1"})
    yield "conversion", "booleans", booleans, "expected float16"
    for name, size in {"first": (0, 2), "last": (2, 0), "huge": (10**11, 0)}.items():
        yield "zero_dimensions", name, _one(size=size), "beyond its storage|repeats"
    chain = state | {"fc2.weight": np.ones((2, 5), np.float32)}
    yield "shapes", "chain", build.torch(chain), "fc2.weight: expected shape"
    yield (
        "shapes",
        "biases",
        build.torch(state | {"fc2.bias": np.ones(3, np.float32)}),
        "fc2.bias: expected shape",
    )
    yield (
        "shapes",
        "norm",
        build.torch(state | {"bn.running_mean": state["fc1.bias"]}),
        "bn.running_mean: expected",
    )
    yield (
        "shapes",
        "convolution",
        build.torch(state | {"c.weight": np.ones((1, 1, 2, 2), "f4")}),
        "expected the weights",
    )
    words = ["".join(letters) for letters in islice(product(ascii_lowercase, repeat=4), 45_000)]
    one = tensor("0", "Float", 4, 0, (2, 2), (2, 1))
    names = b"".join(text(f"{word}.weight") + b"h\0" for word in words)
    many = build.torch_file(b"\x80\2" + one + b"q\0" + b"0}(" + names + b"u.", _STORAGE)
    yield "shapes", "many_names", many, "expected"


def attacks() -> Iterator[Attack]:
    def attack(danger, name, data, message, fires=None):
        return Attack(f"torch_{danger}_{name}", "torch", danger, data, message, fires)

    good = tensor("0", "Float", 4, 0, (2, 2), (2, 1))
    for program in programs():
        opcodes = b"\x80\2}(" + text("fc.weight") + good + text("extra") + program.opcodes + b"u."
        # NumPy's names, which the book's pickle may use, are none of PyTorch's
        refused = f"{program.message}|asks to run"
        message = "expected a tensor, found" if program.message is None else refused
        yield attack(program.danger, program.name, build.torch_file(opcodes, _STORAGE), message)
    fired = [program for program in programs() if program.fires][::9]
    for program in fired:  # with nothing that needs a persistent_load before it
        data = build.torch_file(b"\x80\2" + program.opcodes + b".", {})
        yield attack(program.danger, f"{program.name}_alone", data, program.message, "pickle")
    for name, (data, message) in _TENSORS.items():
        danger = (
            "reconstruct" if name in ("numel", "numel_of_all", "negative_numel", "missing") else "torch_zip"
        )
        yield attack(danger, name, data, message)
    for name, data, message in _dicts():
        yield attack("torch_zip", name, data, message)
    for danger, name, data, message in _values():
        yield attack(danger, name, data, message)
    files = build.torch(build.state_dict())
    for danger, name, data, message in zips.attacks(files, "archive/data/0"):
        yield attack(danger, name, data, message)
    deflated = build.torch_file(b"\x80\2N" + b"0N" * 10**6 + b".", {}, method=zipfile.ZIP_DEFLATED)
    yield attack("compression", "opcodes", deflated, "at most 100000 pickle opcodes")
    huge = b"\x80\2\x8d" + struct.pack("<q", 2**40) + b"a"
    yield attack("declared_sizes", "unicode_alone", build.torch_file(huge, {}), "malformed pickle")
