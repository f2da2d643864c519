"""What a run looks like in a terminal: the live table, plain lines where there is no terminal, and the answer.

Builds text and Rich tables from a run's history; prints nothing itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo_ray.history import History, TrialRecord
from hpo_ray.journal import Event

SHOWN_RUNNING = 8
LINE_PERIOD_S = 15.0


def live_table(run: History, now: float | None = None) -> RenderableType:
    """The run as it stands: counts, time, best so far, rungs, running trials."""
    now = time.time() if now is None else now
    headline = Text(_headline(run, now), style="bold", no_wrap=True, overflow="ellipsis")
    table = Table(box=None, pad_edge=False)
    for column in ("trial", str(run.experiment.get("fidelity") or "reports"), run.metric, "best", "configuration"):
        wide = column == "configuration"  # the only one that gives way where the terminal is narrow
        table.add_column(
            column,
            justify="left" if wide or column == "trial" else "right",
            no_wrap=True,
            min_width=None if wide else len(column),
        )
    running = [trial for trial in run.trials.values() if trial.status == "running"]
    for trial in running[:SHOWN_RUNNING]:
        table.add_row(*_trial_cells(run, trial))
    if len(running) > SHOWN_RUNNING:
        table.add_row(f"… {len(running) - SHOWN_RUNNING} more")
    lines: list[RenderableType] = [headline, table] if running else [headline]
    if run.rungs:
        lines.append(Text(f"rungs  {_rungs(run)}", style="dim", no_wrap=True, overflow="ellipsis"))
    best = run.best()
    if best is not None:
        trial, row = best
        value = f"{run.metric} {number(row.metrics[run.metric])}"
        text = f"best   {value} · trial {trial.trial_id} · {configured(trial.config)}"
        lines.append(Text(text, style="green", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def plain_line(run: History, event: Event, last_line_at: float) -> str | None:
    """A line worth printing where there is no terminal: failures at once, else progress now and then; or None."""
    trial = run.trials.get(event.get("trial_id", ""))
    if event["event"] == "run_started":
        return f"run directory {run.run_dir}"
    if event["event"] != "trial_ended" or trial is None:
        return None
    if trial.status in ("failed", "out_of_memory"):
        return f"trial {trial.trial_id} {trial.status.replace('_', ' ')}: {trial.reason}"
    if event["time"] - last_line_at < LINE_PERIOD_S:
        return None
    best = run.best()
    found = f", best {run.metric} {number(best[1].metrics[run.metric])} (trial {best[0].trial_id})" if best else ""
    return _headline(run, event["time"]) + found


def answer(summary: Mapping[str, Any], run: History) -> Text:
    """The end of a run: which configuration, how sure, at what cost, and where everything is."""
    where = shown_path(run.run_dir)
    unit = f"{run.experiment.get('fidelity') or 'report'}s"
    rows = _best_rows(summary, run)
    rows += [
        ("trials", _counts(summary), ""),
        ("cost", f"{summary['total_fidelity']:g} {unit} in {duration(summary['wall_time_s'])}", ""),
        ("results", str(where), ""),
        ("report", f"hpo-ray report {where}", ""),
        ("load", f"hpo_ray.load_results('{where}')", ""),
    ]
    if not (run.ended and run.ended["status"] == "completed") and not summary["running"]:
        rows.append(("resume", f"hpo-ray resume {where}", ""))
    text = Text()
    for name, value, style in rows:
        text.append(f"{name:<12}", style="bold")
        text.append(f"{value}\n", style=style)
    text.rstrip()
    return text


def failures(run: History) -> Text | None:
    """Failed trials by reason, and where to look; None if there are none."""
    reasons: dict[str, list[TrialRecord]] = {}
    for trial in run.trials.values():
        if trial.status in ("failed", "out_of_memory"):
            reasons.setdefault(trial.reason, []).append(trial)
    if not reasons:
        return None
    text = Text("failures\n", style="bold red")
    for reason, trials in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        text.append(f"{len(trials):>4} × ", style="not bold")
        text.append(f"{reason}  ", style="not bold default")
        first = trials[0]
        log = shown_path(run.run_dir / "trials" / first.trial_id / f"attempt-{first.attempt}" / "output.log")
        text.append(f"{log}\n", style="not bold default dim")
    text.rstrip()
    return text


def number(value: float) -> str:
    """Four significant digits, without an exponent where it reads well."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def configured(config: Mapping[str, Any]) -> str:
    """A configuration on one line."""
    return "  ".join(f"{key}={number(v) if isinstance(v, float) else v}" for key, v in config.items())


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def shown_path(path: Path) -> Path:
    """A path as short as it can be from here."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _headline(run: History, now: float) -> str:
    done = run.count("completed", "stopped", "failed", "out_of_memory")
    total = run.experiment.get("trials")
    failed = run.count("failed", "out_of_memory")
    elapsed = run.wall_time_s + now - run.last_seen
    parts = [f"{run.experiment.get('name', 'run')}  {done}/{total or '?'} trials", duration(elapsed)]
    if done and total and done < total:
        # Slots work side by side, so what is done so far already tells the pace of the rest.
        parts.append(f"about {duration(elapsed / done * (total - done))} left")
    parts.append(f"{run.count('running')} running")
    if failed:
        parts.append(f"{failed} failed")
    return " · ".join(parts)


def _trial_cells(run: History, trial: TrialRecord) -> list[str]:
    last = trial.reports[-1].metrics.get(run.metric, math.nan) if trial.reports else math.nan
    best = trial.best_report(run.metric, run.mode)
    best_value = best.metrics[run.metric] if best else math.nan
    reached = f"{trial.fidelity:g}" if trial.reports else "–"
    return [trial.trial_id, reached, number(last), number(best_value), configured(trial.config)]


def _rungs(run: History) -> str:
    parts = []
    for rung in sorted(run.rungs):
        kept = run.rungs[rung].values()
        parts.append(f"{rung:g}: {sum(kept)} of {len(kept)} went on")
    return " · ".join(parts)


def _best_rows(summary: Mapping[str, Any], run: History) -> list[tuple[str, str, str]]:
    """The answer itself, as (name, text, style): the configuration, then how sure we are of it."""
    if summary["best_trial"] is None:
        return [("best", "none: no trial reported a finite value", "red")]
    rows = [("best", f"trial {summary['best_trial']}  {configured(summary['best_config'])}", "green")]
    test, interval = summary["test"], summary["interval"]
    if test:
        low, high, _ = interval
        counts = f"{test['errors']} of {test['n']} wrong"
        text = f"error {test['error']:.2%}, 95 % interval {low:.2%} to {high:.2%} ({counts})"
        rows.append(("test", text, "bold"))
    elif run.ended and run.ended.get("test_failure"):
        rows.append(("test", f"could not be scored: {run.ended['test_failure']}", "red"))
    unit = run.experiment.get("fidelity") or "report"
    value = f"{summary['metric']} {number(summary['best_value'])} at {unit} {summary['best_fidelity']:g}"
    rows.append(("validation", f"{value}, the best of {summary['trials']} trials and so flattering", ""))
    if interval and not test:
        low, high, _ = interval
        rows.append(("interval", f"95 %: {number(low)} to {number(high)}, from {summary['metric']}_se", ""))
    return rows


def _counts(summary: Mapping[str, Any]) -> str:
    names = ("completed", "stopped", "failed", "interrupted", "running")
    early = {"stopped": "stopped early"}
    parts = [f"{summary[name]} {early.get(name, name)}" for name in names if summary[name] or name in names[:3]]
    return f"{summary['trials']}: " + ", ".join(parts)
