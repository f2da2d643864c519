"""The first chapters of a refit: how good its models are together, and each alone; how they were trained."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from hpo_ray.history import History
from hpo_ray.report.blocks import Block, Facts, Paragraph, Picture, Section
from hpo_ray.report.subject import Subject, in_words, table_of
from hpo_ray.results import race_plots, sweep_plots
from hpo_ray.results.intervals import wilson
from hpo_ray.results.style import titled
from hpo_ray.screen import number

if TYPE_CHECKING:
    import pandas as pd


def is_refit(run: History) -> bool:
    """Whether a run chose nothing: validation images were learnt from, and the metric is how far it came."""
    data = run.experiment.get("data")
    learnt = isinstance(data, dict) and data.get("train_on_valid") is True
    return learnt and run.metric == run.experiment.get("fidelity")


def chapters(subject: Subject) -> list[Section]:
    """Answer, certainty and training."""
    return [_answer(subject), _certainty(subject), _trained(subject)]


def models(test: dict[str, Any]) -> list[Block]:
    """Models that were tried on test data one by one and together; nothing of one alone."""
    import pandas as pd

    n, alone = test["n"], test.get("each")
    if not alone:
        return []
    named = [*((f"model {place} alone", errors) for place, errors in enumerate(alone)), ("together", test["errors"])]
    rows = [(name, errors, errors / n, *wilson(errors, n)) for name, errors in named]
    shares = [errors / n for errors in alone]
    mean, best = statistics.mean(shares), test["errors"] / n
    finding = f"Together the {len(alone)} models err on {best:.2%} of the test images, one alone on {mean:.2%}"
    text = f"One model alone errs on {mean:.2%} of the test images on average, from {min(shares):.2%} to "
    text += (
        f"{max(shares):.2%}; the standard deviation is {statistics.stdev(shares):.2%}, which is the luck of training. "
    )
    text += f"The lines in the picture are 95 % intervals: the luck of having these {n} images to test on."
    frame = pd.DataFrame(rows, columns=["name", "errors", "value", "low", "high"])
    percent = frame.assign(**{name: 100 * frame[name] for name in ("value", "low", "high")})
    columns = {"name": "model", "errors": f"wrong of {n}", "value": "error in %", "low": "95 % from", "high": "to"}
    table = table_of(percent.round(3), "Each model alone, and all together, on test images", columns)
    return [Paragraph(text), Picture("models", race_plots.together(percent, "test error in %", finding), table)]


def _answer(subject: Subject) -> Section:
    run, found = subject.run, subject.summary
    if found["best_trial"] is None:
        return Section("answer", "The answer", [Paragraph("Training has not come to the end of an epoch.", True)])
    trial = run.trials[found["best_trial"]]
    n = int(run.experiment.get("repeats") or 1)
    what = "One model" if n == 1 else f"{n} models of one configuration"
    lead = f"{what}, trained {found['best_fidelity']:g} {subject.unit}s on all images but the test images"
    blocks: list[Block] = []
    test, failure = found["test"], (run.ended or {}).get("test_failure")
    if test:
        low, high, _ = found["interval"]
        together = " when they answer together" if "each" in test else ""
        lead += f", get {test['errors']} of {test['n']} test images wrong{together}: error {test['error']:.2%}, "
        lead += f"95 % interval {low:.2%} to {high:.2%}."
    else:
        lead += "; how good that is on test images is not known" + (": it has not ended." if not run.ended else ".")
    blocks.append(Paragraph(lead))
    if failure:
        blocks.append(Paragraph(f"It could not be scored on test data: {failure}", warning=True))
    blocks.append(Facts([(key, in_words(value)) for key, value in trial.config.items()]))
    return Section("answer", "The answer", blocks)


def _certainty(subject: Subject) -> Section:
    test = subject.summary["test"]
    text = "Nothing was chosen here: the configuration came from an earlier run, and the last "
    text += f"{subject.unit} counts. There are no validation images left, so the test images alone can tell."
    blocks: list[Block] = [Paragraph(text)]
    if test:
        blocks += models(test)
    if test and not test.get("each"):
        blocks.append(Paragraph("It is one model: another seed would give another. --repeats trains several."))
    return Section("certainty", "How sure it is", blocks)


def _trained(subject: Subject) -> Section:
    blocks: list[Block] = []
    reports: pd.DataFrame = subject.reports
    metric, unit = "train_loss", subject.unit
    if metric in reports and reports[metric].notna().any():
        curves = sweep_plots.learning_curves(subject.trials, reports, metric, fidelity=unit)
        first, last = (number(float(reports[metric].dropna().iloc[at])) for at in (0, -1))
        titled(curves.axes[0], f"{metric} went from {first} to {last}")
        columns = {"fidelity": unit, metric: metric} | ({"lr": "lr"} if "lr" in reports else {})
        blocks.append(Picture("curves", curves, table_of(reports, f"{metric} after each {unit}", columns)))
        blocks.append(
            Paragraph("A training loss that still falls leaves something to be learnt; it says nothing else.")
        )
    else:
        blocks.append(Paragraph("No report of the training was made."))
    return Section("sweep", "How it was trained", blocks)
