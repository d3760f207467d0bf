"""What is handed out: the sdist, the wheel that is built of it, and the versions they ask for."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from tests.conftest import ROOT

BUILD = "import sys, setuptools.build_meta as build; getattr(build, sys.argv[1])(sys.argv[2])"
#: What a checkout may hold besides its tracked files.
NOT_OURS = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "*.so",
    ".*_cache",
    ".hypothesis",
    ".benchmarks",
)
DATA = {
    "mlpinfer/py.typed",
    "mlpinfer/engine/compiled/_cpu.pyi",
    "mlpinfer/io/data/_mnist/t10k-images-idx3-ubyte.gz",
    "mlpinfer/io/data/_mnist/t10k-labels-idx1-ubyte.gz",
    "mlpinfer/render/page.html",
    *(f"mlpinfer/schemas/{name}.json" for name in ("score", "sweep", "devices", "inspect", "predictions")),
}
WEIGHTS = {"mnist_784-50-100-10.pkl", "mnist_784-128-64-10.pt"}
SOURCES = {
    f"mlpinfer/engine/compiled/src/{name}"
    for name in (
        *("evaluate-inl.h", "network.h", "simd.h", "tiles-inl.h", "tiles.h"),
        *("module.c", "amx.c", "amx_emulated.c", "neon.c", "x86_64_v2.c", "x86_64_v3.c", "x86_64_v4.c"),
    )
}
TOP = {"LICENSE", "NOTICE", "README.md", "MANIFEST.in", "pyproject.toml", "setup.py", "setup.cfg", "PKG-INFO"}


def modules():
    return {str(path.relative_to(ROOT)) for path in (ROOT / "mlpinfer").rglob("*.py")}


def build(what, source, out, **environment):
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}", str(out)],
        cwd=source,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "checkout", ignore=NOT_OURS)
    (folder / "checkout/mlpinfer/__pycache__").mkdir()
    (folder / "checkout/mlpinfer/__pycache__/network.cpython-311.pyc").touch()
    build("sdist", folder / "checkout", folder)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture
def unpacked(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return folder


def in_wheel(unpacked, **environment):
    """Names in the wheel that is built of the sdist, those of its metadata apart."""
    build("wheel", unpacked, unpacked.parent, **environment)
    (path,) = unpacked.parent.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        about = {name for name in names if ".dist-info/" in name}
        assert {name.partition(".dist-info/")[2] for name in about} == {
            *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"),
            *("licenses/LICENSE", "licenses/NOTICE"),
        }
    return set(names) - about


def test_the_sdist_holds_what_builds_and_nothing_else(unpacked):
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    generated = {name for name in found if name.startswith("mlpinfer.egg-info/")}
    weights = {f"weights/{name}" for name in WEIGHTS}
    assert found - generated == modules() | DATA | SOURCES | TOP | weights


def test_the_wheel_holds_the_package_and_nothing_else(unpacked):
    weights = {f"mlpinfer/_weights/{name}" for name in WEIGHTS}
    assert in_wheel(unpacked, CC="no-compiler") == modules() | DATA | weights


@pytest.mark.slow
def test_a_compiler_adds_one_file_to_the_wheel(unpacked):
    weights = {f"mlpinfer/_weights/{name}" for name in WEIGHTS}
    (extension,) = in_wheel(unpacked) - (modules() | DATA | weights)
    assert re.fullmatch(r"mlpinfer/engine/compiled/_cpu\.[\w.-]*so", extension)


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [text for extra in ("onnx", "report", "images", "test") for text in extras[extra]]
    allowed = dict(text.split(">=") for text in wanted if not text.startswith("mlpinfer"))
    lines = (ROOT / "tests/lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: re.sub(r"(\.0)+$", "", tested[name]) for name in allowed} == {
        name: re.sub(r"(\.0)+$", "", version) for name, version in allowed.items()
    }
