"""`FormatError`, which all readers raise, and the boundaries where it becomes the error of a file's kind.

A reader is given bytes or an open file and says what is wrong with them. It knows neither the name of the
file nor whether it holds weights or data; the functions that open files do, and use `weights_file`
or `data_file` once, around all that they read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlpinfer._text import quoted
from mlpinfer.errors import DatasetError, MlpInferError, WeightsError


class FormatError(MlpInferError, ValueError):
    """Bytes that are not what a reader expects. No public function raises it."""


@contextmanager
def weights_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise whatever is wrong with a weight file as `WeightsError`, with the name of the file."""
    try:
        yield
    except (FormatError, WeightsError) as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from None
    except MemoryError:
        raise WeightsError(f"{os.fspath(path)}: does not fit into memory") from None
    except (MlpInferError, OSError):
        raise
    except Exception as error:
        # Nothing else may leave a reader, whatever somebody put into a file.
        raise WeightsError(f"{os.fspath(path)}: damaged ({type(error).__name__})") from error


@contextmanager
def data_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise what a reader finds wrong with a data file as `DatasetError`, with the name of the file."""
    try:
        yield
    except FormatError as error:
        raise DatasetError(f"{os.fspath(path)}: {error}") from None


@contextmanager
def of_member(name: str) -> Iterator[None]:
    """Put the name of an archive's member before what a reader finds wrong with it."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{quoted(name)}: {error}") from None
