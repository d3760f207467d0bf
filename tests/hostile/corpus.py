"""All attacks."""

from __future__ import annotations

from tests.hostile import images, npy_npz, onnx, pickles, places, rows, safetensors, torch_zips
from tests.hostile.attack import Attack


def files() -> list[Attack]:
    return [
        *pickles.attacks(),
        *torch_zips.attacks(),
        *npy_npz.attacks(),
        *safetensors.attacks(),
        *onnx.attacks(),
        *rows.idx_attacks(),
        *rows.csv_attacks(),
        *images.attacks(),
        *places.attacks(),
    ]
