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
            done = run(*shlex.split(line, comments=True)[1:])
            assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.npy").unlink(missing_ok=True)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, {})


def test_files_they_name_exist():
    pattern = r"`((?:mlpinfer|bench|weights|tests|docs)/[^`]*)`"
    names = {name for document in DOCUMENTS for name in re.findall(pattern, document.read_text())}
    assert names
    for name in names:
        assert (ROOT / name).exists(), name
