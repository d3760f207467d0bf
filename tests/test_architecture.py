"""What holds for the code as a whole: what an import loads, and what is public.

import-linter holds the layers (`pyproject.toml`).
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlpinfer
import mlpinfer.jobs

PACKAGE = Path(mlpinfer.__file__).parent


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh process has after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}


def third_party(modules: set[str]) -> set[str]:
    made = {"cython_runtime"}  # in memory, by NumPy 1
    known = sys.stdlib_module_names | made
    return {name for name in modules if name not in known and not name.startswith("_")}


def test_importing_mlpinfer_loads_the_standard_library_alone():
    bare = loaded("")  # what site and .pth files load by themselves
    assert third_party(loaded("import mlpinfer") - bare) == {"mlpinfer"}
    assert third_party(loaded("import mlpinfer.jobs") - bare) == {"mlpinfer"}
    assert third_party(loaded("from mlpinfer import *") - bare) == {"mlpinfer", "numpy"}
    assert third_party(loaded("from mlpinfer.jobs import *") - bare) == {"mlpinfer", "numpy"}


def test_score_json_loads_only_what_it_uses():
    code = """
from mlpinfer.cli.app import main
try:
    main(["score", "--json", "-", "--repeat", "1", "--device", "cpu"])
except SystemExit as done:
    assert done.code == 0
"""
    assert third_party(loaded(code) - loaded("")) == {"mlpinfer", "numpy", "click", "threadpoolctl"}


@pytest.mark.parametrize("module", [mlpinfer, mlpinfer.jobs], ids=lambda module: module.__name__)
def test_public_names(module):
    for name in module.__all__:
        assert getattr(module, name).__doc__
        assert name in dir(module)
    assert sorted(module.__all__) == module.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_unpickles(path):
    """No call that could run what a file says stands anywhere in the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        assert not {"pickle", "marshal", "shelve", "dill", "joblib"} & set(names), path
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "np.loadtxt" and path.name == "csv.py":
                assert ast.unparse(node.args[0]) == "lines"  # a list of text; a file's name it might unpack
                continue
            assert called not in ("eval", "exec", "np.load", "np.loadtxt", "np.genfromtxt", "pickle.load"), (
                path
            )
