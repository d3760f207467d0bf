"""What this machine can run networks on: its devices, each tried, and the compiled evaluator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpinfer.engine.backends import cuda_probe
from mlpinfer.engine.backends.numpy_backend import usable_cores
from mlpinfer.engine.backends.select import get_backend
from mlpinfer.engine.compiled import availability
from mlpinfer.errors import DeviceError

SCHEMA = "mlpinfer.devices/1"


@dataclass(frozen=True)
class DeviceStatus:
    """One device: its name where it works, what is wrong and what to run where it does not."""

    device: str
    available: bool
    name: str | None
    backend: str
    problem: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Inventory:
    """Devices, the evaluator for the CPU, and what the search for a GPU found."""

    devices: tuple[DeviceStatus, ...]
    compiled: availability.Compiled
    cores: int
    numpy: str
    cupy_packages: tuple[str, ...]
    driver: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, schema ``mlpinfer.devices/1``."""
        plain = dataclasses.asdict(self) | {"compiled": self.compiled._asdict()}
        return {"schema": SCHEMA, **plain}


def inventory() -> Inventory:
    """Look at everything; never raises for a device that does not work.

    Raises
    ------
    InputError
        As `mlpinfer.availability.find_compiled`.
    """
    diagnosis = cuda_probe.diagnose()
    gpus = [_gpu(index) for index in range(max(1, diagnosis.devices))]
    cpu = DeviceStatus("cpu", True, get_backend("cpu").describe(), "numpy")
    return Inventory(
        (cpu, *gpus),
        availability.find_compiled(),
        usable_cores(),
        np.__version__,
        diagnosis.packages,
        diagnosis.driver,
    )


def _gpu(index: int) -> DeviceStatus:
    device = f"gpu:{index}"
    diagnosis = cuda_probe.diagnose(index)
    if diagnosis.problems:
        return DeviceStatus(device, False, None, "cupy", " and ".join(diagnosis.problems), diagnosis.fix)
    try:
        backend = get_backend(device)
    except DeviceError as error:
        return DeviceStatus(device, False, None, "cupy", str(error), None)
    return DeviceStatus(device, True, backend.describe(), "cupy")
