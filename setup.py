"""The compiled evaluator; all else about the package is in pyproject.toml.

It is left out, with a warning, where there is no GCC or Clang: everything works without. So it is for a
Python without its lock, which has no stable ABI.
"""

import sysconfig

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "mlpinfer/engine/compiled/src"
#: What each level of x86-64 has; -march=x86-64-v2 and so on are unknown to GCC 10.
V2 = ("-msse4.2", "-mpopcnt", "-mcx16", "-msahf")
V3 = (*V2, "-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe", "-mf16c")
V4 = (*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl")
#: GCC knows these from 11 on, Clang from 12.
AMX = (*V4, "-mavx512vnni", "-mamx-tile", "-mamx-int8", "-mamx-bf16")
X86_64 = {"x86_64_v2": V2, "x86_64_v3": V3, "x86_64_v4": V4, "amx_emulated": V3}
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExtension(build_ext):
    """Compile one file for each instruction set, with its own flags, before the others."""

    def build_extension(self, extension):
        """Build `extension` with what was compiled for the processors that may run it."""
        if self.plat_name.endswith("x86_64"):
            for name, flags in X86_64.items():
                self._add(extension, name, *flags)
            try:
                self._add(extension, "amx", *AMX)
            except CompileError:
                self.announce("the compiler has no AMX: its evaluator is left out", level=2)
            else:
                extension.define_macros.append(("HAVE_AMX", None))
        else:
            self._add(extension, "amx_emulated")
        super().build_extension(extension)

    def _add(self, extension, name, *flags):
        """Compile one file with flags of its own, to be linked with the others."""
        extension.extra_objects += self.compiler.compile(
            [f"{FOLDER}/{name}.c"],
            output_dir=self.build_temp,
            extra_postargs=[*extension.extra_compile_args, *flags],
            depends=extension.depends,
        )


extension = Extension(
    "mlpinfer.engine.compiled._cpu",
    sources=[f"{FOLDER}/module.c", f"{FOLDER}/neon.c"],
    depends=[f"{FOLDER}/{name}.h" for name in ("evaluate-inl", "network", "simd", "tiles", "tiles-inl")],
    # Products and sums in one instruction, with one rounding, where the processor has it.
    extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=fast", "-Wall", "-Wextra"],
    optional=True,
    py_limited_api=STABLE_ABI,
)
setup(
    # The folder of shipped weights becomes a package in the wheel.
    packages=[*find_packages(include=["mlpinfer", "mlpinfer.*"]), "mlpinfer._weights"],
    package_dir={"mlpinfer._weights": "weights"},
    ext_modules=[extension],
    cmdclass={"build_ext": BuildExtension},
    # One wheel for every Python from 3.11.
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
