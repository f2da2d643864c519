"""MLflow: an experiment a run, a run of its own a trial, with parameters, metrics by step, tags and status.

Into a SQLite file: MLflow 3 refuses its old file store, needs no server for this one, and keeps a point that it is
given twice once, so that what an earlier writer had begun can be completed without knowing how far it came.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.history import UNFINISHED
from hpo_ray.loggers.sink import (
    Claim,
    Sink,
    better,
    facts_of,
    hushed,
    refuse_link,
    rows_by_step,
    scale_of,
    shown,
    text_of,
)

if TYPE_CHECKING:
    from hpo_ray.history import History, TrialRecord

DATABASE = "mlflow.db"
CLAIM_NAME = ".hpo_ray"
STATUSES = {"completed": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "out_of_memory": "FAILED"}
_TAG = "hpo_ray."
# Limits of MLflow's: of a name, of a parameter's or tag's value, of metrics and of parameters in one call.
_LONGEST_NAME, _LONGEST_VALUE, _METRICS, _PARAMS = 250, 5000, 1000, 100
_FORBIDDEN = re.compile(r"[^\w\-./: ]|^[./]+|//|\.\.", re.ASCII)


def open_sink(target: str, *, patient: bool) -> Sink:
    """A writer of MLflow's runs.

    Args:
        target: A folder, made if missing, for the database; or a tracking URI.
        patient: Wait for a writer that is about to end.

    Raises:
        InvalidInput: Nothing can be written there.
    """
    return Tracking(target, patient=patient)


class Tracking(Sink):
    """See the module."""

    def __init__(self, target: str, *, patient: bool) -> None:
        self._claim: Claim | None = None
        artifacts = None
        uri = target
        if "://" not in target:
            folder = refuse_link(Path(target).absolute())
            self._claim = Claim(folder / CLAIM_NAME, patient=patient)
            refuse_link(folder / DATABASE)
            uri, artifacts = f"sqlite:///{folder / DATABASE}", (folder / "artifacts").as_uri()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing of ours asks the network for anything
        from mlflow import entities
        from mlflow.tracking import MlflowClient

        self._entities, self._artifacts = entities, artifacts
        with hushed("mlflow", "alembic"):
            self._client = MlflowClient(tracking_uri=uri)
        self._experiment = ""
        # Trial -> MLflow's run, what was written of it (None: not known yet), and which points it has.
        self._runs: dict[str, str] = {}
        self._written: dict[str, str | None] = {}
        self._points: dict[str, dict[int, int]] = {}
        # Trials of an earlier writer, which may have died half-way through its last report.
        self._inherited: set[str] = set()

    def flush(self, run: History, *, over: bool) -> None:
        if self.identity:
            with hushed("mlflow", "alembic"):
                self._flush(run, over)

    def close(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def _flush(self, run: History, over: bool) -> None:
        if not self._experiment:
            self._open(run)
        for trial in run.trials.values():
            last = trial.reports[-1].time if trial.reports else 0.0
            state = " ".join(map(str, (trial.status, trial.attempt, len(trial.reports), last, trial.last_seen, over)))
            if not math.isnan(trial.started_at) and self._written.get(trial.trial_id, "") != state:
                self._write(trial, run, state, over)
                self._written[trial.trial_id] = state

    def _open(self, run: History) -> None:
        """Find or make the experiment, and the runs that an earlier writer made."""
        name = run.run_dir.name
        known = self._client.get_experiment_by_name(name)
        if known is None:
            about = self._tags({"run": self.identity, "run_dir": run.run_dir, "metric": run.metric, "mode": run.mode})
            self._experiment = self._client.create_experiment(name, artifact_location=self._artifacts, tags=about)
            return
        if known.tags.get(f"{_TAG}run") != self.identity:
            message = f"MLflow's experiment '{name}' there is not of this run: choose another place, or rename the run"
            raise InvalidInput(Problem("target", message))
        self._experiment, token = known.experiment_id, None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            for found in page:
                trial_id = found.data.tags.get(f"{_TAG}trial_id", "")
                self._runs[trial_id] = found.info.run_id
                self._written[trial_id] = found.data.tags.get(f"{_TAG}written")
                self._points[trial_id] = self._points_of(found)
                self._inherited.add(trial_id)
            token = page.token
            if not token:
                return

    def _points_of(self, found: Any) -> dict[int, int]:
        """Step -> time in ms of the points that MLflow has of a run."""
        points: dict[int, int] = {}
        for name in found.data.metrics:
            for point in self._client.get_metric_history(found.info.run_id, name):
                points[point.step] = point.timestamp
        return points

    def _write(self, trial: TrialRecord, run: History, state: str, over: bool) -> None:
        """Bring MLflow's run of a trial up to date."""
        rows = rows_by_step(trial, scale_of(trial))
        times = {step: round(row.time * 1000) for step, row in rows.items()}
        points = self._points.get(trial.trial_id, {})
        if trial.trial_id in self._runs and any(times.get(step) != at for step, at in points.items()):
            # What was measured again: MLflow would keep both. It has the old run in its bin.
            self._client.delete_run(self._runs.pop(trial.trial_id))
            points = {}
        if trial.trial_id in self._inherited:
            self._inherited.remove(trial.trial_id)
            points = {step: at for step, at in points.items() if step < max(points)}
        run_id = self._runs.get(trial.trial_id) or self._create(trial)
        best, metrics = math.nan, []
        for step, row in rows.items():
            best = better(best, row.metrics.get(run.metric, math.nan), run.mode)
            if step not in points:
                named = _named(shown(row.metrics, best, run))
                metrics += [self._entities.Metric(name, value, times[step], step) for name, value in named.items()]
        for begin in range(0, len(metrics), _METRICS):
            self._client.log_batch(run_id, metrics=metrics[begin : begin + _METRICS])
        self._points[trial.trial_id] = times
        if trial.status in UNFINISHED and not over:
            self._client.update_run(run_id, status="RUNNING")
        else:
            self._client.set_terminated(
                run_id, STATUSES.get(trial.status, "KILLED"), end_time=round(trial.last_seen * 1000)
            )
        tags = [self._entities.RunTag(key, value) for key, value in self._tags(facts_of(trial)).items()]
        # Last, so that what it says is there.
        self._client.log_batch(run_id, tags=[*tags, self._entities.RunTag(f"{_TAG}written", state)])

    def _create(self, trial: TrialRecord) -> str:
        tags = self._tags({"trial_id": trial.trial_id})
        start = round(trial.started_at * 1000)
        made = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=trial.trial_id)
        run_id: str = made.info.run_id
        self._runs[trial.trial_id] = run_id
        named = _named(trial.config)
        params = [self._entities.Param(name, text_of(value)[:_LONGEST_VALUE]) for name, value in named.items()]
        for begin in range(0, len(params), _PARAMS):
            self._client.log_batch(run_id, params=params[begin : begin + _PARAMS])
        return run_id

    def _tags(self, facts: Mapping[str, Any]) -> dict[str, str]:
        return {f"{_TAG}{key}": str(value)[:_LONGEST_VALUE] for key, value in facts.items()}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under names that MLflow takes."""
    named: dict[str, Any] = {}
    for name, value in values.items():
        plain = _FORBIDDEN.sub("_", name)[:_LONGEST_NAME] or "_"
        named[_free(plain, named)] = value
    return named


def _free(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: _LONGEST_NAME - 8]}_{number}"
    return free
