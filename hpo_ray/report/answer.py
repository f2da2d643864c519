"""The first two chapters: which configuration, and how sure that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpo_ray.errors import InvalidInput
from hpo_ray.report.blocks import Block, Facts, Paragraph, Section, Table
from hpo_ray.report.refit import models
from hpo_ray.report.sequels import races, sequels
from hpo_ray.report.subject import Subject, cell, in_words
from hpo_ray.results.analysis import best
from hpo_ray.results.summary import Z
from hpo_ray.screen import number, shown_path

if TYPE_CHECKING:
    import pandas as pd


def answer(subject: Subject) -> Section:
    """Best configuration and its value."""
    found, run = subject.summary, subject.run
    if found["best_trial"] is None:
        said = "No trial reported a finite value, so there is no best configuration."
        return Section("answer", "The answer", [Paragraph(said, warning=True)])
    blocks: list[Block] = []
    value = f"{subject.metric} {number(found['best_value'])} at {subject.unit} {found['best_fidelity']:g}"
    lead = f"Trial {found['best_trial']} is best: {value} (validation)."
    if found["test"]:
        test = found["test"]
        low, high, _ = found["interval"]
        lead += f" On test data that no choice was made on, {test['errors']} of {test['n']} are wrong"
        lead += " when its models answer together: " if "each" in test else ": "
        lead += f"error {test['error']:.2%}, 95 % interval {low:.2%} to {high:.2%}."
    blocks.append(Paragraph(lead))
    for name, standing in races(run):
        lost, winner = found["best_trial"], standing.winner
        if winner not in (None, lost) and lost in standing.table["config_id"].tolist():
            how = f"dropped trial {lost} and found" if lost in standing.dropped else "found"
            sure = "better" if standing.real or lost in standing.dropped else "better on average, which may be luck"
            blocks.append(Paragraph(f"A later race on new seeds, {name}, {how} trial {winner} {sure}.", True))
    blocks.append(Facts([(str(key), in_words(value)) for key, value in found["best_config"].items()]))
    trial = run.trials[found["best_trial"]]
    if trial.status in ("failed", "out_of_memory"):
        blocks.append(Paragraph(f"That trial {trial.status.replace('_', ' ')} after it had reported this.", True))
    return Section("answer", "The answer", blocks)


def certainty(subject: Subject) -> Section:
    """Interval, posterior mean beside raw value, what makes the value flattering."""
    found = subject.summary
    blocks: list[Block] = []
    noise = found["best_se"] or math.nan
    if found["best_trial"] is not None:
        n, tried = subject.measured, len(subject.run.trials)
        without = f" ({tried - n} without a value)" if n < tried else ""
        flattering = f"The validation value is the best of {tried} trials{without}, and so flattering"
        flattering = flattering if n > 1 else "There is one value"
        judged = "; the test error above is not." if found["test"] else "; no test data were left to judge it by."
        blocks.append(Paragraph(flattering + (judged if n > 1 else ": nothing to compare it with.")))
        table = _posterior(subject)
        noise = noise if table is None or math.isfinite(noise) else float(table.attrs["noise_sd"])
        blocks += _by_both_rules(subject, table) if table is not None else []
        blocks += models(found["test"]) if found["test"] else []
        if found["interval"] and not found["test"]:
            low, high, _ = found["interval"]
            said = f"95 % interval of the best value from {subject.metric}_se: {number(low)} to {number(high)}."
            blocks.append(Paragraph(said))
        if found["gap"]:
            train, valid = found["gap"]
            said = f"val_loss {number(valid)} is far above train_loss {number(train)}: it has learned by heart."
            blocks.append(Paragraph(f"{said} Augmentation, dropout, weight decay or more data may help.", True))
    failure = (subject.run.ended or {}).get("test_failure")
    if failure:
        blocks.append(Paragraph(f"The winner could not be scored on test data: {failure}", True))
    seed, repeats = subject.run.experiment.get("seed"), subject.run.experiment.get("repeats") or 1
    folds = subject.run.experiment.get("folds") or 1
    times = "once" if (folds, repeats) == (1, 1) else f"{folds} × {repeats} times (folds × repeats)"
    other = "Another seed may find another winner." if found["best_trial"] is not None else "There is no winner."
    blocks.append(Paragraph(f"Each configuration was trained {times}; the seed is {seed}. {other}"))
    told = [Paragraph(each) for each in sequels(subject.run)]
    blocks += told or _advice(subject, noise)
    return Section("certainty", "How sure it is", blocks)


def _advice(subject: Subject, noise: float) -> list[Block]:
    """To race the best, where others' values lie within the interval of the best one; `noise` is one sd of a value."""
    found = subject.summary
    if found["best_trial"] is None or not subject.run.ended:
        return []
    sign = -1.0 if subject.mode == "max" else 1.0
    configs: dict[str, str] = {}
    for trial in subject.run.trials.values():
        row = trial.best_report(subject.metric, subject.mode)
        if row and sign * (row.metrics[subject.metric] - found["best_value"]) <= Z * noise:
            configs[trial.config_id] = trial.trial_id
    if len(configs) < 2:
        return []
    n = "1 other configuration lies" if len(configs) == 2 else f"{len(configs) - 1} other configurations lie"
    said = f"{n} within the best value's 95 % interval. To race the best on new seeds: "
    return [Paragraph(f"{said}hpo-ray confirm {shown_path(subject.run.run_dir)}")]


def _posterior(subject: Subject) -> pd.DataFrame | None:
    if subject.space is None or not subject.space.names or not subject.measured:
        return None
    try:
        table = best(subject.trials, subject.space, subject.metric, subject.mode)
    except InvalidInput:
        return None
    return table if len(table) and math.isfinite(float(table["mean"].iloc[0])) else None


def _by_both_rules(subject: Subject, table: pd.DataFrame) -> list[Block]:
    one, two = (str(name) for name in table["trial_id"])
    said = f"By posterior mean, which evens out luck, trial {one} is best"
    said += ", the same one." if one == two else f"; by its raw value alone it would be trial {two}."
    if float(table.attrs["r2"]) < 0.2:
        said += " The parameters predict little of the values here, so that this says little."
    said += f" The same trial again would vary by about ±{number(float(table.attrs['noise_sd']))} (one sd)."
    columns = {"rule": "best by", "trial_id": "trial", "fidelity": subject.unit, "value": subject.metric}
    columns |= {"mean": "posterior mean", "low": "95 % from", "high": "to"}
    rows = [[cell(row[name]) for name in columns] for row in table.to_dict("records")]
    return [Paragraph(said), Table("Best by posterior mean beside best by raw value", list(columns.values()), rows)]
