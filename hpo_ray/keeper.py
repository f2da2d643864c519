"""Which checkpoints stay on disk: the best over all trials, and what unfinished trials need to go on.

Follows a run's events and deletes the rest. Knows files, nothing of Ray or of what a checkpoint holds.
"""

from __future__ import annotations

import bisect
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hpo_ray.history import UNFINISHED, History, TrialRecord
from hpo_ray.journal import Event

# An unfinished trial goes on from its newest checkpoint, or, should that be damaged, from the one before.
SPARE = 2
# What `trainables.checkpoints` puts into each.
MANIFEST = ".complete.json"


class Keeper:
    """Deletes checkpoints that a run no longer needs. Never raises: one left over costs room, no more."""

    def __init__(self, history: History, keep: int) -> None:
        """Args: the run, and how many of its best trials keep a checkpoint."""
        # Called with each path, from the run's folder, that is deleted here: it may lie elsewhere too.
        self.forget: Callable[[str], None] = lambda path: None
        self._history = history
        self._keep = keep
        # (loss, trial) of ended trials that have a checkpoint, the best first.
        self._best: list[tuple[float, str]] = []

    def clear(self, stored: Iterable[str] = ()) -> None:
        """Bring the run directory to order after a driver that died: to be called once, when `history` is complete.

        Args:
            stored: The checkpoints that lie elsewhere: those that are not needed are forgotten.
        """
        for trial in self._history.trials.values():
            if trial.status not in UNFINISHED:
                self._rank(trial)
        kept = {trial_id for _, trial_id in self._best[: self._keep]}
        del self._best[self._keep :]
        all_needed: set[str] = set()
        for known in self._history.trials.values():
            unfinished = known.status in UNFINISHED
            needed = self._needed(known) if unfinished else self._only(known, known.trial_id in kept)
            all_needed |= needed
            self._delete_others(self._history.run_dir / "trials" / known.trial_id, needed)
        for path in set(stored) - all_needed:
            self.forget(path)

    def follow(self, event: Event) -> None:
        """Take an event into account that the history has taken in."""
        if event["event"] == "trial_checkpointed":
            trial = self._history.trials[event["trial_id"]]
            if len(trial.checkpoints) > SPARE:
                self._prune(trial, self._needed(trial))
        elif event["event"] == "trial_ended" and event["status"] not in UNFINISHED:
            trial = self._history.trials[event["trial_id"]]
            if not trial.checkpoints:
                return
            self._rank(trial)
            dropped = {trial_id for _, trial_id in self._best[self._keep :]}
            del self._best[self._keep :]
            self._prune(trial, self._only(trial, trial.trial_id not in dropped))
            for other in dropped - {trial.trial_id}:
                self._prune(self._history.trials[other], set())

    def usable(self, trial: TrialRecord) -> tuple[Path, ...]:
        """The checkpoints that a trial's next attempt can start from, the newest first."""
        return tuple(self._history.run_dir / path for path in list(reversed(trial.checkpoints.values()))[:SPARE])

    def _rank(self, trial: TrialRecord) -> None:
        loss = self._loss(trial)
        if trial.checkpoints and math.isfinite(loss):
            bisect.insort(self._best, (loss, trial.trial_id))

    def _loss(self, trial: TrialRecord) -> float:
        return self._saved(trial)[0]

    def _best_path(self, trial: TrialRecord) -> str | None:
        return self._saved(trial)[1]

    def _saved(self, trial: TrialRecord) -> tuple[float, str | None]:
        """The loss and the checkpoint of a trial's best report that has one; not each report need have."""
        sign = -1.0 if self._history.mode == "max" else 1.0
        found = [
            (sign * row.metrics.get(self._history.metric, math.nan), -row.fidelity, path)
            for row in trial.reports
            if (path := trial.checkpoints.get((row.attempt, row.fidelity))) is not None
        ]
        loss, _, path = min((entry for entry in found if math.isfinite(entry[0])), default=(math.inf, 0.0, None))
        return loss, path

    def _needed(self, trial: TrialRecord) -> set[str]:
        """Of an unfinished trial: its newest ones, and its best."""
        best = self._best_path(trial)
        return {*list(trial.checkpoints.values())[-SPARE:], *([best] if best else [])}

    def _only(self, trial: TrialRecord, kept: bool) -> set[str]:
        """Of an ended trial: its best, if it is among the best of all."""
        best = self._best_path(trial) if kept else None
        return {best} if best else set()

    def _prune(self, trial: TrialRecord, needed: set[str]) -> None:
        for path in set(trial.checkpoints.values()) - needed:
            shutil.rmtree(self._history.run_dir / path, ignore_errors=True)
            self.forget(path)
        for key in [key for key, path in trial.checkpoints.items() if path not in needed]:
            del trial.checkpoints[key]

    def _delete_others(self, folder: Path, needed: set[str]) -> None:
        run_dir = self._history.run_dir
        self._prune(self._history.trials[folder.name], needed)
        # An objective's own folders may be called so too: ours hold a list of what is in them.
        saved = [manifest.parent for manifest in folder.glob(f"attempt-*/checkpoint-*/{MANIFEST}")]
        for found in [*saved, *folder.glob("attempt-*/.partial-*")]:
            if found.relative_to(run_dir).as_posix() not in needed:
                shutil.rmtree(found, ignore_errors=True)
