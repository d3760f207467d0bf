"""Reports as JSON: a report is a frozen dataclass, and this is the one way from it to plain values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

#: The metadata of a field that is not in JSON: ``field(metadata=NOT_IN_JSON)``.
NOT_IN_JSON = {"json": None}


class Report:
    """A dataclass that is written as a JSON object of its own, which names its schema.

    Attributes
    ----------
    schema : str
        Such as ``mlpinfer.score/1``; the file ``mlpinfer/schemas/score.json`` describes it.
    """

    schema: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: the schema first, None for what is not a finite number."""
        return {"schema": self.schema, **to_json(self)}


def to_json(value: Any) -> Any:
    """Return plain values: a dict for a dataclass, a list for a tuple, None for what is not finite."""
    if dataclasses.is_dataclass(value):
        fields = filter(in_json, dataclasses.fields(value))
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, str):  # The bytes of a file name that are no text have no place in JSON.
        return value.encode("utf-8", "backslashreplace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_json(field: dataclasses.Field[Any]) -> bool:
    """Return True if a field of a report is in JSON."""
    return "json" not in field.metadata
