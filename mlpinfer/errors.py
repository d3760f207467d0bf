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

from mlpinfer._text import printable


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
