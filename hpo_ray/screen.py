"""What a run looks like in a terminal: the live table, plain lines where there is no terminal, and the answer.

Builds text and Rich tables from a run's history; prints nothing itself.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo_ray.journal import Event

if TYPE_CHECKING:
    from hpo_ray.history import History, TrialRecord
    from hpo_ray.lock import Holder
    from hpo_ray.results.racing import Standing
    from hpo_ray.tally import Tally

SHOWN_RUNNING = 8
LINE_PERIOD_S = 15.0
# Of a trial's traceback the end.
TRACEBACK_LINES = 15


def live_table(run: Tally, now: float | None = None) -> RenderableType:
    """The run as it stands: counts, time, best so far, rungs, running trials."""
    now = time.time() if now is None else now
    headline = Text(_headline(run, now), style="bold", no_wrap=True, overflow="ellipsis")
    return Group(headline, *_body(run))


def status_words(run: Tally, living: Holder | None, run_dir: Path) -> dict[str, Any]:
    """Whether a run runs, how it ended otherwise, and what to do next."""
    ended = run.ended or {}
    state = "running" if living is not None else ended.get("status") or "dead"
    reason = str(living) if living is not None else ended.get("reason") or ("its driver died" if not ended else "")
    return {"run_dir": str(run_dir.absolute()), "state": state, "reason": reason}


def status_table(run: Tally, living: Holder | None, run_dir: Path) -> RenderableType:
    """What ``hpo-ray status`` shows: `status_words`, and the run as it stands."""
    words = status_words(run, living, run_dir)
    where = shown_path(run_dir.absolute())
    style = {"running": "green", "completed": "green", "failed": "red", "dead": "red"}.get(words["state"], "yellow")
    first = Text(words["state"], style=f"bold {style}")
    first.append(f"  {words['reason']}" if words["reason"] else "", style="not bold default")
    now = time.time() if living is not None else run.last_seen
    lines: list[RenderableType] = [first, Text(_headline(run, now), style="bold"), *_body(run)]
    unit = f"{run.head.get('fidelity') or 'report'}s"
    lines.append(Text(f"cost   {run.total_fidelity:g} {unit}"))
    if living is None:
        go_on = f"hpo-ray show {where}" if words["state"] == "completed" else _resume(where, run.ended)
        lines.append(Text(f"next   {go_on}"))
    return Group(*lines)


def _body(run: Tally) -> list[RenderableType]:
    """Running trials, rungs and the best so far."""
    metric = str(run.head.get("metric", ""))
    table = Table(box=None, pad_edge=False)
    for column in ("trial", str(run.head.get("fidelity") or "reports"), metric, "best", "configuration"):
        wide = column == "configuration"  # the only one that gives way where the terminal is narrow
        table.add_column(
            column,
            justify="left" if wide or column == "trial" else "right",
            no_wrap=True,
            min_width=None if wide else len(column),
        )
    running = [(name, trial) for name, trial in run.open.items() if trial["status"] == "running"]
    for name, trial in running[:SHOWN_RUNNING]:
        reached = f"{trial['fidelity']:g}" if math.isfinite(trial["fidelity"]) else "–"
        table.add_row(name, reached, number(trial["value"]), number(trial["best"]), configured(trial["config"]))
    if len(running) > SHOWN_RUNNING:
        table.add_row(f"… {len(running) - SHOWN_RUNNING} more")
    lines: list[RenderableType] = [table] if running else []
    if run.rungs:
        parts = [f"{rung}: {kept} of {n} went on" for rung, (kept, n) in sorted(run.rungs.items(), key=_rung)]
        lines.append(Text(f"rungs  {' · '.join(parts)}", style="dim", no_wrap=True, overflow="ellipsis"))
    if run.best is not None:
        value = f"{metric} {number(run.best['value'])}"
        text = f"best   {value} · trial {run.best['trial_id']} · {configured(run.best['config'])}"
        lines.append(Text(text, style="green", no_wrap=True, overflow="ellipsis"))
    return lines


def _rung(item: tuple[str, Any]) -> float:
    return float(item[0])


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
    return _headline(run.tally, event["time"]) + found


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
    if run.ended and run.ended.get("reason"):
        rows.append(("ended", f"{run.ended['status']}: {run.ended['reason']}", ""))
    if not (run.ended and run.ended["status"] == "completed") and not summary["running"]:
        rows.append(("resume", _resume(where, run.ended), ""))
    text = Text()
    for name, value, style in rows:
        text.append(f"{name:<12}", style="bold")
        text.append(f"{value}\n", style=style)
    text.rstrip()
    return text


def race_answer(standing: Standing, run: History) -> Text:
    """The end of a race: who won, whether that is more than luck, and how each did."""
    contenders = run.experiment["race"]["contenders"]
    where = shown_path(run.run_dir)
    text = Text()
    text.append(f"{standing.text()}\n", style="bold green" if standing.real else "bold")
    for row in standing.table.to_dict("records"):
        name, se = row["config_id"], row["se"]
        found = f"{number(row['mean'])} ± {number(se)}  {row['repeats']} repeats  {row['verdict']}"
        text.append(f"trial {name:<6}", style="bold")
        text.append(f"{found}  {configured(contenders[name])}\n")
    unit = f"{run.experiment.get('fidelity') or 'report'}s"
    text.append(f"{'cost':<12}", style="bold")
    text.append(f"{run.tally.total_fidelity:g} {unit} in {duration(run.tally.wall_time_s)}\n")
    text.append(f"{'results':<12}", style="bold")
    text.append(f"{where}\n")
    text.append(f"{'report':<12}", style="bold")
    text.append(f"hpo-ray report {where}")
    return text


def trial_text(words: Mapping[str, Any], metric: str, unit: str) -> Text:
    """One trial, from what ``hpo-ray show RUN TRIAL --json`` prints."""
    rows = [("trial", f"{words['trial_id']}  {words['status'].replace('_', ' ')}", "bold")]
    rows += [("reason", words["reason"], "")] if words["reason"] else []
    rows.append(("config", configured(words["config"]), ""))
    if words["best"]:
        rows.append(
            ("best", f"{metric} {number(words['best']['value'])} at {unit} {words['best']['fidelity']:g}", "green")
        )
    if words["rung"]:
        went = "went on" if words["rung"]["kept"] else "stopped"
        rows.append(("rung", f"{words['rung']['at']:g}: {words['rung']['verdict']}, {went}", ""))
    rows += [("tried again", f"{each['cause']}: {each['reason']}", "yellow") for each in words["faults"]]
    for row in words["reports"]:
        shown = {key: value for key, value in row.items() if key not in ("attempt", "fidelity", unit)}
        rows.append((f"{unit} {row['fidelity']:g}", configured(shown), ""))
    if words["traceback"]:
        tail = words["traceback"].strip().splitlines()[-TRACEBACK_LINES:]
        rows += [("traceback" if not place else "", line, "red") for place, line in enumerate(tail)]
    rows += [(name, str(shown_path(Path(path))), "") for name, path in words["paths"].items()]
    rows += [("checkpoint", str(shown_path(Path(path))), "") for path in words["checkpoints"]]
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


def _resume(where: Path, ended: Mapping[str, Any] | None) -> str:
    """The command that goes on with a run: beyond the limit that has ended it, if one has."""
    key = str((ended or {}).get("reason", "")).partition("=")[0]
    return f"hpo-ray resume {where}" + (f" {key}=null" if key.startswith("stop.") else "")


def _headline(run: Tally, now: float) -> str:
    done, total = run.finished, run.head.get("trials")
    elapsed = run.wall_time_s + now - run.last_seen
    running = sum(trial["status"] == "running" for trial in run.open.values())
    waiting = sum(trial["status"] == "interrupted" for trial in run.open.values())
    parts = [f"{run.head.get('name', 'run')}  {done}/{total or '?'} trials", duration(elapsed)]
    if done and total and done < total and running:
        # Slots work side by side, so what is done so far already tells the pace of the rest.
        parts.append(f"about {duration(elapsed / done * (total - done))} left")
    parts.append(f"{running} running")
    if waiting:
        parts.append(f"{waiting} interrupted")
    if run.failed:
        parts.append(f"{run.failed} failed")
    return " · ".join(parts)


def _best_rows(summary: Mapping[str, Any], run: History) -> list[tuple[str, str, str]]:
    """The answer itself, as (name, text, style): the configuration, then how sure we are of it."""
    if summary["best_trial"] is None:
        return [("best", "none: no trial reported a finite value", "red")]
    rows = [("best", f"trial {summary['best_trial']}  {configured(summary['best_config'])}", "green")]
    test, interval = summary["test"], summary["interval"]
    if test:
        low, high, _ = interval
        counts = f"{test['errors']} of {test['n']} wrong" + (", the models together" if "each" in test else "")
        text = f"error {test['error']:.2%}, 95 % interval {low:.2%} to {high:.2%} ({counts})"
        rows.append(("test", text, "bold"))
        if "each" in test:
            rows.append(("each", _each(test), ""))
    elif run.ended and run.ended.get("test_failure"):
        rows.append(("test", f"could not be scored: {run.ended['test_failure']}", "red"))
    unit = run.experiment.get("fidelity") or "report"
    if (run.experiment.get("data") or {}).get("train_on_valid"):  # nothing was chosen: its last epoch counts
        rows.append(("trained", f"{summary['best_fidelity']:g} {unit}s, on all images but the test images", ""))
        return rows
    se = summary["best_se"]
    best = number(summary["best_value"]) + (f" ± {number(se)} (standard error)" if se is not None else "")
    value = f"{summary['metric']} {best} at {unit} {summary['best_fidelity']:g}"
    rows.append(("validation", f"{value}, the best of {summary['trials']} trials and so flattering", ""))
    if summary["gap"]:
        train, valid = summary["gap"]
        advice = "augmentation, dropout, weight decay or more images may help"
        rows.append(("gap", f"val_loss {number(valid)} against train_loss {number(train)}: {advice}", "yellow"))
    if summary["unreadable"]:
        log = shown_path(run.run_dir / "trials" / summary["best_trial"] / "attempt-*" / "output.log")
        images = "1 image" if summary["unreadable"] == 1 else f"{summary['unreadable']} images"
        rows.append(("left out", f"{images} that cannot be read, listed in {log}", "yellow"))
    if interval and not test:
        low, high, _ = interval
        rows.append(("interval", f"95 %: {number(low)} to {number(high)}, from {summary['metric']}_se", ""))
    return rows


def _each(test: Mapping[str, Any]) -> str:
    """The models alone: what one of them is worth, and how much of it is luck."""
    shares = [errors / test["n"] for errors in test["each"]]
    deviation = statistics.stdev(shares)
    return (
        f"error {statistics.mean(shares):.2%} of each of the {len(shares)} models alone, on average; "
        f"standard deviation {deviation:.2%}, from {min(shares):.2%} to {max(shares):.2%}"
    )


def _counts(summary: Mapping[str, Any]) -> str:
    names = ("completed", "stopped", "failed", "interrupted", "running")
    early = {"stopped": "stopped early"}
    parts = [f"{summary[name]} {early.get(name, name)}" for name in names if summary[name] or name in names[:3]]
    return f"{summary['trials']}: " + ", ".join(parts)
