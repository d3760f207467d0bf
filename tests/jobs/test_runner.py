"""Runners: in this process, and how little another engine has to implement."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest

from mlpinfer import DatasetError, Network, Predictor, load_data, score
from mlpinfer.evaluation.report import ClusterInfo
from mlpinfer.io.data.source import DataSource
from mlpinfer.jobs import (
    ClusterRunner,
    ClusterSize,
    LocalRunner,
    TwoSteps,
    finish,
    run_job,
    score_job,
    split_job,
    split_score,
)


class PoolRunner:
    """Another engine: threads of a pool, results as they come, the last task submitted first."""

    def run(self, predictor, tasks, function, *, reads=(), writes_to=None):
        self.reads, self.writes_to = reads, writes_to
        with ThreadPoolExecutor(3) as pool:
            futures = {pool.submit(function, predictor, task): task for task in tasks[::-1]}
            for future in as_completed(futures):
                yield futures[future], future.result()


class SizedRunner(PoolRunner):
    def cluster_size(self):
        return ClusterSize(workers=2, threads=3)


@pytest.fixture
def rows(tmp_path, mnist):
    path = tmp_path / "rows.npy"
    np.save(path, mnist[0][:1_037])
    np.save(tmp_path / "labels.npy", mnist[1][:1_037])
    return path


@pytest.fixture
def predictor(network):
    return Predictor(network, batch_size=50, threads=1, scale=1 / 255)


def test_an_engine_of_one_method_makes_the_same_file(predictor, rows, tmp_path):
    found = []
    for name, runner in (("here.npy", None), ("there.npy", PoolRunner())):
        job = split_job(predictor, DataSource((str(rows),)), tmp_path / name, rows_per_task=100)
        told = []
        parts = run_job(predictor, job, runner=runner, progress=told.append)
        assert sum(told) == 1_037
        finish(job, parts)
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    assert (runner.reads, runner.writes_to) == ((str(rows),), job.folder)


@pytest.mark.parametrize(("runner", "threads"), [(LocalRunner(), 1), (PoolRunner(), 1), (SizedRunner(), 3)])
def test_a_score_is_the_same_with_every_runner(predictor, rows, tmp_path, runner, threads):
    labels = tmp_path / "labels.npy"
    job = split_score(predictor, DataSource((str(rows),)), str(labels), rows_per_task=100)
    found = score_job(predictor, job, runner=runner)
    expected = score(predictor, load_data(rows, labels), repeat=1)
    assert found.metrics.confusion == expected.metrics.confusion
    assert found.metrics.log_loss == pytest.approx(expected.metrics.log_loss, rel=1e-12)
    assert (found.network, found.data, found.batch) == (expected.network, expected.data, expected.batch)
    assert found.device.threads == threads
    assert isinstance(runner, ClusterRunner) == (found.cluster is not None)
    if found.cluster:
        assert found.cluster == ClusterInfo(workers=2, threads=3, tasks=11)


def test_one_part_is_written_while_the_next_is_computed(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=400)
    order, second = [], threading.Event()

    def compute(predictor, task):
        order.append(("compute", task.begin))
        if task.begin == 400:
            second.set()
        return task.begin

    def write(task, begin):
        assert second.wait(60)  # for ever, if the next were computed only then
        order.append(("write", begin))
        return begin

    results = list(LocalRunner().run(predictor, job.tasks, TwoSteps(compute, write)))
    assert results == [(task, task.begin) for task in job.tasks]
    assert order.index(("compute", 400)) < order.index(("write", 0))


def test_a_part_that_is_begun_is_ended_whatever_stops_the_run(predictor, rows, tmp_path):
    job = split_job(predictor, DataSource((str(rows),)), tmp_path / "out.npy", rows_per_task=100)

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(predictor, job, progress=stop)
    names = sorted(path.suffix for path in (tmp_path / "out.npy.partial").glob("part-*"))
    assert names == [".json", ".json", ".npy", ".npy"]


def test_what_a_task_raises_is_raised(tmp_path):
    network = Network.random([3, 2], head="softmax")
    np.save(tmp_path / "x.npy", np.zeros((10, 3)))
    np.save(tmp_path / "y.npy", np.full(10, 2))
    predictor = Predictor(network, batch_size=5, threads=1)
    job = split_score(predictor, DataSource((str(tmp_path / "x.npy"),)), str(tmp_path / "y.npy"))
    with pytest.raises(DatasetError, match="labels"):
        score_job(predictor, job)
