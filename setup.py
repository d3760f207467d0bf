"""The compiled evaluator; all else about the package is in pyproject.toml.

It is left out, with a warning, where there is no GCC or Clang: everything works without. So it is for a
Python without its lock, which has no stable ABI.
"""

import sysconfig

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "mlpinfer/engine/compiled/src"
X86_64 = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExtension(build_ext):
    """Compile one file for each instruction set, with its own flag, before the others."""

    def build_extension(self, extension):
        """Build `extension` with what was compiled for the processors that may run it."""
        for name in X86_64 if self.plat_name.endswith("x86_64") else ():
            extension.extra_objects += self.compiler.compile(
                [f"{FOLDER}/{name.replace('-', '_')}.c"],
                output_dir=self.build_temp,
                extra_postargs=[*extension.extra_compile_args, f"-march={name}"],
                depends=extension.depends,
            )
        if self.plat_name.endswith("x86_64"):
            self._add_amx(extension)
        super().build_extension(extension)

    def _add_amx(self, extension):
        """Add the evaluator for AMX where the compiler knows its instructions: GCC from 11, Clang from 12."""
        flags = ["-march=x86-64-v4", "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
        try:
            extension.extra_objects += self.compiler.compile(
                [f"{FOLDER}/amx.c"],
                output_dir=self.build_temp,
                extra_postargs=[*extension.extra_compile_args, *flags],
                depends=extension.depends,
            )
        except CompileError:
            self.announce("the compiler has no AMX: its evaluator is left out", level=2)
        else:
            extension.define_macros.append(("HAVE_AMX", None))


extension = Extension(
    "mlpinfer.engine.compiled._cpu",
    sources=[f"{FOLDER}/{name}.c" for name in ("module", "neon", "amx_emulated")],
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
