"""From a checked `Experiment` to a finished run: a `tune.Tuner` in a Ray session, every event journalled."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import config, journal, lock
from hpo_ray.environment import environment, local_cpus, local_gpus
from hpo_ray.errors import InvalidInput, Problem, RayLost, RunFailed
from hpo_ray.experiment import Experiment
from hpo_ray.folders import new_run_dir
from hpo_ray.history import History, fold
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.lock import Lock
from hpo_ray.preflight import check
from hpo_ray.session import INTERRUPTION, ray_session
from hpo_ray.snapshot import Snapshots
from hpo_ray.trainables import TRAINABLES
from hpo_ray.trainables.function import load_target, pack

if TYPE_CHECKING:
    from ray.tune import Tuner

Objective = Callable[..., Any]
# Called with each event and the run's history after it; ``{"event": "note", "text": …}`` is for the user alone.
Listener = Callable[[Event, History], None]

# What may change when a run is resumed: nothing that its results so far depend on.
AMENDABLE = ("trials", "slots", "stop", "retry", "resources", "ray", "storage")
POLL_PERIOD_S = 0.5
# Some calls of Ray's wait for what has died and heed no signal: so long the driver's thread is given to come back.
STUCK_S = 5.0


def start(
    experiment: Experiment,
    *,
    objective: Objective | None = None,
    out: Path | None = None,
    listener: Listener | None = None,
) -> History:
    """Run an experiment to its end.

    Args:
        experiment: Resolved and checked.
        objective: The function itself; None: what ``trainable`` names.
        out: The run directory; must not exist, or be empty. None: ``runs/<name>-<time>``.
        listener: Called with each event and the run's history after it.

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
    return _Run(experiment, payload, new_run_dir(experiment.name, out), listener).drive([], known)


def resume(
    run_dir: Path,
    *,
    add_trials: int = 0,
    overrides: Sequence[str] = (),
    objective: Objective | None = None,
    listener: Listener | None = None,
) -> History:
    """Go on with a run that was interrupted, stopped, failed or killed; one with nothing left to do is returned as is.

    Finished trials stay. Unfinished ones start a new attempt, which finds its last checkpoint; searcher and scheduler
    are brought back from the journal.

    Args:
        run_dir: The run's folder.
        add_trials: So many trials more than it was to have.
        overrides: ``key=value`` of the sections in `AMENDABLE`.
        objective: The function itself, where the run was given one from Python; None: what ``trainable`` names.
        listener: Called with each new event and the run's history after it.

    Raises:
        InvalidInput: It is no run, its driver still runs, its objective or data can't be found, or an override is
            wrong; and as for `start`.
        RunFailed: As for `start`.
    """
    log = journal.read(run_dir)
    history = fold(run_dir.absolute(), log.events, log.damaged)
    if not history.experiment:
        why = "the journal's first event is damaged" if log.damaged else "it ended before its first event"
        raise InvalidInput(Problem("run", f"'{run_dir}' cannot be resumed: {why}"))
    living = lock.holder(run_dir)
    if living is not None:
        message = f"'{run_dir}' is still running ({living}): stop it first with `hpo-ray stop {run_dir}`"
        raise InvalidInput(Problem("run", message))
    experiment = _amended(history.experiment, add_trials, overrides, has_objective=objective is not None)
    more = experiment.trials is None or experiment.trials > len(history.trials)
    if (
        history.ended is not None
        and history.ended["status"] == "completed"
        and not (more and add_trials + len(overrides))
    ):
        return history
    payload = pack(objective or objective_of(experiment))
    return _Run(experiment, payload, run_dir.absolute(), listener).drive(log.events, None)


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


