"""What later runs beside this one say of its configurations: races (`hpo-ray confirm`) and refits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_ray import confirming, history, journal, snapshot
from hpo_ray.errors import InvalidInput
from hpo_ray.history import History
from hpo_ray.report.refit import is_refit
from hpo_ray.results.summary import summarise
from hpo_ray.screen import shown_path

if TYPE_CHECKING:
    from hpo_ray.results.racing import Standing


def sequels(run: History) -> Iterator[str]:
    """A sentence for each run in the same folder that tried configurations of this one again, in name order.

    They are known by their configurations and their experiment's name, which begins as this one's.
    """
    for later in _later(run):
        told = _told(run, later)
        if told:
            yield f"{told} See its own report: hpo-ray report {shown_path(later.run_dir)}"


def races(run: History) -> Iterator[tuple[str, Standing]]:
    """Each race beside a run between configurations of its own, in name order: its folder's name, how it stands."""
    for later in _later(run):
        if _is_race_of(run, later):
            try:
                yield later.run_dir.name, confirming.standing(later)
            except InvalidInput:  # nothing in it has ended yet
                continue


def _later(run: History) -> Iterator[History]:
    for folder in sorted(path.parent for path in run.run_dir.parent.glob(f"*/{journal.FILE_NAME}")):
        if folder.name != run.run_dir.name and _named_after(run, folder):
            try:
                yield history.load(folder)
            except InvalidInput:
                continue


def _is_race_of(run: History, later: History) -> bool:
    race: Any = later.experiment.get("race")
    ours = {name: trial.config for name, trial in run.trials.items()}
    return bool(race) and all(ours.get(name) == config for name, config in race["contenders"].items())


def _named_after(run: History, folder: Path) -> bool:
    try:
        name = str(snapshot.load(folder).head.get("name"))  # quick however long the run is
    except InvalidInput:
        return False
    stem, _, kind = name.rpartition("-")
    return kind in ("confirm", "refit") and bool(stem) and str(run.experiment.get("name")).startswith(stem)


def _told(run: History, later: History) -> str:
    if later.experiment.get("race"):
        if not _is_race_of(run, later):
            return ""
        try:
            standing = confirming.standing(later)
        except InvalidInput:  # nothing in it has ended yet
            return ""
        return f"The best were raced on new seeds in {later.run_dir.name}: {standing.text()}."
    found = summarise(later)
    same = [name for name, trial in run.trials.items() if trial.config == found["best_config"]]
    if not (is_refit(later) and found["test"] and same):
        return ""
    low, high, _ = found["interval"]
    said = f"The configuration of trial {same[0]} was refitted in {later.run_dir.name}: on test data an error of "
    return f"{said}{found['test']['error']:.2%}, 95 % interval {low:.2%} to {high:.2%}."
