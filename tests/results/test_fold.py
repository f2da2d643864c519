"""Frames made in columns are those that the run's history makes, whatever the journal holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_ray import history, journal, lock
from hpo_ray.results import load_results, reports
from hpo_ray.results.places import Place
from hpo_ray.results.source import read
from tests.test_tally import Story

IDS = st.sampled_from(["0000", "0001", "0002", "0010"])
ATTEMPTS = st.integers(0, 2)
FIDELITIES = st.sampled_from([1, 2.0, 3, 2.5, -0.0, 0, 2**53, 2**53 + 1, 1e300, "NaN", "3", None, True])
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3),
    st.sampled_from([10**400, 2**60, "NaN", "Infinity", "-Infinity", "seven", None, [1], True, math.nan, math.inf]),
)
SOUND = st.floats(-1e3, 1e3)
METRICS = st.dictionaries(st.sampled_from(["loss", "acc", "null", "a b", 'q"', "é", "fidelity"]), NUMBERS, max_size=3)
TAME = st.fixed_dictionaries({"loss": SOUND, "acc": SOUND})
CONFIGS = st.dictionaries(st.sampled_from(["lr", "n"]), st.sampled_from([1, 2, 0.5, "x", None, True, [1, 2]]))


def event(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "event": st.just(kind),
            **{k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in fields.items()},
        }
    )


REPORTED = event(
    "trial_reported",
    trial_id=IDS,
    attempt=ATTEMPTS,
    fidelity=st.sampled_from([1, 2.0, 3]),
    metrics=TAME,
    elapsed_s=SOUND,
)
WILD = st.one_of(
    event(
        "trial_reported",
        trial_id=st.one_of(IDS, st.sampled_from(["../x", "", 7, None, ["0000"], "٣"])),
        attempt=st.one_of(ATTEMPTS, st.sampled_from([-1, 0.0, 2**40, None, True])),
        fidelity=FIDELITIES,
        metrics=st.one_of(METRICS, st.sampled_from(["loss", None, []])),
        elapsed_s=NUMBERS,
    ),
    event(
        "trial_reported",
        trial_id=IDS,
        attempt=ATTEMPTS,
        fidelity=st.sampled_from([1, 2, 3]),
        metrics=TAME,
        elapsed_s=1.0,
        since=st.sampled_from([1, 2.0, "NaN", None, 10**20]),
    ),
)
OTHERS = st.one_of(
    event("trial_suggested", trial_id=IDS, config=CONFIGS, config_id="c", state={}),
    event("trial_started", trial_id=IDS, attempt=ATTEMPTS, gpus=0.5),
    event("trial_started", trial_id=IDS, attempt=ATTEMPTS, gpus=0.5),
    event("rung_decided", trial_id=IDS, attempt=0, rung=1, value=0.5, cutoff=0.4, kept=st.booleans()),
    event(
        "trial_ended", trial_id=IDS, attempt=0, status=st.sampled_from(["completed", "failed", "interrupted", "odd"])
    ),
    event("trial_ended", trial_id=IDS, status="interrupted", reason='of "event":"trial_reported"', cause="killed"),
    event("run_started", experiment=st.sampled_from([{"metric": "loss", "mode": "max"}, {"metric": "acc"}, {}, 3])),
    event("run_ended", status="completed"),
    event("from_the_future", trial_id=3),
)
DAMAGE = st.sampled_from(
    [
        lambda line: line[: len(line) // 2],
        lambda line: line + b" x",
        lambda line: line + line,
        lambda line: line.replace(b'"attempt":', b'"attempt":1,"attempt":'),
        lambda line: line.replace(b"{", b'{"', 1),
        lambda line: b"[" * 3000 + b"]" * 3000,
        lambda line: line.replace(b"time", b"t\xffme"),
        lambda line: line.replace(b'"metrics":{', b'"metrics":{"\\ud800":1,'),
        lambda line: line.replace(b'"v":1', b'"v": 1'),
        lambda line: line.replace(b'"v":1', b'"v":null'),
        lambda line: b"",
        lambda line: b" \r",
        lambda line: b"\n" + line,
        lambda line: line + b"\r",
        lambda line: b"5",
        lambda line: line.replace(b'"time":', b'"time":-'),
        lambda line: line.replace(b'"time":', b'"time":1e9'),
        lambda line: line.replace(b"}", b"", 1),
        lambda line: line.replace(b":1,", b":1,\n", 2),
    ]
)


@st.composite
def journals(draw: st.DrawFn) -> bytes:
    """A journal's bytes: mostly stretches of sound reports, which are read quickly, and anything between them."""
    lines: list[bytes] = []
    for _ in range(draw(st.integers(0, 8))):
        lot = draw(st.one_of(st.lists(REPORTED, max_size=8), st.lists(OTHERS, max_size=4), st.lists(WILD, max_size=3)))
        for fields in lot:
            stamp = {"v": 1, "time": 1.7e9 + len(lines)}
            line = json.dumps({**stamp, **fields}, separators=(",", ":")).encode()
            if draw(st.integers(0, 9)) == 0:
                line = draw(DAMAGE)(line)
            lines.append(line)
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


