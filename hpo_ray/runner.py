"""From a checked `Experiment` to a finished run: a `tune.Tuner` in a Ray session, every event journalled."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import journal
from hpo_ray.environment import environment, local_cpus, local_gpus
from hpo_ray.errors import InvalidInput, Problem, RunFailed
from hpo_ray.experiment import Experiment
from hpo_ray.history import History, alive, fold
from hpo_ray.journal import FILE_NAME, Event, Journal
from hpo_ray.session import ray_session
from hpo_ray.trainables import TRAINABLES
from hpo_ray.trainables.function import load_target, pack

if TYPE_CHECKING:
    from ray.tune import Tuner

    from hpo_ray.driver import Driver

Objective = Callable[..., Any]
Listener = Callable[[Event, History], None]

FREE_SPACE_MB = 64


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
        InvalidInput: The run directory can't be used, or the objective doesn't report what it should.
        RunFailed: Ray could not start, or the journal could not be written. What was journalled stays.
        KeyboardInterrupt: Interrupted; the journal says so.
    """
    payload = pack(objective or objective_of(experiment))
    return _drive(experiment, payload, new_run_dir(experiment.name, out), [], listener)


def resume(run_dir: Path, *, objective: Objective | None = None, listener: Listener | None = None) -> History:
    """Go on with a run that was interrupted, failed or killed; one that completed is returned as it is.

    Finished trials stay. Unfinished ones start a new attempt, which finds its last checkpoint; searcher and scheduler
    are brought back from the journal.

    Args:
        run_dir: The run's folder.
        objective: The function itself, where the run was given one from Python; None: what ``trainable`` names.
        listener: Called with each new event and the run's history after it.

    Raises:
        InvalidInput: It is no run, its driver still runs, or its objective can't be found; and as for `start`.
        RunFailed: As for `start`.
    """
    log = journal.read(run_dir)
    history = fold(run_dir, log.events)
    if not history.experiment:
        raise InvalidInput(Problem("run", f"'{run_dir}' ended before its first event: there is nothing to resume"))
    if alive(history):
        where = f"process {history.environment.get('pid')} on {history.environment.get('host')}"
        raise InvalidInput(Problem("run", f"'{run_dir}' is still running ({where}): stop it first"))
    if history.ended is not None and history.ended["status"] == "completed":
        return history
    experiment = Experiment.model_validate(history.experiment)
    payload = pack(objective or objective_of(experiment))
    return _drive(experiment, payload, run_dir.absolute(), log.events, listener)


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


def new_run_dir(name: str, out: Path | None) -> Path:
    """A run directory that holds nothing yet.

    Raises:
        InvalidInput: It exists and holds something, can't be made, or its disk is full.
    """
    run_dir = (out or _next_name(name)).absolute()
    key = "--out" if out is not None else "runs"
    try:
        if (run_dir / FILE_NAME).exists():
            raise InvalidInput(Problem(key, f"'{run_dir}' already holds a run: choose another folder"))
        run_dir.mkdir(parents=True, exist_ok=True)
        if any(run_dir.iterdir()):
            raise InvalidInput(Problem(key, f"'{run_dir}' is not empty: choose another folder"))
        free_mb = shutil.disk_usage(run_dir).free / 2**20
    except OSError as error:
        raise InvalidInput(Problem(key, f"'{run_dir}' cannot be used: {error.strerror}")) from None
    if free_mb < FREE_SPACE_MB:
        message = f"only {free_mb:.0f} MiB are free where '{run_dir}' lies, expected {FREE_SPACE_MB} or more"
        raise InvalidInput(Problem(key, message))
    return run_dir


def _next_name(name: str) -> Path:
    """``runs/<name>-<time>``, made here, so that two runs started in the same second get two folders."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        folder = Path("runs") / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            break  # `new_run_dir` says why
        return folder
    return folder


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


def _drive(
    experiment: Experiment, payload: bytes, run_dir: Path, events: list[Event], listener: Listener | None
) -> History:
    """Run what `events`, the journal so far, leave to be done; the journal always says how it ended."""
    history = History(run_dir)

    def follow(event: Event) -> None:
        history.apply(event)
        if listener is not None:
            listener(event, history)

    with Journal(run_dir, follow) as log:
        from hpo_ray.driver import Driver  # imports Ray

        driver = Driver(experiment, log, history)
        driver.replay(events)
        log.append("run_started", experiment=experiment.model_dump(), environment=environment())
        try:
            _fit(experiment, payload, driver, log, history)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if interrupted else str(error)
            driver.abandon(reason if interrupted else "the run failed")
            log.append("run_ended", status="interrupted" if interrupted else "failed", reason=reason)
            raise
    return history


def _fit(experiment: Experiment, payload: bytes, driver: Driver, log: Journal, history: History) -> None:
    """Hold a Ray session and let Tune run the trials. Tune only ever knows what the driver tells it."""
    with ray_session(address=experiment.ray.address, cpus=local_cpus(), gpus=local_gpus()) as scratch:
        try:
            _tuner(experiment, payload, driver, scratch).fit()
        except Exception as error:
            raise driver.failure or RunFailed(f"Ray Tune gave up: {error}") from error
        if driver.failure is not None:
            raise driver.failure
        log.append("run_ended", status="completed", reason="", **_test_winner(experiment, history))


def _tuner(experiment: Experiment, payload: bytes, driver: Driver, scratch: Path) -> Tuner:
    from ray import tune

    from hpo_ray.bridge import Events, Stops, Suggestions
    from hpo_ray.trainables.actor import actor_class, driver_import_path
    from hpo_ray.trainables.worker import Setup

    resources = experiment.resources
    setup = Setup(payload, driver_import_path(), str(Path.cwd()), resources.max_growth_mb)
    bundle = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    return tune.Tuner(
        tune.with_resources(actor_class(setup), bundle),
        tune_config=tune.TuneConfig(
            search_alg=Suggestions(driver),
            scheduler=driver.scheduler,
            num_samples=-1,
            # Without it Tune gives a custom searcher one pending trial.
            max_concurrent_trials=slots_of(experiment),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(scratch / "tune"),
            callbacks=[Events(driver)],
            stop=Stops(driver),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _test_winner(experiment: Experiment, history: History) -> dict[str, Any]:
    """The winner's error on the part of the data that no choice was made on; empty where the trainable has none.

    The best of N on its own validation set flatters itself; this is the number to quote. It runs as a Ray task,
    where the trials ran and the data is. A failure here is noted, never raised: the sweep's result stands.
    """
    module, best = TRAINABLES[experiment.trainable.name].module, history.best()
    if not module or best is None:
        return {}
    trial, row = best
    path = trial.checkpoints.get((row.attempt, row.fidelity))
    if path is None:
        return {}
    import ray

    resources = experiment.resources
    device = "cuda" if resources.gpus_per_trial > 0 else "cpu"
    config = experiment.trial_config(trial.config)
    try:
        task = ray.remote(_errors_on_test).options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)
        errors, n = ray.get(task.remote(module, config, str(history.run_dir / path), device))
    except Exception as error:
        return {"test_failure": " ".join(str(error).split())[-500:]}
    return {"test": {"errors": errors, "n": n}}


def _errors_on_test(module: str, config: dict[str, Any], checkpoint: str, device: str) -> tuple[int, int]:
    """Runs as a Ray task."""
    result: tuple[int, int] = importlib.import_module(module).errors_on_test(config, Path(checkpoint), device)
    return result
