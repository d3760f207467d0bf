"""Predictions to disk: in tasks, whole or not at all, and gone on with after whatever stopped them."""

import csv
import gzip
import json
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mlpinfer import DatasetError, InputError, Network, Predictor
from mlpinfer.engine.outputs import OUTPUTS
from mlpinfer.io.data import idx
from mlpinfer.io.data.read_options import ReadOptions
from mlpinfer.io.data.source import DataSource
from mlpinfer.jobs import (
    begin_job,
    exclusive_lock,
    is_done,
    output_folder,
    outputs,
    run_job,
    run_task,
    split_job,
)
from mlpinfer.jobs import predict as jobs_predict


@pytest.fixture
def rows(tmp_path, mnist):
    """1,037 rows in an .npy file, and its path."""
    path = tmp_path / "rows.npy"
    np.save(path, mnist[0][:1_037])
    return path


@pytest.fixture
def predictor(network):
    return Predictor(network, batch_size=50, scale=1 / 255)


def predict(predictor, rows, out, values="labels", **how):
    job = split_job(predictor, DataSource((str(rows),)), out, output=values, rows_per_task=120)
    outputs.finish(job, run_job(predictor, job, **how))
    return job


@pytest.mark.parametrize("values", ["labels", "proba", "logits"])
def test_every_output_has_the_values_of_a_call(predictor, rows, tmp_path, values, mnist):
    expected = predictor.compute(mnist[0][:1_037], values)
    for name in ("out.npy", "out.csv", "out.jsonl", "out"):
        predict(predictor, rows, tmp_path / name, values)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    table = np.genfromtxt(tmp_path / "out.csv", delimiter=",", skip_header=1, dtype=expected.dtype)
    np.testing.assert_array_equal(table, expected)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (key,) = lines[0]
    np.testing.assert_array_equal(np.array([line[key] for line in lines], expected.dtype), expected)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    parts = []
    for part in manifest["parts"]:
        data = (tmp_path / "out" / part["file"]).read_bytes()
        assert (len(data), zlib.crc32(data)) == (part["bytes"], part["crc32"])
        parts.append(np.load(tmp_path / "out" / part["file"]))
        assert len(parts[-1]) == part["rows"]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert manifest["rows_per_task"] == 100  # whole batches
    assert manifest["network"] == predictor.network.sha256
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        ["manifest.json", *(p["file"] for p in manifest["parts"])]
    )
    assert sorted(os.listdir(tmp_path)) == ["out", "out.csv", "out.jsonl", "out.npy", "rows.npy"]


def test_header_of_a_table(predictor, rows, tmp_path):
    heads = {}
    for values in OUTPUTS:
        predict(predictor, rows, tmp_path / f"{values}.csv", values)
        heads[values] = (tmp_path / f"{values}.csv").read_text().partition("\n")[0].split(",")
    assert heads["labels"] == ["label"]
    assert heads["proba"][:2] == ["proba_0", "proba_1"]
    assert heads["logits"][9] == "logit_9"


def test_values_that_are_not_finite(tmp_path):
    network = Network.from_arrays([[[1.0, 2.0]]], [[0.0, 0.0]], head="identity")
    np.save(tmp_path / "rows.npy", np.array([[np.nan], [np.inf], [-np.inf], [1.5]]))
    for name in ("out.csv", "out.jsonl"):
        with np.errstate(invalid="ignore"):
            predict(Predictor(network), tmp_path / "rows.npy", tmp_path / name)
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "value_0,value_1",
        "nan,nan",
        "inf,inf",
        "-inf,-inf",
        "1.5,3",
    ]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [{"value": [None, None]}] * 3 + [{"value": [1.5, 3]}]


