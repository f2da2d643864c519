"""Any run, finished, live or dead, as a pandas frame. Reads journals only; knows no Ray and unpickles nothing."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal

from hpo_ray import history, journal
from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.history import History

Level = Literal["trials", "reports"]
STATUSES = ["pending", "running", "completed", "stopped", "failed", "out_of_memory", "interrupted"]


def load_results(path: str | os.PathLike[str], level: Level = "trials") -> pd.DataFrame:
    """Load one run, or many, as one frame.

    Args:
        path: A run directory, or a glob such as ``runs/*``.
        level: ``trials``: one row per trial; ``reports``: one row per report.

    Returns:
        For ``trials`` the columns ``run, trial_id, config_id, status, reason, fidelity, attempt, started_at,
        duration_s``, then ``config/<key>`` for every sampled key, then each metric's last value and
        ``<metric>_best`` for the metric that the run optimised. Times are UTC; durations are seconds.
        For ``reports`` the columns ``run, trial_id, attempt, fidelity, elapsed_s`` and every metric. Rows of many
        runs follow each other in name order; a column that a run lacks is NaN there.

    Raises:
        InvalidInput: There is no run at `path`, or `level` is neither.
    """
    builders = {"trials": _trials, "reports": _reports}
    if level not in builders:
        raise InvalidInput(Problem("level", f"'{level}' is not a level; {nearest(level, builders)}"))
    return builders[level]([history.load(run_dir) for run_dir in journal.find_runs(path)])


def frame_of(run: History, level: Level = "trials") -> pd.DataFrame:
    """The frame of a run that is already in memory; columns as for `load_results`."""
    return _trials([run]) if level == "trials" else _reports([run])


def _trials(runs: list[History]) -> pd.DataFrame:
    import pandas as pd

    fixed = ["run", "trial_id", "config_id", "status", "reason", "fidelity", "attempt", "started_at", "duration_s"]
    keys = dict.fromkeys(f"config/{key}" for run in runs for trial in run.trials.values() for key in trial.config)
    metrics = dict.fromkeys(
        name for run in runs for trial in run.trials.values() for row in trial.reports for name in row.metrics
    )
    bests = dict.fromkeys(f"{run.metric}_best" for run in runs if run.metric in metrics)
    rows = [_trial_row(run, trial) for run in runs for trial in run.trials.values()]
    frame = pd.DataFrame(rows, columns=[*fixed, *keys, *metrics, *bests])
    frame["status"] = pd.Categorical(frame["status"], STATUSES)
    frame = frame.astype(dict.fromkeys((*metrics, *bests), "float64"))
    milliseconds = (frame["started_at"].astype("float64") * 1000).round()
    frame["started_at"] = pd.to_datetime(milliseconds, unit="ms", utc=True)
    return frame.astype({"attempt": "Int64", "fidelity": "float64", "duration_s": "float64"})


def _trial_row(run: History, trial: Any) -> dict[str, Any]:
    started = not math.isnan(trial.started_at)
    row = {
        "run": run.run_dir.name,
        "trial_id": trial.trial_id,
        "config_id": trial.config_id,
        "status": trial.status,
        "reason": trial.reason,
        "fidelity": trial.fidelity,
        "attempt": trial.attempt if started else None,
        "started_at": trial.started_at,
        "duration_s": trial.last_seen - trial.started_at,
        **{f"config/{key}": value for key, value in trial.config.items()},
    }
    for report in trial.reports:
        row.update(report.metrics)
    best = trial.best_report(run.metric, run.mode)
    row[f"{run.metric}_best"] = best.metrics[run.metric] if best else math.nan
    return row


def _reports(runs: list[History]) -> pd.DataFrame:
    import pandas as pd

    fixed = ["run", "trial_id", "attempt", "fidelity", "elapsed_s"]
    rows = [
        {
            "run": run.run_dir.name,
            "trial_id": trial.trial_id,
            "attempt": row.attempt,
            "elapsed_s": row.elapsed_s,
            **row.metrics,
            "fidelity": row.fidelity,
        }
        for run in runs
        for trial in run.trials.values()
        for row in trial.reports
    ]
    names = dict.fromkeys(
        name for run in runs for trial in run.trials.values() for row in trial.reports for name in row.metrics
    )
    frame = pd.DataFrame(rows, columns=[*fixed, *(name for name in names if name not in fixed)])
    numbers = dict.fromkeys(("fidelity", "elapsed_s", *names), "float64")
    return frame.astype({"attempt": "int64", **numbers})
