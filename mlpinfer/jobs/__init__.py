"""Predictions and scores of more rows than memory holds, in one process or on a cluster.

`split_job` cuts rows into tasks, `run_job` runs them with a `Runner`, and `finish` makes one file or a
folder of their parts; `split_score` and `score_job` do the same for a score. Each public name is imported
from its module when it is first used, so that Dask is needed only by those who connect to a cluster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpinfer.io.data.source import DataSource, OpenFiles
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
    "DataSource": "mlpinfer.io.data.source",
    "OpenFiles": "mlpinfer.io.data.source",
    "DaskRunner": "mlpinfer.jobs.dask_runner",
    "connect": "mlpinfer.jobs.dask_runner",
    "PartInfo": "mlpinfer.jobs.job_folder",
    "begin_job": "mlpinfer.jobs.job_folder",
    "is_done": "mlpinfer.jobs.job_folder",
    "exclusive_lock": "mlpinfer.jobs.output_folder",
    "finish": "mlpinfer.jobs.outputs",
    "run_job": "mlpinfer.jobs.predict",
    "run_task": "mlpinfer.jobs.predict",
    "ClusterRunner": "mlpinfer.jobs.runner",
    "ClusterSize": "mlpinfer.jobs.runner",
    "LocalRunner": "mlpinfer.jobs.runner",
    "Runner": "mlpinfer.jobs.runner",
    "TwoSteps": "mlpinfer.jobs.runner",
    "ScoreJob": "mlpinfer.jobs.score_tasks",
    "ScoreTask": "mlpinfer.jobs.score_tasks",
    "run_score_task": "mlpinfer.jobs.score_tasks",
    "score_job": "mlpinfer.jobs.score_tasks",
    "split_score": "mlpinfer.jobs.score_tasks",
    "Job": "mlpinfer.jobs.tasks",
    "Task": "mlpinfer.jobs.tasks",
    "split_job": "mlpinfer.jobs.tasks",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlpinfer.jobs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
