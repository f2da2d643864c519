"""From a checked `Experiment` to a finished run: started, or gone on with. What a driver does then is `stint`'s."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo_ray import brought, config, journal, lock
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.folders import new_run_dir
from hpo_ray.history import History, fold
from hpo_ray.preflight import check
from hpo_ray.stint import Listener, Stint
from hpo_ray.storage import address, holding
from hpo_ray.storage.store import Store
from hpo_ray.trainables import TRAINABLES
from hpo_ray.trainables.function import load_target, pack

Objective = Callable[..., Any]

# What may change when a run is resumed: nothing that its results so far depend on.
AMENDABLE = ("trials", "slots", "stop", "retry", "resources", "ray", "storage", "loggers")
# Bytes of a journal, some 4,000 reports, that take over 10 ms to become a frame.
LARGE_JOURNAL = 1 << 20


def start(
    experiment: Experiment,
    *,
    objective: Objective | None = None,
    out: Path | None = None,
    listener: Listener | None = None,
    narrowed: Mapping[str, Any] | None = None,
) -> History:
    """Run an experiment to its end.

    Args:
        experiment: Resolved and checked.
        objective: The function itself; None: what ``trainable`` names.
        out: The run directory; must not exist, or be empty. None: ``runs/<name>-<time>``.
        listener: Called with each event and the run's history after it.
        narrowed: See `hpo_ray.lr_range.resolve`; journalled with the experiment.

    Returns:
        The finished run.

    Raises:
        InvalidInput: The run directory or the earlier runs can't be used, or the objective doesn't report what it
            should.
        RunFailed: Ray could not start or died, too many trials failed, or the journal could not be written. What was
            journalled stays.
        KeyboardInterrupt: Interrupted; the journal says so.
    """
    from hpo_ray import prior

    payload = pack(objective or objective_of(experiment))
    known = prior.load(experiment) if experiment.prior.runs else None
    run_dir, stored = new_run_dir(experiment.name, out), ""
    if experiment.storage.uri is not None:
        stored = address.join(experiment.storage.uri, run_dir.name)
        try:
            holding.check_new(stored)
        except InvalidInput:
            with contextlib.suppress(OSError):
                run_dir.rmdir()  # it is empty
            raise
    try:
        return _kept(Stint(experiment, payload, run_dir, listener, stored).drive([], known, narrowed))
    except InvalidInput:
        _unmake(run_dir, stored)
        raise


def resume(
    run: str | Path,
    *,
    out: Path | None = None,
    add_trials: int = 0,
    overrides: Sequence[str] = (),
    objective: Objective | None = None,
    listener: Listener | None = None,
) -> History:
    """Go on with a run that was interrupted, stopped, failed or killed; one with nothing left to do is returned as is.

    Finished trials stay. Unfinished ones start a new attempt, which finds its last checkpoint; searcher and scheduler
    are brought back from the journal.

    A run that came from a URI goes on on this machine, or on the cluster that ``ray.address=…`` among the overrides
    names: what its journal names is told, not joined, since it would be sent this user's cluster token.

    Args:
        run: The run's folder; or the URI that it is kept at, from which it is brought to this machine.
        out: Of a run at a URI: the folder to bring it to; None: ``runs/<name>``.
        add_trials: So many trials more than it was to have.
        overrides: ``key=value`` of the sections in `AMENDABLE`.
        objective: The function itself, where the run was given one from Python; None: what ``trainable`` names.
        listener: Called with each new event and the run's history after it.

    Raises:
        InvalidInput: It is no run, its driver still runs, its objective or data can't be found, or an override is
            wrong; and as for `start`.
        RunFailed: As for `start`.
    """
    uri = str(run) if address.is_uri(str(run)) else ""
    if out is not None and not uri:
        raise InvalidInput(Problem("--out", "a run on this machine goes on in its own folder: leave it out"))
    run_dir = holding.bring(uri, out) if uri else Path(run)
    log = journal.read(run_dir)
    history = fold(run_dir.absolute(), log.events, log.damaged)
    if not history.experiment:
        why = "the journal's first event is damaged" if log.damaged else "it ended before its first event"
        raise InvalidInput(Problem("run", f"'{run_dir}' cannot be resumed: {why}"))
    living = lock.holder(run_dir)
    if living is not None:
        message = f"'{run_dir}' is still running ({living}): stop it first with `hpo-ray stop {run_dir}`"
        message += lock.runs_out(living, lock.silent_s(run_dir))
        raise InvalidInput(Problem("run", message))
    changes = [f"storage.uri={address.split(uri)[0]}", *overrides] if uri else overrides
    plan, unjoined = brought.unjoined(run_dir, history.experiment, overrides)
    try:
        experiment = _amended(plan, add_trials, changes, has_objective=objective is not None)
    except InvalidInput as error:
        raise InvalidInput(*error.problems, *([Problem("ray.address", unjoined)] if unjoined else [])) from None
    stored = ""
    if experiment.storage.uri is not None:
        name = address.split(uri or history.stored)[1] or run_dir.absolute().name
        stored = address.join(experiment.storage.uri, name)
    more = experiment.trials is None or experiment.trials > len(history.trials)
    if (
        history.ended is not None
        and history.ended["status"] == "completed"
        and not (more and add_trials + len(overrides))
    ):
        if overrides and listener is not None:
            text = f"'{run_dir}' is complete: {', '.join(overrides)} has nothing to change; --add-trials N adds trials"
            listener({"event": "note", "text": text, "time": time.time()}, history)
        if stored:
            holding.catch_up(stored, run_dir, history.checkpoints)
        return history
    payload = pack(objective or objective_of(experiment))
    if unjoined:
        text = f"ray.address: {unjoined}; the run goes on on this machine"
        if listener is None:
            warnings.warn(text, stacklevel=3)
        else:
            listener({"event": "note", "text": text, "time": time.time()}, history)
    return _kept(Stint(experiment, payload, run_dir.absolute(), listener, stored).drive(log.events, None))


def _unmake(run_dir: Path, stored: str) -> None:
    """Take a new run away again that could not begin: the cluster could not be joined, say."""
    with contextlib.suppress(InvalidInput, OSError):
        kinds = [event["event"] for event in journal.read(run_dir).events]
        if kinds not in ([], ["run_started", "run_ended"]) or lock.holder(run_dir) is not None:
            return
        shutil.rmtree(run_dir, ignore_errors=True)
        if stored and kinds:
            for name in (journal.FILE_NAME, lock.FILE_NAME):  # others' files may lie there besides
                Store(stored).delete(name)


def _kept(run: History) -> History:
    """A run that has ended, its rows written as Parquet where its journal takes long to read."""
    from hpo_ray.results import compact

    with contextlib.suppress(InvalidInput, OSError, ValueError):  # no room for it, perhaps: the journal has it all
        if (run.run_dir / journal.FILE_NAME).stat().st_size >= LARGE_JOURNAL:
            compact(run.run_dir)
    return run


def objective_of(experiment: Experiment) -> Objective:
    """The function that a trial of this experiment runs.

    Raises:
        InvalidInput: The user's own can't be found or called.
    """
    trainable = experiment.trainable
    if trainable.name == "function":
        return load_target(trainable.target or "")
    train: Objective = importlib.import_module(TRAINABLES[trainable.name].module).train
    return train


def _amended(data: dict[str, Any], add_trials: int, overrides: Sequence[str], *, has_objective: bool) -> Experiment:
    """A run's experiment with what its resumption changes, checked anew: data may have moved since."""
    document = config.amend(data, overrides, AMENDABLE)
    if add_trials:
        if document.data["trials"] is None:
            document.problems.append(Problem("--add-trials", "the run has a whole grid: there is nothing to add"))
        else:
            document.data["trials"] += add_trials
    try:
        return check(document, has_objective=has_objective)
    except InvalidInput as error:
        target = str((data.get("trainable") or {}).get("target"))
        from_python = not target.rpartition(":")[0].endswith(".py")
        if from_python and any(problem.key == "trainable.target" for problem in error.problems):
            way = "a run that was started with a function from Python goes on with hpo_ray.resume(path, train)"
            raise InvalidInput(*error.problems, Problem("run", way)) from None
        raise
