"""The first chapters of a race: which contender, how sure that is, who went when, how they differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hpo_ray import confirming
from hpo_ray.errors import InvalidInput
from hpo_ray.report.blocks import Block, Facts, Paragraph, Picture, Section, Table
from hpo_ray.report.subject import Subject, cell, in_words, level, table_of
from hpo_ray.results import race_plots, sweep_plots
from hpo_ray.screen import number

if TYPE_CHECKING:
    from hpo_ray.results.racing import Standing


def chapters(subject: Subject) -> list[Section]:
    """Answer, certainty, the contenders and the course of a race, also of one that has hardly begun."""
    try:
        standing = confirming.standing(subject.run)
    except InvalidInput as error:
        why = Paragraph(f"Nothing can be said yet: {error.problems[0].message}.", warning=True)
        return [Section("answer", "The answer", [why])]
    return [_answer(subject, standing), _certainty(subject, standing), _contenders(subject, standing),
            _course(subject, standing)]  # fmt: skip


def _answer(subject: Subject, standing: Standing) -> Section:
    if standing.winner is None:
        lost = "Every contender failed in a repeat, so there is no winner."
        return Section("answer", "The answer", [Paragraph(lost, warning=True)])
    first, metric = standing.table.iloc[0], subject.metric
    mean = f"mean {metric} {number(float(first['mean']))}"
    others = [name for name in standing.alive if name != standing.winner]
    if standing.runner_up is None:
        lead = f"Contender {standing.winner} is the only one, {mean}: nothing was compared."
    elif standing.real:
        lead = f"Contender {standing.winner} is better than every other of {len(standing.table)}: its {mean} "
        lead += f"is {_apart(subject, standing)}. The difference is real."
    else:
        lead = f"Undecided after {_times(standing.repeats)}: contender {standing.winner} has the best {mean}, "
        lead += f"but {_listed(others)} may be as good. It is {_apart(subject, standing)}."
    facts = Facts([(key, in_words(value)) for key, value in _configs(subject)[standing.winner].items()])
    named = "Contenders are named as the trials of the run that found them. The configuration of"
    where = Paragraph(f"{named} {standing.winner}:")
    return Section("answer", "The answer", [Paragraph(lead), where, facts])


def _certainty(subject: Subject, standing: Standing) -> Section:
    settings = subject.run.experiment["race"]
    same = "the same seed" + (" and the same fold" if (subject.run.experiment.get("folds") or 1) > 1 else "")
    how = f"Each repeat had {same} for every contender, none of which they were found with, so that luck which all "
    how += "share drops out of their differences. The last report of a repeat counts, not its luckiest. The intervals "
    how += f"hold for all pairs and all looks at once, with {100 * settings['confidence']:g} % confidence."
    blocks: list[Block] = [Paragraph(how)]
    columns = {"config_id": "contender", "verdict": "verdict", "repeats": "repeats", "mean": f"mean {subject.metric}"}
    columns |= {"se": "standard error", "difference": "less the leader's", "low": "from", "high": "to"}
    # The leader is compared with nobody, and what only one repeat tells has no ends.
    told = standing.table.replace([math.inf, -math.inf], math.nan)
    told.loc[told["config_id"] == standing.winner, ["difference", "low", "high"]] = math.nan
    table = table_of(told, "The contenders, the best first", columns)
    figure = race_plots.race(
        confirming.scores(subject.run), standing.table, subject.metric, _finding(subject, standing)
    )
    blocks.append(Picture("race", figure, _values(subject, standing)))
    blocks.append(table)
    if not standing.real and len(standing.alive) > 1 and subject.run.ended:
        more = f"More repeats than {settings['repeats']} may tell them apart; or take the cheapest."
        blocks.append(Paragraph(f"What stays undecided is an answer too: the difference is small or none. {more}"))
    return Section("certainty", "How sure it is", blocks)


def _contenders(subject: Subject, standing: Standing) -> Section:
    """What sets the contenders apart: an importance of a handful of chosen points would mean nothing."""
    configs = _configs(subject)
    order = [str(name) for name in standing.table["config_id"]]
    keys = list(dict.fromkeys(key for name in order for key in configs[name]))
    differ = [key for key in keys if len({repr(configs[name].get(key)) for name in order}) > 1]
    shared = [(key, in_words(configs[order[0]][key])) for key in keys if key not in differ]
    rows = [[name, *(level(configs[name], key) for key in differ)] for name in order]
    blocks: list[Block] = [Paragraph("All contenders share:"), Facts(shared)] if shared else []
    if differ:
        blocks.append(Table("Where the contenders differ, the best first", ["contender", *differ], rows))
    return Section("mattered", "How they differ", blocks or [Paragraph("They have no parameters.")])


def _course(subject: Subject, standing: Standing) -> Section:
    contenders, repeats = len(_configs(subject)), int(subject.run.experiment["race"]["repeats"])
    done = subject.summary["completed"] + subject.summary["stopped"] + subject.summary["failed"]
    words = f"{done} of {contenders * repeats} planned repeats were run"
    words += ": a contender that is clearly beaten gets no more of them." if standing.dropped else "."
    blocks: list[Block] = [Paragraph(words)]
    rows: list[list[Any]] = [[name, why] for name, why in standing.dropped.items()]
    if rows:
        blocks.append(Table("Who was dropped, in the order they went", ["contender", "why"], rows))
    else:
        blocks.append(Paragraph("None was dropped."))
    if any(len(trial.reports) > 1 for trial in subject.run.trials.values()) and subject.measured:
        unit, metric = subject.unit, subject.metric
        curves = sweep_plots.learning_curves(subject.trials, subject.reports, metric, subject.mode, fidelity=unit)
        columns = {"trial_id": "trial", "status": "status", "fidelity": f"last {unit}", metric: f"last {metric}"}
        blocks.append(Picture("curves", curves, table_of(subject.trials, "Where each repeat's curve ended", columns)))
    return Section("sweep", "How the race went", blocks)


def _values(subject: Subject, standing: Standing) -> Table:
    """Contenders x repeats."""
    scores = confirming.scores(subject.run)
    repeats = sorted(set(scores["repeat"]))
    found = {(str(row["config_id"]), row["repeat"]): row["value"] for row in scores.to_dict("records")}
    names = [str(name) for name in standing.table["config_id"]]
    rows = [[name, *(cell(found.get((name, repeat))) for repeat in repeats)] for name in names]
    caption = f"{subject.metric} of each contender in each repeat"
    return Table(caption, ["contender", *(f"repeat {repeat}" for repeat in repeats)], rows)


def _finding(subject: Subject, standing: Standing) -> str:
    if standing.winner is None:
        return "Every contender failed in a repeat"
    others = [name for name in standing.alive if name != standing.winner]
    if not others:
        return f"Contender {standing.winner} is told apart from every other"
    return f"Contender {standing.winner} has the best mean {subject.metric}; {_listed(others)} may be as good"


def _apart(subject: Subject, standing: Standing) -> str:
    """``0.003 lower than that of 0007 (95 % interval: 0.005 lower to 0.001 higher)``."""
    low, high = standing.interval
    words = f"{_signed(standing.difference)} than that of {standing.runner_up}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{words}, from one repeat"
    confidence = 100 * subject.run.experiment["race"]["confidence"]
    return f"{words} ({confidence:g} % interval: {_signed(low)} to {_signed(high)})"


def _signed(difference: float) -> str:
    return f"{number(abs(difference))} {'lower' if difference <= 0 else 'higher'}"


def _configs(subject: Subject) -> dict[str, dict[str, Any]]:
    contenders: dict[str, dict[str, Any]] = subject.run.experiment["race"]["contenders"]
    return contenders


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _times(n: int) -> str:
    return "1 repeat" if n == 1 else f"{n} repeats"
