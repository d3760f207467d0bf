"""What this machine can run networks on: its devices, each tried, and the compiled evaluator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlpinfer._json import Report
from mlpinfer.engine.backends import cuda_probe
from mlpinfer.engine.backends.numpy_backend import usable_cores
from mlpinfer.engine.backends.select import get_backend
from mlpinfer.engine.compiled import availability
from mlpinfer.errors import DeviceError


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """One device: its name where it works, what is wrong and what to run where it does not."""

    device: str
    available: bool
    name: str | None
    backend: str
    problem: str | None = None
    fix: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inventory(Report):
    """Devices, the evaluator for the CPU, and what the search for a GPU found."""

    schema: ClassVar[str] = "mlpinfer.devices/1"

    devices: tuple[DeviceStatus, ...]
    compiled: availability.Compiled
    cores: int
    numpy: str
    cupy_packages: tuple[str, ...]
    driver: str | None


def inventory() -> Inventory:
    """Look at everything; never raises for a device that does not work.

    Raises
    ------
    InputError
        As `mlpinfer.engine.compiled.availability.find_compiled`.
    """
    diagnosis = cuda_probe.diagnose()
    gpus = [_gpu(index) for index in range(max(1, diagnosis.devices))]
    cpu = DeviceStatus(device="cpu", available=True, name=get_backend("cpu").describe(), backend="numpy")
    return Inventory(
        devices=(cpu, *gpus),
        compiled=availability.find_compiled(),
        cores=usable_cores(),
        numpy=np.__version__,
        cupy_packages=diagnosis.packages,
        driver=diagnosis.driver,
    )


def _gpu(index: int) -> DeviceStatus:
    device = f"gpu:{index}"
    diagnosis = cuda_probe.diagnose(index)
    problem: str = " and ".join(diagnosis.problems)
    fix: str | None = diagnosis.fix
    if not problem:
        try:
            name = get_backend(device).describe()
            return DeviceStatus(device=device, available=True, name=name, backend="cupy")
        except DeviceError as error:
            problem, fix = str(error), None
    return DeviceStatus(device=device, available=False, name=None, backend="cupy", problem=problem, fix=fix)
