"""Optuna: a study a run, for optuna-dashboard and Optuna's own plots; trial n there is trial n here.

A study's ended trials cannot be changed. Where the journal says something else of one (it was interrupted, and then the
run was resumed) the study is written anew.
"""

from __future__ import annotations

import contextlib
import math
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray.domains.levels import level_text, thaw
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.history import UNFINISHED
from hpo_ray.loggers.sink import (
    Claim,
    Sink,
    domains_of,
    facts_of,
    hushed,
    refuse_link,
    rows_by_step,
    scale_of,
    shown,
)
from hpo_ray.space import Domain, Levelled, Numeric

if TYPE_CHECKING:
    from hpo_ray.history import History, TrialRecord

_TAG = "hpo_ray"
# Optuna dates a trial's end by its own clock. Where that is further than this from the journal's, the study of a run
# that is over is written anew.
LATE_S = 30.0


def open_sink(target: str, *, patient: bool) -> Sink:
    """A writer of a study.

    Args:
        target: A SQLite file, made if missing, or a storage URL such as ``sqlite:///study.db``.
        patient: Wait for a writer that is about to end.

    Raises:
        InvalidInput: Nothing can be written there.
    """
    return Study(target, patient=patient)


class Study(Sink):
    """See the module."""

    def __init__(self, target: str, *, patient: bool) -> None:
        self._claim: Claim | None = None
        self._url = target
        if "://" not in target:
            file = refuse_link(Path(target).absolute())
            self._claim = Claim(file.with_name(f".{file.name}.hpo_ray"), patient=patient)
            self._url = f"sqlite:///{file}"
        import optuna

        self._optuna = optuna
        self._storage: Any = None
        self._study: Any = None
        self._parameters: dict[str, Any] = {}
        # What was written of each trial, and what the study has, in its order.
        self._written: dict[str, tuple[Any, ...]] = {}
        self._known: list[Any] = []

    def flush(self, run: History, *, over: bool) -> None:
        if not self.identity:
            return
        with hushed("optuna", "alembic"):
            if self._study is None:
                self._open(run)
            if not self._bring(run, over):
                self._optuna.delete_study(study_name=run.run_dir.name, storage=self._storage)
                self._make(run)
                self._bring(run, over)

    def close(self) -> None:
        if self._storage is not None:
            with contextlib.suppress(Exception):
                self._storage.remove_session()
                self._storage.engine.dispose()
        if self._claim is not None:
            self._claim.release()

    def _open(self, run: History) -> None:
        """Find or make the study; know what an earlier writer has put there."""
        optuna = self._optuna
        try:
            self._storage = optuna.storages.RDBStorage(self._url)
        except Exception as error:  # SQLAlchemy's and the database's own, of every kind
            reason = str(error).strip().splitlines()[0]
            raise InvalidInput(Problem("target", f"'{self._url}' cannot be opened: {reason}")) from None
        self._parameters = {name: _Parameter(optuna, domain) for name, domain in domains_of(run).items()}
        name = run.run_dir.name
        if name in {known.study_name for known in optuna.get_all_study_summaries(self._storage)}:
            self._study = optuna.load_study(study_name=name, storage=self._storage)
            if self._study.user_attrs.get(_TAG) != self.identity:
                message = f"the study '{name}' there is not of this run: choose another place, or rename the run"
                raise InvalidInput(Problem("target", message))
            self._known = self._study.get_trials()
        else:
            self._make(run)

    def _make(self, run: History) -> None:
        direction = "maximize" if run.mode == "max" else "minimize"
        made = self._optuna.create_study(storage=self._storage, study_name=run.run_dir.name, direction=direction)
        made.set_user_attr(_TAG, self.identity)
        made.set_metric_names([run.metric or "value"])
        for key in ("searcher", "scheduler"):
            chosen = run.experiment.get(key)
            made.set_user_attr(key, str(chosen.get("name") if isinstance(chosen, dict) else chosen))
        made.set_user_attr("seed", run.experiment.get("seed"))
        made.set_user_attr("run_dir", str(run.run_dir))
        self._study = made
        self._written.clear()
        self._known.clear()

    def _bring(self, run: History, over: bool) -> bool:
        """Bring the study up to date; False where that cannot be done."""
        for number, trial in enumerate(run.trials.values()):
            last = trial.reports[-1].time if trial.reports else 0.0
            state = (trial.status, trial.attempt, len(trial.reports), last, trial.last_seen, over)
            if self._written.get(trial.trial_id) == state:
                continue
            if math.isnan(trial.started_at) and not over and number >= len(self._known):
                break  # those after it, too, wait until it has begun: trials are numbered as they are added
            if not self._write(number, self._frozen(trial, run, over), over):
                return False
            self._written[trial.trial_id] = state
        return True

    def _write(self, number: int, wanted: Any, over: bool) -> bool:
        """Bring a trial of the study up to date; False where that cannot be done."""
        storage = self._storage
        if number >= len(self._known):
            wanted._trial_id = storage.create_new_trial(self._study._study_id, template_trial=wanted)
            self._known.append(wanted)
            return True
        known = self._known[number]
        if known.params != wanted.params or known.user_attrs.get("trial_id") != wanted.user_attrs["trial_id"]:
            return False
        if known.state.is_finished():
            return _same(known, wanted, over)
        if not known.intermediate_values.keys() <= wanted.intermediate_values.keys():
            return False
        wanted._trial_id = known._trial_id
        for step, value in wanted.intermediate_values.items():
            if step not in known.intermediate_values or not _equal(known.intermediate_values[step], value):
                storage.set_trial_intermediate_value(known._trial_id, step, value)
        for key, value in wanted.user_attrs.items():
            if known.user_attrs.get(key) != value:
                storage.set_trial_user_attr(known._trial_id, key, value)
        if wanted.state.is_finished():
            storage.set_trial_state_values(known._trial_id, wanted.state, wanted.values)
            if over and abs(time.time() - wanted.datetime_complete.timestamp()) > LATE_S:
                return False
        self._known[number] = wanted
        return True

    def _frozen(self, trial: TrialRecord, run: History, over: bool) -> Any:
        """A trial as Optuna has it; `over`: what was interrupted does not go on by itself."""
        states = self._optuna.trial.TrialState
        best = trial.best_report(run.metric, run.mode)
        rows = rows_by_step(trial, scale_of(trial))
        state = states.FAIL
        if trial.status == "stopped":
            state = states.PRUNED
        elif trial.status == "completed" and best is not None:
            state = states.COMPLETE
        elif trial.status in UNFINISHED and not over:
            state = states.RUNNING
        begun = trial.started_at if not math.isnan(trial.started_at) else trial.last_seen
        params = {
            name: self._parameters[name].value(value)
            for name, value in trial.config.items()
            if name in self._parameters and self._parameters[name].holds(value)
        }
        facts = facts_of(trial)
        facts |= {name: value for name, value in trial.config.items() if name not in params and name not in facts}
        if trial.reports and state.is_finished():
            facts["fidelity"] = trial.fidelity
            last = shown(trial.reports[-1].metrics, math.nan, run)
            facts |= {name: value for name, value in last.items() if name not in facts}
        ended = state.is_finished()
        return self._optuna.trial.FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=best.metrics[run.metric] if ended and state != states.FAIL and best is not None else None,
            datetime_start=_moment(begun),
            datetime_complete=_moment(trial.last_seen) if ended else None,
            params=params,
            distributions={name: self._parameters[name].distribution for name in params},
            user_attrs={key: _json(value) for key, value in facts.items()},
            system_attrs={},
            intermediate_values={
                step: row.metrics[run.metric] for step, row in rows.items() if run.metric in row.metrics
            },
        )


