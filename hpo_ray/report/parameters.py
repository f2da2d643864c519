"""The third chapter: what mattered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpo_ray.errors import InvalidInput
from hpo_ray.report.blocks import Block, Choice, Paragraph, Picture, Section, Table
from hpo_ray.report.subject import MOST_FITTED, Subject, cell, level, table_of
from hpo_ray.results import parameter_plots
from hpo_ray.results.analysis import importance, partial_dependence
from hpo_ray.results.parallel_plot import parallel_coordinates

if TYPE_CHECKING:
    import pandas as pd

# Fewer values than these say nothing of parameters: any surrogate fits them.
FEWEST = 4
# The most important parameters have a slice each.
MOST_SLICES = 8


def mattered(subject: Subject) -> Section:
    """Importance, a slice of each parameter, the two that matter most together, and all trials at once."""
    blocks: list[Block] = []
    space = subject.space
    if space is None or not space.names:
        blocks.append(Paragraph("There is no search space to compare parameters in."))
    elif subject.measured < FEWEST:
        blocks.append(Paragraph(f"Fewer than {FEWEST} trials have a value: nothing can be said of any parameter."))
    else:
        try:
            blocks += _pictures(subject)
        except InvalidInput as error:
            blocks.append(Paragraph(f"Importance cannot be computed: {error}", warning=True))
    return Section("mattered", "What mattered", blocks)


def _pictures(subject: Subject) -> list[Block]:
    space, metric, mode = subject.space, subject.metric, subject.mode
    assert space is not None
    blocks: list[Block] = []
    sample = subject.sample()
    shares = importance(sample, space, metric, mode, tamed=True)
    if shares.attrs["note"]:
        blocks.append(Paragraph(f"Take this chapter with care: {shares.attrs['note']}.", warning=True))
    if len(sample) < subject.measured:
        blocks.append(Paragraph(f"Computed from {MOST_FITTED} trials, spread evenly from the best to the worst."))
    columns = {"parameter": "parameter", "with": "together with", "importance": "share", "low": "90 % from"}
    columns |= {"high": "to", "active": "in use"}
    table = table_of(shares, "Share of the variation that each parameter and pair accounts for", columns, 60)
    blocks.append(Picture("importance", parameter_plots.importance(shares, metric), table))
    if shares["importance"].max() > 0:
        ranked = [str(row["parameter"]) for row in shares.to_dict("records") if not isinstance(row["with"], str)]
        slices = {name: _slice(subject, sample, name) for name in ranked[:MOST_SLICES]}
        blocks.append(Choice("slice", "Parameter", slices))
        pairs = ((ranked[0], other) for other in ranked[1:MOST_SLICES])
        found = next(filter(None, (_contour(subject, sample, pair) for pair in pairs)), None)
        blocks += [found] if found is not None else []
    rows = _best(subject, sample)
    blocks.append(Picture("parallel", parallel_coordinates(subject.trials, space, metric, mode), rows))
    return blocks


def _best(subject: Subject, sample: pd.DataFrame) -> Table:
    assert subject.space is not None
    names = [name for name in subject.space.names if f"config/{name}" in sample]
    rows = []
    for row in sample.sort_values(subject.metric, ascending=subject.mode == "min").head(20).to_dict("records"):
        config = subject.run.trials[row["trial_id"]].config
        used = [level(config, name) for name in names]
        rows.append([row["trial_id"], row["status"].replace("_", " "), *used, cell(row[subject.metric])])
    return Table("The 20 best trials", ["trial", "status", *names, subject.metric], rows)


def _slice(subject: Subject, sample: pd.DataFrame, name: str) -> Picture:
    space, metric, mode = subject.space, subject.metric, subject.mode
    assert space is not None
    curve = partial_dependence(sample, space, metric, name, mode)
    figure = parameter_plots.slice_plot(curve, sample, name, space.domains[name], metric, mode)
    columns = {f"config/{name}": name, "mean": f"mean {metric}", "low": "90 % from", "high": "to"}
    return Picture(f"slice-{space.names.index(name)}", figure, table_of(curve, f"{metric} against {name}", columns))


def _contour(subject: Subject, sample: pd.DataFrame, names: tuple[str, str]) -> Picture | None:
    """None where no configuration uses both parameters."""
    space, metric, mode = subject.space, subject.metric, subject.mode
    assert space is not None
    surface = partial_dependence(sample, space, metric, names, mode)
    if not len(surface):
        return None
    figure = parameter_plots.contour(surface, sample, names, space, metric, mode)
    columns = {**{f"config/{name}": name for name in names}, "mean": f"mean {metric}"}
    by_mean = surface.sort_values("mean", ascending=mode == "min")
    return Picture("contour", figure, table_of(by_mean, f"{metric} over {names[0]} and {names[1]}", columns, 25))
