"""A real Dask cluster on loopback: a scheduler and two workers, each a process, and what may happen to them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import dask.array as dask_array
import numpy as np
import pytest

from mlpinfer import Network, Predictor, load_data, save_network
from mlpinfer import score as score_here
from mlpinfer.errors import ClusterError, DatasetError
from mlpinfer.evaluation.report import BatchInfo, ClusterInfo
from mlpinfer.io.data.source import DataSource
from mlpinfer.jobs import DaskRunner, connect, outputs, run_job, score_job, split_job, split_score
from tests.conftest import ROOT

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
}


class Cluster:
    """Processes of `dask`, ended by their own pids."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self.scheduler = self.start(
            "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file
        )
        deadline = time.monotonic() + 30
        while not self.file.exists():
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.05)

    def start(self, kind, *arguments):
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler" if kind == "scheduler" else "distributed.cli.dask_worker",
        ]
        with (self.folder / f"{kind}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", *map(str, arguments)],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, nanny=False):
        return self.start(
            "worker",
            "--scheduler-file",
            self.file,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--nanny" if nanny else "--no-nanny",
        )

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler of one's own, to do what one likes with."""
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    yield cluster
    cluster.stop()


@pytest.fixture
def client(cluster):
    with connect(scheduler_file=str(cluster.file)) as client:
        yield client


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A scheduler and two workers that nothing is done to."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.workers = [cluster.worker(), cluster.worker()]
    yield cluster
    cluster.stop()


@pytest.fixture
def healthy_client(healthy):
    with connect(scheduler_file=str(healthy.file)) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.fixture
def rows(tmp_path, mnist):
    path = tmp_path / "rows.npy"
    np.save(path, np.tile(mnist[0], (2, 1)))
    return path


class Slow(Predictor):
    """Takes its time, and counts in a folder where it arrives and what it does."""

    folder = None

    def compute(self, x, output="labels"):
        time.sleep(0.1)
        return super().compute(x, output)

    def __reduce__(self):
        return _arrive, (*super().__reduce__()[1], self.folder)


def _arrive(*arguments):
    *options, folder = arguments
    predictor = Slow(*options)
    predictor.folder = folder
    if folder:
        open(os.path.join(folder, f"{os.getpid()}-{time.monotonic_ns()}"), "w").close()
    return predictor


class Deadly(Predictor):
    """Kills the process that predicts the poisoned rows."""

    def compute(self, x, output="labels"):
        if (x == 255).all(axis=1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compute(x, output)

    def __reduce__(self):
        return Deadly, super().__reduce__()[1]


def job_of(predictor, rows, out, per_task=500):
    return split_job(predictor, DataSource((str(rows),)), out, rows_per_task=per_task)


def test_equal_to_the_local_run_and_the_predictor_travels_once(
    healthy, healthy_client, rows, tmp_path, network
):
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    predictor.folder = str(tmp_path / "arrivals")
    os.mkdir(predictor.folder)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    told = []
    parts = run_job(predictor, job, runner=DaskRunner(healthy_client, min_workers=2), progress=told.append)
    assert sum(told) == 20_000
    outputs.finish(job, parts)
    local = job_of(predictor, rows, tmp_path / "local.npy")
    outputs.finish(local, run_job(predictor, local))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "local.npy").read_bytes()
    arrivals = [name.partition("-")[0] for name in os.listdir(predictor.folder)]
    for worker in healthy.workers:
        assert arrivals.count(str(worker.pid)) <= 2  # 40 tasks; once as a task's argument, once as a result
    assert len(healthy_client.futures) == 0


def test_a_worker_that_is_killed_costs_only_its_task(cluster, client, rows, tmp_path, network):
    first, _ = cluster.worker(), cluster.worker()
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    kill = iter([first])

    def progress(done):
        for worker in kill:
            worker.kill()

    parts = run_job(predictor, job, runner=DaskRunner(client, min_workers=2), progress=progress)
    outputs.finish(job, parts)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), predictor.variant().predict(np.load(rows)))


