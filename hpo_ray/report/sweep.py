"""The fourth chapter: how the sweep went; and every trial."""

from __future__ import annotations

import math

from hpo_ray.report.blocks import Block, Cell, Choice, Paragraph, Picture, Section, Table, TrialTable
from hpo_ray.report.subject import Subject, cell, level, table_of
from hpo_ray.results import sweep_plots
from hpo_ray.results.analysis import fidelity_correlation, incumbent, rung_survival, savings
from hpo_ray.results.progress import Over
from hpo_ray.screen import number

# From fewer at the highest fidelity nothing is said of how others would have done there.
FEWEST_AT_TOP = 5


def went(subject: Subject) -> Section:
    """The best so far, learning curves, rungs, what early stopping saved and risked."""
    blocks: list[Block] = []
    metric, mode, unit = subject.metric, subject.mode, subject.unit
    trials, reports = subject.trials, subject.reports
    if not subject.measured:
        return Section("sweep", "How the sweep went", [Paragraph("No trial has a finite value: there is no curve.")])
    axes: list[tuple[Over, str]] = [("trials", "trials"), ("fidelity", f"{unit}s"), ("seconds", "seconds")]
    options = {}
    for over, name in axes:
        curve = incumbent(trials, metric, mode, over=over, reports=reports)
        if not (curve["spent"] < math.inf).all():  # a sum that no float holds
            continue
        columns = {"spent": name, "value": metric, "trial_id": "trial", "fidelity": unit}
        table = table_of(curve, f"Each improvement of the best {metric}, by {name}", columns)
        options[name] = Picture(f"incumbent-{over}", sweep_plots.incumbent(curve, metric, name), table)
    blocks.append(Choice("incumbent", "Spent, in", options, buttons=True))
    curves = sweep_plots.learning_curves(trials, reports, metric, mode, fidelity=unit)
    columns = {"trial_id": "trial", "status": "status", "fidelity": f"last {unit}", metric: f"last {metric}"}
    if f"{metric}_best" in trials:
        columns[f"{metric}_best"] = f"best {metric}"
    blocks.append(Picture("curves", curves, table_of(trials, "Where each learning curve ended", columns)))
    rungs = rung_survival(trials)
    if len(rungs):
        blocks += _saved(subject)
        columns = {"rung": unit, "reached": "reached", "kept": "kept", "stopped": "stopped"}
        columns |= {"other": "ended otherwise", "survival": "survival"}
        table = table_of(rungs, "What became of the trials at each rung", columns)
        blocks.append(Picture("rungs", sweep_plots.rung_survival(rungs, unit), table))
    pairs = fidelity_correlation(reports, metric)
    if pairs["rho"].notna().any():
        columns = {"low_fidelity": f"{unit}", "high_fidelity": f"against {unit}", "n": "trials", "rho": "ρ"}
        columns |= {"low": "95 % from", "high": "to"}
        table = table_of(pairs, "Rank correlation of early with late values, among trials that have both", columns)
        blocks.append(Picture("correlation", sweep_plots.fidelity_correlation(pairs, metric, unit), table))
    return Section("sweep", "How the sweep went", blocks)


def every_trial(subject: Subject) -> Section:
    """A row per trial, best first."""
    run, metric = subject.run, subject.metric
    sign = -1.0 if subject.mode == "max" else 1.0

    def rank(name: str) -> tuple[float, str]:
        best = run.trials[name].best_report(metric, run.mode)
        return (sign * best.metrics[metric] if best else math.inf, name)

    names = sorted(run.trials, key=rank)
    keys = list(dict.fromkeys(key for trial in run.trials.values() for key in trial.config))
    raced = ["contender", "repeat"] if run.experiment.get("race") else []
    rows: list[list[Cell]] = []
    for name in names:
        trial = run.trials[name]
        best = trial.best_report(metric, run.mode)
        last = trial.reports[-1].metrics.get(metric) if trial.reports else None
        spent = trial.last_seen - trial.started_at
        row = [name, trial.status.replace("_", " "), best.metrics[metric] if best else None, last]
        row += [trial.fidelity, round(spent, 1), *(trial.state.get(part) for part in raced)]
        rows.append([*map(cell, row), *(level(trial.config, key) for key in keys)])
    columns = ["trial", "status", f"best {metric}", f"last {metric}", subject.unit, "seconds", *raced, *keys]
    table = TrialTable(Table("Every trial, the best first", columns, rows), [run.trials[n].status for n in names])
    return Section("trials", "Every trial", [table] if rows else [Paragraph("No trial was suggested yet.")])


def _saved(subject: Subject) -> list[Block]:
    row = savings(subject.trials, subject.reports, subject.metric, subject.mode).to_dict("records")[0]
    if not row["full"] < math.inf:
        return []
    unit = f"{subject.unit}s"
    said = f"Stopping {row['stopped']:g} trials early saved {row['saved']:g} of {row['full']:g} {unit} "
    said += f"({row['saved_share']:.0%}): {row['spent']:g} were spent."
    reached = subject.trials["fidelity"].dropna()
    if int((reached == reached.max()).sum()) < FEWEST_AT_TOP:
        said += " Too few went all the way to tell what that risked."
    elif math.isfinite(row["chance"]):
        said += (
            f" The risk, rather over- than underestimated: with a chance of {row['chance']:.0%} one of them would have "
        )
        said += f"ended best; the loss expected from that is {number(row['regret'])} in {subject.metric}."
    return [Paragraph(said)]
