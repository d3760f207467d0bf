"""Arrays on the CPU."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpinfer.engine.backends.blas import single_threaded_blas
from mlpinfer.model import activations, ops


class NumpyBackend:
    """NumPy arrays in the memory of this process."""

    name = "numpy"
    device = "cpu"
    xp: Any = np
    tile_bytes = 2 * 1024**2  # about the second-level cache of one core

    def asarray(self, x: Any) -> npt.NDArray[Any]:
        """Return `x` as a NumPy array; a device array must be brought by its own backend."""
        return np.asarray(x)

    def to_host(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return `x`, which is here already."""
        return x

    def owns(self, x: object) -> bool:
        """Tell whether `x` is a NumPy array."""
        return isinstance(x, np.ndarray)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Keep BLAS at one thread: the threads are ours."""
        return single_threaded_blas

    def finish(self, activation: str) -> Callable[[Any, Any], None]:
        """Return a function that adds a bias, if any, to an array and applies an activation, in place."""
        function = activations.activation(activation)

        def finish(z: Any, b: Any) -> None:
            if b is not None:
                np.add(z, b, out=z)
            if function is not ops.identity:
                function(np, z, out=z)

        return finish

    def queue(self) -> int:
        """All is done at once."""
        return 0

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def describe(self) -> str:
        """The processor's model name."""
        return cpu_name()

    def close(self) -> None:
        """Nothing to give back."""


def cpu_name() -> str:
    """Return the processor's model name, as the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
