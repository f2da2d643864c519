"""The learning rate range test of an experiment: for `hpo-ray lr-find`, and to narrow a sweep's range before it starts.

Knows the built-in trainables that have a test; starts no Ray and journals nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hpo_ray.config import Document
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.preflight import check
from hpo_ray.trainables import TRAINABLES

if TYPE_CHECKING:
    from hpo_ray.training.lr_finder import RangeTest

ASKED = "from_lr_range_test"
# Stands in for the range that is asked for until the test has found it.
_WIDEST = "loguniform(1e-7, 10)"


def checked(document: Document, *, has_objective: bool = False) -> Experiment:
    """The experiment that a document describes; a range that a test is to find is as wide as can be.

    Raises:
        InvalidInput: As `hpo_ray.preflight.check`; a test is asked for of something else than the learning rate.
    """
    for key in _asked(document):
        document.data["space"][key] = _WIDEST
        if key not in ("lr", "training.lr"):
            document.problems.append(Problem(f"space.{key}", f"'{ASKED}' finds a range for lr only"))
    return check(document, has_objective=has_objective)


def resolve(document: Document, *, has_objective: bool = False) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that a document describes, its learning rate's range from a test if it says so.

    Args:
        document: As `config.load` composed it; ``space.lr=from_lr_range_test`` asks for the test.
        has_objective: See `hpo_ray.preflight.check`.

    Returns:
        The experiment, and why a range is what it is: name to ``range`` (text) and ``reason``; empty without a test.

    Raises:
        InvalidInput: As `checked` does, before the test starts; the trainable has no such test; its curve shows
            nothing.
    """
    asked = _asked(document)
    experiment = checked(document, has_objective=has_objective)
    if not asked:
        return experiment, {}
    found = find(experiment)
    bounds = found.bounds()
    if bounds is None:
        raise InvalidInput(Problem(f"space.{asked[0]}", f"{found.reason}: give a range"))
    text = "loguniform({:.2g}, {:.2g})".format(*bounds)
    document.data["space"][asked[0]] = text
    return check(document, has_objective=has_objective), {"lr": {"range": text, "reason": found.reason}}


def _asked(document: Document) -> list[str]:
    space = document.data.get("space")
    return [key for key, value in space.items() if value == ASKED] if isinstance(space, dict) else []


def find(experiment: Experiment, *, steps: int = 100) -> RangeTest:
    """Runs the test on the experiment's default configuration: its space's defaults, or else the middle of each range.

    Args:
        experiment: Resolved and checked.
        steps: Batches to take at most.

    Raises:
        InvalidInput: The trainable has no such test, or the data cannot be learnt from.
    """
    module = TRAINABLES[experiment.trainable.name].module
    test = getattr(importlib.import_module(module), "range_test", None) if module else None
    if test is None:
        message = f"'{experiment.trainable.name}' has no learning rate range test; in your own objective: "
        raise InvalidInput(Problem("trainable.name", f"{message}hpo_ray.training.range_test(model, batches, …)"))
    config = experiment.trial_config(experiment.search_space.central_config())
    cpus = max(1, int(experiment.resources.cpus_per_trial))
    device = "cuda" if experiment.resources.gpus_per_trial > 0 else "cpu"
    result: RangeTest = test(config, seed=experiment.seed, device=device, cpus=cpus, steps=steps)
    return result