def test_all_workers_killed_under_nannies(cluster, client, rows, tmp_path, network):
    for _ in range(2):
        cluster.worker(nanny=True)
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    client.wait_for_workers(2, timeout=60)
    pids = iter([list(client.run(os.getpid).values())])

    def progress(done):
        for found in pids:
            for pid in found:
                os.kill(pid, signal.SIGKILL)

    parts = run_job(predictor, job, runner=DaskRunner(client, min_workers=2), progress=progress)
    outputs.finish(job, parts)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), Predictor(network, scale=1 / 255).predict(np.load(rows))
    )


def test_a_poison_shard_is_named_and_the_others_are_done(cluster, client, rows, tmp_path, network):
    x = np.load(rows)
    x[1_234] = 255
    np.save(rows, x)
    for _ in range(2):
        cluster.worker(nanny=True)
    predictor = Deadly(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy", 1_000)
    with pytest.raises(ClusterError, match="1 of 20 tasks failed, rows 1000 to 2000: KilledWorker") as caught:
        run_job(predictor, job, runner=DaskRunner(client, min_workers=2))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.npy").exists()
    assert len(list((tmp_path / "out.npy.partial").glob("part-*.npy"))) == 19
    healthy = Predictor(network, batch_size=100, threads=1, scale=1 / 255)
    outputs.finish(job, run_job(healthy, job, resume=True))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), healthy.predict(x))


def test_a_scheduler_that_is_gone_is_an_error_and_resume_completes(cluster, client, rows, tmp_path, network):
    for _ in range(2):
        cluster.worker()
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    begun = threading.Event()
    killed = []

    def kill():
        begun.wait(60)
        cluster.scheduler.kill()
        killed.append(time.monotonic())

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        ClusterError, match="scheduler does not answer any more; what is done is kept, resume"
    ):
        run_job(predictor, job, runner=DaskRunner(client, min_workers=2), progress=lambda rows: begun.set())
    assert time.monotonic() - killed[0] < 15  # a deadline: not for ever
    killer.join(10)
    parts = run_job(predictor, job, resume=True)
    outputs.finish(job, parts)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), Predictor(network, scale=1 / 255).predict(np.load(rows))
    )


def test_workers_that_do_not_see_the_output_are_refused(healthy_client, rows, tmp_path, network, monkeypatch):
    predictor = Predictor(network, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    monkeypatch.setattr("mlpinfer.jobs.dask_runner._look", lambda files: ("0.0.1", None))
    with pytest.raises(ClusterError, match=r"expected mlpinfer .*, found 0\.0\.1"):
        run_job(predictor, job, runner=DaskRunner(healthy_client))
    monkeypatch.setattr("mlpinfer.jobs.dask_runner._look", lambda files: 1 / 0)
    with pytest.raises(ClusterError, match=r"tcp://.*: expected mlpinfer .* there, found an error: ZeroDiv"):
        run_job(predictor, job, runner=DaskRunner(healthy_client), resume=True)
    monkeypatch.undo()
    job.description["inputs"].append([str(tmp_path / "elsewhere.npy"), 1, 1])
    with pytest.raises(ClusterError, match=r"expected to see .*elsewhere\.npy.*; share its folder"):
        run_job(predictor, job, runner=DaskRunner(healthy_client), overwrite=True)


def test_the_command_line(healthy, run, rows, tmp_path):
    how = ["predict", "rows.npy", "--scale", "1/255", "--values", "proba"]
    address = json.loads(healthy.file.read_text())["address"]
    for where, out in ((["--dask", address], "a.npy"), (["--dask-scheduler-file", healthy.file], "b.npy")):
        done = run(*how, *where, "--out", out)
        assert (done.returncode, done.stderr) == (0, "")
    assert run(*how, "--out", "local.npy", "--threads", 1).returncode == 0
    assert (
        (tmp_path / "a.npy").read_bytes()
        == (tmp_path / "b.npy").read_bytes()
        == (tmp_path / "local.npy").read_bytes()
    )
    gone = run(*how, "--dask", "tcp://127.0.0.1:9", "--out", "c.npy")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    assert "expected a Dask scheduler, found none that answers" in gone.stderr
    assert run(*how, "--dask", address).returncode == 2


def test_random_networks_are_equal_bit_by_bit(healthy_client, tmp_path):
    network = Network.random([30, 300, 5], hidden="relu", head="identity")  # too wide to be compiled
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((5_000, 30)))
    predictor = Predictor(network, batch_size=64, threads=1)
    found = []
    for out, runner in (
        ("there", lambda job: run_job(predictor, job, runner=DaskRunner(healthy_client))),
        ("here", lambda job: run_job(predictor, job)),
    ):
        job = split_job(
            predictor,
            DataSource((str(tmp_path / "rows.npy"),)),
            tmp_path / f"{out}.npy",
            output="logits",
            rows_per_task=640,
        )
        outputs.finish(job, runner(job))
        found.append((tmp_path / f"{out}.npy").read_bytes())
    assert found[0] == found[1]


