"""The commands on many runs, or on a run's tables: ls, best, compare, export. They print; none starts Ray."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_ray.console import note, out, print_json
from hpo_ray.errors import InvalidInput, Problem, nearest

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.history import History

RunDir = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
_LEVELS = ("trials", "reports", "rungs", "failures", "cost")


def ls_command(
    where: Annotated[
        str, typer.Argument(help="Run directories: a path or a quoted glob.", metavar="[RUNS]")
    ] = "runs/*",
    as_json: AsJson = False,
) -> None:
    """List runs, the latest last: how each stands, its trials, its best value. Quick however long they are."""
    from hpo_ray import journal, lock, snapshot
    from hpo_ray.screen import duration, number, shown_path, status_words

    rows: list[dict[str, Any]] = []
    for run_dir in journal.find_runs(where):
        try:
            tally = snapshot.load(run_dir)
        except InvalidInput as error:
            note(f"passed over: {error}")
            continue
        words = status_words(tally, lock.holder(run_dir), run_dir)
        started, best = tally.started_at, tally.best or {}
        totals = {"total_fidelity": tally.total_fidelity, "wall_time_s": round(tally.wall_time_s, 3)}
        counts = {"trials": tally.finished, "of": tally.head.get("trials"), "metric": tally.head.get("metric")}
        winner = {"best_value": best.get("value"), "best_trial": best.get("trial_id")}
        rows.append({**words, **counts, **winner, **totals, "started_at": started})
    rows.sort(key=lambda row: row["started_at"] if math.isfinite(row["started_at"]) else -math.inf)
    if as_json:
        print_json({"runs": rows})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", "trials", "best", "trial", "time", "started"):
        table.add_column(name, justify="right" if name in ("trials", "best", "time") else "left", overflow="fold")
    for row in rows:
        value = row["best_value"]
        started = row["started_at"]
        cells = (
            str(shown_path(Path(row["run_dir"]))),
            row["state"],
            f"{row['trials']}/{row['of'] or '?'}",
            f"{row['metric']} {number(value)}" if value is not None else "–",
            row["best_trial"] or "–",
            duration(row["wall_time_s"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if math.isfinite(started) else "–",
        )
        table.add_row(*(Text(str(cell)) for cell in cells))
    out().print(table)


def best_command(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Print a run's best configuration as overrides that a command takes, and its value."""
    from hpo_ray import history
    from hpo_ray.screen import number

    run = history.load(run_dir)
    if run.experiment.get("race"):
        _best_of_race(run, as_json)
        return
    trial, row = run.pick()
    words = {f"space.{key}": value for key, value in trial.config.items()}
    value = row.metrics[run.metric]
    if as_json:
        print_json({"run_dir": str(run.run_dir), "trial": trial.trial_id, "config": trial.config, "overrides": words,
                    "metric": run.metric, "value": value, "fidelity": row.fidelity})  # fmt: skip
        return
    unit = run.experiment.get("fidelity") or "report"
    where = f"{run.metric} {number(value)} at {unit} {row.fidelity:g}"
    note(f"trial {trial.trial_id}: {where}, the best of {len(run.trials)}")
    _print_overrides(words)


def _best_of_race(run: History, as_json: bool) -> None:
    """The winner: in a race the best value of all is luck."""
    from hpo_ray import confirming

    found = confirming.standing(run)
    if found.winner is None:
        raise InvalidInput(Problem("run", f"'{run.run_dir}' has no winner: {found.text()}"))
    config = run.experiment["race"]["contenders"][found.winner]
    words = {f"space.{key}": value for key, value in config.items()}
    mean = float(found.table.iloc[0]["mean"])
    if as_json:
        print_json({"run_dir": str(run.run_dir), "contender": found.winner, "config": config, "overrides": words,
                    "metric": run.metric, "value": mean, "real": found.real})  # fmt: skip
        return
    note(found.text())
    _print_overrides(words)


def _print_overrides(words: dict[str, Any]) -> None:
    for name, given in words.items():
        out().print(shlex.quote(f"{name}={_written(given)}"), soft_wrap=True, highlight=False, markup=False)


