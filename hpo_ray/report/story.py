"""A run's story in order: answer, how sure, what mattered, how it went, what failed, cost, how to do it again."""

from __future__ import annotations

import time

from hpo_ray.history import History
from hpo_ray.report import answer, ending, parameters, sweep
from hpo_ray.report.blocks import Story
from hpo_ray.report.subject import subject_of


def story_of(run: History) -> Story:
    """Tell it. A run of any state will do; with 1,000 trials it takes a minute, mostly for the surrogate."""
    subject = subject_of(run)
    found = subject.summary
    names = ("completed", "stopped", "failed", "interrupted", "running")
    counts = ", ".join(
        f"{found[name]} {'stopped early' if name == 'stopped' else name}" for name in names if found[name]
    )
    about = f"{found['trials']} trials" + (f" ({counts})" if counts else "")
    goal = "lowest" if subject.mode == "min" else "highest"
    about += f", searching for the {goal} {subject.metric or 'metric'}"
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.tally.started_at)) if run.trials else "never"
    sections = [
        answer.answer(subject),
        answer.certainty(subject),
        parameters.mattered(subject),
        sweep.went(subject),
        sweep.every_trial(subject),
        ending.failed(subject),
        ending.costs(subject),
        ending.reproduce(subject),
    ]
    state = "ended" if run.ended else "running" if found["running"] else "broken off"
    statuses = {name: trial.status for name, trial in run.trials.items()}
    return Story(run.run_dir.name, f"{about}. Started {day}.", sections, state, statuses)  # type: ignore[arg-type]
