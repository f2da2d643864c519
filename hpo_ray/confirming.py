"""The best configurations of a run tried again, against each other: a finished run -> an experiment, and its standing.

Starts nothing: what comes of it is a run like any other. Knows no torch and no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import brought, config, history, refitting
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.experiment import Experiment
from hpo_ray.history import History, TrialRecord
from hpo_ray.preflight import check
from hpo_ray.trainables import TRAINABLES

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.results.racing import Standing

# What may differ from the run that found the contenders: where and how long they train, not what they are.
AMENDABLE = ("slots", *refitting.AMENDABLE)
FOLDS = 5
_NAME_LENGTH = 60


def experiment_of(
    run_dir: Path,
    *,
    top: int = 5,
    repeats: int = 5,
    folds: int | None = None,
    confidence: float = 0.95,
    overrides: Sequence[str] = (),
    has_objective: bool = False,
) -> Experiment:
    """The experiment that races a run's best configurations on seeds, and for images on folds, that are new to them.

    Each trains as far as trials of the run may go; its last report counts, not its luckiest.

    Args:
        run_dir: The run that found them, finished or not.
        top: How many contenders, by their best reports; at least 2.
        repeats: Of each, at most.
        folds: For images: repeat r is validated on fold r mod `folds`; 1: always on the run's own validation images.
            None: 5.
        confidence: See `hpo_ray.results.racing.race`.
        overrides: ``key=value`` of the sections in `AMENDABLE`.
        has_objective: The run's objective is given as a function.

    Raises:
        InvalidInput: It is no run, it has fewer than two configurations with a value, or something cannot be run here.
    """
    run = history.load(run_dir)
    found = Experiment.model_validate(run.experiment)
    contenders = _contenders(run, top)
    images = bool(TRAINABLES[found.trainable.name].module)
    if folds is not None and not images:
        raise InvalidInput(Problem("--folds", "your own objective divides its data itself: go by trial.seed"))
    data: dict[str, Any] = {
        **run.experiment,
        "name": f"{found.name[: _NAME_LENGTH - len('-confirm')]}-confirm",
        "trials": len(contenders) * repeats,
        "slots": "auto",
        "seed": found.seed + 1,
        "folds": (FOLDS if folds is None else folds) if images else 1,
        "repeats": 1,
        "scheduler": {"name": "none"},
        "searcher": {"name": "random"},
        "race": {
            "contenders": {trial.trial_id: trial.config for trial in contenders},
            "repeats": repeats,
            "confidence": confidence,
        },
        "stop": {},
        "prior": {},
    }
    why = "the contenders were found with it; only {may} may change"
    data, unjoined = brought.unjoined(run_dir, data, overrides)
    document = config.amend(data, overrides, AMENDABLE, why=why)
    if unjoined:
        document.problems.append(Problem("ray.address", f"{unjoined}, ray.address=null takes this machine"))
    return check(document, has_objective=has_objective)


def standing(run: History) -> Standing:
    """How a race stands, from its journal.

    Raises:
        InvalidInput: The run is no race, or no contender has ended yet.
    """
    from hpo_ray.results import racing

    settings, values = run.experiment.get("race"), scores(run)
    if not settings:
        raise InvalidInput(Problem("run", f"'{run.run_dir}' is no race: `hpo-ray confirm` makes one"))
    if not len(values):
        raise InvalidInput(Problem("run", f"'{run.run_dir}' has no finished repeat yet"))
    return racing.race(values, run.mode, planned=settings["repeats"], confidence=settings["confidence"])


def scores(run: History) -> pd.DataFrame:
    """What each repeat of a race has measured in the end: ``trial_id, config_id`` (the contender), ``repeat, value``
    (NaN: it failed). Those that have not ended are left out.
    """
    import pandas as pd

    contenders = (run.experiment.get("race") or {}).get("contenders", {})
    rows = [
        (trial.trial_id, trial.state["contender"], trial.state["repeat"], _value(trial, run.metric))
        for trial in run.trials.values()
        if trial.state.get("contender") in contenders and trial.status not in history.UNFINISHED
    ]
    return pd.DataFrame(rows, columns=["trial_id", "config_id", "repeat", "value"])


def _contenders(run: History, top: int) -> list[TrialRecord]:
    """The best trials, each configuration once."""
    sign = -1.0 if run.mode == "max" else 1.0
    best = [(row.metrics[run.metric], t) for t in run.trials.values() if (row := t.best_report(run.metric, run.mode))]
    best.sort(key=lambda pair: (sign * pair[0], pair[1].trial_id))
    distinct = list({trial.config_id: trial for _, trial in reversed(best)}.values())[::-1][:top]
    if top < 2 or len(distinct) < 2:
        given = f"--top {top}" if top < 2 else f"'{run.run_dir}' has {len(distinct)} with a finite {run.metric}"
        raise InvalidInput(Problem("--top", f"{given}: a race takes two configurations at least"))
    return distinct


def _value(trial: TrialRecord, metric: str) -> float:
    """What a repeat has measured in the end; NaN if it failed."""
    done = trial.status in ("completed", "stopped") and trial.reports
    return trial.reports[-1].metrics.get(metric, float("nan")) if done else float("nan")
