"""What can go wrong around a run: full disks, signals, closed streams, changed files, forks, no memory."""

import contextlib
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mlpinfer import DatasetError, Network, Predictor, WeightsError, load_data, load_network, save_network
from mlpinfer.io.data import idx, npy
from mlpinfer.io.data.open import open_rows
from mlpinfer.io.data.source import DataSource
from mlpinfer.io.weights.load import shipped
from mlpinfer.jobs import outputs, score_tasks, tasks
from mlpinfer.jobs import predict as jobs_predict
from tests.conftest import EVALUATORS

SCORE = ["score", "--repeat", "1"]
#: Nothing can be made there, whoever tries.
NOWHERE = "/dev/null/home"


@pytest.fixture
def rows(tmp_path, mnist):
    path = tmp_path / "rows.npy"
    np.save(path, mnist[0])
    return path


@pytest.fixture
def start(tmp_path):
    """Start `mlpinfer`, or a script, as a process in an empty folder."""
    processes = []

    def start(*args, script=None, before=None, **environment):
        what = ["-c", script] if script else ["-m", "mlpinfer"]
        process = subprocess.Popen(
            [sys.executable, *what, *map(str, args)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process):
    """Return exit code, stdout and stderr; a hang is an error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def shell(tmp_path):
    """Run a line of shell, in which `mlpinfer` is the command."""

    def shell(line):
        return subprocess.run(
            ["bash", "-c", f'mlpinfer() {{ "{sys.executable}" -m mlpinfer "$@"; }}; set -o pipefail; {line}'],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return shell


def is_one_line(err, text=""):
    return err.startswith("mlpinfer: ") and err.count("\n") == 1 and text in err


# -- the disk ------------------------------------------------------------------------------------------


def small_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))


@pytest.mark.parametrize("old", [None, b"precious"])
@pytest.mark.parametrize(
    ("args", "name"),
    [
        ([*SCORE, "--json", "out.json"], "out.json"),
        (["devices", "--json", "out.json"], "out.json"),
        (["inspect", shipped(), "--json", "out.json"], "out.json"),
        *(
            (["convert", shipped(), f"out.{suffix}", "--force"], f"out.{suffix}")
            for suffix in ("npz", "onnx")
        ),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(start, tmp_path, args, name, old):
    if old:
        (tmp_path / name).write_bytes(old)
    code, _, err = ended(start(*args, before=small_files))
    assert (code, err) == (1, f"mlpinfer: {name}: File too large\n")
    assert os.listdir(tmp_path) == ([name] if old else [])
    assert not old or (tmp_path / name).read_bytes() == old


@pytest.mark.parametrize(
    "args", [[*SCORE, "--json", "-"], SCORE, ["predict", "rows.npy", "--scale", "1/255"]]
)
def test_a_full_disk_behind_stdout_is_one_line(shell, rows, args):
    done = shell(f"mlpinfer {' '.join(args)} > /dev/full")
    assert (done.returncode, done.stderr) == (1, "mlpinfer: stdout: No space left on device\n")


def test_a_home_that_cannot_be_written_is_no_matter(start, tmp_path, rows):
    for args in (
        [*SCORE, "--json", "-"],
        ["devices"],
        ["convert", shipped(), "a.npz"],
        ["inspect", shipped(), "--plot", "w.png"],
        ["predict", rows, "--scale", "1/255", "--out", "labels.npy"],
    ):
        places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), NOWHERE)
        code, _, err = ended(start(*args, **places, TMPDIR=str(tmp_path)))
        assert (code, err) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "labels.npy", "rows.npy", "w.png"]


# -- files that change while they are read -------------------------------------------------------------


def test_weights_that_are_replaced_are_the_old_or_the_new(tmp_path):
    networks = [Network.random([50, 40, 10], seed=seed) for seed in range(2)]
    known = {network.sha256 for network in networks}
    path, done = tmp_path / "w.npz", threading.Event()
    save_network(networks[0], path)

    def replace():
        while not done.is_set():
            for network in networks:
                save_network(network, path)

    writer = threading.Thread(target=replace)
    writer.start()
    found = set()
    try:
        for _ in range(100):
            found.add(load_network(path).sha256)
    finally:
        done.set()
        writer.join(60)
    assert found <= known
    assert os.listdir(tmp_path) == ["w.npz"]


def test_weights_that_are_cut_short_are_refused(tmp_path):
    network = Network.random([50, 40, 10])
    path, done = tmp_path / "w.safetensors", threading.Event()
    save_network(network, path)
    data = path.read_bytes()

    def rewrite():
        moments = random.Random(0)
        while not done.is_set():
            path.write_bytes(data[: moments.randrange(len(data))])
            path.write_bytes(data)

    writer = threading.Thread(target=rewrite)
    writer.start()
    refused = 0
    try:
        for _ in range(300):
            try:
                found = load_network(path).sha256
            except WeightsError:
                refused += 1
            else:
                assert found == network.sha256
    finally:
        done.set()
        writer.join(60)
    assert refused


@pytest.mark.parametrize("kind", ["npy", "idx", "gz", "csv"])
def test_rows_that_are_cut_short_or_replaced_are_refused(tmp_path, kind):
    x = np.random.default_rng(0).integers(0, 255, (2_000, 64)).astype(np.uint8)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "csv":
        np.savetxt(path, x, fmt="%d", delimiter=",")
    else:
        import gzip

        data = idx.encode(x)
        path.write_bytes(gzip.compress(data) if kind == "gz" else data)
    data = path.read_bytes()
    for change in (data[: len(data) // 2], data[:2], b""):
        rows = open_rows([path])
        path.write_bytes(change)
        with pytest.raises(DatasetError) as caught:
            rows.read(0, 2_000)
        assert len(str(caught.value)) < 500
        path.write_bytes(data)


def test_a_file_that_is_cut_short_between_a_look_and_the_mapping_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((100, 4)))
    whole, memmap = path.read_bytes(), np.memmap

    def cut_first(file, *args):
        os.truncate(path, 200)
        return memmap(file, *args)

    monkeypatch.setattr(np, "memmap", cut_first)
    with pytest.raises(DatasetError, match=r"x.npy: changed while it was read, try again"):
        load_data(path)
    path.write_bytes(whole)

    def no_memory(file, *args):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", no_memory)
    with pytest.raises(DatasetError, match=r"x.npy: cannot be mapped into memory: Cannot allocate memory"):
        load_data(path)


@pytest.mark.parametrize("kind", ["npy", "fortran", "columns", "idx"])
def test_a_file_that_is_cut_short_as_it_is_read_is_refused(tmp_path, monkeypatch, kind):
    path, x = tmp_path / "x", np.ones((20_000 if kind == "columns" else 1_000, 8), np.float32)
    if kind == "idx":
        path.write_bytes(idx.encode(x))
    else:
        with path.open("wb") as file:
            np.save(file, x if kind == "npy" else np.asfortranarray(x))
    rows, module = open_rows([path]), idx if kind == "idx" else npy
    read_into = module.read_into

    def cut_first(out, file, offset):
        os.truncate(path, 200)
        read_into(out, file, offset)

    monkeypatch.setattr(module, "read_into", cut_first)
    with pytest.raises(DatasetError, match=r"x: changed while it was read, try again"):
        rows.read(0, len(x))


@pytest.mark.parametrize("command", ["score", "predict"])
def test_a_file_that_is_cut_short_as_it_is_read_is_one_line(start, tmp_path, command):
    script = """
import os
from mlpinfer.io.data import npy
read_into = npy.read_into
def cut_first(out, *args):
    if out.nbytes > 10_000:
        os.truncate("rows.npy", 4096)
    return read_into(out, *args)
npy.read_into = cut_first
from mlpinfer import __main__
__main__.run()
"""
    np.save(tmp_path / "rows.npy", np.zeros((50_000, 784), np.uint8))
    args = ["--data", "rows.npy"] if command == "score" else ["rows.npy"]
    code, out, err = ended(start(command, *args, "--scale", "1/255", script=script))
    assert (code, out, err) == (5, "", "mlpinfer: rows.npy: changed while it was read, try again\n")


@pytest.mark.parametrize("evaluator", EVALUATORS[:2])
def test_a_mapped_file_that_is_cut_short_is_one_line(start, tmp_path, evaluator):
    """The system sends SIGBUS, of which Python knows nothing to say."""
    script = """
import os, sys
from mlpinfer.engine import predictor
run = predictor.run_all
def cut_first(*args):
    os.truncate("rows.npy", 4096)
    return run(*args)
predictor.run_all = cut_first
from mlpinfer import __main__
__main__.run()
"""
    np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.uint8, (50_000, 784)).flush()
    args = ["predict", "rows.npy", "--scale", "1/255", "--out", "out.npy"]
    code, out, err = ended(start(*args, script=script, MLPINFER_EVALUATOR=evaluator))
    assert (code, out) == (5, "")
    assert is_one_line(err, "a data file was cut short while it was read")
    assert not (tmp_path / "out.npy").exists()


def test_rows_that_change_while_they_are_computed(tmp_path, network, monkeypatch):
    np.save(tmp_path / "rows.npy", np.zeros((100, 784), np.uint8))
    predictor = Predictor(network, batch_size=50, scale=1 / 255)
    compute = predictor.compute

    def change_beside(x, output="labels"):
        os.utime(tmp_path / "rows.npy", (1, 1))
        return compute(x, output)

    inputs = DataSource((str(tmp_path / "rows.npy"),))
    job = tasks.split_job(predictor, inputs, tmp_path / "out.npy")
    (score_task,) = score_tasks.split_score(predictor, inputs).tasks
    monkeypatch.setattr(predictor, "compute", change_beside)
    for run in (
        lambda: jobs_predict.run_job(predictor, job),
        lambda: score_tasks.run_score_task(predictor, score_task),
    ):
        with pytest.raises(DatasetError, match=r"rows.npy: changed since the run began; begin anew"):
            run()
        os.utime(tmp_path / "rows.npy", ns=(job.description["inputs"][0][2],) * 2)


def test_values_of_old_and_new_rows_are_not_mixed(tmp_path, network, monkeypatch, run):
    np.save(tmp_path / "rows.npy", np.zeros((500, 784), np.uint8))
    predictor = Predictor(network, batch_size=50, scale=1 / 255)
    compute, how = jobs_predict.compute, {"rows_per_task": 100}

    def change_behind(predictor, task, files):
        values = compute(predictor, task, files)
        if task.begin == 200:
            np.save(tmp_path / "rows.npy", np.ones((500, 784), np.uint8))
            os.utime(tmp_path / "rows.npy", (1, 1))
        return values

    job = tasks.split_job(predictor, DataSource((str(tmp_path / "rows.npy"),)), tmp_path / "out.npy", **how)
    with monkeypatch.context() as patch:
        patch.setattr(jobs_predict, "compute", change_behind)
        with pytest.raises(DatasetError, match=r"rows.npy: changed since the run began; begin anew"):
            jobs_predict.run_job(predictor, job)
    assert not (tmp_path / "out.npy").exists()
    args = ["predict", "rows.npy", "--scale", "1/255", "--batch-size", 50, "--out", "out.npy"]
    assert "expected inputs as it was" in run(*args, "--rows-per-task", 100, "--resume").stderr
    assert run(*args, "--overwrite").returncode == 0
    assert (np.load(tmp_path / "out.npy") == predictor.predict(np.ones(784, np.uint8))).all()


def test_lines_of_old_and_new_rows_are_an_error(tmp_path, mnist, start):
    script = """
import os
from mlpinfer.cli import app as cli
from mlpinfer.io.data import npy
read = npy.NpyRows.read
def change_behind(self, begin, end):
    if begin == 1000:
        os.utime("rows.npy", (1, 1))
    return read(self, begin, end)
npy.NpyRows.read = change_behind
cli.main()
"""
    np.save(tmp_path / "rows.npy", mnist[0][:1_500])
    code, _, err = ended(start("predict", "rows.npy", "--scale", "1/255", script=script))
    assert (code, err) == (5, "mlpinfer: rows.npy: changed while it was read, try again\n")


def test_a_score_of_old_and_new_rows_is_an_error(tmp_path, mnist, start):
    script = """
import os
from mlpinfer.cli import app as cli
from mlpinfer.evaluation import score as scoring
score = scoring.score
def change_behind(*args, **options):
    found = score(*args, **options)
    os.utime("t.npy", (1, 1))
    return found
scoring.score = change_behind
cli.main()
"""
    np.save(tmp_path / "x.npy", mnist[0][:100])
    np.save(tmp_path / "t.npy", mnist[1][:100])
    args = ["score", "--data", "x.npy", "--labels", "t.npy", "--scale", "1/255"]
    code, out, err = ended(start(*args, script=script))
    assert (code, out, err) == (5, "", "mlpinfer: t.npy: changed while it was read, try again\n")


def test_a_part_that_lost_its_end_is_not_taken(tmp_path, network, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:300])
    predictor = Predictor(network, batch_size=50, scale=1 / 255)
    inputs = DataSource((str(tmp_path / "rows.npy"),))
    job = tasks.split_job(predictor, inputs, tmp_path / "out.npy", rows_per_task=100)
    parts = jobs_predict.run_job(predictor, job)
    os.truncate(job.tasks[1].path, 0)
    with pytest.raises(OSError, match=r"changed since it was written; resume .* computes it again"):
        outputs.finish(job, parts)
    outputs.finish(job, jobs_predict.run_job(predictor, job, resume=True))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.predict(mnist[0][:300]))


# -- signals -------------------------------------------------------------------------------------------


def wait_until_caught(process):
    """Until then it is Python that starts, and nothing of ours could say a line."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        mask = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        if mask and int(mask[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
    raise AssertionError("it never caught SIGTERM")


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("command", ["score", "predict"])
def test_a_signal_at_any_moment_is_one_line(start, run, tmp_path, rows, number, code, said, command):
    how = ["predict", "rows.npy", "--scale", "1/255", "--values", "logits", "--rows-per-task", 100]
    args = (
        ["score", "--repeat", 5, "--json", "out.json"] if command == "score" else [*how, "--out", "out.npy"]
    )
    begin = time.perf_counter()
    assert run(*args).returncode == 0
    seconds = time.perf_counter() - begin
    out = tmp_path / args[-1]
    whole = out.read_bytes()
    moments, stopped = random.Random(number), 0
    for _ in range(4):
        out.unlink(missing_ok=True)
        process = start(*args)
        wait_until_caught(process)
        time.sleep(moments.uniform(0, 0.8) * seconds)
        process.send_signal(number)
        found, _, err = ended(process)
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":  # prints what interrupts its import, at length
            err = err[err.rfind("mlpinfer: ") :] if err else ""
        assert (found, err) in ((code, f"mlpinfer: {said}\n"), (0, ""))
        stopped += found == code
        assert set(os.listdir(tmp_path)) <= {"rows.npy", out.name, f"{out.name}.partial"}
        assert not list(tmp_path.glob("**/*.tmp"))
        if command == "predict":
            assert not out.exists() or out.read_bytes() == whole
            assert run(*args, "--resume").returncode == 0
            assert out.read_bytes() == whole
        elif out.exists():
            assert json.loads(out.read_text())["metrics"]["n_correct"] == 9777
    assert stopped


def test_a_signal_that_the_parent_ignores_is_ignored(start):
    process = start("score", "--repeat", 100, before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_until_caught(process)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "moment",
    [
        # Python 3.11 makes a RuntimeError of what is raised there.
        "type('C', (), {'x': type('D', (), {'__set_name__': lambda *_: come()})()})",
        "come()",
    ],
)
def test_a_signal_is_not_lost_where_python_hides_what_it_raises(start, moment):
    script = f"""
import os, signal, sys, time
from mlpinfer import __main__
from mlpinfer.cli import app as cli
def come():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10): pass
def invoke(context):
    {moment}
    time.sleep(30)
cli.group.invoke = invoke
__main__.run()
"""
    assert ended(start("devices", script=script)) == (143, "", "mlpinfer: terminated\n")


def test_a_signal_while_a_part_is_waited_for_leaves_it_whole(start, tmp_path, rows):
    script = """
import os, signal, threading, time
from mlpinfer import __main__, errors
from mlpinfer.jobs import predict as jobs
compute, fsync = jobs.compute, os.fsync
def fail_at_the_second(predictor, task, files):
    if task.begin:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise errors.DatasetError("x")
    os.fsync = lambda file: (time.sleep(0.5), fsync(file))
    return compute(predictor, task, files)
jobs.compute = fail_at_the_second
__main__.run()
"""
    args = ["predict", "rows.npy", "--scale", "1/255", "--out", "out.npy", "--batch-size", 50]
    code, _, err = ended(start(*args, "--rows-per-task", 100, script=script))
    assert (code, err) == (143, "mlpinfer: terminated\n")
    left = sorted(os.path.splitext(name)[1] for name in os.listdir(tmp_path / "out.npy.partial"))
    assert left == [".json", ".json", ".npy"]  # the job, the part and its PartInfo


# -- streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [f"{' '.join(SCORE)} --json -", " ".join(SCORE), "predict rows.npy --scale 1/255", "--help", "devices"],
)
def test_a_reader_that_leaves_is_no_error_to_speak_of(shell, rows, args):
    done = shell(f"mlpinfer {args} | head -1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    done = shell(f"mlpinfer {args} 2>&1 | true")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("stdout", [">&-", "> /dev/full", "| true"])
def test_what_goes_to_a_file_does_not_depend_on_stdout(shell, tmp_path, rows, stdout):
    for command in ("score --repeat 1", f"inspect {shipped()}", "devices"):
        shell(f"mlpinfer {command} --json out.json {stdout}")
        assert json.loads((tmp_path / "out.json").read_text())["schema"].startswith("mlpinfer.")
        (tmp_path / "out.json").unlink()
    done = shell(f"mlpinfer predict rows.npy --scale 1/255 --out out.npy {stdout}")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.load(tmp_path / "out.npy").shape == (10_000,)


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", "2> /dev/full"])
def test_without_stdin_and_stderr_all_is_as_it_was(shell, tmp_path, rows, closed):
    done = shell(f"mlpinfer score --repeat 1 --json - {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["metrics"]["n_correct"] == 9777
    done = shell(f"mlpinfer predict rows.npy --scale 1/255 --out out.npy {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert np.load(tmp_path / "out.npy").shape == (10_000,)
    done = shell(f"mlpinfer score --weights none {closed}")
    assert (done.returncode, done.stdout) == (4, "")


def test_a_closed_stdout_loses_nothing_in_silence(shell, tmp_path, rows):
    for args in ("score --repeat 1 --json -", "predict rows.npy --scale 1/255", "--version"):
        done = shell(f"mlpinfer {args} >&-")
        assert (done.returncode, done.stderr) == (1, "mlpinfer: stdout: Bad file descriptor\n")
    # A file that is opened does not get the number of a stream, and what is said into it.
    done = shell("mlpinfer predict rows.npy --scale 1/255 --out out.csv <&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "out.csv").read_text().startswith("label\n7\n2\n1\n")


# -- processes -----------------------------------------------------------------------------------------

FORK = """
import os, sys, threading, time
import numpy as np
from mlpinfer import Predictor, load_mnist, load_network
from mlpinfer.io.weights.load import shipped

x, _ = load_mnist(normalize=False)
predictor = Predictor(load_network(shipped()), batch_size=50, threads=3, scale=1 / 255)
expected = predictor.decision_function(x)
done = threading.Event()

def work():
    while not done.is_set():
        predictor.decision_function(x)

others = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
for other in others:
    other.start()
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        right = np.array_equal(predictor.decision_function(x), expected)
        os._exit(0 if right and threading.active_count() == 1 else 9)
    deadline = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os._exit(8)
        time.sleep(0.001)
    if status:
        os._exit(7)
done.set()
for other in others:
    other.join()
assert np.array_equal(predictor.decision_function(x), expected)
"""


@pytest.mark.parametrize("evaluator", EVALUATORS[:2])
@pytest.mark.parametrize("busy", [0, 2])
def test_a_fork_after_first_use_predicts(start, evaluator, busy):
    forks = 10 if busy else 2
    process = start(busy, forks, script=FORK, MLPINFER_EVALUATOR=evaluator, PYTHONWARNINGS="ignore")
    assert ended(process) == (0, "", "")


def test_a_fork_inside_the_guard_of_blas_leaves_no_lock_behind(start):
    script = """
import os, signal, threading
from mlpinfer.engine.backends.blas import single_threaded_blas as guard
before = [limit.get() for limit in guard.limits()]
inside, leave = threading.Event(), threading.Event()
def hold():
    with guard, guard._lock:
        inside.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    with guard:
        pass
    os._exit([limit.get() for limit in guard.limits()] != before)
ended = os.waitpid(child, 0)
leave.set()
thread.join()
assert ended[1] == 0, ended
"""
    assert ended(start(script=script, OPENBLAS_NUM_THREADS="2", PYTHONWARNINGS="ignore")) == (0, "", "")


@pytest.mark.usefixtures("evaluator")
def test_a_used_predictor_is_pickled_beside_its_calls(network, mnist):
    x = mnist[0][:3_000]
    predictor = Predictor(network, batch_size=50, threads=2, scale=1 / 255)
    expected, fresh = predictor.decision_function(x), len(pickle.dumps(predictor))
    caller = threading.Thread(target=lambda: [predictor.predict(x) for _ in range(20)])
    caller.start()
    for _ in range(5):
        data = pickle.dumps(predictor)
        assert len(data) == fresh < 2 * network.parameters * 4  # the network, and nothing that was computed
        np.testing.assert_array_equal(pickle.loads(data).decision_function(x), expected)
    caller.join(60)
    assert not caller.is_alive()


# -- memory --------------------------------------------------------------------------------------------


# Around 110 MB in all NumPy's import meets allocations that it does not check, and around 16 MB more
# OpenSSL's, which hashlib loads: either may crash.
@pytest.mark.parametrize("megabytes", ["40", "90", "+1", "+4", "+8", "+32", "+64"])
@pytest.mark.parametrize("command", ["score", "predict"])
def test_too_little_memory_is_one_line(start, tmp_path, rows, megabytes, command):
    """Of so much in all, or beside what NumPy takes."""
    script = f"""
import resource
from mlpinfer import __main__
limit = {megabytes} * 2**20
if {megabytes!r}[0] == "+":
    import numpy
    limit += 2**10 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
__main__.run()
"""
    predict = ["predict", "rows.npy", "--scale", "1/255", "--out", "out.npy"]
    code, _, err = ended(start(*(SCORE if command == "score" else predict), script=script))
    if code == 0:
        assert int(megabytes) in (32, 64)
        assert err == ""
        return
    assert code in (1, 4, 5)
    if err.startswith("ERROR:root:code for hash"):  # from Python's own hashlib, at length
        err = err[err.rindex("mlpinfer: ") :]
    # OpenBLAS ends the process itself, with a line of its own, the same from each thread that meets it.
    assert len(set(err.splitlines())) == 1
    assert err.startswith(("mlpinfer: ", "OpenBLAS error: "))
    # A library that could not be loaded says so in its own words, which need not name memory.
    assert not (tmp_path / "out.npy").exists()


def test_memory_that_python_runs_out_of_is_one_line(start, rows):
    script = """
from mlpinfer.cli import app as cli
from mlpinfer.engine import predictor
def none(*args):
    raise MemoryError
predictor.Predictor._compute = none
cli.main()
"""
    code, _, err = ended(start("predict", "rows.npy", "--scale", "1/255", script=script))
    assert (code, err) == (1, "mlpinfer: out of memory: nothing was left\n")


def test_a_program_that_calls_main_keeps_its_handlers(tmp_path, rows):
    script = """
import faulthandler, signal
from mlpinfer.cli.app import main
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBUS)]
try:
    main(["predict", "rows.npy", "--scale", "1/255", "--out", "out.npy"])
except SystemExit as done:
    assert done.code == 0
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBUS)] == before
caught = next(line for line in open("/proc/self/status") if line.startswith("SigCgt"))
assert not int(caught.split()[1], 16) >> (signal.SIGBUS - 1) & 1
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "args",
    [
        ["predict", "{name}", "--scale", "1/255", "--out", "{name}"],
        ["predict", "rows.npy", "--scale", "1/255", "--out", "{name}", "--resume"],
        ["convert", "{name}", "b{name}", "--force"],
        ["score", "--data", "{name}", "--scale", "1/255", "--repeat", 1],
        ["score", "--weights", "{name}"],
        ["inspect", "{name}"],
    ],
)
def test_names_do_nothing_to_a_terminal(tmp_path, rows, args):
    """On a real one: to anything else click would not print what a terminal obeys."""
    name = "red\x1b[31m\u202e.npy"
    shutil.copy(rows, tmp_path / name)
    args = [str(arg).format(name=name) for arg in args]
    reader, writer = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlpinfer", *args], cwd=tmp_path, stdin=writer, stdout=writer, stderr=writer,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    os.close(writer)
    text = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the process is
        while piece := os.read(reader, 65_536):
            text += piece
    os.close(reader)
    process.wait(60)
    assert b"\x1b[31m" not in text
    assert "\u202e".encode() not in text
    assert b"red" in text or process.returncode == 0
