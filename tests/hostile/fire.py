"""Loads files the unsafe way, each in a process and a folder of its own, and tells which of them ran.

``python -P fire.py < LIST``: a JSON list of [name, path, "pickle" or "numpy"]; prints the names.
"""

import json
import os
import pickle
import signal
import sys
import tempfile
import warnings

import numpy as np


def load(path: str, how: str) -> None:
    if how == "pickle":
        with open(path, "rb") as file:
            pickle.load(file)
    else:
        loaded = np.load(path, allow_pickle=True)
        if not isinstance(loaded, np.ndarray):
            dict(loaded)


def fires(path: str, how: str) -> bool:
    folder = tempfile.mkdtemp()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os.chdir(folder)
        os.dup2(2, 1)  # some of it is talkative
        try:
            load(path, how)
        finally:  # whatever it raised, or broke
            os._exit(0)
    os.waitpid(child, 0)
    return any(name.startswith("fired") for name in os.listdir(folder))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([name for name, path, how in json.load(sys.stdin) if fires(path, how)]))