def test_a_task_travels(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out", rows_per_task=100)
    os.mkdir(job.folder)
    there, task = pickle.loads(pickle.dumps((predictor, job.tasks[3])))
    assert run_task(there, task) == run_task(predictor, job.tasks[3])
    assert len(pickle.dumps(task)) < 1_000


def stop_after(monkeypatch, n_tasks):
    write_part, count = jobs_predict.write_part, iter(range(n_tasks))

    def write(task, values):
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        return write_part(task, values)

    monkeypatch.setattr(jobs_predict, "write_part", write)


@pytest.mark.parametrize("name", ["out.npy", "out"])
def test_resume_runs_what_is_missing(predictor, rows, tmp_path, monkeypatch, name):
    out = tmp_path / name
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(OSError, match="No space left"):
            predict(predictor, rows, out)
    assert not out.exists()
    with pytest.raises(
        InputError, match=r"out.*partial: an unfinished run is there; give resume .* or overwrite"
    ):
        predict(predictor, rows, out)
    # A part that is damaged, and one whose receipt is: both run again.
    parts = sorted((tmp_path / f"{name}.partial").glob("part-*.npy"))
    parts[1].write_bytes(parts[1].read_bytes()[:-1] + b"?")
    parts[2].with_suffix(".json").write_text("{")
    ran = []
    compute = jobs_predict.compute
    monkeypatch.setattr(
        jobs_predict, "compute", lambda p, task, files: ran.append(task.begin) or compute(p, task, files)
    )
    told = []
    predict(predictor, rows, out, resume=True, progress=told.append)
    assert ran == [100, 200, *range(400, 1_037, 100)]
    assert sum(told) == 1_037
    found = np.load(out) if out.is_file() else np.concatenate([np.load(p) for p in sorted(out.glob("*.npy"))])
    np.testing.assert_array_equal(found, predictor.predict(np.load(rows)))
    assert sorted(os.listdir(tmp_path)) == [name, "rows.npy"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda p, rows: (p.variant(batch_size=49), "labels"), "batch_size"),
        (lambda p, rows: (p.variant(scale=1), "labels"), "scale"),
        (
            lambda p, rows: (Predictor(Network.random([784, 10]), batch_size=50, scale=1 / 255), "labels"),
            "network",
        ),
        (lambda p, rows: (p, "logits"), "values"),
        (lambda p, rows: (os.utime(rows), (p, "labels"))[1], "inputs"),
    ],
)
def test_resume_refuses_another_job(predictor, rows, tmp_path, monkeypatch, change, key):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(OSError, match="No space"):
            predict(predictor, rows, tmp_path / "out.npy")
    other, values = change(predictor, rows)
    with pytest.raises(
        InputError, match=rf"^resume: expected {key} as it was, .*; give it so, or overwrite .* to begin anew"
    ):
        predict(other, rows, tmp_path / "out.npy", values, resume=True)
    predict(other, rows, tmp_path / "out.npy", values, overwrite=True)
    assert len(np.load(tmp_path / "out.npy")) == 1_037


def test_what_is_there_is_kept_until_the_new_is_whole(predictor, rows, tmp_path, monkeypatch):
    out = tmp_path / "out.npy"
    out.write_bytes(b"precious")
    with pytest.raises(InputError, match="give overwrite"):
        predict(predictor, rows, out)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(OSError, match="No space"):
            predict(predictor, rows, out, overwrite=True)
    assert out.read_bytes() == b"precious"
    predict(predictor, rows, out, resume=True)
    assert len(np.load(out)) == 1_037


