"""From a composed document to a checked `Experiment`: every mistake at once, with its key, before Ray starts.

Knows the registries of searchers, schedulers and trainables; starts nothing and imports no torch for what it ships.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpo_ray.config import Document
from hpo_ray.environment import local_cpus, local_gpus
from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.experiment import SECTIONS, Experiment, locate, short_name
from hpo_ray.loggers import problem_of
from hpo_ray.schedulers import SCHEDULERS
from hpo_ray.searchers import SEARCHERS
from hpo_ray.space import SearchSpace
from hpo_ray.space_check import check_space
from hpo_ray.storage import address as storage_address
from hpo_ray.trainable_check import check_trainable, with_rungs
from hpo_ray.trainables import TRAINABLES
from hpo_ray.wording import problems_of

# Keys of Ray's own results: a metric of that name would be read as something else.
RESERVED = frozenset({"done", "report", "ended", "config", "trial_id", "training_iteration"})
DEFAULT_EPOCHS = 20


def check(document: Document, *, has_objective: bool = False) -> Experiment:
    """The experiment that a document describes.

    Args:
        document: As `config.load` composed it.
        has_objective: The objective is given as a function, so that ``trainable.target`` needn't name one.

    Raises:
        InvalidInput: With every mistake: unknown keys and names, wrong types, a bad space, things that don't fit
            each other or this machine, unreadable data.
    """
    data = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.data.items()}
    problems = list(document.problems)
    _fill_sections(data, problems)
    space = check_space(data, problems)
    _fill_defaults(data)
    _resolve_paths(data)
    experiment = _build(data, problems)
    for part in (_check_names, _check_loggers, _check_storage, _check_scheduler, _check_metric, _check_fractions):
        part(data, problems)
    if experiment is not None and space is not None:
        _check_searched(document, space, problems)
    if experiment is not None:
        _check_grid(experiment, space, problems)
        _check_machine(experiment, problems)
        if not problems:
            check_trainable(experiment, space, has_objective, problems)
        if not problems and space is not None:
            experiment = with_rungs(experiment, space, problems)
    if problems:
        raise InvalidInput(*_worded(problems, document))
    assert experiment is not None  # otherwise there were problems
    return experiment


def _fill_sections(data: dict[str, Any], problems: list[Problem]) -> None:
    """Give the trainable the sections it reads; say where one was given that it doesn't."""
    trainable = _get(data, "trainable", "name")
    declared = TRAINABLES.get(trainable) if isinstance(trainable, str) else None
    if declared is None:
        return
    for name in ("data", "model", "training"):
        given = data.get(name) or {}
        if not isinstance(given, dict):
            continue  # the model says so
        if name in declared.sections:
            data[name] = given
        elif given:
            problems.append(Problem(name, f"the trainable '{trainable}' has no `{name}`: remove it"))
        else:
            data[name] = None


def _fill_defaults(data: dict[str, Any]) -> None:
    """What follows from other values: the scheduler's options, and how long a trial trains."""
    scheduler = data.get("scheduler")
    if isinstance(scheduler, dict) and isinstance(scheduler.get("name"), str):
        for option, default in SCHEDULERS.get(scheduler["name"], {}).items():
            if scheduler.get(option) is None and default is not None:
                scheduler[option] = default
    training = data.get("training")
    if isinstance(training, dict) and training.get("epochs") is None:
        max_t = _get(data, "scheduler", "max_t")
        training["epochs"] = max_t if type(max_t) is int and max_t > 0 else _of_stages(training) or DEFAULT_EPOCHS


def _of_stages(training: Mapping[str, Any]) -> int | None:
    """How long the stages are together, if each says so."""
    stages = training.get("stages")
    lengths = [_get(stage, "epochs") for stage in stages] if isinstance(stages, list | tuple) else []
    return sum(lengths) if lengths and all(type(length) is int for length in lengths) else None


