"""The run that a report is about: history, frames and space, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo_ray.errors import InvalidInput
from hpo_ray.history import History, TrialRecord
from hpo_ray.report.blocks import Cell, Table
from hpo_ray.results.frame import load_results
from hpo_ray.results.summary import summarise
from hpo_ray.results.values import missing
from hpo_ray.screen import number
from hpo_ray.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd

# The surrogate behind importance and slices costs the cube of the trials: more than this say hardly more.
MOST_FITTED = 200


@dataclass(frozen=True)
class Subject:
    """One run. `space` is None where the journal has none that can be read."""

    run: History
    trials: pd.DataFrame
    reports: pd.DataFrame
    space: SearchSpace | None
    summary: dict[str, Any]

    @property
    def metric(self) -> str:
        return self.run.metric

    @property
    def mode(self) -> str:
        return "max" if self.run.mode == "max" else "min"

    @property
    def unit(self) -> str:
        """What a fidelity is: ``epoch``, or ``report`` where reports are counted."""
        return str(self.run.experiment.get("fidelity") or "report")

    @property
    def measured(self) -> int:
        """Trials with a finite value."""
        import numpy as np

        if self.metric not in self.trials.columns:
            return 0
        return int(np.isfinite(self.trials[self.metric].to_numpy(dtype=float)).sum())

    def sample(self) -> pd.DataFrame:
        """The trials that the surrogate is fitted to: all, or those spread evenly from best to worst."""
        import numpy as np

        known: pd.DataFrame = self.trials[np.isfinite(self.trials[self.metric].to_numpy(dtype=float))]
        if len(known) <= MOST_FITTED:
            return known
        ordered: pd.DataFrame = known.sort_values(self.metric, ascending=self.mode == "min", kind="stable")
        chosen: pd.DataFrame = ordered.iloc[np.linspace(0, len(ordered) - 1, MOST_FITTED).astype(int)]
        return chosen.sort_index()

    def log(self, trial: TrialRecord) -> str:
        """Where a trial's output lies, from the run directory."""
        return f"trials/{trial.trial_id}/attempt-{trial.attempt}/output.log"


def subject_of(run: History) -> Subject:
    """Everything a report needs of a run."""
    space: SearchSpace | None = None
    written = run.experiment.get("space")
    if isinstance(written, dict):
        try:
            space = SearchSpace.parse(written)
        except InvalidInput:  # a space of a newer version, or of a damaged journal
            space = None
    return Subject(run, load_results(run.run_dir), load_results(run.run_dir, "reports"), space, summarise(run))


def table_of(frame: pd.DataFrame, caption: str, columns: dict[str, str], most: int = 200) -> Table:
    """Some of a frame's columns, renamed; of very many rows the first."""
    left_out = f" (the first {most} of {len(frame)})" if len(frame) > most else ""
    rows = [[cell(row[name]) for name in columns] for row in frame.head(most).to_dict("records")]
    return Table(caption + left_out, list(columns.values()), rows)


def cell(value: Any) -> Cell:
    """A frame's value as a cell: what is missing is None."""
    if hasattr(value, "item"):
        value = value.item()
    if missing(value):
        return None
    return str(value) if isinstance(value, bool) or not isinstance(value, int | float) else value


def in_words(value: object) -> str:
    """A parameter's value in words."""
    return number(value) if isinstance(value, float) else str(value)


def level(config: Mapping[str, Any], name: str) -> Cell:
    """A parameter of a configuration as a cell: a None that is a choice is not the same as nothing."""
    return "None" if name in config and config[name] is None else cell(config.get(name))
