"""Arrays on an NVIDIA GPU. Importing this module imports CuPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from mlpinfer.errors import DeviceError


class CupyBackend:
    """CuPy arrays in the memory of one GPU.

    Parameters
    ----------
    index : int
        Number of the GPU, from 0.

    Raises
    ------
    DeviceError
        If a tiny computation does not come back right: an importable CuPy is not yet a GPU.
    """

    name = "cupy"
    xp: Any = cupy

    def __init__(self, index: int) -> None:
        self.device = f"gpu:{index}"
        self._device = cupy.cuda.Device(index)
        try:
            with self._device:
                ones = cupy.ones((16, 16), cupy.float32)
                # One product (cuBLAS) and one kernel compiled at run time (NVRTC).
                right = float((ones @ ones).sum()) == 4096.0
        except Exception as error:  # CuPy raises a type of its own for each of a dozen libraries
            raise DeviceError(
                f"{self.device} is not available: CuPy {cupy.__version__} cannot compute: "
                f"{ascii(str(error))[1:-1][:200]}; `mlpinfer devices` shows what is installed, "
                "and CUPY_CACHE_DIR must be a folder that can be written"
            ) from error
        if not right:
            raise DeviceError(f"{self.device} is not available: it computes wrong results")

    def asarray(self, x: Any) -> Any:
        """Return `x` on this GPU, copied only if it is elsewhere."""
        with self._device:
            return cupy.asarray(x)

    def to_host(self, x: Any) -> npt.NDArray[Any]:
        """Return `x` as a NumPy array; waits until it is computed."""
        with self._device:
            return np.asarray(cupy.asnumpy(x))

    def owns(self, x: object) -> bool:
        """Tell whether `x` is a CuPy array."""
        return isinstance(x, cupy.ndarray)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this GPU the thread's current one; running out of its memory becomes a DeviceError."""
        try:
            with self._device:
                yield
        except cupy.cuda.memory.OutOfMemoryError as error:
            text = ascii(str(error))[1:-1][:200]
            raise DeviceError(f"{self.device} is out of memory: {text}; use a smaller batch size") from None

    def synchronize(self) -> None:
        """Wait until the GPU has done all it was asked."""
        self._device.synchronize()

    def describe(self) -> str:
        """The card's name."""
        name = cupy.cuda.runtime.getDeviceProperties(self._device.id)["name"]
        return str(name.decode() if isinstance(name, bytes) else name)

    def close(self) -> None:
        """Give unused memory of CuPy's pool back to the device."""
        with self._device:
            cupy.get_default_memory_pool().free_all_blocks()
            cupy.get_default_pinned_memory_pool().free_all_blocks()
