"""`mlpinfer score` as a process against the book's script: pairs, one behind the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from mlpinfer.io.data import mnist
from mlpinfer.io.weights.load import shipped

COMMANDS = {"mlpinfer score --json -": ["score", "--json", "-"], "mlpinfer score": ["score"]}
RIGHT = b"0.9777"


class Cold(NamedTuple):
    """Medians over pairs: seconds of both, and of their ratio, ours over the book's."""

    seconds: float
    book_seconds: float
    ratio: float


def compare(arguments: list[str], pairs: int) -> Cold:
    """Time `mlpinfer` with `arguments` and the book's script, taking turns at going first."""
    script = Path(__file__).with_name("book_script.py")
    book = [sys.executable, script, mnist.IMAGES, mnist.LABELS, shipped()]
    ours = [shutil.which("mlpinfer", path=sysconfig.get_path("scripts")), *arguments]
    seconds: list[tuple[float, float]] = []
    for i in range(-1, pairs):
        pair = (_run(ours), _run(book)) if i % 2 else (_run(book), _run(ours))[::-1]
        if i >= 0:  # the one before fills the caches, of files and of bytecode
            seconds.append(pair)
    mine, its = zip(*seconds, strict=True)
    return Cold(median(mine), median(its), median(a / b for a, b in seconds))


def _run(command: list) -> float:
    # As it is installed for users, who have bytecode beside every module.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    if done.returncode or RIGHT not in done.stdout:
        raise RuntimeError(f"{command}: expected an accuracy of {RIGHT.decode()}, found {done.stdout[:200]}")
    return seconds
