"""A run's story in order: answer, how sure, what mattered, how it went, what failed, cost, how to do it again.

A race and a refit have chapters of their own: nothing was searched for there.
"""

from __future__ import annotations

import math
import time

from hpo_ray.history import History
from hpo_ray.report import answer, ending, parameters, race, refit, sweep
from hpo_ray.report.blocks import Section, Story
from hpo_ray.report.subject import Subject, subject_of


def story_of(run: History) -> Story:
    """Tell it. A run of any state will do; with 1,000 trials it takes a minute, mostly for the surrogate."""
    import numpy as np

    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # sums of values near the largest float are infinite, and said to be
        return _told(run)


def _told(run: History) -> Story:
    subject = subject_of(run)
    about, chapters = _chapters(subject)
    started = run.tally.started_at
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if run.trials and math.isfinite(started) else "never"
    sections = [*chapters, ending.failed(subject), ending.costs(subject), ending.reproduce(subject)]
    state = "ended" if run.ended else "running" if subject.summary["running"] else "broken off"
    statuses = {name: trial.status for name, trial in run.trials.items()}
    return Story(run.run_dir.name, f"{about}. Started {day}.", sections, state, statuses)  # type: ignore[arg-type]


def _chapters(subject: Subject) -> tuple[str, list[Section]]:
    """What the run is about, and the chapters that only its kind has."""
    if refit.is_refit(subject.run):
        return "A refit: a configuration that an earlier run chose, trained a last time", refit.chapters(subject)
    found, settings = subject.summary, subject.run.experiment.get("race")
    names = ("completed", "stopped", "failed", "interrupted", "running")
    counts = ", ".join(
        f"{found[name]} {'stopped early' if name == 'stopped' else name}" for name in names if found[name]
    )
    trials = f"{found['trials']} trial{'' if found['trials'] == 1 else 's'}" + (f" ({counts})" if counts else "")
    goal = f"the {'lowest' if subject.mode == 'min' else 'highest'} {subject.metric or 'metric'}"
    if settings:
        about = f"{trials}: a race of {len(settings['contenders'])} contenders for {goal}"
        return about, [*race.chapters(subject), sweep.every_trial(subject)]
    first, second = answer.answer(subject), answer.certainty(subject)
    chapters = [first, second, parameters.mattered(subject), sweep.went(subject), sweep.every_trial(subject)]
    return f"{trials}, searching for {goal}", chapters
