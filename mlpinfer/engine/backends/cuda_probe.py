"""What stands between this machine and a GPU: package, driver, device, CUDA version.

Asks the driver's own library through ctypes, so that the answer needs no CuPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import re
import sys
from dataclasses import dataclass

_CUDA_ERROR_NO_DEVICE = 100


@dataclass(frozen=True)
class Diagnosis:
    """What was found on the way to a GPU.

    Attributes
    ----------
    packages : tuple of str
        CuPy's installed distributions with their versions: ``cupy-cuda12x 14.2.0``.
    driver : str or None
        Newest CUDA version the driver runs: ``12.8``.
    devices : int
        GPUs that the driver shows.
    problems : tuple of str
        Each a clause that begins with its kind: no package, two packages, no driver, no device,
        wrong CUDA major, or driver failed. Empty where a GPU should work.
    fix : str
        What to run.
    """

    packages: tuple[str, ...]
    driver: str | None
    devices: int
    problems: tuple[str, ...]
    fix: str

    def advice(self) -> str:
        """The problems and the fix in one line."""
        return f"{' and '.join(self.problems)}; {self.fix}"


def diagnose(index: int = 0) -> Diagnosis:
    """Find out what is missing before GPU number `index` can be used."""
    packages = _packages()
    driver, devices, driver_problem = _ask_driver()
    problems = []
    if importlib.util.find_spec("cupy") is None:
        problems.append("no package (CuPy is not installed)")
    elif len(packages) > 1:
        problems.append(f"two packages ({' and '.join(packages)} overwrite each other)")
    if driver_problem:
        problems.append(driver_problem)
    elif index >= devices:
        problems.append(f"no device (gpu:{index} asked, {devices} found)")
    major = _wheel_major(packages)
    if driver and major and major > int(driver.partition(".")[0]):
        problems.append(f"wrong CUDA major ({packages[0]} needs CUDA {major}, the driver runs {driver})")
    return Diagnosis(packages, driver, devices, tuple(problems), _fix(problems, packages, driver))


@functools.cache
def driver_library() -> ctypes.CDLL | None:
    """Return the NVIDIA driver's library, or None where there is none."""
    with contextlib.suppress(OSError):
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    return None


def _packages() -> tuple[str, ...]:
    from importlib import metadata  # late: slow to import, and `auto` does without

    found = []
    for name in ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return tuple(found)


def _wheel_major(packages: tuple[str, ...]) -> int | None:
    match = re.match(r"cupy-cuda(\d+)x", packages[0]) if packages else None
    return int(match[1]) if match else None


def _ask_driver() -> tuple[str | None, int, str | None]:
    """Return the driver's CUDA version, its number of GPUs, and what is wrong."""
    library = driver_library()
    if library is None:
        return None, 0, "no driver (the library of an NVIDIA driver was not found)"
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status == _CUDA_ERROR_NO_DEVICE or (status == 0 and count.value == 0):
        return number, 0, "no device (the driver shows no GPU)"
    if status:
        return number, 0, f"driver failed (cuInit says error {status})"
    return number, count.value, None


def _fix(problems: list[str], packages: tuple[str, ...], driver: str | None) -> str:
    if not problems:
        return ""
    major = 13 if driver and int(driver.partition(".")[0]) >= 13 else 12
    install = f"pip install 'cupy-cuda{major}x[ctk]'"
    kinds = " ".join(problems)
    if "two packages" in kinds or "wrong CUDA" in kinds:
        names = " ".join(package.split()[0] for package in packages)
        return f"run: pip uninstall -y {names} && {install}"
    steps = []
    if "no driver" in kinds or "driver failed" in kinds:
        steps.append("install or repair the NVIDIA driver")
    if "no device" in kinds:
        steps.append("use a GPU that `nvidia-smi` shows")
    if "no package" in kinds:
        steps.append(f"run: {install}")
    return ", then ".join(steps) + ", or use --device cpu"
