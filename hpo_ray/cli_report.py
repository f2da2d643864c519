"""The commands that show a run: ``show`` in the terminal, ``report`` as a page or Markdown."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_ray.console import out, print_json, show
from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    from hpo_ray.history import History, TrialRecord

RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]


def show_command(
    run_dir: RunDir,
    trial_id: Annotated[str | None, typer.Argument(metavar="TRIAL", help="One of its trials, e.g. 7 or 0007.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout, and nothing else there.")] = False,
) -> None:
    """Show the answer of a run again, finished or not; or one of its trials: configuration, reports, failure, paths."""
    from hpo_ray import history

    run = history.load(run_dir)
    if trial_id is None:
        show(run, as_json)
        return
    trial = run.trials.get(trial_id) or (run.trials.get(trial_id.zfill(4)) if trial_id else None)
    if trial is None:
        raise InvalidInput(Problem("TRIAL", f"the run has no trial '{trial_id}'; {nearest(trial_id, run.trials)}"))
    words = trial_words(run, trial)
    if as_json:
        print_json(words)
    else:
        from hpo_ray.screen import trial_text

        out().print(trial_text(words, run.metric, str(run.experiment.get("fidelity") or "report")), soft_wrap=True)


def report_command(
    run_dir: RunDir,
    target: Annotated[
        Path | None, typer.Option("--out", help="The file; default RUN/report.html; Markdown is printed.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown instead of a page.")] = False,
) -> None:
    """Write the story of a run as one HTML file: answer, how sure, what mattered, how it went, what failed."""
    from hpo_ray import history

    run = history.load(run_dir)
    to_stdout = as_markdown and target is None
    path = target or run_dir / "report.html"
    endings = (".md",) if as_markdown else (".html", ".htm")
    if target is not None and target.suffix.lower() not in endings:  # a run's own files are none of these
        raise InvalidInput(Problem("--out", f"'{target}' does not end in {endings[0]}: that is what is written"))
    if not to_stdout and (path.is_dir() or not path.parent.is_dir()):
        wrong = f"'{path}' is a folder: name a file" if path.is_dir() else f"'{path.parent}' is no folder"
        raise InvalidInput(Problem("--out", wrong))
    from hpo_ray.report.markdown import markdown
    from hpo_ray.report.page import page
    from hpo_ray.report.story import story_of

    story = story_of(run)
    text = markdown(story) if as_markdown else page(story)
    if to_stdout:
        sys.stdout.write(text)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    except OSError as error:
        raise InvalidInput(Problem("--out", f"'{path}' cannot be written: {error.strerror}")) from None
    out().print(f"report      {path}", soft_wrap=True, highlight=False, markup=False)


def trial_words(run: History, trial: TrialRecord) -> dict[str, Any]:
    """One trial in the shape that ``--json`` prints; paths are absolute, and there."""
    folder = run.run_dir / "trials" / trial.trial_id
    attempt = folder / f"attempt-{trial.attempt}"
    paths = {"folder": folder, "log": attempt / "output.log"}
    spent = trial.last_seen - trial.started_at
    kept = [run.run_dir / path for path in trial.checkpoints.values()]
    best = trial.best_report(run.metric, run.mode)
    return {
        "trial_id": trial.trial_id,
        "config_id": trial.config_id,
        "status": trial.status,
        "reason": trial.reason,
        "attempt": trial.attempt,
        "duration_s": round(spent, 3) if math.isfinite(spent) else None,
        "config": trial.config,
        "best": {"fidelity": best.fidelity, "value": best.metrics[run.metric]} if best else None,
        "rung": {"at": trial.rung, "kept": trial.kept, "verdict": trial.verdict} if trial.rung is not None else None,
        "faults": [{"cause": each.cause, "reason": each.reason, "fidelity": each.fidelity} for each in trial.faults],
        "traceback": trial.traceback,
        "paths": {name: str(path) for name, path in paths.items() if path.exists()},
        "checkpoints": [str(path) for path in kept if path.exists()],
        "reports": [
            {"attempt": row.attempt, "fidelity": row.fidelity, "elapsed_s": row.elapsed_s, **row.metrics}
            for row in trial.reports
        ],
    }