def test_no_folder_is_removed_that_was_not_made_here(predictor, rows, tmp_path):
    for name in ("out", "out.npy.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    for out in ("out", "out.npy"):
        with pytest.raises(InputError, match="expected"):
            predict(predictor, rows, tmp_path / out, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").exists()
    predict(predictor, rows, tmp_path / "other")
    predict(predictor, rows, tmp_path / "other", "proba", overwrite=True)
    assert json.loads((tmp_path / "other" / "manifest.json").read_text())["values"] == "proba"


@pytest.mark.parametrize(
    ("out", "message"),
    [("x.parquet", r"expected a file ending in .npy, .csv, .jsonl, or a folder, found .parquet"),
     ("nowhere/x.npy", "expected a folder .*nowhere to write in, found none")],
)  # fmt: skip
def test_outputs_that_cannot_be_are_refused(predictor, rows, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        split_job(predictor, DataSource((str(rows),)), out)


def test_an_output_is_no_input_by_another_name(predictor, rows, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    source = str(tmp_path / "link" / rows.name)
    with pytest.raises(InputError, match="expected another name than that of an input"):
        split_job(predictor, DataSource((source,)), source)


def test_a_link_is_written_where_it_points(predictor, rows, tmp_path):
    out = tmp_path / "latest.npy"
    out.symlink_to(tmp_path / "labels.csv")
    predict(predictor, rows, out)
    assert (tmp_path / "labels.csv").read_text().startswith("label\n")


def test_an_empty_folder_is_free(predictor, rows, tmp_path):
    (tmp_path / "out").mkdir()
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out")
    assert not is_done(job)
    predict(predictor, rows, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "manifest.json").exists()


def test_only_predictions_are_replaced(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out", rows_per_task=100)
    parts = run_job(predictor, job)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OSError, match="expected predictions to replace, found something else"):
        outputs.finish(job, parts)
    (tmp_path / "out" / "thesis.txt").rename(tmp_path / "thesis.txt")
    (tmp_path / "out").chmod(0o700)
    outputs.finish(job, parts)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    predict(predictor, rows, tmp_path / "out", overwrite=True)
    (tmp_path / "thesis.txt").rename(tmp_path / "out" / "thesis.txt")
    with pytest.raises(InputError, match="expected a free name, found something else; move it away"):
        predict(predictor, rows, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_what_a_killed_run_has_left_is_no_stranger_s(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out", rows_per_task=100)
    parts = run_job(predictor, job)
    (tmp_path / "out.partial" / ".part-02.npy.0123.tmp").write_bytes(b"half")
    outputs.finish(job, parts)
    names = {"manifest.json", *(info.file for info in parts)}
    assert set(os.listdir(tmp_path / "out")) == names
    # Killed behind the rename: parts and the plan are still there.
    (tmp_path / "out" / "job.json").write_text("{}")
    (tmp_path / "out" / parts[0].file.replace(".npy", ".json")).write_text("{}")
    (tmp_path / "out" / "SHA256SUMS").write_text("of somebody else")
    assert is_done(job)
    outputs.tidy(job)
    assert set(os.listdir(tmp_path / "out")) == names | {"SHA256SUMS"}


def test_no_more_may_read_the_new_than_the_old(predictor, rows, tmp_path):
    for name, mode in (("out.npy", 0o600), ("out", 0o700)):
        predict(predictor, rows, tmp_path / name)
        (tmp_path / name).chmod(mode)
        job = split_job(predictor, DataSource((str(rows),)), tmp_path / name)
        parts = run_job(predictor, job, overwrite=True)
        assert os.stat(job.folder).st_mode & 0o777 == 0o700
        outputs.finish(job, parts)
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_inputs_are_not_in_what_is_replaced(predictor, rows, tmp_path):
    predict(predictor, rows, tmp_path / "out", "logits")
    for out in ("out", "out/"):
        with pytest.raises(InputError, match="expected another name than that of an input"):
            split_job(
                Predictor(Network.random([10, 2])),
                DataSource((str(tmp_path / "out" / "part*.npy"),)),
                tmp_path / out,
            )


def test_a_mount_point_is_refused(predictor, rows, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path / "out"))
    with pytest.raises(InputError, match="found a mount point; name one in it"):
        split_job(predictor, DataSource((str(rows),)), tmp_path / "out")


def test_images_are_named(predictor, mnist, tmp_path):
    names = ["a.png", 'b,"c".png', "d\n.png", "e\r.png"]
    for name, row in zip(names, mnist[0], strict=False):
        Image.fromarray(row.reshape(28, 28)).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in names]
    expected = mnist[1][:4].tolist()
    for end in (".csv", ".jsonl"):
        job = split_job(predictor, DataSource(tuple(paths), ReadOptions(side=28)), tmp_path / f"out{end}")
        outputs.finish(job, run_job(predictor, job))
    with open(tmp_path / "out.csv", newline="") as file:
        found = list(csv.reader(file))
    assert found == [["label", "file"], *([str(t), path] for t, path in zip(expected, paths, strict=True))]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [{"label": t, "file": path} for t, path in zip(expected, paths, strict=True)]


@pytest.mark.parametrize("name", ["out.npy", "out"])
def test_what_is_done_is_known(predictor, rows, tmp_path, name):
    inputs = DataSource((str(rows),))
    job = split_job(predictor, inputs, tmp_path / name, rows_per_task=100)
    assert not is_done(job)
    predict(predictor, rows, tmp_path / name)
    assert is_done(job)
    other = split_job(predictor, inputs, tmp_path / name, output="logits", rows_per_task=100)
    if name == "out":
        with pytest.raises(InputError, match="resume: expected values as it was, 'labels', found 'logits'"):
            is_done(other)
    else:
        assert is_done(other)
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="expected predictions, found something else"):
            is_done(job)


def test_a_receipt_of_another_file_is_none(predictor, rows, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(OSError, match="No space left"):
            predict(predictor, rows, tmp_path / "out")
    receipt = next((tmp_path / "out.partial").glob("part-*.json"))
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"file": "../rows.npy"}))
    predict(predictor, rows, tmp_path / "out", resume=True)
    found = [np.load(path) for path in sorted((tmp_path / "out").glob("*.npy"))]
    np.testing.assert_array_equal(np.concatenate(found), predictor.predict(np.load(rows)))


def test_tasks_of_many_values_a_row_are_small(tmp_path):
    network = Network.random([1, 1_000], head="identity")
    np.save(tmp_path / "rows.npy", np.zeros((20_000, 1), np.float32))
    job = split_job(
        Predictor(network, batch_size=100), DataSource((str(tmp_path / "rows.npy"),)), tmp_path / "out.npy"
    )
    assert max(task.end - task.begin for task in job.tasks) == 8_300


def test_rows_and_values_must_fit(predictor, rows, tmp_path):
    np.save(tmp_path / "narrow.npy", np.ones((3, 4)))
    with pytest.raises(DatasetError, match=r"narrow.npy: expected rows of 784 features, found shape \(4,\)"):
        split_job(predictor, DataSource((str(tmp_path / "narrow.npy"),)), tmp_path / "out")
    with pytest.raises(InputError, match="values: expected labels, proba, logits"):
        split_job(predictor, DataSource((str(rows),)), tmp_path / "out", output="classes")
    regression = Predictor(Network.random([784, 2], head="identity"), scale=1)
    with pytest.raises(InputError, match="identity head"):
        split_job(regression, DataSource((str(rows),)), tmp_path / "out", output="proba")


def test_no_two_runs_write_one_output(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy")
    with exclusive_lock(job.out):
        with (
            pytest.raises(InputError, match="expected no other run, found one that is writing it"),
            exclusive_lock(job.out),
        ):
            pass
        outputs.finish(job, run_job(predictor, job))
    with exclusive_lock(job.out):
        pass
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "rows.npy"]


def test_a_part_that_was_changed_is_not_taken(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=100)
    parts = run_job(predictor, job)
    with open(job.tasks[2].path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    with pytest.raises(OSError, match="changed since it was written; resume"):
        outputs.finish(job, parts)
    outputs.finish(job, run_job(predictor, job, resume=True))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.predict(np.load(rows)))


def test_inputs_that_were_replaced_are_read_anew(predictor, tmp_path, mnist):
    for n in (50, 80):
        np.save(tmp_path / "rows.npy", mnist[0][:n])
        predict(predictor, tmp_path / "rows.npy", tmp_path / "out.npy", overwrite=True)
        assert len(np.load(tmp_path / "out.npy")) == n


@pytest.mark.parametrize("kind", ["csv", "gz"])
def test_tasks_of_a_stream_may_run_in_threads_and_in_any_order(predictor, tmp_path, mnist, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        np.savetxt(path, mnist[0][:400], fmt="%d", delimiter=",")
    else:
        path.write_bytes(gzip.compress(idx.encode(mnist[0][:400])))
    job = split_job(predictor, DataSource((str(path),)), tmp_path / "out.npy", rows_per_task=50)
    os.mkdir(job.folder)
    with ThreadPoolExecutor(4) as pool:
        backwards = list(pool.map(lambda task: run_task(predictor, task), job.tasks[::-1]))
    outputs.finish(job, backwards[::-1])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.predict(mnist[0][:400]))


def test_tasks_end_where_files_end(predictor, tmp_path, mnist):
    for name, n in (("a", 130), ("b", 70)):
        np.save(tmp_path / f"{name}.npy", mnist[0][:n])
    job = split_job(predictor, DataSource((str(tmp_path / "*.npy"),)), tmp_path / "out", rows_per_task=100)
    assert [(task.begin, task.end) for task in job.tasks] == [(0, 100), (100, 130), (130, 200)]
    outputs.finish(job, run_job(predictor, job))


def test_a_first_mistake_leaves_nothing_behind(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:50])
    refused = run("predict", "rows.npy", "--out", "out.npy")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert os.listdir(tmp_path) == ["rows.npy"]
    assert run("predict", "rows.npy", "--out", "out.npy", "--scale", "1/255").returncode == 0
    again = run("predict", "rows.npy", "--out", "out.npy", "--scale", "1/255", "--resume")
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True)
    for out in ("rows.npy", "-", ""):
        assert run("predict", "rows.npy", "--scale", "1/255", "--overwrite", "--out", out).returncode == 2
    (tmp_path / "plain").write_text("mine")
    assert run("predict", "rows.npy", "--scale", "1/255", "--overwrite", "--out", "plain").returncode == 2
    (tmp_path / "link.npy").symlink_to("out.npy")
    assert run("predict", "rows.npy", "--scale", "1/255", "--overwrite", "--out", "link.npy").returncode == 0
    assert (tmp_path / "link.npy").is_symlink()


