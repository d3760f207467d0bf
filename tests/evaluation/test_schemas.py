"""Every JSON that is written is what its schema file says, which stands in the package."""

import dataclasses
import functools
import json
import operator
import runpy
from importlib import resources

import jsonschema
import numpy as np
import pytest

from mlpinfer import Dataset, Predictor, score
from mlpinfer.evaluation.report import ClusterInfo, Parity, Stages
from mlpinfer.io.weights.load import shipped
from tests.conftest import ROOT

COMMANDS = [
    ("score", "--repeat", 1),
    ("score", "--repeat", 1, "--values", "proba", "--batch-size", 7),
    ("score", "--repeat", 1, "--errors", 3),
    ("score", "--repeat", 1, "--data", "rows.npy"),
    ("score", "--repeat", 1, "--data", "x.csv", "--labels", "y.csv", "--weights", "line.npz"),
    ("sweep", "--repeat", 1, "--data", "rows.npy", "--batch-sizes", "10,100", "--threads", "1,2"),
    ("devices",),
    ("inspect", shipped()),
    ("inspect", "line.npz", "--trace", "1,2"),
]


def schema(name):
    return json.loads(resources.files("mlpinfer").joinpath(f"schemas/{name}.json").read_text())


@pytest.fixture
def files(tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:200].astype(np.float32) / 255)
    (tmp_path / "x.csv").write_text("1,2\n3,4\n5,6\n")
    (tmp_path / "y.csv").write_text("1\n2\n3\n")
    np.savez(tmp_path / "line.npz", W1=np.ones((2, 1)), b1=np.zeros(1))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command[:4])))
def test_json_of_commands(run, files, command):
    extra = ["--head", "identity"] if "line.npz" in command else []
    done = run(*command, *extra, "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    validator = jsonschema.Draft202012Validator(schema(command[0]))
    validator.check_schema(validator.schema)
    validator.validate(report)
    assert report["schema"] == validator.schema["title"]
    for wrong in (report | {"more": 1}, {key: report[key] for key in list(report)[1:]}):
        if "trace" not in report:
            assert not validator.is_valid(wrong)


WRONG = [
    ("metrics.accuracy", 17),
    ("metrics.n_correct", -3),
    ("metrics.per_class", []),
    ("network.head", "x"),
    ("network.sha256", ""),
    ("network.layers", []),
    ("device.threads", -1),
    ("device.precision", "float8"),
    ("timing.stages", {}),
    ("timing.seconds.min", -1.0),
    ("timing.includes", []),
]


@pytest.mark.parametrize(("place", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_values_that_cannot_be_are_refused(network, mnist, place, value):
    data = Dataset(mnist[0][:200], mnist[1][:200], 1 / 255)
    report = json.loads(json.dumps(score(Predictor(network), data, repeat=1).to_dict()))
    validator = jsonschema.Draft202012Validator(schema("score"))
    assert validator.is_valid(report)
    *path, last = place.split(".")
    functools.reduce(operator.getitem, path, report)[last] = value
    assert not validator.is_valid(report)


def test_reports_of_a_gpu_and_of_a_cluster_are_what_the_schema_says(network, mnist):
    data = Dataset(mnist[0][:200], mnist[1][:200], 1 / 255)
    report = score(Predictor(network), data, repeat=1)
    timing = dataclasses.replace(report.timing, stages=Stages(upload=0.1, compute=0.2, download=0.01))
    on_gpu = dataclasses.replace(
        report, timing=timing, parity=Parity(reference="cpu", labels_different=3, largest_difference=1e-6)
    )
    timing = dataclasses.replace(report.timing, cold_seconds=None, batch_latency_ms=None)
    on_cluster = dataclasses.replace(
        report, timing=timing, cluster=ClusterInfo(workers=2, threads=4, tasks=8)
    )
    for found in (on_gpu, on_cluster):
        jsonschema.validate(found.to_dict(), schema("score"), jsonschema.Draft202012Validator)


def test_the_manifest_of_predictions(run, files, tmp_path):
    done = run("predict", "rows.npy", "--out", "labels")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    jsonschema.validate(manifest, schema("predictions"))


def test_the_files_are_what_the_script_makes_of_the_reports():
    made = runpy.run_path(str(ROOT / "tools" / "make_schemas.py"))["schema_files"]()
    assert set(made) == {"score.json", "sweep.json", "devices.json", "inspect.json"}
    for name, text in made.items():
        assert resources.files("mlpinfer").joinpath(f"schemas/{name}").read_text() == text, (
            "a report has changed: run tools/make_schemas.py"
        )


def test_no_schema_is_without_a_test():
    names = {path.name for path in resources.files("mlpinfer").joinpath("schemas").iterdir()}
    assert names == {f"{name}.json" for name in ("score", "sweep", "devices", "inspect", "predictions")}
