"""Where arrays live: NumPy on the CPU, CuPy on a GPU.

A backend is chosen once, by name, and passed on; there is no current backend, no guessing from an
array, and no silent fall back. CuPy is imported when its backend is made and nowhere else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlpinfer.backends.numpy_backend import NumpyBackend
from mlpinfer.errors import DeviceError, InputError, quoted
from mlpinfer.ops import Array

_DEVICE = re.compile(r"(?:gpu|cuda)(?::([0-9]{1,4}))?")


class Backend(Protocol):
    """What the engine asks of a place where arrays live.

    Attributes
    ----------
    name : str
        "numpy" or "cupy".
    device : str
        "cpu" or "gpu:N".
    xp : array namespace
    tile_bytes : int
        What the buffers of one forward call may take.
    """

    name: str
    device: str
    xp: Any
    tile_bytes: int

    def asarray(self, x: Array) -> Array:
        """Return `x` as an array of this backend, copied only where it lives elsewhere."""

    def to_host(self, x: Array) -> npt.NDArray[Any]:
        """Return `x` as a NumPy array."""

    def owns(self, x: object) -> bool:
        """Tell whether `x` is an array of this backend's library."""

    def active(self) -> AbstractContextManager[Any]:
        """Make the device ready for the work inside: a GPU current, BLAS at one thread."""

    def finish(self, activation: str) -> Callable[[Array, Array | None], None]:
        """Return a function that adds a bias, if any, to an array and applies an activation, in place."""

    def queue(self) -> Hashable:
        """Identify what orders the work of the calling thread: two threads of one queue never race."""

    def synchronize(self) -> None:
        """Wait until all that was asked of the device is done."""

    def describe(self) -> str:
        """Name of the processor or the graphics card."""

    def close(self) -> None:
        """Give unused device memory back."""


class Stream(Protocol):
    """A queue of work of its own; inside ``with``, it takes what the thread asks of the device."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exception: Any) -> Any: ...

    def synchronize(self) -> None:
        """Wait until all that is in it is done."""


class DeviceBackend(Backend, Protocol):
    """A backend whose arrays live apart from the host's memory."""

    def stream(self) -> Stream:
        """Return a new stream that waits for no other."""

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a NumPy array in page-locked memory."""

    def upload(self, x: npt.NDArray[Any], out: Array) -> None:
        """Copy from page-locked memory in the order of the current stream, without waiting."""

    def download(self, x: Array, out: npt.NDArray[Any]) -> None:
        """Copy to page-locked memory in the order of the current stream, without waiting."""


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


def fetch(x: Array) -> npt.NDArray[Any]:
    """Return any array or sequence as a NumPy array, from whatever device it is on."""
    if _is_of(x, "torch") and hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x.get() if _is_of(x, "cupy") else x)


def send_like(y: npt.NDArray[Any], x: Array) -> Array:
    """Return `y` in the library of `x`, on its device."""
    if not _is_of(x, "cupy"):
        return y
    with x.device:
        return sys.modules["cupy"].asarray(y)


def _is_of(x: object, package: str) -> bool:
    return type(x).__module__.partition(".")[0] == package


def _auto() -> Backend:
    from mlpinfer.backends import probe

    # CuPy takes 0.3 s to import: try it only where the driver's library is.
    if probe.driver_library() is not None:
        try:
            return _gpu(0)
        except DeviceError:
            pass
    return NumpyBackend()


def _gpu(index: int) -> Backend:
    from mlpinfer.backends import probe

    diagnosis = probe.diagnose(index)
    if diagnosis.problems:
        raise DeviceError(f"gpu:{index} is not available: {diagnosis.advice()}")
    from mlpinfer.backends.cupy_backend import CupyBackend

    return CupyBackend(index)
