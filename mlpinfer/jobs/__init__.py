"""Predictions and scores of more rows than memory holds, in one process or on a cluster.

`split_job` cuts rows into tasks, `run_job` runs them with a `Runner`, and `finish` makes one file or a
folder of their parts; `split_score` and `score_job` do the same for a score. Each public name is imported
from its module when it is first used, so that Dask is needed only by those who connect to a cluster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpinfer.jobs.dask_runner import DaskRunner, connect
    from mlpinfer.jobs.job_folder import PartInfo, begin_job, is_done
    from mlpinfer.jobs.output_folder import exclusive_lock
    from mlpinfer.jobs.outputs import finish
    from mlpinfer.jobs.predict import run_job, run_task
    from mlpinfer.jobs.runner import ClusterRunner, ClusterSize, LocalRunner, Runner, TwoSteps
    from mlpinfer.jobs.score_tasks import ScoreJob, ScoreTask, run_score_task, score_job, split_score
    from mlpinfer.jobs.tasks import Job, Task, split_job

#: The module of each public name.
_MODULES = {
    "DaskRunner": "dask_runner",
    "connect": "dask_runner",
    "PartInfo": "job_folder",
    "begin_job": "job_folder",
    "is_done": "job_folder",
    "exclusive_lock": "output_folder",
    "finish": "outputs",
    "run_job": "predict",
    "run_task": "predict",
    "ClusterRunner": "runner",
    "ClusterSize": "runner",
    "LocalRunner": "runner",
    "Runner": "runner",
    "TwoSteps": "runner",
    "ScoreJob": "score_tasks",
    "ScoreTask": "score_tasks",
    "run_score_task": "score_tasks",
    "score_job": "score_tasks",
    "split_score": "score_tasks",
    "Job": "tasks",
    "Task": "tasks",
    "split_job": "tasks",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlpinfer.jobs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlpinfer.jobs.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
