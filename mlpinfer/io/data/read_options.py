"""How data files are read, as far as they do not say. Importing this module imports no NumPy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How data files are read.

    Attributes
    ----------
    side : int, optional
        Height and width that images are resized to.
    invert : bool
        Images are dark on light.
    label_column : str or int, optional
        Name or number, from 0, of the column of a CSV file that is no feature but the label.
    header : bool, optional
        Whether the first line of a CSV file has names. By default it has if no cell of it is a number.
    """

    side: int | None = None
    invert: bool = False
    label_column: str | int | None = None
    header: bool | None = None


#: What is read as it is.
DEFAULTS = ReadOptions()
