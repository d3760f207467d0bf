"""The compiled evaluator; all else about the package is in pyproject.toml.

It is left out, with a warning, where there is no GCC or Clang: everything works without. So it is for a
Python without its lock, which has no stable ABI.
"""

import sysconfig

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

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
        super().build_extension(extension)


extension = Extension(
    "mlpinfer.engine.compiled._cpu",
    sources=[f"{FOLDER}/module.c", f"{FOLDER}/neon.c"],
    depends=[f"{FOLDER}/{name}.h" for name in ("evaluate-inl", "network", "simd")],
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
