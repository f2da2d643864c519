"""Between Tune and the journal: asks the searcher, starts attempts, writes every event, ends what must end.

One Tune trial is one *attempt* of one of ours. Knows Ray Tune's callbacks; nothing of the screen or of files other
than through the journal.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.search import Searcher

from hpo_ray import schedulers, searchers
from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.history import UNFINISHED, History, TrialRecord
from hpo_ray.journal import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpo_ray.experiment import Experiment
    from hpo_ray.journal import Event, Journal
    from hpo_ray.schedulers.rungs import Decision


def trial_seed(seed: int, number: int) -> int:
    """A trial's own seed: a function of the run's seed and the trial's number, the same for every attempt."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])


def config_id(config: dict[str, Any]) -> str:
    """The same configuration has the same id, whatever its order or its run."""
    text = json.dumps(encode(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


class Driver:
    """The state of a run in progress: the journal's history, and what Tune is doing on its behalf."""

    def __init__(
        self,
        experiment: Experiment,
        journal: Journal,
        history: History,
    ) -> None:
        """Make a driver with its searcher and its scheduler.

        Args:
            experiment: What to run.
            journal: Where events go; `history` must follow it.
            history: The run so far: new, or to be brought back by `replay`.
        """
        self.experiment = experiment
        self.failure: BaseException | None = None
        self._journal = journal
        self._history = history
        self._sign = -1.0 if experiment.mode == "max" else 1.0
        objective = {"metric": experiment.metric, "mode": experiment.mode}
        self._space = experiment.search_space
        self._searcher = searchers.make(experiment.searcher.name, self._space, seed=experiment.seed, **objective)
        self.scheduler = schedulers.make(
            experiment.scheduler.name,
            {k: v for k, v in experiment.scheduler.model_dump().items() if k != "name" and v is not None},
            fidelity=experiment.fidelity,
            on_decision=lambda trial_id, decision: self._decisions.setdefault(trial_id, []).append(decision),
            identify=lambda ray_id: self._attempts[ray_id].trial_id,
            **objective,
        )
        self._again: list[TrialRecord] = []
        self._attempts: dict[str, TrialRecord] = {}
        self._decisions: dict[str, list[Decision]] = {}
        self._ends: dict[str, dict[str, str]] = {}

    def __deepcopy__(self, memo: dict) -> Driver:
        return self

    def __reduce__(self) -> tuple[type, tuple]:
        # Tune pickles all it was given into its own state, which is scratch here: there the driver is left out.
        return object, ()

    def replay(self, events: Iterable[Event]) -> None:
        """Bring history, searcher and scheduler to where an earlier driver left them; unfinished trials are next.

        Searcher and scheduler are functions of the journal: they are told the same things in the same order.
        """
        undecided: dict[str, Decision] = {}  # a driver may die between a report and writing what follows from it
        for event in events:
            self._history.apply(event)
            trial = self._history.trials.get(event.get("trial_id", ""))
            if trial is None:
                continue
            if event["event"] == "trial_suggested":
                self._searcher.replay(trial.trial_id, trial.config, trial.state)
            elif event["event"] == "trial_reported":
                value = event["metrics"].get(self.experiment.metric, math.nan)
                decision = self.scheduler.record(trial.trial_id, event["fidelity"], value)
                if decision is not None:
                    undecided[trial.trial_id] = decision
                self._observe(trial, "running")
            elif event["event"] == "rung_decided":
                undecided.pop(trial.trial_id, None)
            elif event["event"] == "trial_ended" and trial.status != "interrupted":
                self._observe(trial, trial.status)
        for trial_id, decision in undecided.items():
            self._decided(self._history.trials[trial_id], decision)
        unfinished = [trial for trial in self._history.trials.values() if trial.status in UNFINISHED]
        for trial in unfinished:
            if not trial.kept:  # decided, and the driver died before it could say so
                self._append("trial_ended", trial, status="stopped", reason=f"rung {trial.rung:g}")
        self._again = [trial for trial in unfinished if trial.kept]

    # What Tune asks for

    def next_attempt(self, ray_id: str) -> dict[str, Any] | None:
        """The Tune config of the next attempt: an interrupted trial's first, then a new suggestion's."""
        if self.failure is not None:
            return None
        if self._again:
            trial = self._again.pop(0)
            trial.attempt += not math.isnan(trial.started_at)
        else:
            suggested = self._suggest()
            if suggested is None:
                return None
            trial = suggested
        self._attempts[ray_id] = trial
        return {"spec": self._spec(trial)}

    def stop_trial(self, ray_id: str, result: dict[str, Any]) -> bool:
        """Whether this report ends its trial before the scheduler sees it; also the first look at what is reported."""
        report = result.get("report")
        if report is None or ray_id not in self._attempts:
            return False
        missing = self._missing(report["metrics"])
        if missing is not None:
            self._ends[ray_id] = {"status": "failed", "reason": str(missing)}
            if not self._any_reports():
                self.failure = self.failure or missing
            return True
        value = report["metrics"][self.experiment.metric]
        if not math.isfinite(value):
            reason = f"{self.experiment.metric} = {value} at {self.experiment.fidelity or 'report'} "
            self._ends[ray_id] = {"status": "failed", "reason": f"{reason}{report['fidelity']:g}"}
        return not math.isfinite(value)

    # What Tune tells

    def started(self, ray_id: str) -> None:
        """An attempt got its slot."""
        trial = self._attempts[ray_id]
        self._append("trial_started", trial, ray_id=ray_id)

    def reported(self, ray_id: str, result: dict[str, Any]) -> None:
        """A report, or the message that the objective has ended."""
        trial = self._attempts[ray_id]
        if "ended" in result:
            self._ends[ray_id] = result["ended"]
            problems = [Problem(key, message) for key, message in result["ended"]["problems"]]
            if problems and not self._any_reports():
                self.failure = self.failure or InvalidInput(*problems)
            return
        report = result["report"]
        fields = {key: report[key] for key in ("fidelity", "metrics", "elapsed_s")}
        self._append("trial_reported", trial, **fields)
        if report["checkpoint"]:
            path = Path(report["checkpoint"]).relative_to(self._history.run_dir)
            self._append("trial_checkpointed", trial, fidelity=report["fidelity"], path=path)
        # The scheduler decided before this was called; its decisions follow from the report, so they are written after.
        for decision in self._decisions.pop(trial.trial_id, []):
            value = self._decided(trial, decision)
            if not decision.kept:
                reason = f"rung {decision.rung:g}: {value:.4g} ranked {decision.rank} of {decision.n}"
                self._ends[ray_id] = {"status": "stopped", "reason": reason}
        self._observe(trial, "running")

    def ended(self, ray_id: str, error: str = "") -> None:
        """An attempt is over. `error`: what Ray says where its process, not the objective, failed."""
        trial = self._attempts.pop(ray_id, None)
        if trial is None:
            return
        # Nothing noted and no error: the scheduler ended it at `max_t`.
        end = self._ends.pop(ray_id, {"status": "completed", "reason": ""})
        end = {"status": "failed", "reason": error} if error else end
        if end["status"] == "completed" and not trial.reports:
            end = {"status": "failed", "reason": "the objective ended without a report"}
        fields = {key: end[key] for key in ("status", "reason", "traceback", "replaced") if end.get(key)}
        self._append("trial_ended", trial, **{"reason": "", **fields})
        self._observe(trial, trial.status)

    def abandon(self, reason: str) -> None:
        """The run stops here: what still runs is interrupted."""
        for ray_id, trial in list(self._attempts.items()):
            del self._attempts[ray_id]
            self._append("trial_ended", trial, status="interrupted", reason=reason)

    # Inside

    def _suggest(self) -> TrialRecord | None:
        number = len(self._history.trials)
        if self.experiment.trials is not None and number >= self.experiment.trials:
            return None
        trial_id = f"{number:04d}"
        config = self._searcher.suggest(trial_id)
        if config is None or config == Searcher.FINISHED:
            return None
        sampled = {key: value for key, value in config.items() if key not in self._space.constants}
        identity = {"trial_id": trial_id, "config_id": config_id(sampled), "config": sampled}
        self._journal.append("trial_suggested", **identity, state=self._searcher.state_of(trial_id))
        return self._history.trials[trial_id]

    def _spec(self, trial: TrialRecord) -> dict[str, Any]:
        experiment = self.experiment
        return {
            "id": trial.trial_id,
            "config": experiment.trial_config(trial.config),
            "seed": trial_seed(experiment.seed, int(trial.trial_id)),
            "attempt": trial.attempt,
            "dir": str(self._history.run_dir / "trials" / trial.trial_id / f"attempt-{trial.attempt}"),
            "cpus": max(1, int(experiment.resources.cpus_per_trial)),
            "fidelity": experiment.fidelity,
            "metric": experiment.metric,
            "mode": experiment.mode,
            # The newest one that was reported: what a dead attempt saved after its last report never happened.
            "checkpoint": str(self._history.run_dir / newest) if (newest := self._newest(trial)) else None,
        }

    def _newest(self, trial: TrialRecord) -> str | None:
        return next(reversed(trial.checkpoints.values()), None)

    def _decided(self, trial: TrialRecord, decision: Decision) -> float:
        """Write a rung's decision in the metric's own sense; returns its value."""
        value, cutoff = self._sign * decision.value, self._sign * decision.cutoff
        self._append("rung_decided", trial, **{**vars(decision), "value": value, "cutoff": cutoff})
        return value

    def _any_reports(self) -> bool:
        """Whether any trial got as far as a good report: before that a mistake is the experiment's, not a trial's."""
        return any(trial.reports for trial in self._history.trials.values())

    def _missing(self, metrics: dict[str, float]) -> InvalidInput | None:
        """What the first report lacks, as the mistake in the experiment that it is."""
        wanted = {"metric": self.experiment.metric}
        if self.experiment.scheduler.name != "none":
            wanted["fidelity"] = self.experiment.fidelity or ""
        problems = [
            Problem(key, f"the objective does not report '{name}'; {nearest(name, metrics)}")
            for key, name in wanted.items()
            if name not in metrics
        ]
        return InvalidInput(*problems) if problems else None

    def _observe(self, trial: TrialRecord, status: str) -> None:
        """Tell the searcher how a trial stands: its last report, at the fidelity it was measured at."""
        loss = se = fidelity = None
        if trial.reports:
            row = trial.reports[-1]
            metric = self.experiment.metric
            loss, fidelity = self._sign * row.metrics.get(metric, math.nan), row.fidelity
            se = row.metrics.get(f"{metric}_se")
        self._searcher.observe(trial.trial_id, trial.config, loss, fidelity=fidelity, status=status, se=se)

    def _append(self, event: str, trial: TrialRecord, **fields: Any) -> Event:
        return self._journal.append(event, trial_id=trial.trial_id, attempt=trial.attempt, **fields)
