"""What stands between this machine and a GPU: package, driver, device, CUDA version.

Asks the driver's own library through ctypes, so that the answer needs no CuPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import importlib.util
import re
import sys
from dataclasses import dataclass

_CUDA_ERROR_NO_DEVICE = 100


class Problem(enum.Enum):
    """A reason why a GPU cannot be used."""

    NO_PACKAGE = "no package"
    TWO_PACKAGES = "two packages"
    NO_DRIVER = "no driver"
    NO_DEVICE = "no device"
    WRONG_CUDA = "wrong CUDA major"
    DRIVER_FAILED = "driver failed"


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
        A clause for each `Problem`, which begins with its value. Empty where a GPU should work.
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
    driver, devices, problems = _ask_driver()
    if not problems and index >= devices:
        problems[Problem.NO_DEVICE] = f"gpu:{index} asked, {devices} found"
    major = _wheel_major(packages)
    if driver and major and major > int(driver.partition(".")[0]):
        problems[Problem.WRONG_CUDA] = f"{packages[0]} needs CUDA {major}, the driver runs {driver}"
    if importlib.util.find_spec("cupy") is None:
        problems = {Problem.NO_PACKAGE: "CuPy is not installed", **problems}
    elif len(packages) > 1:
        problems = {Problem.TWO_PACKAGES: f"{' and '.join(packages)} overwrite each other", **problems}
    clauses = tuple(f"{problem.value} ({found})" for problem, found in problems.items())
    return Diagnosis(packages, driver, devices, clauses, _fix(problems, packages, driver))


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


def _ask_driver() -> tuple[str | None, int, dict[Problem, str]]:
    """Return the driver's CUDA version, its number of GPUs, and what is wrong."""
    library = driver_library()
    if library is None:
        return None, 0, {Problem.NO_DRIVER: "the library of an NVIDIA driver was not found"}
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status == _CUDA_ERROR_NO_DEVICE or (status == 0 and count.value == 0):
        return number, 0, {Problem.NO_DEVICE: "the driver shows no GPU"}
    if status:
        return number, 0, {Problem.DRIVER_FAILED: f"cuInit says error {status}"}
    return number, count.value, {}


def _fix(problems: dict[Problem, str], packages: tuple[str, ...], driver: str | None) -> str:
    """Return what to run against the problems, in one line."""
    if not problems:
        return ""
    major = 13 if driver and int(driver.partition(".")[0]) >= 13 else 12
    install = f"pip install 'cupy-cuda{major}x[ctk]'"
    if problems.keys() & {Problem.TWO_PACKAGES, Problem.WRONG_CUDA}:
        names = " ".join(package.split()[0] for package in packages)
        return f"run: pip uninstall -y {names} && {install}"
    steps = []
    if problems.keys() & {Problem.NO_DRIVER, Problem.DRIVER_FAILED}:
        steps.append("install or repair the NVIDIA driver")
    if Problem.NO_DEVICE in problems:
        steps.append("use a GPU that `nvidia-smi` shows")
    if Problem.NO_PACKAGE in problems:
        steps.append(f"run: {install}")
    return ", then ".join(steps) + ", or use --device cpu"
