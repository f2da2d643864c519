"""Runs written for other tools after the fact: what their loggers would have written live, or what is missing of it."""

from __future__ import annotations

import os
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hpo_ray import journal
from hpo_ray.errors import HpoRayError, InvalidInput, Problem
from hpo_ray.loggers import LOGGERS, problem_of

if TYPE_CHECKING:
    from hpo_ray.loggers.sink import Sink


def export(
    path: str | os.PathLike[str], to: str, target: str | os.PathLike[str] | None = None, *, key: str = "to"
) -> dict[str, str]:
    """Write runs, finished, live or dead, for TensorBoard, MLflow or Optuna.

    What is there already stays: exporting again adds what the run has done since, and nothing twice.

    Args:
        path: A run directory, or a glob of many.
        to: ``tensorboard``, ``mlflow`` or ``optuna``.
        target: Where. For TensorBoard a folder, each run having one of its name there; for MLflow a folder, whose
            ``mlflow.db`` holds an experiment a run, or a tracking URI; for Optuna a SQLite file, which holds a study a
            run, or a storage URL. None: in each run directory ``tensorboard/``, ``mlflow/`` or ``optuna.db``.
        key: What messages call `to`.

    Returns:
        Run directory -> where it was written.

    Raises:
        InvalidInput: There is no run; a package is missing; the place cannot be written to, is being written to, or
            holds something else.
    """
    problem = problem_of(to, key)
    if problem is not None:
        raise InvalidInput(problem)
    runs = journal.find_runs(path)
    if target is not None:
        counted = Counter(run_dir.absolute().name for run_dir in runs)
        twice = sorted(name for name, count in counted.items() if count > 1)
        if twice:
            message = f"several of these runs are called '{twice[0]}': export them to different places"
            raise InvalidInput(Problem("run", message))
    return {str(run_dir): _export(run_dir, to, target) for run_dir in runs}


def open_sink(name: str, target: str, *, patient: bool) -> Sink:
    """The logger of a name; see `open_sink` in its module."""
    sink: Sink = import_module(LOGGERS[name].module).open_sink(target, patient=patient)
    return sink


def _export(run_dir: Path, to: str, target: str | os.PathLike[str] | None) -> str:
    from hpo_ray.loggers.follower import Follower  # what reads search spaces is not for those who only load

    if target is None:
        where = str(run_dir / LOGGERS[to].default)
    elif to == "tensorboard":
        where = str(Path(target) / run_dir.absolute().name)
    else:
        where = os.fspath(target)

    def failed(name: str, error: Exception) -> None:
        """Tell of an error of the tool's own, of any kind: damaged files, a full disk, a server that is away."""
        if isinstance(error, HpoRayError):
            raise error
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        message = " ".join(f"'{where}' cannot be written: {reason}".split())[:500]
        raise InvalidInput(Problem("target", message)) from error

    try:
        sink = open_sink(to, where, patient=False)
    except Exception as error:
        failed(to, error)
        raise
    follower = Follower(run_dir, {to: sink}, failed)
    try:
        follower.step(to_end=True)
        if not follower.run.experiment:
            message = f"'{run_dir}' cannot be exported: its journal does not say what it is a run of"
            raise InvalidInput(Problem("run", message))
    finally:
        follower.close()
    return where
