import json
import sys

import pytest

from mlpinfer import InputError, Network, Predictor
from mlpinfer.engine.compiled.availability import VARIABLE, Compiled, find_compiled
from tests.conftest import EVALUATORS

COMPILED = EVALUATORS[1:]


def test_what_does_not_fit_goes_to_the_plan(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    chosen = find_compiled().instruction_set
    best = f"compiled {chosen}" if chosen else "plan"
    assert Predictor(Network.random([5_000, 256, 256])).evaluator == best
    assert Predictor(Network.random([4, 4_097, 2])).evaluator == "plan"
    assert Predictor(Network.random([4, 3, 4_097])).evaluator == "plan"
    assert Predictor(Network.random([4, 3, 2]), precision="float64").evaluator == "plan"
    # What is folded counts: linear layers are joined.
    assert Predictor(Network.random([4, 300, 2], hidden="identity")).evaluator == best


def test_the_variable_must_name_what_is_there(monkeypatch, network):
    monkeypatch.setenv(VARIABLE, "sparc")
    with pytest.raises(InputError, match=r"^MLPINFER_EVALUATOR: expected one of plan.* found 'sparc'$"):
        Predictor(network)


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv(VARIABLE, "plan")
    found = find_compiled()
    assert found.instruction_set is None
    assert found.available == COMPILED
    assert found.problem


def test_without_the_extension(monkeypatch, network, mnist):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delattr("mlpinfer.engine.compiled._cpu", raising=False)
    monkeypatch.setitem(sys.modules, "mlpinfer.engine.compiled._cpu", None)
    found = find_compiled()
    assert found == Compiled(
        instruction_set=None,
        available=(),
        problem="mlpinfer was installed without it",
        fix="install GCC or Clang and mlpinfer again, from source",
    )
    plan = Predictor(network, scale=1 / 255)
    assert plan.evaluator == "plan"
    assert (plan.predict(mnist[0]) == mnist[1]).sum() == 9777


def test_reports_say_what_ran(run, evaluator):
    report = json.loads(run("score", "--repeat", 1, "--json", "-", MLPINFER_EVALUATOR=evaluator).stdout)
    expected = "plan" if evaluator == "plan" else f"compiled {evaluator}"
    assert report["device"]["evaluator"] == expected
    assert expected in run("score", "--repeat", 1, MLPINFER_EVALUATOR=evaluator).stdout
    devices = run("devices", MLPINFER_EVALUATOR=evaluator).stdout
    assert f"On the CPU networks are run by: {expected}" in devices
    compiled = json.loads(run("devices", "--json", "-", MLPINFER_EVALUATOR=evaluator).stdout)["compiled"]
    assert compiled["instruction_set"] == (None if evaluator == "plan" else evaluator)
    refused = run("score", MLPINFER_EVALUATOR="sparc")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
