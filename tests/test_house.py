"""What holds for the code as a whole: who imports whom, what an import loads, what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlpinfer

PACKAGE = Path(mlpinfer.__file__).parent

#: Floor of each room; imports point to the same room or down.
FLOORS = [
    {"_version", "errors", "ops", "files", "folders", "npy", "signals", "workers"},
    {"network", "frameworks", "folding", "backends", "metrics", "tiles"},
    {"plan", "kernels", "streaming", "summary", "weight_files", "data_files", "mnist"},
    {"predictor"},
    {
        "environment",
        "report",
        "measuring",
        "scoring",
        "conversion",
        "inventory",
        "jobs",
        "outputs",
        "score_tasks",
        "mistakes",
        "sweep",
    },
    {"render", "cluster"},
    {"cli"},
]


def room(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mlpinfer"):
            for name in node.names:
                yield node.module if "." in node.module else f"mlpinfer.{name.name}"
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("mlpinfer."))


def test_imports_point_down():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        for module in imports(path):
            assert room(module) in floor, f"{module} has no floor"
            assert floor[room(module)] <= floor[parts[0]], f"{path} imports {module}"
            if floor[room(module)] == floor[parts[0]] > 0 and room(module) != parts[0]:
                allowed = {
                    ("folding", "network"),
                    ("network", "frameworks"),
                    ("mnist", "data_files"),
                    ("scoring", "environment"),
                    ("report", "environment"),
                    ("measuring", "report"),
                    ("outputs", "jobs"),
                    *((room, name) for room in ("scoring", "sweep") for name in ("measuring", "report")),
                    *(("score_tasks", name) for name in ("jobs", "environment", "report")),
                    ("sweep", "environment"),
                }
                assert (parts[0], room(module)) in allowed, f"{path} imports {module}"


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


def test_importing_mlpinfer_loads_numpy_only():
    bare = loaded("")  # what site and .pth files load by themselves
    assert third_party(loaded("import mlpinfer") - bare) == {"mlpinfer"}
    assert third_party(loaded("from mlpinfer import *") - bare) == {"mlpinfer", "numpy"}


def test_score_json_loads_only_what_it_uses():
    code = """
from mlpinfer.cli import main
try:
    main(["score", "--json", "-", "--repeat", "1", "--device", "cpu"])
except SystemExit as done:
    assert done.code == 0
"""
    assert third_party(loaded(code) - loaded("")) == {"mlpinfer", "numpy", "click", "threadpoolctl"}


def test_public_names():
    for name in mlpinfer.__all__:
        assert getattr(mlpinfer, name).__doc__
        assert name in dir(mlpinfer)
    assert sorted(mlpinfer.__all__) == mlpinfer.__all__
    homes = [name for names in mlpinfer._HOMES.values() for name in names]
    assert sorted([*homes, "__version__"]) == mlpinfer.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mlpinfer.nothing  # noqa: B018


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
