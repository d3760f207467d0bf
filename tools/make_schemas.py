"""Write the JSON schema files of the reports, ``mlpinfer/schemas``, from their dataclasses.

Run it after a report has changed: ``python tools/make_schemas.py``. It needs pydantic (extra ``test``).
The manifest of a job, ``predictions.json``, is no dataclass; its schema is written by hand.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mlpinfer._json import Report, in_json
from mlpinfer.engine.devices import Inventory
from mlpinfer.evaluation.mistakes import Mistake, Mistakes
from mlpinfer.evaluation.report import ScoreReport
from mlpinfer.evaluation.sweep import SweepReport
from mlpinfer.model.summary import NetworkSummary

FOLDER = Path(__file__).parents[1] / "mlpinfer" / "schemas"
# Its image is an array, of which pydantic knows nothing, and not in JSON.
Mistake.__pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)
REPORTS: tuple[type[Report], ...] = (ScoreReport, SweepReport, Inventory, NetworkSummary)


@dataclasses.dataclass
class Trace:
    """What a layer computes for one row, as ``mlpinfer inspect --trace`` adds it."""

    affine: list[float]
    activation: list[float]


#: What an option of a command adds to a report, where it is given.
ADDED: dict[type[Report], dict[str, Any]] = {
    ScoreReport: {"mistakes": Mistakes},
    NetworkSummary: {"trace": list[Trace]},
}

COUNT = {"minimum": 0}
FROM_ONE = {"minimum": 1}
POSITIVE = {"minimum": 0}  # Of measured times and rates, which a coarse clock may round to zero.
SHARE = {"minimum": 0, "maximum": 1}
SOME = {"minItems": 1}
SIZES = {"minItems": 2, "items": FROM_ONE}
SHA256 = {"pattern": "^[0-9a-f]{64}$", "description": "of weights, activations and scale"}
SCALE = {"description": "what inputs are multiplied by"}
PRECISION = {"enum": ["float32", "float64"]}

#: What the types do not say, by class and field.
CONSTRAINTS: dict[str, dict[str, dict[str, Any]]] = {
    "NetworkInfo": {
        "layers": SIZES,
        "parameters": FROM_ONE,
        "head": {"enum": ["softmax", "sigmoid", "identity"]},
        "scale": SCALE,
        "sha256": SHA256,
    },
    "DataInfo": {"samples": FROM_ONE, "features": FROM_ONE},
    "DeviceInfo": {"threads": FROM_ONE, "precision": PRECISION},
    "BatchInfo": {
        "size": FROM_ONE,
        "full": COUNT,
        "tail": COUNT | {"description": "rows in a shorter batch"},
    },
    "ClassificationMetrics": {
        "accuracy": SHARE | {"description": "share of rows whose label is right"},
        "n_correct": COUNT,
        "log_loss": {"description": "mean negative log likelihood, nats"},
        "per_class": SOME,
        "confusion": SOME
        | {
            "items": {"items": COUNT},
            "description": "rows by true label (outer) and predicted label (inner)",
        },
    },
    "ClassMetrics": {"label": COUNT, "precision": SHARE, "recall": SHARE, "f1": SHARE, "support": COUNT},
    "Timing": {
        "cold_seconds": POSITIVE | {"description": "seconds, the first pass over all rows"},
        "seconds": {"description": "seconds of the timed passes, wall clock"},
        "samples_per_second": POSITIVE | {"description": "rows a second, end to end"},
        "batch_latency_ms": {"description": "milliseconds of a batch on one thread"},
        "includes": SOME | {"description": "every step that is timed"},
        "stages": {"description": "seconds, one after the other"},
    },
    "Spread": {"min": POSITIVE, "median": POSITIVE, "max": POSITIVE},
    "Latency": {"p50": POSITIVE, "p90": POSITIVE, "p95": POSITIVE, "p99": POSITIVE},
    "Stages": {"upload": POSITIVE, "compute": POSITIVE, "download": POSITIVE},
    "Parity": {
        "labels_different": COUNT,
        "largest_difference": POSITIVE | {"description": "of probabilities, or of values"},
    },
    "ClusterInfo": {"workers": FROM_ONE, "threads": FROM_ONE, "tasks": FROM_ONE},
    "ScoreReport": {
        "mistakes": {
            "description": "with --errors: how many rows were labelled wrongly, the most confident first"
        },
    },
    "Mistakes": {"total": COUNT},
    "Mistake": {
        "row": COUNT,
        "label": COUNT,
        "predicted": COUNT,
        "confidence": SHARE | {"description": "probability given to the predicted label"},
    },
    "SweepReport": {
        "precision": PRECISION,
        "values": {"enum": ["labels", "proba"]},
        "points": SOME,
        "crossover": FROM_ONE | {"description": "rows a batch from which the GPU is faster"},
    },
    "SweepPoint": {
        "asked_threads": FROM_ONE,
        "threads": FROM_ONE,
        "batch_size": FROM_ONE,
        "samples_per_second": POSITIVE | {"description": "rows a second, end to end"},
        "seconds": {"description": "seconds of the timed passes, wall clock"},
        "batch_latency_ms": {"description": "milliseconds of a batch on one thread"},
    },
    "Bound": {
        "limit": {"enum": ["launches", "transfer", "memory", "arithmetic"]},
        "row_us": POSITIVE | {"description": "microseconds a row, wall clock"},
        "launches": POSITIVE,
        "transfer": POSITIVE,
        "memory": POSITIVE,
        "arithmetic": POSITIVE,
    },
    "Inventory": {
        "devices": SOME,
        "compiled": {"description": "the compiled evaluator of this machine"},
        "cores": FROM_ONE,
    },
    "NetworkSummary": {
        "layers": SOME,
        "sizes": SIZES,
        "parameters": FROM_ONE,
        "multiply_adds": COUNT,
        "bytes": COUNT,
        "scale": SCALE,
        "sha256": SHA256,
        "trace": {"description": "with --trace: what each layer computes for one row"},
    },
    "LayerSummary": {
        "W": {"prefixItems": [COUNT, COUNT]},
        "b": {"prefixItems": [COUNT]},
        "output": {"prefixItems": [{"const": -1}, COUNT], "description": "-1 stands for the batch"},
        "parameters": FROM_ONE,
        "multiply_adds": COUNT,
    },
}


class _Generator(GenerateJsonSchema):
    """Make the schema of what `mlpinfer._json.to_json` writes, with the constraints of the table."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """Describe a dataclass: all its fields that are in JSON are there, and no other."""
        constraints = CONSTRAINTS.get(schema["cls"].__name__, {})
        described = super().dataclass_schema(schema)["properties"]
        fields = [field.name for field in dataclasses.fields(schema["cls"]) if in_json(field)]
        return {
            "type": "object",
            "properties": {name: _merged(described[name], constraints.get(name, {})) for name in fields},
            "required": fields,
            "additionalProperties": False,
        }

    def float_schema(self, schema: Any) -> dict[str, Any]:
        """Describe a number; one that is not finite is written as null."""
        return {"type": ["number", "null"]}

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """Describe what may be None, in one list of types where that is enough."""
        inner = self.generate_inner(schema["schema"])
        if inner.keys() != {"type"}:
            return {"anyOf": [inner, {"type": "null"}]}
        types = inner["type"] if isinstance(inner["type"], list) else [inner["type"]]
        return {"type": [*types, *({"null"} - {*types})]}

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:
        """Describe an array: it is in a field that is not in JSON."""
        return {}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a field's title would only repeat its name."""
        return False


