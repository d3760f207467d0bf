"""Where arrays live: NumPy on the CPU, CuPy on a GPU.

A backend is chosen once, by name, and passed on; there is no current backend, no guessing from an
array, and no silent fall back. CuPy is imported when its backend is made and nowhere else.
"""

from __future__ import annotations

import re

from mlpinfer._text import quoted
from mlpinfer.engine.backends.base import Backend
from mlpinfer.engine.backends.numpy_backend import NumpyBackend
from mlpinfer.errors import DeviceError, InputError

_DEVICE = re.compile(r"(?:gpu|cuda)(?::([0-9]{1,4}))?")


def get_backend(device: str = "cpu") -> Backend:
    """Return the backend of a device.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``gpu`` or ``gpu:N``; ``cuda`` and ``cuda:N`` mean the same as the last two.

    Raises
    ------
    DeviceError
        If the device is not available, saying why and what to install.
    InputError
        If there is no such kind of device.
    """
    if device == "cpu":
        return NumpyBackend()
    if device == "auto":
        return _auto()
    match = _DEVICE.fullmatch(device) if isinstance(device, str) else None
    if match is None:
        raise InputError(f"device: expected auto, cpu, gpu or gpu:N, found {quoted(device)}")
    return _gpu(int(match[1] or 0))


def _auto() -> Backend:
    from mlpinfer.engine.backends import cuda_probe

    # CuPy takes 0.3 s to import: try it only where the driver's library is.
    if cuda_probe.driver_library() is not None:
        try:
            return _gpu(0)
        except DeviceError:
            pass
    return NumpyBackend()


def _gpu(index: int) -> Backend:
    from mlpinfer.engine.backends import cuda_probe

    diagnosis = cuda_probe.diagnose(index)
    if diagnosis.problems:
        raise DeviceError(f"gpu:{index} is not available: {diagnosis.advice()}")
    from mlpinfer.engine.backends.cupy_backend import CupyBackend

    return CupyBackend(index)
