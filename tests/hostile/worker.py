"""Reads hostile files, one after the other, and tells what happened; run as a process of its own.

``python -P worker.py MEMORY SECONDS ROWS`` reads a JSON list of [name, path, readers] and prints a line of
JSON before each file and one behind it. ROWS is a valid file of data, to read labels beside. Only mlpinfer is imported: nothing of the tests is here to be
blamed or poisoned.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import pickle
import resource
import signal
import sys
import warnings

import numpy as np

import mlpinfer
from mlpinfer import DatasetError, WeightsError

#: What a reader has no business to do. "open" is told by its mode and flags.
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn",
    "socket.", "ctypes.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.putenv", "os.unsetenv", "shutil.", "tempfile.", "webbrowser.", "urllib.",
    "ftplib.", "smtplib.", "pickle.", "marshal.", "code.__new__", "compile", "exec", "import", "sys.setprofile",
    "sys.settrace", "builtins.input", "sqlite3.", "mmap.write",
)  # fmt: skip
#: Submodules of what is loaded already, which a format may need where it is met.
ALLOWED_MODULES = ("encodings.", "PIL.", "numpy.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

#: What a hostile file prints must not be taken for what is told here.
OUT = os.dup(1)
os.dup2(2, 1)
seen: list[str] = []
watching = False


def audit(event: str, args: tuple[object, ...]) -> None:
    if not watching:
        return
    if event == "open":
        mode, flags = args[1], args[2]
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & WRITING
        ):
            seen.append(f"open {args[0]!a} {mode} {flags}")
    elif event == "import" and str(args[0]).startswith(ALLOWED_MODULES):
        return
    elif event.startswith(FORBIDDEN):
        seen.append(f"{event} {args!a:.200}")


def tell(line: str) -> None:
    os.write(OUT, line.encode() + b"\n")


class TookTooLong(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


def alarm(*_: object) -> None:
    raise TookTooLong


def poisonable() -> dict[str, object]:
    """What a poisoned process would show: the names in modules and classes that pickles reach for."""
    found: dict[str, object] = {"modules": set(sys.modules)}
    for name in ("builtins", "os", "posixpath", "sys", "copyreg", "codecs", "pickle", "numpy", "numpy.linalg", "json",
                 "numpy._core.multiarray", "numpy._core.numeric", "collections", "mlpinfer", "mlpinfer.errors",
                 "mlpinfer.io.weights.numpy_pickle", "mlpinfer.io.weights.torch_zip", "mlpinfer.io.data.open", "zipfile",
                 ):  # fmt: skip
        module = sys.modules.get(name)
        if module is not None:
            found[name] = {
                key: id(value) for key, value in vars(module).items() if key not in ("last_exc", "_")
            }
    for kind in (json.JSONDecoder, np.ndarray, np.dtype, WeightsError, dict):
        found[kind.__name__] = {key: id(value) for key, value in vars(kind).items()}
    found["errors"] = str(np.geterr())
    found["filters"] = str(warnings.filters)
    found["folder"] = os.getcwd()
    found["environment"] = dict(os.environ)
    return found


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    found = [key for key in before if key not in ("modules",) and before[key] != after.get(key)]
    new = [name for name in after["modules"] - before["modules"] if not name.startswith(ALLOWED_MODULES)]
    return found + new


def digest(arrays: list[np.ndarray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr(array.shape).encode() + np.ascontiguousarray(array, np.float64).tobytes())
    return found.hexdigest()


def read_weights(path: str) -> str:
    network = mlpinfer.load_network(path, hidden="relu", head="identity")
    return digest([array for layer in network.layers for array in (layer.W, layer.b)])


def read_data(path: str) -> str:
    data = mlpinfer.load_data(path, side=4)
    return digest([data.x] if data.y is None else [data.x, data.y])


def read_labels(path: str) -> str:
    return digest([mlpinfer.load_data(sys.argv[3], path).y])


def read_unsafely(path: str) -> str:
    """What the watch is tried on."""
    with open(path, "rb") as file:
        return type(pickle.load(file)).__name__


READERS = {"weights": read_weights, "data": read_data, "labels": read_labels, "unsafe": read_unsafely}


def attempt(reader: str, path: str, seconds: int) -> tuple[str, str]:
    """Return what came of it, and the message or the digest of what was read."""
    global watching
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + 2, exit=True)  # where a signal waits for C to return
    watching = True
    try:
        return "read", READERS[reader](path)
    except (WeightsError, DatasetError) as error:
        return type(error).__name__, str(error)
    except TookTooLong:
        return "hang", ""
    except BaseException as error:  # whatever it is, it must not have left the reader
        return f"{type(error).__module__}.{type(error).__name__}", str(error)[:2000]
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    files, memory, seconds = json.loads(sys.stdin.read()), int(sys.argv[1]), int(sys.argv[2])
    sys.addaudithook(audit)
    signal.signal(signal.SIGALRM, alarm)
    limited = False
    before: dict[str, object] = {}
    for name, path, readers in files:
        if name is None:  # behind the valid files, for which whatever readers need has been imported
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
            limited, before = True, poisonable()
            continue
        for reader in readers:
            tell(json.dumps({"begin": name, "reader": reader}))
            seen.clear()
            came, message = attempt(reader, path, seconds)
            did = seen[:100] if limited else []
            poisoned: list[str] = []
            if limited:
                after = poisonable()
                poisoned = differences(before, after)
                before = after
            tell(json.dumps([name, reader if limited else "warm", came, message, did, poisoned]))
    tell(json.dumps("end"))


if __name__ == "__main__":
    main()
