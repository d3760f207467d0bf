"""The README is true: its commands and its code run, and the files it names exist."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("mlpinfer ")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands(run, command, tmp_path, mnist):
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    np.save(tmp_path / "rows.npy", mnist[0][:500])
    Image.fromarray(mnist[0][0].reshape(28, 28)).save(tmp_path / "digit.png")
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    if "-" in command:
        json.loads(done.stdout)


@pytest.mark.parametrize("code", blocks("python"))
def test_code(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(code, {})
    assert capsys.readouterr().out.startswith("0.9777")


def test_files_it_names_exist():
    for name in re.findall(r"[`(]((?:mlpinfer|bench|weights|docs|examples)/[^`)]*)[`)]", README):
        assert (ROOT / name).exists(), name


def test_the_two_commands_are_there():
    set_up, test = blocks("bash")[0].splitlines()
    assert set_up.startswith("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/mlpinfer score")
    assert test == ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest"


def test_every_command_is_in_the_readme():
    from mlpinfer.cli.app import COMMANDS

    for name in COMMANDS:
        assert f"mlpinfer {name}" in README