def command(*args):
    return [sys.executable, "-m", "mlpinfer", "predict", *map(str, args)]


def test_killed_at_any_moment_and_resumed(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", np.tile(mnist[0], (3, 1)))
    how = ["rows.npy", "--scale", "1/255", "--values", "logits", "--rows-per-task", 300, "--out"]
    assert run("predict", *how, "whole.npy").returncode == 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    moments, killed = random.Random(0), 0
    for i in range(10):
        out = tmp_path / f"out{i}.npy"
        parts = tmp_path / f"out{i}.npy.partial"
        process = subprocess.Popen(command(*how, out.name), cwd=tmp_path, env=environment)
        enough, deadline = moments.randrange(100), time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if parts.exists() and len(list(parts.glob("part-*.npy"))) >= enough:
                break
        time.sleep(moments.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        killed += process.wait(60) != 0
        if out.exists():  # whole, whatever was left to clean up
            assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
        done = run("predict", *how, out.name, "--resume")
        assert done.returncode == 0, done.stderr
        assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
        out.unlink()
    assert killed > 2
    left = {name for name in os.listdir(tmp_path) if not name.endswith(".lock")}
    assert left == {"rows.npy", "whole.npy"}


def test_a_full_disk_is_one_line_and_can_be_gone_on_with(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0])
    how = ["rows.npy", "--scale", "1/255", "--values", "proba", "--rows-per-task", "1000", "--out", "out.csv"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    full = subprocess.run(
        command(*how),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        ),
    )
    assert (full.returncode, full.stderr.count("\n")) == (1, 1)
    assert "File too large" in full.stderr
    assert not (tmp_path / "out.csv").exists()
    assert run("predict", *how, "--resume").returncode == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 10_001


def test_lines_on_stdout(run, tmp_path, mnist):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(3):
        Image.fromarray(mnist[0][i].reshape(28, 28)).save(images / f"{i}.png")
    one = run("predict", "images/0.png").stdout.split("\t")
    assert one[0] == "7"
    assert 0.99 < float(one[1]) <= 1
    lines = [line.split("\t") for line in run("predict", "images").stdout.splitlines()]
    assert [line[0] for line in lines] == ["7", "2", "1"]
    assert [line[2] for line in lines] == ["images/0.png", "images/1.png", "images/2.png"]
    assert len(run("predict", "images/0.png", "--values", "proba").stdout.split("\t")) == 11
    for wrong, code in (
        (["nothing.npy"], 5),
        (["images/*.gif"], 5),
        (["images", "--resume"], 2),
        (["images", "--out", "x.npy", "--resume", "--overwrite"], 2),
        ([], 2),
    ):
        refused = run("predict", *wrong)
        assert refused.returncode == code, refused.stderr
        assert refused.stdout == ""


def test_a_cluster_needs_dask(run, tmp_path, mnist):
    np.save(tmp_path / "rows.npy", mnist[0][:10])
    code = """
import sys
sys.modules["distributed"] = None
from mlpinfer.cli.app import main
main(["predict", "rows.npy", "--scale", "1/255", "--out", "out.npy", "--dask", "tcp://127.0.0.1:1"])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        1,
        "mlpinfer: a Dask cluster needs distributed: pip install distributed\n",
    )


def _rows_that_know_their_number(path, mnist, rows):
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 784))
    for begin in range(0, rows, 10_000):
        file[begin : begin + 10_000] = np.roll(mnist[0], begin // 10_000, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "several", "fortran", "gz", "idx"])
def test_memory_is_bounded(tmp_path, mnist, kind):
    """Rows that depend on their number: none swapped, and little private memory."""
    rows = 2_000_000 if kind == "npy" else 600_000
    inputs = ["rows.npy"]
    if kind in ("npy", "several", "fortran"):
        _rows_that_know_their_number(tmp_path / "rows.npy", mnist, rows if kind == "npy" else 300_000)
    if kind == "several":
        (tmp_path / "more.npy").hardlink_to(tmp_path / "rows.npy")
        inputs = ["rows.npy", "more.npy"]
    if kind == "fortran":
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        copy = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.uint8, mapped.shape, True)
        copy[:] = mapped
        inputs = ["f.npy", "rows.npy"]
    if kind in ("gz", "idx"):
        dtype = np.uint8 if kind == "gz" else np.float32
        data = idx.encode(np.tile(mnist[0].astype(dtype), (rows // 10_000 // (1 if kind == "gz" else 4), 1)))
        (tmp_path / "rows.npy").write_bytes(gzip.compress(data, 1) if kind == "gz" else data)
        del data
    code = """
import re, sys, threading, time
from mlpinfer.cli.app import main
most = 0
def watch():
    global most
    while True:
        most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
try:
    main(["predict", *sys.argv[1:], "--scale", "1/255", "--values", "proba", "--out", "out.npy"])
except SystemExit as done:
    print(most)
    sys.exit(done.code)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *inputs]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000, done.stdout  # kB
    labels = np.load(tmp_path / "out.npy", mmap_mode="r").argmax(axis=1).reshape(-1, 10_000)
    for i, part in enumerate(labels):
        turned = 0 if kind in ("gz", "idx") else i % 30 if kind != "npy" else i
        np.testing.assert_array_equal(part, np.roll(labels[0], turned))