def _resolve_paths(data: dict[str, Any]) -> None:
    """Files as absolute paths: trials run in other folders, perhaps on other machines without these variables."""
    section, model = data.get("data"), data.get("model")
    if isinstance(section, dict) and section.get("name") not in (None, "digits"):
        root = section.get("root") or os.environ.get("HPO_RAY_DATA")
        section["root"] = _absolute(root) if isinstance(root, str) else root
    target = _get(data, "trainable", "target")
    if isinstance(target, str) and target.rpartition(":")[0].endswith(".py"):
        data["trainable"]["target"] = _absolute(target)
    weights = model.get("weights") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(weights, str) and weights != "default":
        model["weights"] = _absolute(weights)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _build(data: dict[str, Any], problems: list[Problem]) -> Experiment | None:
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        known = {problem.key for problem in problems}
        problems.extend(problem for problem in problems_of(error) if problem.key not in known)
        return None


def _check_names(data: dict[str, Any], problems: list[Problem]) -> None:
    for section, names in (("searcher", SEARCHERS), ("scheduler", SCHEDULERS), ("trainable", TRAINABLES)):
        name = _get(data, section, "name")
        if isinstance(name, str) and name not in names:
            problems.append(Problem(f"{section}.name", f"there is no '{name}'; {nearest(name, names)}"))


def _check_loggers(data: dict[str, Any], problems: list[Problem]) -> None:
    """Each is one, once, and what it needs is installed."""
    names = data.get("loggers")
    if not isinstance(names, list | tuple):
        return
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        problem = problem_of(name, "loggers")
        if problem is not None:
            problems.append(problem)
        elif names.count(name) > 1:
            problems.append(Problem("loggers", f"'{name}' is there twice: once is enough"))


def _check_storage(data: dict[str, Any], problems: list[Problem]) -> None:
    """Something can be kept there, as far as its words say; whether it is there is seen when a run starts."""
    uri = _get(data, "storage", "uri")
    wrong = storage_address.problem_of(uri) if isinstance(uri, str) else ""
    if wrong:
        problems.append(Problem("storage.uri", wrong))


def _check_scheduler(data: dict[str, Any], problems: list[Problem]) -> None:
    """Options that the scheduler takes and needs; rungs that can be reached."""
    name = _get(data, "scheduler", "name")
    options = SCHEDULERS.get(name) if isinstance(name, str) else None
    if options is None:
        return
    given = {key: value for key, value in data["scheduler"].items() if key != "name" and value is not None}
    for key in given:
        if key not in options and any(key in other for other in SCHEDULERS.values()):
            problems.append(Problem(f"scheduler.{key}", f"the scheduler '{name}' takes no {key}: remove it"))
    for key, default in options.items():
        if default is None and key not in given:
            problems.append(Problem(f"scheduler.{key}", f"the scheduler '{name}' needs it"))
    if name != "none" and not data.get("fidelity"):
        message = f"the scheduler '{name}' needs the reported key that says how far training got, e.g. fidelity=epoch"
        problems.append(Problem("fidelity", message))
    rungs = given.get("rungs")
    if isinstance(rungs, list | tuple) and all(type(rung) is int for rung in rungs):
        low, high = given.get("grace_period"), given.get("max_t")
        if list(rungs) != sorted(set(rungs)) or (rungs and low and high and not low <= rungs[0] <= rungs[-1] < high):
            message = f"{list(rungs)}: expected rising fidelities from grace_period={low} to below max_t={high}"
            problems.append(Problem("scheduler.rungs", message))
    grace, max_t, epochs = given.get("grace_period"), given.get("max_t"), _get(data, "training", "epochs")
    if isinstance(grace, int) and isinstance(max_t, int) and grace > max_t:
        problems.append(Problem("scheduler.grace_period", f"{grace} is above scheduler.max_t={max_t}"))
    if isinstance(epochs, int) and isinstance(max_t, int) and epochs < max_t:
        message = f"{epochs} is below scheduler.max_t={max_t}, which no trial would reach: make them equal"
        problems.append(Problem("training.epochs", message))


def _check_metric(data: dict[str, Any], problems: list[Problem]) -> None:
    """The metric and the fidelity are keys that the trainable declares."""
    trainable = _get(data, "trainable", "name")
    declared = TRAINABLES[trainable].metrics if isinstance(trainable, str) and trainable in TRAINABLES else None
    for key in ("metric", "fidelity"):
        name = data.get(key)
        if not isinstance(name, str) or not name:
            continue
        if name in RESERVED:
            problems.append(Problem(key, f"'{name}' is a name of Ray's own: choose another"))
        elif name.startswith("val_") and _get(data, "data", "train_on_valid"):
            message = f"there is no '{name}' where validation images are learnt from: metric=epoch mode=max, the last"
            problems.append(Problem(key, message))
        elif declared is not None and name not in declared:
            problems.append(Problem(key, f"'{trainable}' does not report '{name}'; {nearest(name, declared)}"))


