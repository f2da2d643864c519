"""Searcher and scheduler as functions of the journal: what to try next, and which trials go on.

Both are told the same things in the same order whether they happen now or are read back. Decides; starts nothing and
writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from hpo_ray import schedulers, searchers
from hpo_ray.searchers.race import RaceSearcher

if TYPE_CHECKING:
    from hpo_ray.experiment import Experiment
    from hpo_ray.history import TrialRecord
    from hpo_ray.journal import Event
    from hpo_ray.schedulers.rungs import Decision
    from hpo_ray.searchers.base import SpaceSearcher


class Guide:
    """An experiment's searcher and scheduler. Values are in the metric's own sense outside, losses inside."""

    def __init__(self, experiment: Experiment) -> None:
        self._metric = experiment.metric
        self._sign = -1.0 if experiment.mode == "max" else 1.0
        objective = {"metric": experiment.metric, "mode": experiment.mode}
        space = experiment.search_space
        self._constants = space.constants
        race = experiment.race
        self._searcher: SpaceSearcher
        if race is None:
            self._searcher = searchers.make(experiment.searcher.name, space, seed=experiment.seed, **objective)
        else:
            self._searcher = RaceSearcher(
                space,
                contenders=race.contenders,
                repeats=race.repeats,
                confidence=race.confidence,
                seed=experiment.seed,
                **objective,
            )
        options = {k: v for k, v in experiment.scheduler.model_dump().items() if k != "name" and v is not None}
        self._scheduler = schedulers.make(experiment.scheduler.name, options, fidelity=experiment.fidelity, **objective)
        # A driver may die between a report and writing what follows from it.
        self.undecided: dict[str, Decision] = {}

    def learn(self, prior: Iterable[Mapping[str, Any]]) -> None:
        """Tell the searcher of earlier runs' results, before its first suggestion."""
        for known in prior:
            self._searcher.observe(**known)

    def replay(self, event: Event, trial: TrialRecord) -> None:
        """Take in what an earlier driver wrote; `trial` has taken it in already.

        Decisions that follow from a report and were not written are left in `undecided`.
        """
        kind = event["event"]
        if kind == "trial_suggested":
            self._searcher.skip_to(int(trial.trial_id))
            self._searcher.replay(trial.trial_id, trial.config, trial.state)
        elif kind == "trial_reported" and event["attempt"] == trial.attempt:
            decision = self._record(trial.trial_id, event["fidelity"], event["metrics"])
            if decision is not None:
                self.undecided[trial.trial_id] = decision
            if trial.config_id:  # else its suggestion stood in a damaged line
                self.observe(trial, "running")
        elif kind == "rung_decided":
            self.undecided.pop(trial.trial_id, None)
        elif kind == "trial_ended" and trial.status != "interrupted" and trial.config_id:
            self.observe(trial, trial.status)

    def suggest(self, trial_id: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The next configuration without the space's constants, and what it depended on; None: there are no more."""
        self._searcher.skip_to(int(trial_id))
        config = self._searcher.suggest(trial_id)
        if config is None or config == Searcher.FINISHED:
            return None
        sampled = {key: value for key, value in config.items() if key not in self._constants}
        return sampled, self._searcher.state_of(trial_id)

    def decide(self, trial: TrialRecord, report: Mapping[str, Any]) -> Decision | None:
        """Take a report in; the rung's decision that it leads to, if any."""
        decision = self._record(trial.trial_id, report["fidelity"], report["metrics"])
        self.observe(trial, "running")
        return decision

    def complete(self, fidelity: float) -> bool:
        """Whether a trial has gone as far as trials go."""
        return self._scheduler.complete(fidelity)

    def observe(self, trial: TrialRecord, status: str) -> None:
        """Tell the searcher how a trial stands: its last report, at the fidelity it was measured at."""
        loss = se = fidelity = None
        if trial.reports:
            row = trial.reports[-1]
            loss, fidelity = self._sign * row.metrics.get(self._metric, math.nan), row.fidelity
            se = row.metrics.get(f"{self._metric}_se")
        self._searcher.observe(trial.trial_id, trial.config, loss, fidelity=fidelity, status=status, se=se)

    def described(self, decision: Decision) -> dict[str, Any]:
        """A decision as its event holds it, in the metric's own sense."""
        return {**vars(decision), "value": self._sign * decision.value, "cutoff": self._sign * decision.cutoff}

    def _record(self, trial_id: str, fidelity: float, metrics: Mapping[str, float]) -> Decision | None:
        return self._scheduler.record(trial_id, fidelity, metrics.get(self._metric, math.nan))
