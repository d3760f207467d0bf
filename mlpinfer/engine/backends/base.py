"""The protocols of array backends: what the engine asks of a place where arrays live."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy.typing as npt

from mlpinfer.model.ops import Array


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
