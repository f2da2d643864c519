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
from hpo_ray.results.tune_rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hpo_ray.results.places import Place

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
        trial_ids: list[str] = []
        rows, damaged = tune_rows.read(_named(place, trial_ids))
        return _reports(*_in_order(trial_ids, rows)), damaged
    trials, damaged = _trials(place)
    rows, bad = tune_rows.read([(_last_line(place, trial.folder), 0) for trial in trials])
    return _summaries(place, trials, rows), damaged + bad


def _named(place: Place, trial_ids: list[str]) -> Iterator[tuple[bytes, int]]:
    """Each folder's reports, as they are read; the trial's id is added to `trial_ids`."""
    for folder in [name for name, is_folder in sorted(place.entries().items()) if is_folder]:
        text, left_out = _text(place, folder)
        trial_ids.append(_name(text, folder))
        yield text, left_out


def _name(text: bytes, folder: str) -> str:
    """A trial's id, from its reports; its folder's name where they do not tell."""
    for line in io.BytesIO(text):
        names = _ID.findall(line)
        row = None if len(names) == 1 == line.count(b'"trial_id"') else tune_rows.row_of(line)
        name = names[0].decode() if row is None and len(names) == 1 else (row or {}).get("trial_id")
        if isinstance(name, str):
            return name
    return folder


def _in_order(trial_ids: list[str], rows: Rows) -> tuple[list[str], Rows]:
    """By the ids that Ray numbers trials with, where folders are sorted otherwise."""
    order = sorted(range(len(trial_ids)), key=trial_ids.__getitem__)
    if order == list(range(len(trial_ids))):
        return trial_ids, rows
    source = np.argsort(order)[rows.source]
    at = np.argsort(source, kind="stable")
    return [trial_ids[n] for n in order], Rows(source[at], {name: values[at] for name, values in rows.values.items()})


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


def _text(place: Place, folder: str) -> tuple[bytes, int]:
    """A trial's reports, JSON lines without empty ones, and how many were too long."""
    if not folder:
        return b"", 0
    blocks: list[bytes] = []
    left_out = 0
    try:
        with place.open(folder, "result.json") as file:
            for text, too_long in plain.text_blocks(file):
                blocks += [text] if text else []
                left_out += too_long
    except FileNotFoundError:
        return _csv_text(place, folder)
    except OSError:
        return b"", 1
    text = b"\n".join(blocks)
    if b"\n\n" in text or text.startswith(b"\n") or text.endswith(b"\n"):
        text = b"\n".join(line for line in text.split(b"\n") if line)
    return text, left_out


def _csv_text(place: Place, folder: str) -> tuple[bytes, int]:
    """The same from ``progress.csv``, where that is all there is."""
    try:
        with place.open(folder, "progress.csv") as file:
            text = plain.whole(file, plain.LINE_LIMIT).decode()
        return b"\n".join(map(tune_rows.line_of, csv.DictReader(io.StringIO(text, newline="")))), 0
    except FileNotFoundError:
        return b"", 0
    except (OSError, ValueError, csv.Error):
        return b"", 1


def _last_line(place: Place, folder: str) -> bytes:
    """A trial's last whole report, found from the file's end; empty if there is none."""
    with contextlib.suppress(OSError):
        if folder and place.local is not None:
            with place.open(folder, "result.json") as file:
                file.seek(max(0, file.seek(0, io.SEEK_END) - _TAIL))
                *_, before, last = [b"", b"", *(line for line in plain.whole(file).split(b"\n") if line)]
            if before and tune_rows.is_row(last):
                return last
    text, _ = _text(place, folder)
    return next((line for line in reversed(text.split(b"\n")) if tune_rows.is_row(line)), b"")


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
