"""Whatever the terminal: readable, no wider than it is, nothing but data on stdout."""

import pytest

from mlpinfer import Network, save_network
from mlpinfer.io.weights.load import shipped

COMMANDS = [
    ("score", "--repeat", 1, "--errors", 2),
    ("sweep", "--repeat", 1, "--batch-sizes", "100,1000"),
    ("inspect", shipped()),
    ("inspect", shipped(), "--trace", ",".join(["0.5"] * 784)),
    ("devices",),
    ("score", "-h"),
]
SURROUNDINGS = {
    "no colour": {"NO_COLOR": "1", "COLUMNS": "100"},
    "60 columns": {"COLUMNS": "60"},
    "ASCII": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "COLUMNS": "80"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1", "COLUMNS": "80"},
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command))[:20])
@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_output_is_readable(run, command, surroundings):
    done = run(*command, **surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\\u" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(surroundings["COLUMNS"])
    if "PYTHONIOENCODING" in surroundings:
        assert done.stdout.isascii()


@pytest.mark.parametrize("command", COMMANDS[:3], ids=lambda command: command[0])
def test_numbers_are_whole_on_any_terminal(run, command):
    tables = [run(*command, COLUMNS=columns).stdout for columns in ("30", "100")]
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(tables)


def test_a_file_is_as_wide_as_its_lines(run, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = run(*COMMANDS[3]).stdout.splitlines()
    (first,) = (line for line in lines if line.startswith("Z1"))
    assert len(first.split()) == 1 + 20 + 3  # and 30 more
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize("columns", ["", "0", "-5", "many"])
def test_columns_that_are_none_are_left_aside(run, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    expected = run("devices").stdout
    assert run("devices", COLUMNS=columns).stdout == expected
    assert "ready" in expected


def test_text_is_folded_before_numbers_are_broken(run, tmp_path):
    network = Network.random([3072, 1024, 512, 10], hidden="leaky_relu(0.123456789)")
    save_network(network, tmp_path / "wide.npz")
    table = run("inspect", "wide.npz", COLUMNS="76").stdout
    assert max(map(len, table.splitlines())) <= 76
    assert "3,146,752" in table
