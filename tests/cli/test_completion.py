"""Completion of the command line, as click makes it for each shell."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(run, shell):
    done = run(_MLPINFER_COMPLETE=f"{shell}_source")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_MLPINFER_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mlpinfer s", ["plain,score", "plain,sweep"]),
        ("mlpinfer score --he", ["plain,--head", "plain,--header", "plain,--help"]),
        ("mlpinfer score --head s", ["plain,softmax", "plain,sigmoid"]),
        ("mlpinfer score --data r", ["file,r"]),
        ("mlpinfer predict r", ["file,r"]),
    ],
)
def test_words_are_completed(run, words, expected):
    count = words.count(" ")
    done = run(_MLPINFER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == expected


def test_in_bash(tmp_path):
    bash = shutil.which("bash")
    assert bash, "bash runs this project's own .ci/run"
    script = """
        PATH="$1:$PATH"
        eval "$(_MLPINFER_COMPLETE=bash_source mlpinfer)"
        complete -p mlpinfer >/dev/null || exit 1
        COMP_WORDS=(mlpinfer sco) COMP_CWORD=1
        _mlpinfer_completion mlpinfer sco mlpinfer
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "-c", script, "bash", SCRIPTS], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "score\n", "")
