"""One run's rows of one level, column by column, before they are a frame: what a journal, a Parquet file and Ray Tune's
files have in common.

Arrays and lists; no pandas, so that many runs become one frame in one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray.results.reports import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpo_ray.results.fold import Fold

# Level -> its columns but `run`, and what they hold; configuration and metrics follow. `name` is text that repeats, for
# a categorical; `count` an integer that may be missing; `time` Unix seconds.
COLUMNS: dict[str, dict[str, str]] = {
    "trials": {
        "trial_id": "text",
        "config_id": "text",
        "status": "status",
        "reason": "text",
        "fidelity": "float",
        "attempt": "count",
        "started_at": "time",
        "duration_s": "float",
    },
    "reports": {"trial_id": "text", "attempt": "int", "fidelity": "float", "elapsed_s": "float"},
    "rungs": {
        "trial_id": "text",
        "attempt": "count",
        "rung": "float",
        "value": "float",
        "cutoff": "float",
        "kept": "bool",
        "rank": "count",
        "n": "count",
        "decided_at": "time",
    },
    "failures": {
        "trial_id": "text",
        "attempt": "count",
        "status": "status",
        "cause": "name",
        "reason": "text",
        "fidelity": "float",
        "failed_at": "time",
        "traceback": "text",
    },
    "cost": {
        "trial_id": "text",
        "attempt": "int",
        "status": "status",
        "started_at": "time",
        "duration_s": "float",
        "gpus": "float",
        "gpu_s": "float",
        "reports": "int",
        "fidelity": "float",
        "trained": "float",
    },
}


@dataclass
class Coded:
    """Text that repeats: `names` by number, and each row's number."""

    codes: NDArray[np.int64]
    names: list[str]

    def __len__(self) -> int:
        return len(self.codes)


@dataclass
class Table:
    """Rows of one level.

    Attributes:
        columns: As in `COLUMNS`.
        configs: The sampled configuration of each row; levels but ``trials`` have none.
        metrics: Name -> a value a row: numbers (missing: NaN), or anything where Ray Tune reported that.
        best: The optimised metric's name and its best value in each row; for ``trials`` only.
    """

    columns: dict[str, Any]
    configs: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    best: tuple[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.columns["trial_id"])


def table_of(run: Fold, level: str) -> Table:
    """A run's rows of one level."""
    return {"trials": _trials, "reports": _reports, "rungs": _rungs, "failures": _failures, "cost": _cost}[level](run)


def _trials(run: Fold) -> Table:
    trials = [run.trials[number] for number in run.order]
    rows = run.reports
    place = np.empty(len(trials), np.int64)
    place[run.order] = np.arange(len(trials))
    trial = place[rows.trial]  # rising, see `Fold.reports`
    fidelity = np.full(len(trials), np.nan)
    fidelity[trial] = rows.fidelity  # the last of each trial stays
    metrics = {}
    for name, (values, known) in rows.metrics.items():
        metrics[name] = np.full(len(trials), np.nan)
        metrics[name][trial if known is None else trial[known]] = values if known is None else values[known]
    columns = {
        "trial_id": [t.trial_id for t in trials],
        "config_id": [t.config_id for t in trials],
        "status": [t.status for t in trials],
        "reason": [t.reason for t in trials],
        "fidelity": fidelity,
        "attempt": [None if math.isnan(t.started_at) else t.attempt for t in trials],
        "started_at": [t.started_at for t in trials],
        "duration_s": [t.last_seen - t.started_at for t in trials],
    }
    metric = str(run.experiment.get("metric", ""))
    best = (metric, _best(rows, trial, len(trials), metric, str(run.experiment.get("mode", "min"))))
    return Table(columns, [t.config for t in trials], metrics, best)


def _best(rows: Block, trial: NDArray[np.int64], size: int, metric: str, mode: str) -> NDArray[np.float64]:
    """Each trial's best finite value; NaN: it has none."""
    best = np.full(size, np.nan)
    if metric in rows.metrics:
        values = rows.metrics[metric][0]
        finite = np.isfinite(values)
        extreme = np.fmax if mode == "max" else np.fmin
        extreme.at(best, trial[finite], values[finite])
    return best


def _ids(run: Fold, numbers: Any) -> Coded:
    return Coded(np.asarray(numbers, np.int64), [trial.trial_id for trial in run.trials])


def _reports(run: Fold) -> Table:
    rows = run.reports
    columns = {
        "trial_id": _ids(run, rows.trial),
        "attempt": rows.attempt,
        "fidelity": rows.fidelity,
        "elapsed_s": rows.elapsed_s,
    }
    return Table(columns, metrics={name: values for name, (values, _) in rows.metrics.items()})


def _rungs(run: Fold) -> Table:
    found = [event for _, event in run.rungs]
    columns: dict[str, Any] = {"trial_id": _ids(run, [number for number, _ in run.rungs])}
    columns |= {name: [event.get(name) for event in found] for name in ("attempt", "rung", "value", "cutoff", "kept")}
    columns |= {name: [event.get(name) for event in found] for name in ("rank", "n")}
    return Table({**columns, "decided_at": [event["time"] for event in found]})


def _failures(run: Fold) -> Table:
    found = [event for _, event, _ in run.failures]
    columns: dict[str, Any] = {
        "trial_id": _ids(run, [number for number, _, _ in run.failures]),
        "attempt": [event.get("attempt") for event in found],
        "status": [event["status"] for event in found],
        "cause": [event.get("cause") or None for event in found],
        # Of one that was tried again the reason also says what followed.
        "reason": [event.get("fault") or event.get("reason", "") for event in found],
        "fidelity": [fidelity for _, _, fidelity in run.failures],
        "failed_at": [event["time"] for event in found],
        "traceback": [event.get("traceback", "") for event in found],
    }
    return Table(columns)


def _cost(run: Fold) -> Table:
    size, rows, of = len(run.attempts), run.accepted, run.attempt_of
    started = np.array([attempt.started_at for attempt in run.attempts])
    duration = np.array([attempt.ended_at for attempt in run.attempts]) - started
    gpus = np.array([attempt.gpus for attempt in run.attempts])
    known = of >= 0
    reached = np.where(np.isnan(rows.since), _before(rows.fidelity, of), rows.since)
    # An objective that looked at its checkpoint may have started afresh all the same: see `tally`.
    trained = rows.fidelity - np.where(reached < rows.fidelity, reached, 0.0)
    fidelity = np.full(size, np.nan)
    np.fmax.at(fidelity, of[known], rows.fidelity[known])
    columns: dict[str, Any] = {
        "trial_id": _ids(run, [attempt.trial for attempt in run.attempts]),
        "attempt": [attempt.attempt for attempt in run.attempts],
        "status": [attempt.status for attempt in run.attempts],
        "started_at": started,
        "duration_s": duration,
        "gpus": gpus,
        "gpu_s": gpus * duration,
        "reports": np.bincount(of[known], minlength=size),
        "fidelity": fidelity,
        "trained": np.bincount(of[known], trained[known], minlength=size),
    }
    return Table(columns)


def _before(fidelity: NDArray[np.float64], attempt: NDArray[np.int64]) -> NDArray[np.float64]:
    """What an attempt had reached before each of its reports."""
    before = np.zeros(len(fidelity))
    if len(fidelity):
        before[1:] = np.where(attempt[1:] == attempt[:-1], fidelity[:-1], 0.0)
    return before
