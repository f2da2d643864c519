"""What earlier runs measured, carried over into a new experiment's search space, for its searcher to start from.

Reads journals; must not know searchers, the driver, Ray or pandas. What it returns is plain JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpo_ray import history
from hpo_ray.domains import UNSET, Level, collecting, level_key, show, thaw
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import SECTIONS, Experiment, locate, short_name
from hpo_ray.journal import find_runs
from hpo_ray.space import SearchSpace

KEY = "prior.runs"
FAILURES = ("failed", "out_of_memory")
# What these searchers suggest does not hang on what was observed.
DO_NOT_LEARN = ("random", "grid")
# Fields that may differ without a word: speed, and how long a trial trains, which its fidelity says.
UNSAID = {"workers", "epochs"}

Config = dict[str, Any]
Said = dict[str, Literal["outside", "default", "missing"]]


@dataclass(frozen=True)
class Prior:
    """What is known beforehand.

    Attributes:
        observations: One a trial, in the order of runs and suggestions: what a searcher's ``observe`` takes, by name.
            `trial_id` is ``<run>/<trial>``; `config` is flat, without constants; `loss` is minimised, None where the
            trial failed. Strict JSON: no NaN, no infinity.
        notes: What to tell the user, a line each.
    """

    observations: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(experiment: Experiment) -> Prior:
    """What the runs that ``experiment.prior.runs`` names have measured, in the experiment's own space.

    A trial counts with its last loss at its highest fidelity, an unfinished one as if stopped there. A value that its
    new domain does not have, one between levels too, leaves its trial out. What was not searched, or not in use, has
    the value that the run's sections or constants gave it, or else its default. What is no longer searched is ignored.

    Raises:
        InvalidInput: With every mistake, under ``prior.runs``: no run there; another metric, mode, fidelity, trainable
            or data set; or a parameter of which a run says nothing, and that has no default.
    """
    if not experiment.prior.runs:
        return Prior()
    prior, problems = Prior(), list[Problem]()
    for name, folder in _folders(experiment.prior.runs, problems).items():
        with collecting(problems, KEY):
            _take(experiment, name, history.load(folder), prior)
    if problems:
        raise InvalidInput(*problems)
    if experiment.searcher.name in DO_NOT_LEARN:
        return Prior(notes=[f"searcher '{experiment.searcher.name}' does not learn: {KEY} changes nothing"])
    return prior


def carry(config: Mapping[str, Any], fixed: Mapping[str, Any], space: SearchSpace) -> tuple[Config, Said]:
    """A configuration of one space in another.

    Args:
        config: The values that were searched and in use, under the names of `space`; other names are ignored.
        fixed: The values of what was not, as far as known; one outside its new domain gives way to the default.
        space: Where to.

    Returns:
        config: Active parameters, each value in its domain's own form; those that are outside or missing left out.
        said: Parameters whose value is "outside" its domain, whose "default" stands in, or that are "missing" both.
    """
    dims = {dim.name: dim for dim in space.dims}
    values: dict[str, Level] = {}
    said: Said = {}

    def settle(name: str) -> None:
        dim, domain = dims[name], space.domains[name]
        if dim.parent is not None:
            settle(dim.parent)
            # Where the parent has no value of its own, nothing can be said of the child, and nothing need be.
            if dim.parent not in values or level_key(values[dim.parent]) not in map(level_key, dim.when):
                return
        given = config if name in config else fixed
        if name in given and domain.contains(given[name]):
            values[name] = domain.canonical(given[name])
        elif name in config:
            said[name] = "outside"
        elif domain.default is UNSET:
            said[name] = "missing"
        else:
            said[name], values[name] = "default", domain.default

    for name in dims:
        settle(name)
    return {name: thaw(values[name]) for name in dims if name in values}, said


def _folders(text: str, problems: list[Problem]) -> dict[str, Path]:
    """The runs that paths and globs, with commas between them, name: each once, under a name of its own."""
    found: dict[Path, Path] = {}
    for pattern in [part.strip() for part in text.split(",") if part.strip()] or [text]:
        with collecting(problems, KEY):
            found |= {folder.resolve(): folder for folder in find_runs(pattern)}
    names = Counter(resolved.name for resolved in found)
    return {r.name if names[r.name] == 1 else str(r): folder for r, folder in found.items()}


def _take(experiment: Experiment, name: str, run: history.History, prior: Prior) -> None:
    """Add what a run measured to `prior`; InvalidInput if it measured something else, or says too little."""
    if not run.experiment:
        return prior.notes.append(f"{KEY}: {name} has not started: there is nothing to learn from it")
    document, space = experiment.model_dump(), experiment.search_space
    kind, kinds = _kind(document), _kind(run.experiment).items()
    wrong = [f"{name} has {key}={show(old)}: expected {show(kind[key])}" for key, old in kinds if old != kind[key]]
    if wrong:
        raise InvalidInput(*(Problem(KEY, message) for message in wrong))
    # Dotted and short names mean the same, but for the user's own function, whose names are its own.
    short = str if experiment.trainable.name == "function" else _short
    own = {short(key): key for key in space.names}

    def renamed(values: Mapping[str, Any]) -> Config:
        return {own.get(short(key), short(key)): value for key, value in values.items()}

    then = SearchSpace.parse(run.experiment.get("space", {}))
    fixed, searched = renamed({**_sections(run.experiment), **then.constants}), renamed(then.domains)
    left, defaults, missing, observations = Counter[str](), set[str](), set[str](), []
    for trial in run.trials.values():
        measured = _measured(trial, experiment)
        config, said = carry(renamed(trial.config), fixed, space)
        outside = [key for key, what in said.items() if what == "outside"]
        if measured is None or outside:
            left[f"outside the new space ({', '.join(outside)})" if measured else "without a result"] += 1
            continue
        missing |= {key for key, what in said.items() if what == "missing"}
        defaults |= {key for key, what in said.items() if what == "default"}
        observations.append({"trial_id": f"{name}/{trial.trial_id}", "config": config, **measured})
    about = {key: f"{key} was {show(value)} in {name}, outside its domain" for key, value in fixed.items()}
    about = {key: about.get(key, f"trials of {name} have no {key}") for key in space.names}
    for k in sorted(missing):
        wrong.append(f"{about[k]}: say what stands in, space.{k}='{space.domains[k].text()[:-1]}, default=…)'")
    if wrong:
        raise InvalidInput(*(Problem(KEY, message) for message in wrong))
    counts = [f"{len(observations)} of {len(run.trials)} trials of {name} inform the searcher"]
    notes = ["; ".join(counts + [f"{number} {why}" for why, number in left.items()])]
    notes += [f"{about[k]}: its default {show(space.domains[k].default)} stands in" for k in sorted(defaults)]
    notes += [f"{k} is no longer searched: its values in {name} are ignored" for k in searched if k not in own.values()]
    now = renamed({**_sections(document), **space.constants})
    both = sorted((fixed.keys() & now.keys()) - {*searched, *space.names} - UNSAID)
    changed = [key for key in both if level_key(fixed[key]) != level_key(now[key])]
    notes += [f"{name} ran with {key}={show(fixed[key])}, not {show(now[key])}" for key in changed]
    prior.observations.extend(observations)
    prior.notes.extend(f"{KEY}: {note}" for note in notes)


def _kind(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same, for losses to be compared."""
    trainable, data = (experiment.get(section) or {} for section in ("trainable", "data"))
    # A file may have moved, but another function is another objective.
    function = str(trainable.get("target") or "").rpartition(":")[2].rpartition(".")[2]
    found = {"trainable": f"{trainable.get('name')} {function}".strip(), "data": data.get("name")}
    return {key: experiment.get(key) for key in ("metric", "mode", "fidelity")} | found


def _sections(experiment: Mapping[str, Any]) -> Config:
    """What the sections of an experiment give every trial, by dotted name."""
    sections = {name: experiment.get(name) or {} for name in SECTIONS}
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


def _short(key: str) -> str:
    places = locate(key)
    return short_name(*places[0]) if len(places) == 1 else key


def _measured(trial: history.TrialRecord, experiment: Experiment) -> dict[str, Any] | None:
    """What `observe` is told of a trial beside its configuration; None if it has not measured anything."""
    status = trial.status if trial.status in ("completed", *FAILURES) else "stopped"
    if not trial.config_id or (not trial.reports and status not in FAILURES):  # without an id: its line was lost
        return None
    loss = se = fidelity = None
    if trial.reports:
        row, sign = trial.reports[-1], -1.0 if experiment.mode == "max" else 1.0
        loss, fidelity = sign * row.metrics.get(experiment.metric, math.nan), row.fidelity
        se = row.metrics.get(f"{experiment.metric}_se", math.nan)
        status = status if math.isfinite(loss) else "failed"
    if status in FAILURES:
        loss = se = None
    return {"loss": loss, "fidelity": fidelity, "status": status, "se": se if se is None or math.isfinite(se) else None}