def plain_trials(run: history.History) -> pd.DataFrame:
    """The frame, a row at a time."""
    rows = []
    for trial in run.trials.values():
        started = not math.isnan(trial.started_at)
        row: dict[str, Any] = {
            "trial_id": trial.trial_id,
            "config_id": trial.config_id,
            "status": trial.status,
            "reason": trial.reason,
            "fidelity": float(trial.fidelity),
            "attempt": trial.attempt if started else None,
            "started_at": trial.started_at,
            "duration_s": trial.last_seen - trial.started_at,
            **{f"config/{key}": value for key, value in trial.config.items()},
        }
        for report in trial.reports:
            row.update({metric_name(name): float(value) for name, value in report.metrics.items()})
        best = trial.best_report(run.metric, run.mode)
        if any(run.metric in report.metrics for other in run.trials.values() for report in other.reports):
            row[f"{run.metric}_best"] = float(best.metrics[run.metric]) if best else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def metric_name(name: str) -> str:
    return f"metrics/{name}" if name == "fidelity" else name


def plain_reports(run: history.History) -> pd.DataFrame:
    rows = [
        {
            "trial_id": trial.trial_id,
            "attempt": row.attempt,
            "fidelity": float(row.fidelity),
            "elapsed_s": float(row.elapsed_s),
            **{metric_name(name): float(value) for name, value in row.metrics.items()},
        }
        for trial in run.trials.values()
        for row in trial.reports
    ]
    return pd.DataFrame(rows)


def equal(made: pd.DataFrame, plain: pd.DataFrame) -> None:
    """The same columns, and in them the same values, whatever their types."""
    made = made.drop(columns="run")
    assert len(made) == len(plain)
    if not len(plain):
        return
    assert set(made.columns) == set(plain.columns)
    for name in plain.columns:
        ours = made[name]
        if name == "started_at":
            ours = (ours - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(1, "s")
        for a, b in zip(ours.tolist(), plain[name].tolist(), strict=True):
            lacking = [isinstance(v, float | None | type(pd.NA)) and (v is None or pd.isna(v)) for v in (a, b)]
            assert all(lacking) or a == b, (name, a, b)


@settings(deadline=None, max_examples=400)
@given(data=journals(), living=st.booleans(), few=st.integers(1, 5))
def test_columns_hold_what_the_history_does(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, living: bool, few: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / journal.FILE_NAME).write_bytes(data)
    if living:
        lock.Lock(folder)._done.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "_FEW", few)
        run = history.load(folder)
        made = read(Place(str(folder)))
        assert made.damaged == run.damaged
        assert made.experiment == run.experiment
        equal(load_results(folder), plain_trials(run))
        equal(load_results(folder, "reports"), plain_reports(run))
        decided = load_results(folder, "rungs")
        assert {trial for trials in run.rungs.values() for trial in trials} == set(decided["trial_id"])
        for level in ("failures", "cost"):
            load_results(folder, level)  # type: ignore[arg-type]


def test_sound_reports_are_read_many_at_a_time(tmp_path: Path) -> None:
    lines = []
    for number in range(1000):
        metrics = {"loss": number / 7, **({"test": 1.0} if number % 50 == 49 else {})}
        fields = {"v": 1, "time": 1.7e9 + number, "event": "trial_reported", "trial_id": f"{number // 50:04d}"}
        fields |= {"attempt": 0, "fidelity": float(number % 50), "metrics": metrics, "elapsed_s": 0.1}
        lines.append(json.dumps(fields, separators=(",", ":")))
    (tmp_path / journal.FILE_NAME).write_text("\n".join(lines))
    slowly = 0
    with pytest.MonkeyPatch.context() as patch:
        one_by_one = reports.Reports._slowly

        def counted(self: reports.Reports, lines: list[bytes], positions: Any) -> None:
            nonlocal slowly
            slowly += len(lines)
            one_by_one(self, lines, positions)

        patch.setattr(reports.Reports, "_slowly", counted)
        frame = load_results(tmp_path, "reports")
    assert slowly < 200
    assert frame["loss"].tolist() == [number / 7 for number in range(1000)]
    assert np.flatnonzero(frame["test"].notna()).tolist() == list(range(49, 1000, 50))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_what_attempts_cost_adds_up_to_the_runs_totals(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    events = Story(seed).events
    lines = [json.dumps(journal.encode(event), separators=(",", ":")) for event in events]
    (folder / journal.FILE_NAME).write_text("\n".join(lines) + "\n")
    run = history.load(folder)
    cost = load_results(folder, "cost")
    assert cost["trained"].sum() == pytest.approx(run.tally.total_fidelity)
    assert cost["gpu_s"].sum() == pytest.approx(3600 * run.tally.gpu_hours(run.tally.last_seen))
    assert (cost["duration_s"] >= 0).all()
    assert set(cost["status"].dropna()) <= {"completed", "stopped", "failed", "out_of_memory", "interrupted"}
    failed = load_results(folder, "failures")
    ended = [event for event in events if event["event"] == "trial_ended"]
    assert len(failed) == sum(event["status"] in ("failed", "out_of_memory") for event in ended)
    rungs = load_results(folder, "rungs")
    assert rungs["kept"].tolist() == [event["kept"] for event in events if event["event"] == "rung_decided"]
