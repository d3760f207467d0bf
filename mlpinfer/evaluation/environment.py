"""What a measurement depends on besides the code: versions, processor, BLAS, GPU."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import numpy as np

from mlpinfer._version import VERSION
from mlpinfer.engine.backends.base import Backend
from mlpinfer.engine.backends.blas import single_threaded_blas
from mlpinfer.engine.backends.numpy_backend import cpu_name


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and names; None where there is no such thing. `driver` is the newest CUDA that it runs."""

    mlpinfer: str
    python: str
    numpy: str
    cupy: str | None
    blas: str
    cpu: str
    gpu: str | None
    driver: str | None
    os: str


def environment(backend: Backend) -> Environment:
    """Describe this process and the device of `backend`."""
    on_gpu = backend.name == "cupy"
    return Environment(
        mlpinfer=VERSION,
        python=sys.version.split()[0],
        numpy=np.__version__,
        cupy=backend.xp.__version__ if on_gpu else None,
        blas=blas_name(),
        cpu=cpu_name(),
        gpu=backend.describe() if on_gpu else None,
        driver=_driver() if on_gpu else None,
        os=f"{platform.system()} {platform.release()}",
    )


def blas_name() -> str:
    """Name and version of the BLAS that NumPy calls: ``openblas 0.3.31 (Zen)``."""
    names = []
    for library in single_threaded_blas.libraries():
        kernel = library.info().get("architecture")
        names.append(f"{library.internal_api} {library.version}" + (f" ({kernel})" if kernel else ""))
    return ", ".join(names) or "unknown"


def _driver() -> str | None:
    from mlpinfer.engine.backends import cuda_probe

    return cuda_probe.diagnose().driver