def _check_fractions(data: dict[str, Any], problems: list[Problem]) -> None:
    section = data.get("data")
    if isinstance(section, dict):
        valid, test = (section.get(f"{part}_fraction") for part in ("valid", "test"))
        if isinstance(valid, float) and isinstance(test, float) and 0 < valid < 1 and 0 < test < 1 <= valid + test:
            message = f"{valid:g} and data.test_fraction={test:g} leave nothing to train on: together expected below 1"
            problems.append(Problem("data.valid_fraction", message))


def _check_searched(document: Document, space: SearchSpace, problems: list[Problem]) -> None:
    """What the user sets is not what the space searches: it would have no effect."""
    for key in document.given:
        section, dot, field = key.partition(".")
        name = short_name(section, field) if dot and locate(key) else key
        if dot and section in SECTIONS and name in {**space.domains, **space.constants}:
            message = f"it has no effect: the space says '{name}'; space.{name}=VALUE sets it for all trials"
            problems.append(Problem(key, message))


def _check_grid(experiment: Experiment, space: SearchSpace | None, problems: list[Problem]) -> None:
    if space is not None and experiment.searcher.name == "grid":
        try:
            beyond = experiment.trials is not None and any(itertools.islice(space.grid(), experiment.trials, None))
        except InvalidInput as error:
            problems.extend(error.problems)
            return
        if beyond:
            message = f"{experiment.trials} would cut the grid short and leave values untried: trials=null runs it all"
            problems.append(Problem("trials", message))
    elif experiment.trials is None and experiment.searcher.name != "grid":
        problems.append(Problem("trials", "null means a whole grid, which only searcher=grid has: give a number"))


def _check_machine(experiment: Experiment, problems: list[Problem]) -> None:
    """On this machine a trial must fit, and all slots together; a cluster's size is Ray's to know."""
    need = experiment.resources
    if need.workers_per_trial > 1 and need.gpus_per_trial % need.workers_per_trial:
        message = f"{need.gpus_per_trial:g} GPUs for {need.workers_per_trial} workers: each needs whole ones of its own"
        problems.append(Problem("resources.gpus_per_trial", f"{message}; a multiple of the workers, or 0"))
    if experiment.ray.address is not None:
        check_address(experiment.ray.address, problems)
        return
    slots = 1 if experiment.slots == "auto" else experiment.slots
    for resource, have in (("cpus", local_cpus()), ("gpus", local_gpus())):
        key = f"resources.{resource}_per_trial"
        each = getattr(experiment.resources, f"{resource}_per_trial")
        unit = resource[:-1].upper()
        if each > have:
            problems.append(Problem(key, f"{each:g} is more than this machine has: {have} {unit}s"))
        elif slots * each > have:
            message = f"{slots} slots of {each:g} {unit}s are more than this machine has: {have}"
            problems.append(Problem("slots", f"{message}; at most {int(have // each)}, or a smaller {key}"))


def check_address(address: str, problems: list[Problem]) -> None:
    """Something listens there: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        problems.append(Problem("ray.address", f"'{address}': expected auto or host:port, e.g. 10.0.0.1:6379"))
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        message = f"nothing answers at '{address}' ({error.strerror or error}): is the cluster's head running there?"
        problems.append(Problem("ray.address", message))


def _worded(problems: list[Problem], document: Document) -> list[Problem]:
    """Problems with their sources, each once; where a choice is wrong, only what the user said beside it.

    A wrong choice leaves a default in its place, whose consequences are no mistakes of the user's.
    """
    located = list(dict.fromkeys(problem.at(document.source(problem.key)) for problem in problems))
    wrong_choice = {problem.key for problem in document.problems} & set(document.choices)
    if wrong_choice:
        located = [p for p in located if p in document.problems or p.source == "command line"]
    return located


def _get(data: Mapping[str, Any], *path: str) -> Any:
    node: Any = data
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
