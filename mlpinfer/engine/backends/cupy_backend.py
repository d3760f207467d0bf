"""Arrays on an NVIDIA GPU. Importing this module imports CuPy."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import cupyx
import numpy as np
import numpy.typing as npt

from mlpinfer._text import said
from mlpinfer.errors import DeviceError, DeviceMemoryError
from mlpinfer.model import activations


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
    tile_bytes = 512 * 1024**2  # small beside the memory of any card

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
                f"{said(error)}; `mlpinfer devices` shows what is installed, "
                "and CUPY_CACHE_DIR must be a folder that can be written"
            ) from error
        if not right:
            raise DeviceError(f"{self.device} is not available: it computes wrong results")

    def asarray(self, x: Any) -> Any:
        """Return `x` on this GPU, copied only if it is elsewhere."""
        with self._device:
            if self.owns(x) and x.device != self._device:
                return x.copy()  # to the current device
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
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            text = said(error)
            raise DeviceMemoryError(f"{self.device} is out of memory: {text}") from None

    def finish(self, activation: str) -> Callable[[Any, Any], None]:
        """Return a function that adds a bias and applies an activation, in place and in one launch."""
        kernel = _bias_and(activation)

        def finish(z: Any, b: Any) -> None:
            kernel(z, b, z)

        return finish

    def queue(self) -> Hashable:
        """Identify the thread's current stream."""
        pointer = cupy.cuda.get_current_stream().ptr
        # cudaStreamPerThread is one handle for as many streams as there are threads.
        return (pointer, threading.get_ident()) if pointer == 2 else pointer

    def stream(self) -> Any:
        """Return a new stream, which does not wait for the default one."""
        return cupy.cuda.Stream(non_blocking=True)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a NumPy array in page-locked memory."""
        return np.asarray(cupyx.empty_pinned(shape, dtype))

    def upload(self, x: npt.NDArray[Any], out: Any) -> None:
        """Copy from page-locked memory in the order of the current stream, without waiting."""
        out.set(x, stream=cupy.cuda.get_current_stream())

    def download(self, x: Any, out: npt.NDArray[Any]) -> None:
        """Copy to page-locked memory in the order of the current stream, without waiting."""
        x.get(stream=cupy.cuda.get_current_stream(), out=out, blocking=False)

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


#: Activations of `mlpinfer.model.ops`, in CUDA; NaN stays NaN.
_ACTIVATIONS = {
    "identity": "v",
    "tanh": "tanh(v)",
    "relu": "v < 0 ? T(0) : v",
    # exp only of what is not positive, as in `ops.sigmoid`
    "sigmoid": "(v < 0 ? exp(v) : T(1)) / (1 + exp(-abs(v)))",
}


#: Of the runtime, the driver and cuBLAS: what they call being out of memory.
_OUT_OF_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether CuPy's pool, page-locked memory, a kernel's loading or cuBLAS has run out of memory."""
    if isinstance(error, cupy.cuda.memory.OutOfMemoryError):
        return True
    status = _OUT_OF_MEMORY.get(type(error).__name__)
    return status is not None and getattr(error, "status", None) == status


@functools.cache
def _bias_and(activation: str) -> Any:
    """Return the kernel that writes ``activation(z + b)``; one launch, where NumPy's way would take two."""
    slope = activations.slope_of(activation)
    value = _ACTIVATIONS[activation] if slope is None else f"v > 0 ? v : v * T({slope!r})"
    name = "bias_and_" + (re.sub(r"\W", "_", activation))
    return cupy.ElementwiseKernel("T z, T b", "T out", f"T v = z + b; out = {value};", name)
