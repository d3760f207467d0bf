"""What an attack is, and what it is an attack on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Every danger that a reader must meet, and the formats it is met in.
DANGERS: dict[str, tuple[str, ...]] = {
    "globals": ("pickle", "torch"),  # dotted or unusual names of things to call
    "extensions": ("pickle", "torch"),  # EXT1 to 4, PERSID, INST, OBJ, NEWOBJ, buffers, sets
    "dtype_state": ("pickle", "npy", "npz"),
    "reconstruct": ("pickle", "torch"),  # arrays and tensors without contents, or with others than declared
    "build": ("pickle", "torch"),
    "declared_sizes": ("pickle", "torch", "npz", "safetensors", "onnx", "npy", "idx", "csv", "image"),
    "laughs": ("pickle", "torch"),
    "codecs_encode": ("pickle", "torch"),
    "nested_pickles": ("pickle", "torch", "npz", "npy"),
    "torch_zip": ("torch",),
    "zero_dimensions": ("pickle", "torch", "npz", "safetensors", "onnx", "npy", "idx"),
    "compression": ("torch", "npz", "idx", "image"),
    "parsers": ("torch", "npz", "safetensors", "onnx", "npy", "idx", "csv", "image"),
    "conversion": ("pickle", "torch", "npz", "safetensors", "onnx", "npy", "csv"),
    "not_a_file": ("weights", "data"),  # pipes, devices, folders
    "opcodes": ("pickle", "torch"),
    "external_tensors": ("onnx",),
    "images": ("image",),
    "shapes": ("pickle", "torch", "npz", "safetensors", "onnx"),
    "safetensors": ("safetensors",),
    "idx": ("idx",),
}
DATA_FORMATS = ("npy", "npz_rows", "idx", "csv", "image", "data")


@dataclass(frozen=True)
class Attack:
    """A hostile file.

    Attributes
    ----------
    danger : str
        Which of `DANGERS` it is.
    data : bytes or function
        The file, or what makes it at a path.
    message : str or None
        A part of what it must be refused with, by the reader of its format. None where it may do no
        harm instead.
    fires : str or None
        Which loader, of an unsafe kind, runs what is in it: "pickle" or "numpy".
    """

    name: str
    format: str
    danger: str
    data: bytes | Callable[[str], None]
    message: str | None
    fires: str | None = None

    @property
    def reader(self) -> str:
        return "data" if self.format in DATA_FORMATS else "weights"
