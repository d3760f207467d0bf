"""What the documents say runs."""

import re
import shlex

import numpy as np
import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_and_code(document, run, tmp_path, mnist, monkeypatch):
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    np.save(tmp_path / "rows.npy", mnist[0][:500])
    np.save(tmp_path / "day-1.npy", mnist[0][:300])
    text = document.read_text()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            done = run(*shlex.split(line)[1:])
            resumed = (
                "--resume" in line and "use --overwrite" in done.stderr
            )  # the line before was not stopped
            assert done.returncode == 0 or resumed, done.stderr
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.npy").unlink(missing_ok=True)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, {})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_files_it_names_exist(document):
    for name in re.findall(r"`((?:mlpinfer|bench|weights|tests|docs)/[^`]*)`", document.read_text()):
        assert (ROOT / name).exists(), name
