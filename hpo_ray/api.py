"""The Python door: `run`, `resume`, and the `Run` they return. The same path as the command line's, screen left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import config, lr_range, runner
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.results.frame import Level, load_results
from hpo_ray.results.summary import summarise
from hpo_ray.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.results.racing import Standing


class Run:
    """A finished run.

    Attributes:
        path: The run directory.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.path: Path = history.run_dir

    @property
    def best(self) -> dict[str, Any]:
        """The answer: best configuration, value, interval, counts and cost, as ``--json`` prints them."""
        return summarise(self._history)

    @property
    def standing(self) -> Standing:
        """How a race stands, if this is one; see `hpo_ray.results.racing.Standing`."""
        from hpo_ray.confirming import standing

        return standing(self._history)

    def frame(self, level: Level = "trials") -> pd.DataFrame:
        """The run in pandas; ``level`` and columns as for `hpo_ray.load_results`."""
        return load_results(self.path, level)

    def __repr__(self) -> str:
        best = self.best
        return f"Run({str(self.path)!r}, best {best['metric']}={best['best_value']}, trial {best['best_trial']})"


def run(
    train_or_experiment: Callable[..., Any] | Experiment | str,
    space: SearchSpace | Mapping[str, Any] | None = None,
    *,
    metric: str | None = None,
    mode: str | None = None,
    fidelity: str | None = None,
    searcher: str | None = None,
    scheduler: str | Mapping[str, Any] | None = None,
    trials: int | None = None,
    slots: int | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Run an experiment and wait for its end.

    Args:
        train_or_experiment: An objective ``train(config, trial)``, the name of an experiment in `conf/`, or a
            resolved `Experiment` (then only `out` applies).
        space: The search space: ours, its text form (``{"lr": "loguniform(1e-4, 1e-1)"}``), domains from
            `hpo_ray.space`, or Ray's.
        metric: The reported key to optimise; default ``loss`` for an objective.
        mode: ``"min"`` (default for an objective) or ``"max"``.
        fidelity: The reported key that says how far training got; an early-stopping scheduler needs it.
        searcher: A name from `conf/searcher/`; default ``gp_ei``.
        scheduler: A name from `conf/scheduler/`, or a mapping with its options; default ``none`` for an objective,
            since only you know whether it reports progress.
        trials: How many configurations; default 24.
        slots: How many at a time; default: what the machine holds.
        seed: All randomness comes from it; default 0.
        out: The run directory; default ``runs/<name>-<time>``.
        overrides: More of what the command line takes, e.g. ``["resources.cpus_per_trial=2"]``.

    Returns:
        The finished run.

    Raises:
        InvalidInput: With every mistake, before anything starts; or an objective that doesn't report the metric.
        RunFailed: The run could not go on; what was journalled stays readable.

    Example:
        >>> def train(config, trial):
        ...     trial.report(loss=(config["x"] - 0.3) ** 2)
        >>> hpo_ray.run(train, space={"x": "uniform(0, 1)"}).best["best_config"]  # doctest: +SKIP
    """
    folder = Path(out) if out is not None else None
    if isinstance(train_or_experiment, Experiment):
        return Run(runner.start(train_or_experiment, out=folder))
    objective = None if isinstance(train_or_experiment, str) else train_or_experiment
    chosen = train_or_experiment if isinstance(train_or_experiment, str) else "function"
    choices = [f"experiment={chosen}", *([f"searcher={searcher}"] if searcher else [])]
    if isinstance(scheduler, Mapping):
        choices.append(f"scheduler={scheduler.get('name')}")
    elif scheduler is not None:
        choices.append(f"scheduler={scheduler}")
    document = config.load([*choices, *overrides])
    values = {"metric": metric, "mode": mode, "fidelity": fidelity, "trials": trials, "slots": slots, "seed": seed}
    document.data.update({key: value for key, value in values.items() if value is not None})
    if isinstance(scheduler, Mapping):
        document.data["scheduler"] = dict(scheduler)
    if space is not None:
        document.data["space"] = _space_text(space)
    if objective is not None:
        _name_objective(document, objective)
    experiment, narrowed = lr_range.resolve(document, has_objective=objective is not None)
    return Run(runner.start(experiment, objective=objective, out=folder, narrowed=narrowed))


def resume(
    path: str | os.PathLike[str],
    train: Callable[..., Any] | None = None,
    *,
    add_trials: int = 0,
    overrides: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> Run:
    """Go on with a run that was interrupted, stopped, failed or killed, or add trials to one that is complete.

    Args:
        path: The run directory; or a run's URI, ``<storage.uri>/<name>``, from which it is brought to this machine. It
            goes on here then, unless ``ray.address=…`` among the overrides names a cluster.
        train: The objective, where the run was started with one from Python; None: what the run's journal names.
        add_trials: So many trials more than it was to have.
        overrides: What may change: ``["stop.wall_time_s=7200", "slots=1", "retry.max_retries=0"]``.
        out: Of a run at a URI: the folder to bring it to; default ``runs/<name>``.

    Returns:
        The finished run.

    Raises:
        InvalidInput: It is no run, another process works on it, or its objective or data cannot be found.
        RunFailed: As for `run`.
    """
    objective = {} if train is None else {"objective": train}
    return Run(
        runner.resume(
            os.fspath(path),
            out=None if out is None else Path(out),
            add_trials=add_trials,
            overrides=overrides,
            **objective,
        )
    )


def refit(
    path: str | os.PathLike[str],
    *,
    trial: str | None = None,
    repeats: int = 1,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Train a run's best configuration once more, on training and validation images together, and score it once.

    Args:
        path: A run of the image trainable.
        trial: Another configuration than the best one.
        repeats: How many models, each from its own seed; they predict together.
        out: The new run's directory; default ``runs/<name>-refit-<time>``.
        overrides: What may change: ``["training.epochs=10", "resources.cpus_per_trial=2"]``.

    Returns:
        The finished run, of one trial.

    Raises:
        InvalidInput: It is no such run, or an override is wrong.
        RunFailed: As for `run`.
    """
    from hpo_ray.refitting import experiment_of

    experiment = experiment_of(Path(path), trial_id=trial, repeats=repeats, overrides=overrides)
    return Run(runner.start(experiment, out=Path(out) if out is not None else None))


def confirm(
    path: str | os.PathLike[str],
    train: Callable[..., Any] | None = None,
    *,
    top: int = 5,
    repeats: int = 5,
    folds: int | None = None,
    confidence: float = 0.95,
    out: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Try a run's best configurations again on fresh seeds (and folds), against each other: is the winner one?

    Args:
        path: The run that found them.
        train: The objective, where the run was started with one from Python; None: what the run's journal names.
        top: How many, by their best reports.
        repeats: Of each, at most; those that are clearly beaten get fewer.
        folds: For images; see `hpo_ray.confirming.experiment_of`.
        confidence: Of the verdict.
        out: The new run's directory; default ``runs/<name>-confirm-<time>``.
        overrides: What may change: ``["slots=4"]``.

    Returns:
        The finished race; `Run.standing` tells how it ended.

    Raises:
        InvalidInput: It is no run, it has fewer than two configurations with a value, or an override is wrong.
        RunFailed: As for `run`.
    """
    from hpo_ray.confirming import experiment_of

    experiment = experiment_of(
        Path(path),
        top=top,
        repeats=repeats,
        folds=folds,
        confidence=confidence,
        overrides=overrides,
        has_objective=train is not None,
    )
    return Run(runner.start(experiment, objective=train, out=Path(out) if out is not None else None))


def _space_text(space: SearchSpace | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(space, SearchSpace):
        return space.text()
    if not isinstance(space, Mapping):
        given = f"{type(space).__name__} {space!r:.60}"  # type: ignore[unreachable]
        raise InvalidInput(Problem("space", f"got {given}, expected a mapping from names to domains"))
    if any(type(value).__module__.startswith("ray.") for value in space.values()):
        return SearchSpace.from_ray(space).text()
    return dict(space)


def _name_objective(document: config.Document, objective: Callable[..., Any]) -> None:
    """Say in the journal what ran, and see that it can."""
    from hpo_ray.trainables.function import check_objective

    name = f"{getattr(objective, '__module__', '?')}:{getattr(objective, '__qualname__', repr(objective))}"
    document.data["trainable"] = {"name": "function", "target": name}
    try:
        check_objective(objective, name)
    except InvalidInput as error:
        document.problems.extend(error.problems)
    except Exception as error:
        document.problems.append(Problem("train", f"{name} cannot be called: {error}"))