def schema_of(report: type[Report]) -> dict[str, Any]:
    """Return the JSON schema of a report, with what options of its command add to it."""
    types = {"": report, **ADDED.get(report, {})}
    adapters = [(name, "serialization", TypeAdapter(type_)) for name, type_ in types.items()]
    found, definitions = TypeAdapter.json_schemas(adapters, schema_generator=_Generator)
    classes = definitions["$defs"]
    body = classes.pop(report.__name__)
    constraints = CONSTRAINTS[report.__name__]
    added = {name: _merged(schema, constraints[name]) for (name, _), schema in found.items() if name}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": report.schema,
        **body,
        "properties": {"schema": {"const": report.schema}, **body["properties"], **added},
        "required": ["schema", *body["required"]],
        "$defs": classes,
    }


def _merged(schema: Any, constraints: Any) -> Any:
    """Return a schema with constraints put at their places in it."""
    if isinstance(constraints, dict):
        return schema | {key: _merged(schema.get(key, {}), value) for key, value in constraints.items()}
    if isinstance(constraints, list) and isinstance(schema, list):
        return [_merged(*pair) for pair in zip(schema, constraints, strict=True)]
    return constraints


def schema_files() -> dict[str, str]:
    """Return the name and the text of every schema file that this script writes."""
    names = {report: report.schema.removeprefix("mlpinfer.").removesuffix("/1") for report in REPORTS}
    return {f"{name}.json": json.dumps(schema_of(report), indent=1) + "\n" for report, name in names.items()}


if __name__ == "__main__":
    for name, text in schema_files().items():
        (FOLDER / name).write_text(text)
