"""Every example runs, in an empty folder, and says what its lesson is."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

EXAMPLES = {
    "activations": (["drew activations.png"], ["activations.png"]),
    "binary_classifier": (["loss 0.6799", "loss 0.0465", "label 1: 0.00314"], ["blobs.png"]),
    "digit_from_png": (["seven.png: 7 with probability 0.99"], ["seven.png"]),
    "gates": (["AND  [0 0 0 1]", "OR   [0 1 1 1]", "NAND [1 1 1 0]", "XOR  [0 1 1 0]"], []),
    "linear_stack": (["(5, 2, 1) is (5, 1)", "(5, 2, 1) stays"], []),
    "one_by_one": (["batches of   1: accuracy 0.9777", "batches of 100: accuracy 0.9777"], []),
    "torch_network": (["109,386 parameters", "0.9820"], []),
}


def test_every_example_is_here():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    texts, files = EXAMPLES[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / f"{name}.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in texts:
        assert text in done.stdout
    for file in files:
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")


def test_the_readme_of_the_examples_names_them_all():
    text = (ROOT / "examples" / "README.md").read_text()
    assert set(re.findall(r"`(\w+)\.py`", text)) == EXAMPLES.keys()
