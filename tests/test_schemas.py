"""Every JSON that is written is what its schema file says, which stands in the package."""

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

from mlpinfer.weight_files import shipped

COMMANDS = [
    ("score", "--repeat", 1),
    ("score", "--repeat", 1, "--values", "proba", "--batch-size", 7),
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
    for wrong in (report | {"more": 1}, {key: report[key] for key in list(report)[:-1]}):
        if "trace" not in report:
            assert not validator.is_valid(wrong)


def test_the_manifest_of_predictions(run, files, tmp_path):
    done = run("predict", "rows.npy", "--out", "labels")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    jsonschema.validate(manifest, schema("predictions"))


def test_no_schema_is_without_a_test():
    names = {path.name for path in resources.files("mlpinfer").joinpath("schemas").iterdir()}
    assert names == {f"{name}.json" for name in ("score", "sweep", "devices", "inspect", "predictions")}