def test_a_part_of_another_job_is_not_taken_for_ours(rows, tmp_path, network):
    """A run that was stopped may have tasks elsewhere that still write, into the folder of the next."""
    other = Network.random([784, 10], seed=1)
    before = split_job(
        Predictor(other, batch_size=50, scale=1),
        DataSource((str(rows),)),
        tmp_path / "out.npy",
        rows_per_task=100,
    )
    begin_job(before)
    predictor = Predictor(network, batch_size=50, scale=1 / 255)
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=100)
    begin_job(job, overwrite=True)
    run_task(predictor, job.tasks[0])
    for task in before.tasks[:4]:
        run_task(Predictor(other, batch_size=50, scale=1), task)
    outputs.finish(job, run_job(predictor, job, resume=True))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.predict(np.load(rows)))
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "rows.npy"]


@pytest.mark.parametrize("rows_now", [1_037, 900])
def test_inputs_that_change_during_a_run_are_refused(predictor, rows, tmp_path, rows_now):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=100)

    def change(done):
        np.save(tmp_path / "new.npy", np.zeros((rows_now, 784), np.uint8))
        os.replace(tmp_path / "new.npy", rows)

    with pytest.raises(DatasetError, match=r"rows\.npy: changed since the run began; begin anew"):
        run_job(predictor, job, progress=change)