class _Parameter:
    """A parameter as Optuna has it.

    Optuna knows numbers with even steps or on a log scale, and choices of text, numbers, booleans and None that Python
    tells apart. Other choices become their text; a quantised logarithm loses its steps; a normal keeps its bounds.
    """

    def __init__(self, optuna: Any, domain: Domain) -> None:
        made = optuna.distributions
        self._domain = domain
        self._texts = False
        if isinstance(domain, Levelled):
            plain = all(not isinstance(value, tuple) for value in domain.values)
            self._texts = not plain or len(set(domain.values)) < len(domain.values)
            self.distribution = made.CategoricalDistribution([self.value(thaw(value)) for value in domain.values])
        elif domain.kind == "int":
            log = domain.scale == "log" and domain.low >= 1
            step = 1 if log else int(domain.q or 1)
            self.distribution = made.IntDistribution(int(domain.low), int(domain.high), log=log, step=step)
        else:
            log = domain.scale in ("log", "lognormal") and domain.low > 0
            q = None if log else domain.q
            self.distribution = made.FloatDistribution(domain.low, domain.high, log=log, step=q)

    def holds(self, value: Any) -> bool:
        """Whether a value can be a trial's."""
        return self._domain.contains(value)

    def value(self, value: Any) -> Any:
        """A value as the distribution has it."""
        if isinstance(self._domain, Numeric):
            return self._domain.canonical(value)
        return level_text(self._domain.canonical(value)) if self._texts else value


def _same(known: Any, wanted: Any, over: bool) -> bool:
    """Whether an ended trial says what it should; once the run is over also when it ended."""
    steps = known.intermediate_values
    if wanted.datetime_complete is None:
        return False
    if over and abs((known.datetime_complete - wanted.datetime_complete).total_seconds()) > LATE_S:
        return False
    return (
        known.state == wanted.state
        and known.values == wanted.values
        and known.user_attrs == wanted.user_attrs
        and steps.keys() == wanted.intermediate_values.keys()
        and all(_equal(steps[step], value) for step, value in wanted.intermediate_values.items())
    )


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _moment(unix_s: float) -> datetime:
    """Optuna's times have no zone and are local."""
    return datetime.fromtimestamp(unix_s)


def _json(value: Any) -> Any:
    """What JSON can hold as it is, and back: not-a-number and infinities as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
