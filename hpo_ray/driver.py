"""Between Tune and the journal: hands out attempts, writes every event, ends what must end.

One Tune trial is one *attempt* of one of ours. Knows no Ray (`bridge` does), nothing of the screen, and files only
through the journal and the keeper.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import budgets, retries
from hpo_ray.attempts import bundles_of, config_id, folder_of, gpus_of, lost, missing, next_number, spec_of
from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.guide import Guide
from hpo_ray.history import UNFINISHED, Fault, History, TrialRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hpo_ray.experiment import Experiment
    from hpo_ray.journal import Event, Journal
    from hpo_ray.keeper import Keeper

NOT_SPLIT = "it ran out of memory, and its objective does not ask for trial.micro_batches to split its batches by"
# A trial whose suggestion stood in a damaged line of the journal.
LOST_CONFIG = {"status": "failed", "reason": "its configuration is lost: the journal is damaged", "cause": "input"}


class Driver:
    """The state of a run in progress: the journal's history, and what Tune is doing on its behalf.

    Attributes:
        failure: What ends the run; None while all is well.
        stopping: Why the sweep comes to its end early; empty while it goes on.
        notes: Lines that a user should see and no reader of the journal needs; emptied by whoever shows them.
    """

    def __init__(
        self, experiment: Experiment, journal: Journal, history: History, keeper: Keeper, stored: str = ""
    ) -> None:
        """Make a driver with its searcher and its scheduler.

        Args:
            experiment: What to run.
            journal: Where events go; `history` must follow it.
            history: The run so far: new, or to be brought back by `replay`.
            keeper: Knows which checkpoints there are; must follow the journal too.
            stored: The URI that the run is kept at besides; empty: none.
        """
        self.experiment = experiment
        self.failure: BaseException | None = None
        self.stopping = ""
        self.notes: list[str] = []
        self._journal = journal
        self._history = history
        self._keeper = keeper
        self._stored = stored
        self._guide = Guide(experiment)
        self._exhausted = False
        self._next_trial = 0
        # Trials to be started again, and when (on the monotonic clock).
        self._again: list[tuple[float, TrialRecord]] = []
        self._attempts: dict[str, TrialRecord] = {}
        self._ends: dict[str, dict[str, Any]] = {}
        self._paused: set[str] = set()

    def __deepcopy__(self, memo: dict) -> Driver:
        return self

    def __reduce__(self) -> tuple[type, tuple]:
        # Tune pickles all it was given into its own state, which is scratch here: there the driver is left out.
        return object, ()

    def replay(self, events: Iterable[Event]) -> None:
        """Bring history, searcher and scheduler to where an earlier driver left them."""
        for event in events:
            self._history.apply(event)
            self._guide.learn(event.get("prior", ()))
            trial = self._history.trials.get(event.get("trial_id", ""))
            if trial is not None:
                self._guide.replay(event, trial)

    def learn(self, prior: Iterable[Mapping[str, Any]]) -> None:
        """Start from earlier runs' results."""
        self._guide.learn(prior)

    def take_over(self) -> None:
        """Go on where `replay` got to: end the trials whose end was decided but not written, queue the unfinished."""
        self._next_trial = 1 + max(map(int, self._history.trials), default=-1)
        for trial_id, decision in self._guide.undecided.items():
            self._append("rung_decided", self._history.trials[trial_id], **self._guide.described(decision))
        for trial in list(self._history.trials.values()):
            if trial.status not in UNFINISHED:
                continue
            end = self._decided_end(trial) if trial.config_id else dict(LOST_CONFIG)
            if end is not None:
                self._append("trial_ended", trial, **end)
                if trial.config_id:
                    self._guide.observe(trial, trial.status)
            else:
                self._again.append((0.0, trial))

    # What Tune asks for

    @property
    def finished(self) -> bool:
        """Whether no attempt will be asked for any more: none is left, none can come back."""
        if self.failure is not None or self.stopping:
            return True
        return self._exhausted and not self._again and not self._attempts

    def next_attempt(self, ray_id: str) -> dict[str, Any] | None:
        """The Tune config of the next attempt, one that comes back before a new suggestion; None: not now."""
        self.look_around()
        if self.finished:
            return None
        now = time.monotonic()
        ready = next((entry for entry in self._again if entry[0] <= now), None)
        if ready is not None:
            self._again.remove(ready)
            trial = ready[1]
        else:
            suggested = self._suggest()
            if suggested is None:
                return None
            trial = suggested
        trial.attempt = next_number(self._history.run_dir, trial)
        self._attempts[ray_id] = trial
        # Those that were reported: what a dead attempt saved after its last report never happened.
        usable = self._keeper.usable(trial)
        spec = spec_of(self.experiment, self._history.run_dir, trial, usable, self._stored)
        return {"spec": spec, "bundles": bundles_of(self.experiment, trial)}

    def judge(self, ray_id: str, result: dict[str, Any]) -> bool:
        """Take in what an attempt says; returns whether it is to end.

        A report is written first, then what follows from it: its checkpoint, the rung's decision, the searcher's share.
        """
        trial = self._attempts.get(ray_id)
        if trial is None:
            return True  # an attempt that was given up speaks too late
        if "paused" in result:
            if ray_id not in self._paused:  # it says so again and again
                self.notes.append(f"trial {trial.trial_id} waits: {result['paused']} it goes on")
            self._paused.add(ray_id)
        elif "ended" in result:
            self._ends[ray_id] = result["ended"]
            problems = [Problem(key, message) for key, message in result["ended"]["problems"]]
            if problems and not self._any_reports():
                self.failure = self.failure or InvalidInput(*problems)
        else:
            self._paused.discard(ray_id)
            end = self._reported(trial, result["report"])
            if end is not None:
                self._ends[ray_id] = end
            return end is not None
        return False

    # What Tune tells

    def started(self, ray_id: str) -> None:
        """An attempt got its slot."""
        trial = self._attempts[ray_id]
        pieces = {"micro_batches": trial.micro_batches} if trial.micro_batches > 1 else {}
        self._append("trial_started", trial, ray_id=ray_id, gpus=gpus_of(self.experiment, trial), **pieces)

    def ended(self, ray_id: str, error: str = "", preempted: bool = False) -> None:
        """An attempt is over.

        Args:
            ray_id: Tune's name for it.
            error: What Ray says where its process, not the objective, failed.
            preempted: Whether that was because its machine was taken back with notice.
        """
        trial = self._attempts.pop(ray_id, None)
        if trial is None:
            return
        # Nothing noted: Tune ended it because the whole run ends.
        end = self._ends.pop(ray_id, {"status": "interrupted", "reason": self.stopping or "the run failed"})
        if error:
            end = lost(error, preempted)
        if end["status"] == "completed" and not trial.reports:
            end = {"status": "failed", "reason": "the objective ended without a report"}
        if end["status"] in ("failed", "out_of_memory"):
            end = self._after_failure(trial, end)
        fields = ("status", "reason", "traceback", "replaced", "cause", "fault", "micro_batches", "gpus")
        self._append("trial_ended", trial, **{"reason": "", **{key: end[key] for key in fields if end.get(key)}})
        if trial.status != "interrupted":
            self._guide.observe(trial, trial.status)
        reason = budgets.broken(self.experiment.retry, self._history.tally)
        if reason and trial.status in ("failed", "out_of_memory"):
            log = folder_of(self._history.run_dir, trial, trial.attempt) / "output.log"
            mended = f"once that is mended, `hpo-ray resume {self._history.run_dir}` goes on"
            self.failure = self.failure or RunFailed(f"{reason}; the last: {trial.reason} ({log}); {mended}")

    def look_around(self) -> None:
        """See whether the sweep has had enough."""
        if not self.stopping and self._history.tally.head:
            self.stopping = budgets.spent(self.experiment, self._history.tally, time.time())

    @property
    def running(self) -> bool:
        """Whether attempts are under way."""
        return bool(self._attempts)

    @property
    def idle(self) -> bool:
        """Whether there are attempts to be made, and Ray has found room for none."""
        return self.running and all(trial.status != "running" for trial in self._attempts.values())

    def asked(self) -> list[dict[str, float]]:
        """What the attempt that waits for the longest asks Ray for, process by process."""
        return bundles_of(self.experiment, next(iter(self._attempts.values())))

    def abandon(self, reason: str) -> None:
        """The run stops here: what still runs is interrupted."""
        for ray_id, trial in list(self._attempts.items()):
            del self._attempts[ray_id]
            self._append("trial_ended", trial, status="interrupted", reason=reason)

    # Inside

    def _suggest(self) -> TrialRecord | None:
        number = self._next_trial
        enough = self.experiment.trials is not None and number >= self.experiment.trials
        trial_id = f"{number:04d}"
        suggested = None if enough or self._exhausted else self._guide.suggest(trial_id)
        if suggested is None:
            self._exhausted = True
            return None
        config, state = suggested
        identity = {"trial_id": trial_id, "config_id": config_id(config), "config": config}
        self._journal.append("trial_suggested", **identity, state=state)
        self._next_trial += 1
        return self._history.trials[trial_id]

    def _reported(self, trial: TrialRecord, report: dict[str, Any]) -> dict[str, Any] | None:
        """Write a report and what follows from it; how the attempt ends, if it does."""
        known = ("fidelity", "metrics", "elapsed_s", "since")
        self._append("trial_reported", trial, **{key: report[key] for key in known if key in report})
        if report["checkpoint"]:
            path = Path(report["checkpoint"]).relative_to(self._history.run_dir)
            self._append("trial_checkpointed", trial, fidelity=report["fidelity"], path=path)
        lacks = missing(self.experiment, report["metrics"])
        if lacks is not None:
            if not self._any_reports(complete=True):
                self.failure = self.failure or lacks
            return {"status": "failed", "reason": str(lacks), "cause": "input"}
        diverged = self._diverged(report["metrics"], report["fidelity"])
        if diverged is not None:
            return diverged
        decision = self._guide.decide(trial, report)
        if decision is not None:
            self._append("rung_decided", trial, **self._guide.described(decision))
        self.look_around()
        end = self._decided_end(trial)
        return end if end or not self.stopping else {"status": "interrupted", "reason": self.stopping}

    def _decided_end(self, trial: TrialRecord) -> dict[str, Any] | None:
        """How a trial ends by what its reports have led to: diverged, stopped at a rung, or as far as trials go."""
        last = trial.reports[-1] if trial.reports else None
        diverged = self._diverged(last.metrics, last.fidelity) if last is not None else None
        if diverged is not None:
            return diverged
        if not trial.kept:
            return {"status": "stopped", "reason": f"rung {trial.rung:g}: {trial.verdict}"}
        if last is not None and self._guide.complete(last.fidelity):
            return {"status": "completed", "reason": ""}
        return None

    def _diverged(self, metrics: dict[str, float], fidelity: float) -> dict[str, Any] | None:
        """The end of a trial whose metric is NaN or infinite."""
        metric = self.experiment.metric
        value = metrics.get(metric, 0.0)
        if math.isfinite(value):
            return None
        reason = f"{metric} = {value} at {self.experiment.fidelity or 'report'} {fidelity:g}"
        return {"status": "failed", "reason": reason, "cause": "nan"}

    def _after_failure(self, trial: TrialRecord, end: dict[str, Any]) -> dict[str, Any]:
        """A failure's end: interrupted where another attempt follows, else as it is."""
        fault, splits = Fault(end.get("cause", ""), end["reason"], trial.fidelity), bool(end.get("splits"))
        again = retries.decide(
            self.experiment.retry,
            [*trial.faults, fault],
            micro_batches=trial.micro_batches,
            gpus=gpus_of(self.experiment, trial),
            splits=splits,
        )
        if again is None:
            if fault.cause == retries.MEMORY and self.experiment.retry.out_of_memory == "micro_batch" and not splits:
                self.notes.append(f"trial {trial.trial_id} is not tried again: {NOT_SPLIT}")
            return end
        pause = f" in {again.wait_s:g} s" if again.wait_s else ""
        follows = f"attempt {trial.attempt + 1} follows" + (" once the run is resumed" if self.stopping else pause)
        if again.micro_batches != trial.micro_batches:
            follows += f", batches in {again.micro_batches} pieces"
        changed: dict[str, Any] = {"micro_batches": again.micro_batches}
        if again.gpus != gpus_of(self.experiment, trial):
            follows += f", on {again.gpus:g} GPUs"
            changed["gpus"] = again.gpus
        self.notes.append(f"trial {trial.trial_id}: {end['reason']}; {follows}")
        self._again.append((time.monotonic() + again.wait_s, trial))
        return {
            **end,
            "status": "interrupted",
            "reason": f"{end['reason']}; {follows}",
            "fault": end["reason"],
            **changed,
        }

    def _any_reports(self, *, complete: bool = False) -> bool:
        """Whether any trial got as far as a (complete) report: before that a mistake is the experiment's own."""
        rows = (row for trial in self._history.trials.values() for row in trial.reports)
        return any(not complete or missing(self.experiment, row.metrics) is None for row in rows)

    def _append(self, event: str, trial: TrialRecord, **fields: Any) -> Event:
        return self._journal.append(event, trial_id=trial.trial_id, attempt=trial.attempt, **fields)
