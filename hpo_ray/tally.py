"""A run's running totals: counts, cost, best so far. A fold over events that costs the same however long the run is.

Small enough to be written beside the journal now and then, so that a reader need not go through all of it. Pure: events
in, plain data out; no Ray, no pandas.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from hpo_ray.journal import Event

FINAL = ("completed", "stopped", "failed", "out_of_memory")
_HEAD = ("name", "metric", "mode", "trials", "fidelity", "seed")


@dataclass
class Tally:
    """Totals of a run up to its last event. Times are Unix seconds.

    Attributes:
        head: The experiment's name, metric, mode, trials, fidelity and seed.
        counts: How many trials ended for good, by status.
        open: Trials that have not, by id: ``status, attempt, config, fidelity, value`` (last report), ``best``; and
            of the attempt ``gpus``, ``since`` (its start, NaN: none runs) and ``reached`` (what it goes on from);
            ``improved``, if it was the best of all at some time.
        best: ``trial_id, value, fidelity, config`` of the best finite report; None before the first.
        since_best: How many trials in a row have ended without a new best.
        total_fidelity: All training done, what was done twice included, in units of the fidelity.
        gpu_s: Seconds that attempts that have ended held GPUs, a fraction of one counting as that.
        rungs: Rung -> how many went on there, and how many were compared.
        started_at: When the last driver started.
        earlier_s: Seconds that drivers before it worked.
        ended: The status and reason of the last ``run_ended``; None while it runs, or died.
    """

    head: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINAL, 0))
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    since_best: int = 0
    total_fidelity: float = 0.0
    gpu_s: float = 0.0
    rungs: dict[str, list[int]] = field(default_factory=dict)
    started_at: float = math.nan
    earlier_s: float = 0.0
    last_seen: float = math.nan
    ended: dict[str, str] | None = None

    @property
    def suggested(self) -> int:
        """How many trials there are."""
        return sum(self.counts.values()) + len(self.open)

    @property
    def finished(self) -> int:
        """How many trials have ended for good."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """How many trials have failed, for lack of memory or otherwise."""
        return self.counts["failed"] + self.counts["out_of_memory"]

    @property
    def wall_time_s(self) -> float:
        """How long drivers worked on it, up to the last event; the time between a death and a resume left out."""
        return self.earlier_s + self.last_seen - self.started_at

    def gpu_hours(self, now: float) -> float:
        """Hours that trials have held GPUs, those still running included."""
        running = sum(t["gpus"] * (now - t["since"]) for t in self.open.values() if not math.isnan(t["since"]))
        return float(self.gpu_s + running) / 3600

    def apply(self, event: Event) -> None:
        """Take one more event into account."""
        kind = event["event"]
        if kind == "run_started":
            self._run_started(event)
        elif kind == "run_ended":
            self.ended = {"status": event["status"], "reason": event.get("reason", "")}
            self.interrupt()
        elif kind == "trial_suggested":
            self.open[event["trial_id"]] = {
                "status": "pending",
                "attempt": 0,
                "config": event["config"],
                "fidelity": math.nan,
                "value": math.nan,
                "best": math.nan,
                "improved": False,
                "gpus": 0.0,
                "since": math.nan,
                "reached": 0.0,
            }
        elif (trial := self.open.get(event.get("trial_id", ""))) is not None:
            self._apply_to_trial(trial, event)
        self.last_seen = event["time"]

    def interrupt(self) -> None:
        """Say of what has not ended that it is interrupted: for readers, of a run that no driver works on."""
        for trial in self.open.values():
            trial["status"] = "interrupted"

    def state(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def _run_started(self, event: Event) -> None:
        self.head = {key: event["experiment"].get(key) for key in _HEAD}
        if not math.isnan(self.started_at):
            self.earlier_s = self.wall_time_s
        for trial in self.open.values():  # their driver died with them
            self._attempt_over(trial, self.last_seen)
        self.started_at = event["time"]
        self.ended = None

    def _apply_to_trial(self, trial: dict[str, Any], event: Event) -> None:
        match event["event"]:
            case "trial_started":
                trial.update(status="running", attempt=event["attempt"], gpus=event.get("gpus", 0.0), reached=0.0)
                trial["since"] = event["time"]
            case "trial_reported" if event["attempt"] == trial["attempt"]:
                self._reported(trial, event)
            case "rung_decided":
                rung = self.rungs.setdefault(f"{event['rung']:g}", [0, 0])
                rung[0] += bool(event["kept"])
                rung[1] += 1
            case "trial_ended":
                self._attempt_over(trial, event["time"])
                trial["status"] = event["status"]
                if event["status"] in self.counts:
                    self.counts[event["status"]] += 1
                    self.since_best += not trial["improved"]
                    del self.open[event["trial_id"]]

    def _reported(self, trial: dict[str, Any], event: Event) -> None:
        fidelity, value = event["fidelity"], event["metrics"].get(self.head.get("metric"), math.nan)
        reached = event.get("since", trial["reached"])
        # An objective that looked at its checkpoint may have started afresh all the same.
        self.total_fidelity += fidelity - (reached if reached < fidelity else 0.0)
        trial.update(fidelity=fidelity, value=value, reached=fidelity)
        sign = -1.0 if self.head.get("mode") == "max" else 1.0
        if math.isfinite(value) and not sign * trial["best"] <= sign * value:
            trial["best"] = value
        best = self.best
        key = (sign * value, -fidelity, event["trial_id"])
        if math.isfinite(value) and (best is None or key < (sign * best["value"], -best["fidelity"], best["trial_id"])):
            if best is None or sign * value < sign * best["value"]:
                self.since_best, trial["improved"] = 0, True
            self.best = {
                "trial_id": event["trial_id"],
                "value": value,
                "fidelity": fidelity,
                "config": trial["config"],
            }

    def _attempt_over(self, trial: dict[str, Any], time: float) -> None:
        if not math.isnan(trial["since"]):
            self.gpu_s += trial["gpus"] * (time - trial["since"])
        trial["since"] = math.nan
