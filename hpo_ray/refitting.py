"""A run's best configuration trained a last time, on everything but the test part: a finished run -> an experiment.

Chooses nothing and starts nothing: what comes of it is a run like any other. Knows no torch and no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo_ray import brought, config, history
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.preflight import check
from hpo_ray.space import SearchSpace, choice
from hpo_ray.trainables import TRAINABLES

# What may differ from the run that chose: where and how long it trains, not what was chosen.
AMENDABLE = (
    "seed",
    "data.root",
    "data.workers",
    "training.epochs",
    "training.precision",
    "resources",
    "ray",
    "stop",
    "retry",
    "storage",
    "loggers",
)
_NAME_LENGTH = 60


def experiment_of(
    run_dir: Path, *, trial_id: str | None = None, repeats: int = 1, overrides: Sequence[str] = ()
) -> Experiment:
    """The experiment that trains a run's best configuration on its training and validation images together.

    One trial, whose `repeats` models start from different seeds; the last epoch counts, since nothing is left to
    choose by; the test part is tried once, at the end. A patience of the run's becomes its best trial's best epoch.

    Args:
        run_dir: A run of a built-in trainable.
        trial_id: Which configuration; None: the best.
        repeats: How many models.
        overrides: ``key=value`` of the sections in `AMENDABLE`.

    Raises:
        InvalidInput: It is no such run, it has no such trial or no best one, or an override is wrong.
    """
    run = history.load(run_dir)
    chosen = Experiment.model_validate(run.experiment)
    if not TRAINABLES[chosen.trainable.name].module:
        raise InvalidInput(Problem("run", f"'{run_dir}' trained your own objective: only image runs can be refitted"))
    trial, row = run.pick(trial_id)
    settled = chosen.trial_config(trial.config)
    training = dict(settled["training"])
    if training.get("patience") is not None and not training.get("stages"):
        training["epochs"] = int(row.fidelity)
    data: dict[str, Any] = {
        **run.experiment,
        "name": f"{chosen.name[: _NAME_LENGTH - len('-refit')]}-refit",
        "trials": 1,
        "slots": 1,
        "folds": 1,
        "repeats": repeats,
        "metric": "epoch",
        "mode": "max",
        "fidelity": "epoch",
        "space": SearchSpace({key: choice([value]) for key, value in trial.config.items()}).text(),
        "searcher": {"name": "random"},
        "scheduler": {"name": "none"},
        "data": {**settled["data"], "train_on_valid": True},
        "model": settled["model"],
        "training": {**training, "patience": None},
        "stop": {},
        "prior": {},
        "storage": {"keep_checkpoints": 1},
    }
    why = "the configuration was chosen with it; only {may} may change"
    data, unjoined = brought.unjoined(run_dir, data, overrides)
    document = config.amend(data, overrides, AMENDABLE, why=why)
    if unjoined:
        document.problems.append(Problem("ray.address", f"{unjoined}, ray.address=null takes this machine"))
    return check(document)
