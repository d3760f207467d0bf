"""What the documents say runs."""

import re
import shlex
import subprocess
import sys

import click
import numpy as np
import pytest

from mlpinfer.cli.app import group
from tests.conftest import ROOT

DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


def blocks(text, language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for found, block in fences if found == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_and_code(document, run, tmp_path, mnist, monkeypatch):
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    np.save(tmp_path / "rows.npy", mnist[0][:500])
    np.save(tmp_path / "labels.npy", mnist[1][:500])
    np.save(tmp_path / "day-1.npy", mnist[0][:300])
    text = document.read_text()
    for block in blocks(text, "bash"):
        for line in block.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            if program == "pytest":
                run_benchmarks(arguments, tmp_path)
                continue
            if "--out" in arguments:
                (tmp_path / "labels.npy").unlink(missing_ok=True)
            done = run(*arguments)
            assert done.returncode == 0, done.stderr
            np.save(tmp_path / "labels.npy", mnist[1][:500])
    monkeypatch.chdir(tmp_path)
    for code in blocks(text, "python"):
        if "split_job" in code:
            (tmp_path / "labels.npy").unlink()
        exec(code, {})


def run_benchmarks(arguments, folder):
    """Run them, short, with their results in `folder`; that a gate finds a run slower is no error here."""
    command = [sys.executable, "-m", "pytest", *arguments, f"--benchmark-storage=file://{folder}"]
    command += ["--benchmark-min-rounds=1", "--benchmark-max-time=0.1", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    gated = "Performance has regressed" in done.stdout + done.stderr
    assert done.returncode == 0 or gated, done.stdout + done.stderr
    assert list(folder.rglob("*_before.json"))


def test_commands_that_need_a_cluster_have_options_that_there_are():
    lines = [
        line
        for document in DOCUMENTS
        for block in blocks(document.read_text(), "")
        for line in block.splitlines()
        if line.startswith("mlpinfer ")
    ]
    assert lines
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        command = group.get_command(click.Context(group), name)
        known = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_files_they_name_exist():
    pattern = r"`((?:mlpinfer|bench|weights|tests|docs)/[^`]*)`"
    names = {name for document in DOCUMENTS for name in re.findall(pattern, document.read_text())}
    assert names
    for name in names:
        assert (ROOT / name).exists(), name


def test_every_layer_is_drawn():
    drawing = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "mlpinfer").iterdir():
        if path.name.startswith("_") or path.name in ("schemas", "py.typed"):
            continue
        assert f"{path.name}{'/' * path.is_dir()}" in drawing, path.name
