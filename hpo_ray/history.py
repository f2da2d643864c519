"""A run's events, folded into trials as they stand. Pure: events in, plain objects out; no Ray, no pandas."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo_ray import journal, lock
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.journal import Event
from hpo_ray.tally import Tally

UNFINISHED = ("pending", "running", "interrupted")


@dataclass
class ReportRow:
    """One report of one attempt; `metrics` holds the numbers by name."""

    attempt: int
    fidelity: float
    elapsed_s: float
    time: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Fault:
    """An attempt that went wrong and was tried again: why (`cause`, `reason`), and how far it had come."""

    cause: str
    reason: str
    fidelity: float


@dataclass
class TrialRecord:
    """A trial as its events tell it. Times are Unix seconds; `status` is one of the contract's.

    Attributes:
        reports: One a fidelity, rising; what an attempt measured again replaces what the one before it had.
        checkpoints: (attempt, fidelity) -> path in the run directory, in the order they were written.
        faults: What went wrong with attempts before the last one.
        micro_batches: In how many pieces the next attempt splits its batches.
        gpus: The GPUs of the next attempt; None: as the experiment says.
        rung: Where it was compared last, whether it was `kept` there, and the `verdict` in words.
    """

    trial_id: str
    config_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    status: str = "pending"
    reason: str = ""
    traceback: str = ""
    attempt: int = 0
    started_at: float = math.nan
    last_seen: float = math.nan
    reports: list[ReportRow] = field(default_factory=list)
    checkpoints: dict[tuple[int, float], str] = field(default_factory=dict)
    rung: float | None = None
    kept: bool = True
    verdict: str = ""
    faults: list[Fault] = field(default_factory=list)
    micro_batches: int = 1
    gpus: float | None = None

    @property
    def fidelity(self) -> float:
        """The fidelity of the last report; NaN before the first."""
        return self.reports[-1].fidelity if self.reports else math.nan

    def best_report(self, metric: str, mode: str) -> ReportRow | None:
        """The report with the best finite value of `metric`; among equals the one that trained longest."""
        sign = -1.0 if mode == "max" else 1.0
        finite = [row for row in self.reports if math.isfinite(row.metrics.get(metric, math.nan))]
        return min(finite, key=lambda row: (sign * row.metrics[metric], -row.fidelity), default=None)


@dataclass
class History:
    """A whole run as its events tell it; `tally` holds its totals."""

    run_dir: Path
    experiment: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    rungs: dict[float, dict[str, bool]] = field(default_factory=dict)
    ended: Event | None = None
    damaged: int = 0
    tally: Tally = field(default_factory=Tally)
    stored: str = ""
    """The URI that the run is kept at besides; empty: none."""

    @property
    def checkpoints(self) -> set[str]:
        """All that were reported, as paths from the run's folder; most may have been deleted since."""
        return {path for trial in self.trials.values() for path in trial.checkpoints.values()}

    @property
    def metric(self) -> str:
        return str(self.experiment.get("metric", ""))

    @property
    def mode(self) -> str:
        return str(self.experiment.get("mode", "min"))

    def count(self, *statuses: str) -> int:
        """How many trials have one of these statuses."""
        return sum(trial.status in statuses for trial in self.trials.values())

    def best(self) -> tuple[TrialRecord, ReportRow] | None:
        """The best trial and its best report; among equals the longest trained, then the first suggested.

        Trials that failed keep their finite reports: a result is never lost.
        """
        sign = -1.0 if self.mode == "max" else 1.0
        found = [(trial, row) for trial in self.trials.values() if (row := trial.best_report(self.metric, self.mode))]
        key = lambda pair: (sign * pair[1].metrics[self.metric], -pair[1].fidelity, pair[0].trial_id)  # noqa: E731
        return min(found, key=key, default=None)

    def pick(self, trial_id: str | None = None) -> tuple[TrialRecord, ReportRow]:
        """A trial and its best report; the best trial if none is named.

        Raises:
            InvalidInput: There is no such trial, or it has no finite value of the metric.
        """
        if trial_id is None:
            best = self.best()
            if best is None:
                raise InvalidInput(Problem("run", f"'{self.run_dir}' has no trial with a finite {self.metric}"))
            return best
        if trial_id not in self.trials:
            known = f"it has '0000' to '{max(self.trials)}'" if self.trials else "it has none"
            raise InvalidInput(Problem("trial", f"'{self.run_dir}' has no trial '{trial_id}'; {known}"))
        row = self.trials[trial_id].best_report(self.metric, self.mode)
        if row is None:
            raise InvalidInput(Problem("trial", f"trial '{trial_id}' has no finite {self.metric}"))
        return self.trials[trial_id], row

    def apply(self, event: Event) -> None:
        """Take one more event into account."""
        kind = event["event"]
        if kind == "run_started":
            self.experiment, self.environment = event["experiment"], event.get("environment", {})
            self.ended, self.stored = None, event.get("stored", "")
        elif kind == "run_ended":
            self.ended = event
            self.interrupt()
        elif kind == "rung_decided":
            self.rungs.setdefault(event["rung"], {})[event["trial_id"]] = event["kept"]
            trial = self._trial(event)
            trial.rung, trial.kept = event["rung"], event["kept"]
            trial.verdict = f"{event['value']:.4g} ranked {event.get('rank')} of {event.get('n')}"
        else:
            self._apply_to_trial(self._trial(event), event)
        self.tally.apply(event)

    def interrupt(self) -> None:
        """Say of what has not ended that it is interrupted: no driver works on it."""
        for trial in self.trials.values():
            if trial.status in UNFINISHED:
                trial.status = "interrupted"

    def _trial(self, event: Event) -> TrialRecord:
        return self.trials.setdefault(event["trial_id"], TrialRecord(event["trial_id"]))

    def _apply_to_trial(self, trial: TrialRecord, event: Event) -> None:
        trial.last_seen = event["time"]
        match event["event"]:
            case "trial_suggested":
                trial.config, trial.config_id = event["config"], event["config_id"]
                trial.state = event.get("state", {})
            case "trial_started":
                trial.attempt, trial.status = event["attempt"], "running"
                trial.started_at = event["time"] if math.isnan(trial.started_at) else trial.started_at
            case "trial_reported" if event["attempt"] == trial.attempt:
                # A report of an earlier attempt comes from a process that should be dead: not this trial's any more.
                row = ReportRow(
                    event["attempt"], event["fidelity"], event["elapsed_s"], event["time"], event["metrics"]
                )
                _put(trial.reports, row)
            case "trial_checkpointed":
                trial.checkpoints[event["attempt"], event["fidelity"]] = event["path"]
            case "trial_ended":
                trial.status, trial.reason = event["status"], event.get("reason", "")
                trial.traceback = event.get("traceback", "")
                if trial.status == "interrupted" and "cause" in event:
                    trial.faults.append(Fault(event["cause"], event.get("fault", ""), trial.fidelity))
                    trial.micro_batches = event.get("micro_batches", trial.micro_batches)
                    trial.gpus = event.get("gpus", trial.gpus)


def _put(rows: list[ReportRow], row: ReportRow) -> None:
    """A report at its place: an attempt that starts again from a checkpoint reports some fidelities twice."""
    at = bisect.bisect_left(rows, row.fidelity, key=lambda known: known.fidelity)
    if at < len(rows) and rows[at].fidelity == row.fidelity:
        rows[at] = row
    else:
        rows.insert(at, row)


def fold(run_dir: Path, events: Iterable[Event], damaged: int = 0) -> History:
    """Fold events, in order, into a run's history."""
    history = History(run_dir, damaged=damaged)
    for event in events:
        history.apply(event)
    return history


def load(run_dir: str | Path) -> History:
    """A run's history from its journal.

    Trials that never ended are `interrupted` once their driver is gone: the run has ended, or its process has died.

    Raises:
        InvalidInput: `run_dir` is not a run.
    """
    run_dir = Path(run_dir)
    log = journal.read(run_dir)
    history = fold(run_dir.absolute(), log.events, log.damaged)
    if history.ended is not None or lock.holder(run_dir) is None:
        history.interrupt()
    return history