def export_command(
    run_dir: Annotated[str, typer.Argument(help="A run directory, or a quoted glob of many.", metavar="RUN")],
    file: Annotated[
        str | None, typer.Argument(help="FILE.parquet or FILE.csv; with --to where, if not in the run directory.")
    ] = None,
    level: Annotated[str | None, typer.Option("--level", help="trials, reports, rungs, failures or cost.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="tensorboard, mlflow or optuna: written as that tool has it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the table of a run's trials (or reports, rungs, failures, cost), or the run itself, for other tools."""
    if to is not None:
        _export_to(run_dir, to, file, level, as_json)
    else:
        _export_table(run_dir, file, "trials" if level is None else level, as_json)


def _export_to(run_dir: str, to: str, target: str | None, level: str | None, as_json: bool) -> None:
    from hpo_ray.loggers import LOGGERS
    from hpo_ray.loggers.exporting import export

    if level is not None:
        raise InvalidInput(Problem("--level", f"--to {to} writes all there is: leave one of them out"))
    written = export(run_dir, to, target, key="--to")
    if as_json:
        print_json({"to": to, "written": written})
        return
    for run, where in written.items():
        out().print(f"{run} written to {where}", soft_wrap=True, highlight=False, markup=False)
    note(f"to look: {LOGGERS[to].looked_at(target or next(iter(written.values())))}")


def _export_table(run_dir: str, name: str | None, level: str, as_json: bool) -> None:
    from hpo_ray.results.frame import load_results

    if name is None:
        message = "expected FILE.parquet or FILE.csv, or --to optuna, --to tensorboard, --to mlflow"
        raise InvalidInput(Problem("FILE", message))
    file = Path(name)
    if file.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InvalidInput(Problem("FILE", f"'{file}' is a database: --to optuna writes a study there"))
    if file.suffix not in (".csv", ".parquet"):
        raise InvalidInput(Problem("FILE", f"'{file}' ends neither in .csv nor in .parquet"))
    if level not in _LEVELS:
        raise InvalidInput(Problem("--level", f"'{level}' is not a level; {nearest(level, _LEVELS)}"))
    frame = load_results(run_dir, level)  # type: ignore[arg-type]  # one of them, as just seen
    try:
        if file.suffix == ".csv":
            frame.to_csv(file, index=False)
        else:
            _plain(frame).to_parquet(file, index=False)
    except OSError as error:
        raise InvalidInput(Problem("FILE", f"'{file}' cannot be written: {error.strerror or error}")) from None
    if as_json:
        print_json({"file": str(file), "level": level, "rows": len(frame), "columns": [str(name) for name in frame]})
        return
    out().print(f"{len(frame)} {level} written to {file}", soft_wrap=True, highlight=False)


def compare_command(
    runs: Annotated[list[str], typer.Argument(help="Run directories or quoted globs.", metavar="RUNS…")],
    by: Annotated[
        str, typer.Option("--by", help="What groups are compared: searcher, scheduler or name.")
    ] = "searcher",
    as_json: AsJson = False,
) -> None:
    """Compare groups of runs by their best values, paired by seed: mean, rank, differences with intervals."""
    import pandas as pd

    from hpo_ray import history, journal
    from hpo_ray.results import analysis
    from hpo_ray.results.frame import load_results

    kinds = ("searcher", "scheduler", "name")
    if by not in kinds:
        raise InvalidInput(Problem("--by", f"'{by}' is no such thing; {nearest(by, kinds)}"))
    found = {run_dir: history.load(run_dir) for pattern in runs for run_dir in journal.find_runs(pattern)}
    metrics = {(run.metric, run.mode) for run in found.values()}
    if len(metrics) > 1:
        told = ", ".join(f"{metric} ({mode})" for metric, mode in sorted(metrics))
        raise InvalidInput(Problem("RUNS", f"they optimise different things: {told}"))
    [(metric, mode)] = metrics
    frames = []
    for run_dir, run in found.items():
        chosen = run.experiment.get(by)
        group = chosen.get("name") if isinstance(chosen, dict) else chosen
        trials = load_results(run_dir).assign(run=str(run_dir), seed=run.experiment.get("seed"))
        frames.append(trials.assign(**{by: str(group)}))
    trials = pd.concat(frames, ignore_index=True)
    if trials[by].nunique() < 2:
        raise InvalidInput(
            Problem("--by", f"all runs have the {by} '{trials[by].iloc[0]}': there is nothing to compare")
        )
    for text in _unequal(list(found.values()), by):
        note(text)
    ranked = analysis.ranks(trials, metric, mode, by=by)
    compared = analysis.compare(trials, metric, mode, by=by)
    if as_json:
        print_json({"metric": metric, "mode": mode, "ranks": ranked.to_dict("records"),
                    "differences": compared.to_dict("records")})  # fmt: skip
        return
    out().print(f"best {metric} ({mode}) of {len(found)} runs, paired by seed", highlight=False)
    for table in (ranked, compared):
        out().print(table.round(5).to_string(index=False), soft_wrap=True, highlight=False, markup=False)


def _unequal(runs: list[History], by: str) -> list[str]:
    """What else the runs differ in, which a comparison of groups takes for the groups' doing."""
    told = []
    counts = [len(run.trials) for run in runs]
    if len(set(counts)) > 1:
        told.append(f"the runs have {min(counts)} to {max(counts)} trials: more tries find better ones")
    for key in ("searcher", "scheduler"):
        chosen = (run.experiment.get(key) for run in runs)
        names = {str(one.get("name") if isinstance(one, dict) else one) for one in chosen}
        if key != by and len(names) > 1:
            told.append(f"the runs differ in their {key}, too: {', '.join(sorted(names))}")
    unfinished = [run.run_dir.name for run in runs if run.ended is None]
    if unfinished:
        told.append(f"not ended: {', '.join(unfinished)}")
    return told


def _written(value: Any) -> str:
    """A value as an override of the space has it; a list is no value there, but a choice of one is."""
    from hpo_ray.domains.levels import freeze, level_text

    text = level_text(freeze(value))
    return f"choice({text})" if isinstance(value, list) else text


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet columns hold one type: what is mixed becomes text."""
    mixed = [name for name in frame if frame[name].dtype == object]
    return frame.astype(dict.fromkeys(mixed, "string"))
