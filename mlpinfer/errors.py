"""Every error that mlpinfer raises on purpose.

    MlpInferError
    ├── WeightsError (ValueError)    refused, unsafe or malformed weights
    ├── DatasetError (ValueError)    refused or malformed data
    ├── InputError (ValueError)      an array of the wrong shape, dtype or scale handed to the API
    ├── DeviceError (RuntimeError)   not available
    │   └── DeviceMemoryError        out of memory
    └── ClusterError (RuntimeError)  a Dask cluster that is not there, or tasks that failed on it

A message is one line: what was expected, what was found, what to do. A missing file stays a
``FileNotFoundError``.
"""

from __future__ import annotations


class MlpInferError(Exception):
    """Base of every error raised by mlpinfer itself; its message is one line of printable characters."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class WeightsError(MlpInferError, ValueError):
    """A weight file, or a network built from arrays, that was refused."""


class DatasetError(MlpInferError, ValueError):
    """A data file, or a data set that does not fit the network, that was refused."""


class InputError(MlpInferError, ValueError):
    """An argument of the wrong shape, dtype, scale or value handed to the API."""


class DeviceError(MlpInferError, RuntimeError):
    """A device that is not available, or that ran out of memory."""


class DeviceMemoryError(DeviceError):
    """A device that ran out of memory."""


class ClusterError(MlpInferError, RuntimeError):
    """A cluster that is not there or is gone, or tasks that failed on it."""


def missing_package(what: str, *packages: str) -> MlpInferError:
    """Return the error that says that `what` needs optional packages, and how to install them."""
    return MlpInferError(f"{what} needs {', '.join(packages)}: pip install {' '.join(packages)}")


def printable(text: str) -> str:
    """Return text with whatever a terminal would not print, but obey, escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(value: object, limit: int = 80) -> str:
    """Text from a stranger's file, safe to print: ASCII, escaped, at most `limit` characters.

    Only exact ``str``, ``bytes``, numbers and types are shown; anything else is shown as its type, so that
    no foreign ``__repr__`` runs and no deep structure is walked.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if type(value) in (str, bytes):
        text = ascii(value[: limit + 1])  # type: ignore[index]
    elif type(value) in (int, float, bool, type(None)):
        text = ascii(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge integer"
    else:
        text = f"<{(value if isinstance(value, type) else type(value)).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def said(error: BaseException) -> str:
    """What a library's error says, a stranger's file perhaps: ASCII, escaped, at most 100 characters."""
    return ascii(str(error))[1:-1][:100]
