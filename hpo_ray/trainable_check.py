"""Does the trainable fit the experiment: its objective, its data, its model, the rungs that follow from its schedule.

Asks the trainable's own checks; starts nothing, imports no Ray.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment, locate
from hpo_ray.space import SearchSpace
from hpo_ray.space_check import sampled_values
from hpo_ray.trainables import TRAINABLES


def check_trainable(
    experiment: Experiment, space: SearchSpace | None, has_objective: bool, problems: list[Problem]
) -> None:
    """The objective exists; its data can be read and its model be built."""
    target = experiment.trainable.target
    if experiment.trainable.name == "function":
        for key in ("folds", "repeats"):
            if getattr(experiment, key) > 1:
                message = "your own objective does its own: report their mean, and its standard error as <metric>_se"
                problems.append(Problem(key, message))
        if not has_objective:
            if target in (None, "???"):
                problems.append(Problem("trainable.target", "give your objective, e.g. trainable.target=my.py:train"))
                return
            from hpo_ray.trainables.function import load_target

            try:
                load_target(str(target))
            except InvalidInput as error:
                problems.extend(error.problems)
        return
    if experiment.folds > 1 and experiment.data is not None and experiment.data.train_on_valid:
        problems.append(Problem("folds", "data.train_on_valid=true leaves nothing to validate a fold on: 1 expected"))
    if target is not None:
        problems.append(Problem("trainable.target", f"only for trainable=function, not '{experiment.trainable.name}'"))
    module = importlib.import_module(TRAINABLES[experiment.trainable.name].module)
    sections = TRAINABLES[experiment.trainable.name].sections
    config, sampled = _settled(experiment, sections, space)
    found = module.check(config, sampled, folds=experiment.folds)
    problems.extend(dict.fromkeys(found))


def with_rungs(experiment: Experiment, space: SearchSpace, problems: list[Problem]) -> Experiment:
    """The experiment with the rungs that its learning rate's cycles give, where these are asked for."""
    scheduler = experiment.scheduler
    if scheduler.rungs != "cycle_ends":
        return experiment
    module = TRAINABLES[experiment.trainable.name].module
    find = getattr(importlib.import_module(module), "rungs", None) if module else None
    if find is None:
        message = f"'{experiment.trainable.name}' has no cycles of its own: give a list of fidelities"
        problems.append(Problem("scheduler.rungs", message))
        return experiment
    config, sampled = _settled(experiment, TRAINABLES[experiment.trainable.name].sections, space)
    options = {name: getattr(scheduler, name) for name in ("grace_period", "max_t", "reduction_factor")}
    try:
        rungs = find(config, sampled, **options)
    except InvalidInput as error:
        problems.extend(error.problems)
        return experiment
    return experiment.model_copy(update={"scheduler": scheduler.model_copy(update={"rungs": tuple(rungs)})})


def _settled(
    experiment: Experiment, sections: Sequence[str], space: SearchSpace | None
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Any]]]:
    """The sections with the space's constants in their places, and what is searched, with the values that show it."""
    config = {name: getattr(experiment, name).model_dump() for name in sections}
    if space is None:
        return config, {}
    for key, value in space.constants.items():
        [(section, name), *_] = locate(key)
        config[section][name] = value
    return config, {key: values for key, values in sampled_values(space).items() if key not in space.constants}
