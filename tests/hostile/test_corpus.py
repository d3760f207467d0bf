"""Every file of the corpus, read in a watched process."""

from __future__ import annotations

import collections
import io
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.hostile import corpus, legitimate
from tests.hostile.attack import DANGERS, Attack
from tests.hostile.worker import digest

HERE = Path(__file__).parent
#: Bytes a worker may have beside what it has when it is warm, and seconds for one file.
MEMORY, SECONDS = 2**30, 20
REFUSED = ("WeightsError", "DatasetError")


@dataclass
class Outcome:
    """What came of a file in one reader."""

    name: str
    reader: str
    came: str
    message: str = ""
    did: list[str] = field(default_factory=list)
    poisoned: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def attacks() -> list[Attack]:
    return corpus.files()


@pytest.fixture(scope="module")
def valid() -> list[legitimate.Legitimate]:
    return legitimate.files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, attacks, valid) -> Path:
    """All files, by number."""
    folder = tmp_path_factory.mktemp("files")
    for i, file in enumerate([*valid, *attacks]):
        path = folder / str(i)
        if callable(file.data):
            file.data(str(path))
        else:
            path.write_bytes(file.data)
    return folder


class Workers:
    """Processes that read lists of files; one that dies names the file it died of, and another goes on."""

    def __init__(self, valid: list[list[object]], rows: str, cwd: Path, seconds: int = SECONDS) -> None:
        self._warm, self._rows, self._cwd, self._seconds = valid, rows, cwd, seconds
        self.stderr = ""

    def read(self, files: list[list[object]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while files:
            found, begun = self._run(files)
            outcomes += found
            if begun is None:
                return outcomes
            outcomes.append(Outcome(*begun, "crash"))
            at = next(i for i, file in enumerate(files) if file[0] == begun[0])
            name, path, readers = files[at]
            rest = readers[readers.index(begun[1]) + 1 :]
            files = [[name, path, rest], *files[at + 1 :]]
        return outcomes

    def _run(self, files: list[list[object]]) -> tuple[list[Outcome], tuple[str, str] | None]:
        """Return what happened, and the name and reader that the process died of."""
        command = [sys.executable, "-P", HERE / "worker.py", MEMORY, self._seconds, self._rows]
        done = subprocess.run(
            list(map(str, command)),
            input=json.dumps([*self._warm, [None, None, None], *files]),
            capture_output=True,
            text=True,
            cwd=self._cwd,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.stderr += done.stderr
        outcomes = [Outcome(*line) for line in lines if isinstance(line, list)]
        outcomes = [outcome for outcome in outcomes if outcome.reader != "warm" or outcome.came != "read"]
        if done.returncode == 0 and lines[-1] == "end":
            return outcomes, None
        assert lines, done.stderr
        return outcomes, (lines[-1]["begin"], lines[-1]["reader"])


@pytest.fixture(scope="module")
def workers(folder, valid, tmp_path_factory) -> Workers:
    warm = [[file.name, str(folder / str(i)), [file.reader]] for i, file in enumerate(valid)]
    rows = next(path for name, path, _ in warm if name == "npy_version_1")
    return Workers(warm, rows, tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="module")
def outcomes(workers, folder, attacks, valid) -> list[Outcome]:
    """Every file in every reader, by two processes at a time."""
    readers = ["weights", "data", "labels"]
    names = [file.name for file in [*valid, *attacks]]
    files = [[name, str(folder / str(i)), readers] for i, name in enumerate(names)]
    with ThreadPoolExecutor(2) as pool:
        return [outcome for part in pool.map(workers.read, (files[::2], files[1::2])) for outcome in part]


def told(failures: list[object]) -> str:
    return "\n".join(map(str, failures[:20]))


def test_the_corpus_is_whole(attacks, valid):
    assert len(attacks) >= 200
    assert len(valid) >= 60
    names = collections.Counter(file.name for file in [*attacks, *valid])
    assert max(names.values()) == 1, names.most_common(3)
    found = collections.Counter((attack.danger, attack.format) for attack in attacks)
    assert {danger for danger, _ in found} == set(DANGERS)
    wanted = {(danger, kind) for danger, kinds in DANGERS.items() for kind in kinds}
    assert [pair for pair in wanted if found[pair] < 2] == []


def test_what_runs_code_runs_it(tmp_path, attacks):
    """Under plain `pickle.load` and `numpy.load`: so that a refusal of it proves something."""
    armed = [attack for attack in attacks if attack.fires]
    files = []
    for i, attack in enumerate(armed):
        data = attack.data
        if attack.format == "torch":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read("archive/data.pkl")
        (tmp_path / str(i)).write_bytes(data)
        files.append([attack.name, str(tmp_path / str(i)), attack.fires])
    done = subprocess.run(
        [sys.executable, "-P", HERE / "fire.py"],
        input=json.dumps(files),
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert sorted(json.loads(done.stdout)) == sorted(attack.name for attack in armed)
    assert len(armed) > 30


def test_valid_files_load(outcomes, valid):
    expected = {(file.name, file.reader): digest(file.arrays) for file in valid}
    found = {
        (outcome.name, outcome.reader): outcome.message for outcome in outcomes if outcome.came == "read"
    }
    assert [name for name, wanted in expected.items() if found.get(name) != wanted] == []


def test_attacks_are_refused(outcomes, attacks):
    """Each by the reader of its format, for what it is."""
    found = {(outcome.name, outcome.reader): outcome for outcome in outcomes}
    failures = []
    for attack in attacks:
        outcome = found[attack.name, attack.reader]
        wanted = (attack.message or "").split("|")
        refused = outcome.came in REFUSED and any(part in outcome.message for part in wanted)
        if not refused and not (attack.message is None and outcome.came == "read"):
            failures.append((outcome, attack.message))
    assert not failures, told(failures)


def test_nothing_but_our_errors_comes_out(outcomes, attacks, valid):
    """Whichever reader a file is given to: no crash, no hang, no other exception."""
    assert len(outcomes) == 3 * (len(attacks) + len(valid))
    failures = [outcome for outcome in outcomes if outcome.came not in ("read", *REFUSED)]
    assert not failures, told(failures)


def test_messages_are_one_short_printable_line(outcomes):
    failures = [
        outcome
        for outcome in outcomes
        if outcome.came in REFUSED and not (0 < len(outcome.message) < 500 and outcome.message.isprintable())
    ]
    assert not failures, told(failures)


def test_nothing_is_run_written_or_poisoned(outcomes, workers):
    failures = [outcome for outcome in outcomes if outcome.did or outcome.poisoned]
    assert not failures, told(failures)
    assert list(workers._cwd.iterdir()) == []
    assert workers.stderr == ""


@pytest.mark.parametrize(
    ("name", "saw"),
    [
        ("pickle_globals_os_system", "os.system"),
        ("pickle_globals_getoutput", "subprocess.Popen"),
        ("pickle_globals_open", "open 'fired' w"),
        ("pickle_globals_numpy_save", "open 'fired.npy' w"),
        ("pickle_build_function", "posixpath"),
        ("pickle_build_class", "JSONDecoder"),
        ("pickle_globals_name_import", "this"),
        ("pickle_globals_name_socket", "socket."),
        ("pickle_globals_name_crash", "crash"),
        ("pickle_laughs_tuple_key", "hang|crash"),
        ("pickle_declared_sizes_memo", "MemoryError"),
    ],
)
def test_the_watch_sees_what_an_unsafe_reader_does(attacks, folder, valid, workers, tmp_path, name, saw):
    at = next(i for i, attack in enumerate(attacks) if attack.name == name)
    path = str(folder / str(len(valid) + at))
    watched = Workers(workers._warm[:1], workers._rows, tmp_path, seconds=2)
    (outcome,) = [found for found in watched.read([[name, path, ["unsafe"]]]) if found.reader == "unsafe"]
    seen = f"{outcome.came} {outcome.did} {outcome.poisoned}"
    assert any(part in seen for part in saw.split("|")), outcome