def slots_of(experiment: Experiment) -> int:
    """How many trials run at a time: what was asked for, or what this machine (or the cluster) holds."""
    if experiment.slots != "auto":
        return int(experiment.slots)
    need = experiment.resources
    if experiment.ray.address is None:
        cpus, gpus = float(local_cpus()), float(local_gpus())
    else:
        import ray

        have = ray.cluster_resources()
        cpus, gpus = have.get("CPU", 1.0), have.get("GPU", 0.0)
    slots = cpus // need.cpus_per_trial
    if need.gpus_per_trial > 0:
        slots = min(slots, gpus // need.gpus_per_trial)
    return max(1, int(min(slots, experiment.trials or slots)))


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


class _Run:
    """One driver's work on one run directory."""

    def __init__(self, experiment: Experiment, payload: bytes, run_dir: Path, listener: Listener | None) -> None:
        self._experiment = experiment
        self._payload = payload
        self._history = History(run_dir)
        self._listener = listener
        self._keeper = Keeper(self._history, experiment.storage.keep_checkpoints)
        self._snapshots = Snapshots(run_dir)
        self._thread = threading.current_thread()
        self._polled_at = -1e9
        self._end_at: float | None = None
        self._interrupting = False
        self._lost_at: float | None = None

    def drive(self, events: list[Event], known: Any) -> History:
        """Run what `events`, the journal so far, leave to be done; the journal always says how it ended."""
        run_dir = self._history.run_dir
        with Journal(run_dir, self._follow, self._note) as self._log:
            before = lock.written(run_dir)
            try:
                held = Lock(run_dir)
            except OSError as error:
                message = f"'{run_dir}' cannot be written to: {error.strerror}"
                raise InvalidInput(Problem("run", message)) from None
            with held:
                self._unchanged(events)
                if before is not None:
                    self._note(f"taking over from {before}, which is gone")
                self._drive(events, known)
        return self._history

    def _unchanged(self, events: list[Event]) -> None:
        """See that nobody wrote to the journal between our reading it and our having it to ourselves."""
        if not events:
            return
        log = journal.read(self._history.run_dir)
        if len(log.events) != len(events):
            raise InvalidInput(Problem("run", "another process has worked on it just now: look at it, and try again"))
        if log.damaged:
            self._note(f"{log.damaged} damaged line{'s' * (log.damaged > 1)} in the journal: passed over")

    def _drive(self, events: list[Event], known: Any) -> None:
        from hpo_ray.driver import Driver  # imports Ray

        log = self._log
        self._driver = driver = Driver(self._experiment, log, self._history, self._keeper)
        driver.replay(events)
        learned = {"prior": known.observations} if known is not None else {}
        started = log.append(
            "run_started", experiment=self._experiment.model_dump(), environment=environment(), **learned
        )
        try:
            for note in known.notes if known is not None else ():
                self._note(note)
            driver.learn(started.get("prior", ()))
            self._keeper.clear()
            driver.take_over()
            self._fit()
        except BaseException as error:
            failure = driver.failure if isinstance(driver.failure, RayLost) else error
            self._give_up(failure)
            if isinstance(failure, RunFailed):
                failure.run_dir = self._history.run_dir
            if failure is error:
                raise
            raise failure from None
        finally:
            self._snapshots.write(self._history.tally, log.offset)

    def _give_up(self, failure: BaseException) -> None:
        """Write down that the run ended, and why."""
        self._log.patient = False  # a disk that is still full would keep us here
        interrupted = isinstance(failure, KeyboardInterrupt)
        reason = "interrupted" if interrupted else str(failure)
        cause = {"cause": "ray_lost"} if isinstance(failure, RayLost) else {}
        with contextlib.suppress(RunFailed):  # no room: readers see a run whose driver has died
            self._driver.abandon(reason if interrupted else "the run failed")
            self._log.append("run_ended", status="interrupted" if interrupted else "failed", reason=reason, **cause)
        if interrupted:
            self._note(f"`hpo-ray resume {self._history.run_dir}` goes on")

    def _fit(self) -> None:
        """Hold a Ray session and let Tune run the trials. Tune only ever knows what the driver tells it."""
        experiment, driver = self._experiment, self._driver
        address = experiment.ray.address
        with ray_session(address=address, cpus=local_cpus(), gpus=local_gpus(), on_lost=self._lost) as scratch:
            try:
                self._tuner(scratch).fit()
            except Exception as error:
                raise driver.failure or RunFailed(f"Ray Tune gave up: {error}") from error
            if driver.failure is not None:
                raise driver.failure
            from hpo_ray.winner import try_winner

            driver.abandon(driver.stopping)
            status = "stopped" if driver.stopping else "completed"
            tested = try_winner(experiment, self._history)
            self._log.append("run_ended", status=status, reason=driver.stopping, **tested)

    def _tuner(self, scratch: Path) -> Tuner:
        from ray import tune

        from hpo_ray.bridge import Events, Stops, Suggestions
        from hpo_ray.schedulers.none import NoScheduler
        from hpo_ray.trainables.actor import actor_class, driver_import_path
        from hpo_ray.trainables.worker import Setup

        limit_mb = self._experiment.resources.max_growth_mb
        setup = Setup(self._payload, driver_import_path(), str(Path.cwd()), limit_mb)
        return tune.Tuner(
            # An attempt's own share: one that ran out of memory may have come back with more.
            tune.with_resources(actor_class(setup), lambda attempt: tune.PlacementGroupFactory([attempt["bundle"]])),
            tune_config=tune.TuneConfig(
                search_alg=Suggestions(self._driver),
                scheduler=NoScheduler(),
                num_samples=-1,
                # Without it Tune gives a custom searcher one pending trial.
                max_concurrent_trials=slots_of(self._experiment),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=str(scratch / "tune"),
                callbacks=[Events(self._driver)],
                stop=Stops(self._driver, self._over),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )

    def _over(self) -> bool:
        """Whether what still runs is to end at once: it was given time to come to its next report."""
        driver, now = self._driver, time.monotonic()
        if self._interrupting:  # any moment now: Tune's own way out asks Ray things, and waits a minute for each
            return False
        while driver.notes:
            self._note(driver.notes.pop(0))
        if now - self._polled_at > POLL_PERIOD_S:
            self._polled_at = now
            if lock.take_stop_request(self._history.run_dir) and not driver.stopping:
                driver.stopping = "asked to stop"
            driver.look_around()
        if driver.stopping and self._end_at is None:
            self._end_at = now + self._experiment.stop.grace_s
            self._note(f"ending: {driver.stopping}" + ("; running trials go on to their next report" * driver.running))
        return driver.failure is not None or (self._end_at is not None and now > self._end_at)

    def _lost(self, what: str) -> bool:
        """Ray has died: get the driver's thread out of whatever call of Ray's it waits in.

        Called from another thread, and again: an interruption that comes in the wrong place is swallowed by Ray.
        Returns True where no interruption helps. The run's end is written down then; all that is left is to leave.
        """
        where, now = self._history.run_dir, time.monotonic()
        self._interrupting = self._thread is threading.main_thread()
        failure = self._driver.failure = self._driver.failure or RayLost(f"{what}; go on with `hpo-ray resume {where}`")
        self._lost_at = now if self._lost_at is None else self._lost_at
        if not self._interrupting:
            return False
        if now - self._lost_at < STUCK_S:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPTION)
            return False
        with contextlib.suppress(Exception):  # whatever cannot be written: this process must end
            self._give_up(failure)
            self._snapshots.write(self._history.tally, self._log.offset)
            (where / lock.FILE_NAME).unlink()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"failed: {failure}\n")
            sys.stderr.flush()
        return True

    def _follow(self, event: Event) -> None:
        self._history.apply(event)
        self._keeper.follow(event)
        self._snapshots.maybe_write(self._history.tally, self._log.offset)
        if self._listener is not None:
            self._listener(event, self._history)

    def _note(self, text: str) -> None:
        if self._listener is not None:
            self._listener({"event": "note", "text": text, "time": time.time()}, self._history)