def test_a_task_carries_its_own_files_only(predictor, tmp_path, mnist):
    for i in range(100):
        np.save(tmp_path / f"{i:03}.npy", mnist[0][i * 7 : i * 7 + 7])
    job = split_job(predictor, DataSource((str(tmp_path / "*.npy"),)), tmp_path / "out", rows_per_task=50)
    assert [len(task.files.source.paths) for task in job.tasks] == [1] * 100
    assert max(len(pickle.dumps(task)) for task in job.tasks) < 1_000
    outputs.finish(job, run_job(predictor, job))
    found = np.concatenate([np.load(path) for path in sorted((tmp_path / "out").glob("*.npy"))])
    np.testing.assert_array_equal(found, predictor.predict(mnist[0][:700]))


def test_images_and_other_files_in_one_job(predictor, tmp_path, mnist):
    """Options about images are no error in a task that has none."""
    for i in range(5):
        Image.fromarray(mnist[0][i].reshape(28, 28)).save(tmp_path / f"{i}.png")
    idx_rows = tmp_path / "8.idx"
    idx_rows.write_bytes(idx.encode(255 - mnist[0][5:10].reshape(-1, 28, 28)))
    how = DataSource((str(tmp_path / "*.png"), str(idx_rows)), ReadOptions(side=28, invert=True))
    job = split_job(predictor, how, tmp_path / "out.npy", rows_per_task=2)
    outputs.finish(job, run_job(predictor, job))
    x = 255 - mnist[0][:10]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.predict(x))