def test_a_score_is_that_of_one_process(healthy_client, rows, tmp_path, network, mnist):
    labels = tmp_path / "labels.npy"
    np.save(labels, np.tile(mnist[1], 2))
    predictor = Predictor(network, batch_size=100, threads=1, scale=1 / 255)
    told = []
    job = split_score(predictor, DataSource((str(rows),)), str(labels), rows_per_task=1_050)
    runner = DaskRunner(healthy_client, min_workers=2)
    there = score_job(predictor, job, runner=runner, progress=told.append)
    here = score_here(predictor, load_data(rows, labels), repeat=1)
    assert sum(told) == 20_000
    assert there.metrics.confusion == here.metrics.confusion
    assert there.metrics.accuracy == here.metrics.accuracy == 0.9777
    assert there.metrics.log_loss == pytest.approx(here.metrics.log_loss, rel=1e-12)
    assert (there.network, there.data, there.batch) == (here.network, here.data, here.batch)
    assert there.device == dataclasses.replace(here.device, threads=2)
    assert there.cluster == ClusterInfo(workers=2, threads=2, tasks=20)
    assert there.timing.cold_seconds is there.timing.batch_latency_ms is None
    assert there.timing.includes[0] == "read"
    assert len(healthy_client.futures) == 0


def test_a_score_of_values_in_several_files(healthy_client, tmp_path):
    rng = np.random.default_rng(0)
    network = Network.random([6, 9, 2], hidden="tanh", head="identity")
    x, y = rng.standard_normal((1_000, 6)), rng.standard_normal((1_000, 2))
    for i in range(3):
        np.save(tmp_path / f"x{i}.npy", x[i * 335 : (i + 1) * 335])
    np.savetxt(tmp_path / "y.csv", y, delimiter=",")
    predictor = Predictor(network, batch_size=50, threads=1)
    inputs = DataSource((str(tmp_path / "x*.npy"),))
    runner = DaskRunner(healthy_client)
    job = split_score(predictor, inputs, str(tmp_path / "y.csv"), rows_per_task=100)
    there = score_job(predictor, job, runner=runner)
    np.save(tmp_path / "all.npy", x)
    here = score_here(predictor, load_data(tmp_path / "all.npy", tmp_path / "y.csv"), repeat=1)
    for name in ("mse", "mae", "r2"):
        assert getattr(there.metrics, name) == pytest.approx(getattr(here.metrics, name), rel=1e-5)
    assert there.batch == BatchInfo(size=50, full=18, tail=100)
    unlabelled = score_job(predictor, split_score(predictor, inputs), runner=runner)
    assert unlabelled.metrics is None
    np.save(tmp_path / "few.npy", y[:10])
    with pytest.raises(DatasetError, match="expected 1000 labels, one a row, found 10"):
        split_score(predictor, inputs, str(tmp_path / "few.npy"))


def test_a_score_says_which_rows_have_impossible_labels(healthy_client, rows, tmp_path, network, mnist):
    labels = np.tile(mnist[1], 2)
    labels[12_345] = 10
    np.save(tmp_path / "labels.npy", labels)
    predictor = Predictor(network, batch_size=100, threads=1, scale=1 / 255)
    inputs = DataSource((str(rows),))
    job = split_score(predictor, inputs, str(tmp_path / "labels.npy"), rows_per_task=1_000)
    with pytest.raises(
        DatasetError, match=r"1 of 20 tasks failed, rows 12000 to 13000: DatasetError: labels"
    ):
        score_job(predictor, job, runner=DaskRunner(healthy_client))


