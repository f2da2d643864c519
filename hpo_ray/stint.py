"""One driver's work on one run directory: the lock, the journal, a Ray session, and how it all ends."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import credentials, journal, lock
from hpo_ray.capacity import Watch
from hpo_ray.environment import environment, local_cpus, local_gpus
from hpo_ray.errors import InvalidInput, Problem, RayLost, RunFailed
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.lock import Lock
from hpo_ray.loggers.background import Background
from hpo_ray.session import INTERRUPTION, ray_session
from hpo_ray.snapshot import Snapshots
from hpo_ray.storage import holding
from hpo_ray.storage.mirror import Mirror

if TYPE_CHECKING:
    from ray.tune import Tuner

# Called with each event and the run's history after it; ``{"event": "note", "text": …}`` is for the user alone.
Listener = Callable[[Event, History], None]

POLL_PERIOD_S = 0.5
# Some calls of Ray's wait for what has died and heed no signal: so long the driver's thread is given to come back.
STUCK_S = 5.0
# So long a finished run waits for its loggers, which then go on by themselves.
LOGGERS_S = 5.0


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


class Stint:
    """One driver's work on one run directory."""

    def __init__(
        self, experiment: Experiment, payload: bytes, run_dir: Path, listener: Listener | None, stored: str = ""
    ) -> None:
        """Args: what to run, the objective, where, who is told, and the URI that the run is kept at besides."""
        self._experiment = experiment
        self._payload = payload
        self._history = History(run_dir)
        self._listener = listener
        self._stored = stored
        self._mirror: Mirror | None = None
        self._there: list[str] = []
        self._keeper = Keeper(self._history, experiment.storage.keep_checkpoints)
        self._snapshots = Snapshots(run_dir)
        self._thread = threading.current_thread()
        self._polled_at = -1e9
        self._end_at: float | None = None
        self._interrupting = False
        self._lost_at: float | None = None

    def drive(self, events: list[Event], known: Any, narrowed: Mapping[str, Any] | None = None) -> History:
        """Run what `events`, the journal so far, leave to be done; the journal always says how it ended.

        Args:
            events: Empty for a new run.
            known: What earlier runs tell the searcher, or None.
            narrowed: Why a parameter's range is what it is, if a test chose it: name to ``range`` and ``reason``.
        """
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
                if self._stored:
                    before_us = [event.get("stored") for event in events if event["event"] == "run_started"]
                    known_good = before_us[-1:] == [self._stored]
                    self._there = holding.claim(self._stored, run_dir, self._note if known_good else None)
                if before is not None:
                    self._note(f"taking over from {before}, which is gone")
                self._drive(events, known, narrowed or {})
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

    def _drive(self, events: list[Event], known: Any, narrowed: Mapping[str, Any]) -> None:
        from hpo_ray.driver import Driver  # imports Ray

        log = self._log
        self._driver = driver = Driver(self._experiment, log, self._history, self._keeper, self._stored)
        self._capacity = Watch(driver.asked)
        driver.replay(events)
        if self._stored:
            holding.carry(self._stored, self._history.run_dir, self._history.checkpoints, self._there)
        learned: dict[str, Any] = {"prior": known.observations} if known is not None else {}
        if narrowed:
            learned["narrowed"] = dict(narrowed)
        if self._stored:
            learned["stored"] = self._stored
        started = log.append(
            "run_started", experiment=self._experiment.model_dump(), environment=environment(), **learned
        )
        self._loggers = Background(self._history.run_dir, self._experiment.loggers)
        if self._stored:
            self._mirror = Mirror(self._history.run_dir, self._stored)
            self._keeper.forget = self._mirror.forget
        try:
            reasons = [f"space.{name}={found['range']}: {found['reason']}" for name, found in narrowed.items()]
            for note in [*reasons, *(known.notes if known is not None else ())]:
                self._note(note)
            driver.learn(started.get("prior", ()))
            self._keeper.clear(self._there)
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
            self._loggers.close(LOGGERS_S)
            self._pass_on()
            if self._mirror is not None:
                self._mirror.close(self._pass_on)
                self._pass_on()

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
                with credentials.unlogged():
                    self._tuner(scratch).fit()
            except Exception as error:
                raise driver.failure or RunFailed(f"Ray Tune gave up: {error}") from error
            if driver.failure is not None:
                raise driver.failure
            from hpo_ray.winner import try_winner

            driver.abandon(driver.stopping)
            status = "stopped" if driver.stopping else "completed"
            tested = try_winner(experiment, self._history) if experiment.race is None else {}
            self._log.append("run_ended", status=status, reason=driver.stopping, **tested)

    def _tuner(self, scratch: Path) -> Tuner:
        from ray import tune

        from hpo_ray.bridge import Events, Stops, Suggestions
        from hpo_ray.schedulers.none import NoScheduler
        from hpo_ray.trainables.actor import actor_class, driver_import_path
        from hpo_ray.trainables.worker import Setup

        limit_mb = self._experiment.resources.max_growth_mb
        setup = Setup(self._payload, driver_import_path(), str(Path.cwd()), limit_mb, credentials.of_driver())
        return tune.Tuner(
            # An attempt's own share: one that ran out of memory may have come back with more.
            tune.with_resources(actor_class(setup), lambda attempt: tune.PlacementGroupFactory(attempt["bundles"])),
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
        self._pass_on()
        if now - self._polled_at > POLL_PERIOD_S:
            self._polled_at = now
            if lock.take_stop_request(self._history.run_dir) and not driver.stopping:
                driver.stopping = "asked to stop"
            driver.look_around()
            if note := self._capacity.look(driver.idle):
                self._note(note)
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

    def _pass_on(self) -> None:
        """Tell what the loggers and the storage have to say."""
        for messages in (self._loggers.messages, *([self._mirror.messages] if self._mirror is not None else [])):
            while not messages.empty():
                self._note(messages.get())

    def _note(self, text: str) -> None:
        if self._listener is not None:
            self._listener({"event": "note", "text": text, "time": time.time()}, self._history)
