"""The compiled evaluator; all else about the package is in pyproject.toml.

It is left out, with a warning, where there is no GCC or Clang: everything works without.
"""

import sysconfig

from setuptools import Extension, setup

FOLDER = "mlpinfer/kernels/cpu"
#: A Python without its lock has no stable ABI to build for.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

extension = Extension(
    "mlpinfer.kernels._cpu",
    sources=[f"{FOLDER}/{name}.c" for name in ("module", "native", "x86_64_v2", "x86_64_v3", "x86_64_v4")],
    depends=[f"{FOLDER}/{name}.h" for name in ("evaluate", "network", "simd")],
    # Products and sums in one instruction, with one rounding, where the processor has it.
    extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=fast", "-Wall", "-Wextra"],
    optional=True,
    py_limited_api=STABLE_ABI,
)
# One wheel for every Python from 3.11.
setup(ext_modules=[extension], options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {})