def test_the_lock_is_no_link_to_follow_and_no_pipe_to_wait_for(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy")
    (tmp_path / ".out.npy.lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic link"), exclusive_lock(job.out):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_was_taken_away_meanwhile_is_no_lock(predictor, rows, tmp_path, monkeypatch):
    """A ends between our open and our flock, and C begins: its file is there, and not ours."""
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy")
    path, flock = tmp_path / ".out.npy.lock", output_folder.fcntl.flock

    def late(file, how):
        path.unlink()
        path.touch()
        flock(file, how)

    monkeypatch.setattr(output_folder.fcntl, "flock", late)
    with pytest.raises(InputError, match="expected no other run"), exclusive_lock(job.out):
        pass
    assert path.exists()


@pytest.mark.parametrize("what", ["link", "pipe", "deep", "list"])
def test_a_folder_that_was_not_made_here_is_left_alone(predictor, rows, tmp_path, what):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=100)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    if what == "link":
        (documents / "job.json").write_text(json.dumps({"schema": output_folder.SCHEMA}))
        (tmp_path / "out.npy.partial").symlink_to(documents)
    else:
        documents.rename(tmp_path / "out.npy.partial")
        documents = tmp_path / "out.npy.partial"
        text = {"deep": "[" * 100_000, "list": "[1]"}.get(what)
        (documents / "job.json").write_text(text) if text else os.mkfifo(documents / "job.json")
    with pytest.raises(InputError, match="expected a free name, found something else; move it away"):
        begin_job(job, overwrite=True)
    assert (documents / "thesis.txt").exists()


def test_no_more_tasks_than_can_be_kept(predictor, tmp_path):
    with open(tmp_path / "rows", "wb") as file:
        file.write(struct.pack(">HBB2I", 0, 8, 2, 2**30, 784))
        file.truncate(12 + 784 * 2**30)  # a hole
    with pytest.raises(
        InputError, match="rows_per_task: expected at most 1000000 tasks, found 21474836; give more rows"
    ):
        split_job(predictor, DataSource((str(tmp_path / "rows"),)), tmp_path / "out.npy", rows_per_task=50)
