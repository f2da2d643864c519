"""A run's events, folded into trials as they stand. Pure: events in, plain objects out; no Ray, no pandas."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo_ray import journal
from hpo_ray.journal import Event

UNFINISHED = ("pending", "running", "interrupted")


@dataclass
class ReportRow:
    """One report of one attempt; `metrics` holds the numbers by name."""

    attempt: int
    fidelity: float
    elapsed_s: float
    time: float
    metrics: dict[str, float]


@dataclass
class TrialRecord:
    """A trial as its events tell it. Times are Unix seconds; `status` is one of the contract's."""

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
    """A whole run as its events tell it. `started_at` is when its last driver started."""

    run_dir: Path
    experiment: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    rungs: dict[float, dict[str, bool]] = field(default_factory=dict)
    started_at: float = math.nan
    ended: Event | None = None
    last_seen: float = math.nan
    damaged: int = 0
    _earlier_s: float = 0.0

    @property
    def wall_time_s(self) -> float:
        """How long drivers worked on it, up to the last event; the time between a death and a resume left out."""
        return self._earlier_s + self.last_seen - self.started_at

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

    def total_fidelity(self) -> float:
        """All training done, in units of the fidelity (epochs, mostly): the sum of what each attempt added."""
        total = 0.0
        for trial in self.trials.values():
            reached: dict[int, float] = {}
            first: dict[int, float] = {}
            for row in trial.reports:
                first.setdefault(row.attempt, row.fidelity)
                reached[row.attempt] = row.fidelity
            # A resumed attempt's first report is one step past its checkpoint, not `fidelity` steps of work.
            total += sum(reached[a] - (first[a] - 1 if a else 0) for a in reached)
        return total

    def apply(self, event: Event) -> None:
        """Take one more event into account."""
        kind = event["event"]
        if kind == "run_started":
            self.experiment, self.environment = event["experiment"], event.get("environment", {})
            if not math.isnan(self.started_at):
                self._earlier_s = self.wall_time_s
            self.started_at = self.last_seen = event["time"]
            self.ended = None
        elif kind == "run_ended":
            self.ended = event
        elif kind == "rung_decided":
            self.rungs.setdefault(event["rung"], {})[event["trial_id"]] = event["kept"]
            trial = self._trial(event)
            trial.rung, trial.kept = event["rung"], event["kept"]
        else:
            self._apply_to_trial(self._trial(event), event)
        self.last_seen = event["time"]

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
                trial.reports.append(row)
            case "trial_checkpointed":
                trial.checkpoints[event["attempt"], event["fidelity"]] = event["path"]
            case "trial_ended":
                trial.status, trial.reason = event["status"], event.get("reason", "")
                trial.traceback = event.get("traceback", "")


def fold(run_dir: Path, events: Iterable[Event], damaged: int = 0) -> History:
    """Fold events, in order, into a run's history."""
    history = History(run_dir, damaged=damaged)
    for event in events:
        history.apply(event)
    return history


def load(run_dir: Path) -> History:
    """A run's history from its journal.

    Trials that never ended are `interrupted` once their driver is gone: the run has ended, or its process has died.

    Raises:
        InvalidInput: `run_dir` is not a run.
    """
    log = journal.read(run_dir)
    history = fold(run_dir.absolute(), log.events, log.damaged)
    if history.ended is not None or not alive(history):
        for trial in history.trials.values():
            if trial.status in UNFINISHED:
                trial.status = "interrupted"
    return history


def alive(run: History) -> bool:
    """Whether a run's driver still runs, as far as this machine can tell; one on another host is taken to live."""
    import socket

    environment = run.environment
    if run.ended is not None:
        return False
    if environment.get("host") != socket.gethostname():
        return True
    return process_start(environment.get("pid", -1)) == environment.get("process_start")


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot, which tells it from a later one with its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie is dead
    except (OSError, IndexError):
        return None
