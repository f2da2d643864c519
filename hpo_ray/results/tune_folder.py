"""Directories that plain Ray Tune leaves behind, read as the plain data that they hold besides pickles.

``experiment_state-*.json`` names the trials and how they stand; each trial's folder has ``params.json`` (its
configuration) and ``result.json`` (a line a report), or ``progress.csv``. No pickle is opened, nor what the state file
holds as hexadecimal text.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_ray import plain
from hpo_ray.results import tune_rows
from hpo_ray.results.tables import COLUMNS, Coded, Table

if TYPE_CHECKING:
    from hpo_ray.results.places import Place
    from hpo_ray.results.tune_rows import Rows

_STATE = re.compile(r"experiment_state-.*\.json")
_STATE_LIMIT = 1 << 30
_STATUS = {"TERMINATED": "completed", "ERROR": "failed"}
_START = re.compile(r'"start_time": ([0-9.]{1,20})')
_ID = re.compile(rb'"trial_id": "([0-9a-zA-Z_]{1,64})"')
_TAIL = 64 << 10


@dataclass
class TuneTrial:
    """A trial but for its reports; `folder` is empty where it has none, `started_at` in Unix seconds."""

    folder: str
    trial_id: str = ""
    status: str = "interrupted"
    config: dict[str, Any] = field(default_factory=dict)
    started_at: float = math.nan


def load(place: Place, level: str) -> tuple[Table, int]:
    """An experiment's rows of one level, and how many lines and files could not be read.

    Ray writes neither decisions nor attempts down: those levels are empty. The fidelity is ``training_iteration``.
    """
    if level not in ("trials", "reports"):
        return Table(
            {name: Coded(np.empty(0, np.int64), []) if name == "trial_id" else [] for name in COLUMNS[level]}
        ), 0
    if level == "reports":
        names = [name for name, folder in sorted(place.entries().items()) if folder]
        found = [(_name(lines, name), lines, long) for name in names for lines, long in [_lines(place, name)]]
        found.sort(key=lambda file: file[0])
        rows, damaged = tune_rows.read((lines, long) for _, lines, long in found)
        return _reports([name for name, _, _ in found], rows), damaged
    trials, damaged = _trials(place)
    rows, bad = tune_rows.read([(_last_line(place, trial.folder), 0) for trial in trials])
    return _summaries(place, trials, rows), damaged + bad


def _name(lines: list[bytes], folder: str) -> str:
    """A trial's id, from its reports; its folder's name where they do not tell."""
    for line in lines:
        names = _ID.findall(line)
        row = None if len(names) == 1 == line.count(b'"trial_id"') else tune_rows.row_of(line)
        name = names[0].decode() if row is None and len(names) == 1 else (row or {}).get("trial_id")
        if isinstance(name, str):
            return name
    return folder


def _trials(place: Place) -> tuple[list[TuneTrial], int]:
    """The trials, by the ids that Ray numbers them with."""
    names, found, damaged = place.entries(), dict[str, TuneTrial](), 0
    states = sorted(name for name, folder in names.items() if not folder and _STATE.fullmatch(name))
    for state in reversed(states):
        try:
            with place.open(state) as file:
                listed = plain.loads(plain.whole(file, _STATE_LIMIT))["trial_data"]
            for number, (described, runtime) in enumerate(listed):
                trial = _described(plain.loads(described.encode()), runtime, names)
                found[trial.folder or f"/{number}"] = trial
            break
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            found.clear()  # torn: the one before is whole
            damaged += 1
    for name in sorted(name for name, folder in names.items() if folder and name not in found):
        inner = place.inner(name).entries()
        if {"params.json", "result.json", "progress.csv"} & inner.keys():
            found[name] = TuneTrial(name, name)
    return sorted(found.values(), key=lambda trial: trial.trial_id), damaged


def _described(state: Any, runtime: str, names: dict[str, bool]) -> TuneTrial:
    folder = state.get("relative_logdir")
    if not isinstance(folder, str) or not names.get(folder, False):
        folder = ""  # none yet, or not one of this directory's
    started = _START.search(runtime)
    trial_id, config = state["trial_id"], state.get("config")
    if not isinstance(trial_id, str):
        raise ValueError("a trial without a name")
    return TuneTrial(
        folder,
        trial_id,
        _STATUS.get(str(state.get("status")), "interrupted"),
        tune_rows.flat(config) if isinstance(config, dict) else {},
        min(float(started[1]), 9e9) if started else math.nan,
    )


def _lines(place: Place, folder: str) -> tuple[list[bytes], int]:
    """A trial's reports, a JSON line each, and how many were too long."""
    if not folder:
        return [], 0
    lines: list[bytes] = []
    left_out = 0
    try:
        with place.open(folder, "result.json") as file:
            for block, too_long in plain.line_blocks(file):
                lines += [line for line in block if line]
                left_out += too_long
    except FileNotFoundError:
        return _csv_lines(place, folder)
    except OSError:
        return [], 1
    return lines, left_out