def test_score_on_the_command_line(healthy, run):
    where = ["--dask-scheduler-file", healthy.file]
    done = run("score", *where)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("0.9777  9,777 of 10,000", "2 workers, 1 task", "rows/s  end to end: read, cast"):
        assert text in done.stdout
    report = json.loads(run("score", *where, "--json", "-").stdout)
    assert report["cluster"] == {"workers": 2, "threads": 2, "tasks": 1}
    refused = run("score", *where, "--repeat", 3)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--repeat: expected without --dask" in refused.stderr


def test_blocks_of_a_dask_array(network, mnist):
    predictor = Predictor(network, batch_size=100, threads=1, scale=1 / 255)
    x = dask_array.from_array(mnist[0][:2_000], chunks=(500, -1))
    labels = x.map_blocks(predictor.predict, drop_axis=1, dtype="int64").compute(scheduler="threads")
    np.testing.assert_array_equal(labels, predictor.predict(mnist[0][:2_000]))


def test_a_poison_shard_that_ends_every_worker_is_an_error(
    cluster, client, rows, tmp_path, network, monkeypatch
):
    monkeypatch.setattr("mlpinfer.jobs.dask_watchdog.WORKER_SECONDS", 5)
    x = np.load(rows)
    x[1_234] = 255
    np.save(rows, x)
    for _ in range(2):
        cluster.worker()  # and no nanny to start another
    client.wait_for_workers(2, timeout=60)
    predictor = Deadly(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy", 1_000)
    with pytest.raises(
        ClusterError, match=r"no Dask worker is left; .*rows .*1000 to 2000|1 of 20 tasks failed"
    ):
        run_job(predictor, job, runner=DaskRunner(client))


def test_tasks_that_somebody_cancels_are_an_error(cluster, client, rows, tmp_path, network):
    cluster.worker()
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    restart = iter([lambda: client.restart(wait_for_workers=False)])

    def progress(done):
        for call in restart:
            call()

    with pytest.raises(ClusterError, match=r"tasks failed, rows .*: (cancelled|its result is lost)"):
        run_job(predictor, job, runner=DaskRunner(client), progress=progress)


def test_a_scheduler_that_stands_still_is_an_error(cluster, client, rows, tmp_path, network):
    cluster.worker()
    predictor = Slow(network, batch_size=100, threads=1, scale=1 / 255)
    job = job_of(predictor, rows, tmp_path / "out.npy")
    stopped = []

    def progress(done):
        if not stopped:
            stopped.append(time.monotonic())
            cluster.scheduler.send_signal(signal.SIGSTOP)

    try:
        with pytest.raises(ClusterError, match="scheduler does not answer any more"):
            run_job(predictor, job, runner=DaskRunner(client), progress=progress)
        assert time.monotonic() - stopped[0] < 30  # a deadline: not for ever
    finally:
        cluster.scheduler.send_signal(signal.SIGCONT)


def test_the_command_line_says_one_line_when_the_scheduler_is_killed(cluster, rows, tmp_path):
    cluster.worker()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlpinfer", "predict", "rows.npy", "--scale", "1/255", "--out", "out.npy",
            "--rows-per-task", "100", "--dask-scheduler-file", str(cluster.file),
        ],
        cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.npy.partial/part-*.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    cluster.scheduler.kill()
    errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors.count("\n")) == (1, 1), errors
    assert "scheduler does not answer any more" in errors
    assert "--resume" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dask", ""], "expected tcp://HOST:PORT"),
        (["--dask", "tcp://a:1", "--dask-scheduler-file", "b"], "found both"),
        (["--retries", "3"], "--retries: expected --dask with it"),
    ],
)
def test_half_a_cluster_is_refused(run, rows, options, message):
    done = run("predict", rows, "--scale", 1, "--out", "out.npy", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_a_large_network_is_no_warning(healthy, run, rows, tmp_path):
    save_network(Network.random([784, 4_000, 10]), tmp_path / "large.npz")
    how = ["--weights", "large.npz", "--data", "rows.npy", "--scale", 1, "--device", "cpu"]
    done = run("score", *how, "--dask-scheduler-file", healthy.file)
    assert (done.returncode, done.stderr) == (0, "")