def _csv_lines(place: Place, folder: str) -> tuple[list[bytes], int]:
    """The same from ``progress.csv``, where that is all there is."""
    try:
        with place.open(folder, "progress.csv") as file:
            text = plain.whole(file, plain.LINE_LIMIT).decode()
        return [tune_rows.line_of(row) for row in csv.DictReader(io.StringIO(text, newline=""))], 0
    except FileNotFoundError:
        return [], 0
    except (OSError, ValueError, csv.Error):
        return [], 1


def _last_line(place: Place, folder: str) -> list[bytes]:
    """A trial's last whole report, found from the file's end."""
    with contextlib.suppress(OSError):
        if folder and place.local is not None:
            with place.open(folder, "result.json") as file:
                file.seek(max(0, file.seek(0, io.SEEK_END) - _TAIL))
                *_, before, last = [b"", b"", *(line for line in plain.whole(file).split(b"\n") if line)]
            if before and tune_rows.is_row(last):
                return [last]
    lines, _ = _lines(place, folder)
    return next(([line] for line in reversed(lines) if tune_rows.is_row(line)), [])


def _reports(trial_ids: list[str], rows: Rows) -> Table:
    codes = rows.source
    columns = {
        "trial_id": Coded(codes, trial_ids),
        "attempt": np.full(len(codes), np.nan),
        "fidelity": rows.number("training_iteration"),
        "elapsed_s": rows.number("time_total_s"),
    }
    return Table(columns, metrics=rows.metrics())


def _summaries(place: Place, trials: list[TuneTrial], rows: Rows) -> Table:
    """A row a trial; its metrics are those of its last report."""
    last = dict(zip(rows.source.tolist(), range(len(rows.source)), strict=True))
    at = [last.get(number, -1) for number in range(len(trials))]
    elapsed, clock = (tune_rows.pick(rows.number(name), at) for name in ("time_total_s", "timestamp"))
    started = [
        trial.started_at if trial.started_at == trial.started_at else float(now - worked)
        for trial, now, worked in zip(trials, clock, elapsed, strict=True)
    ]
    columns = {
        "trial_id": [trial.trial_id for trial in trials],
        "config_id": [None] * len(trials),
        "status": [trial.status for trial in trials],
        "reason": [_error(place, trial) if trial.status == "failed" else "" for trial in trials],
        "fidelity": tune_rows.pick(rows.number("training_iteration"), at),
        "attempt": [None] * len(trials),
        "started_at": [at if 0 <= at < 9e9 else math.nan for at in started],
        "duration_s": elapsed,
    }
    metrics = {name: tune_rows.pick(values, at) for name, values in rows.metrics().items()}
    return Table(columns, [_config(place, trial) for trial in trials], metrics)


def _config(place: Place, trial: TuneTrial) -> dict[str, Any]:
    """A trial's configuration; what the state file says of it where its own file is missing."""
    with contextlib.suppress(OSError, ValueError):
        if trial.folder:
            with place.open(trial.folder, "params.json") as file:
                params = plain.loads(plain.whole(file))
            return tune_rows.flat(params) if isinstance(params, dict) else trial.config
    return trial.config


def _error(place: Place, trial: TuneTrial) -> str:
    """The last line of what a trial's failure said."""
    with contextlib.suppress(OSError, ValueError):
        with place.open(trial.folder, "error.txt") as file:
            text = plain.whole(file).decode("utf-8", "replace")
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return ""
