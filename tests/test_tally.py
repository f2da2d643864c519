"""A run's totals: the same as its whole history says, however the journal goes and wherever a snapshot was taken."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_ray import journal, snapshot
from hpo_ray.history import History, fold
from hpo_ray.journal import Event, encode
from hpo_ray.snapshot import Snapshots
from hpo_ray.tally import Tally

SEEDS = st.integers(0, 2**32)
FINAL = ("completed", "stopped", "failed", "out_of_memory")


class Story:
    """A run as drivers might have written it: retries, rungs, NaN, deaths of the driver, reports that come too late."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.events: list[Event] = []
        self.clock = 1000.0
        self.open: dict[str, dict[str, Any]] = {}
        self.mode = self.rng.choice(["min", "max"])
        self.began()
        for _ in range(self.rng.randrange(120)):
            self.rng.choice(
                [self.suggested, self.started, *[self.reported] * 4, self.decided, self.ended, self.driver]
            )()

    def write(self, event: str, **fields: Any) -> None:
        self.clock += self.rng.randrange(5)
        self.events.append({"v": 1, "time": self.clock, "event": event, **fields})

    def began(self) -> None:
        plan = {"name": "r", "metric": "loss", "mode": self.mode, "trials": 9, "fidelity": "epoch", "seed": 0}
        self.write("run_started", experiment=plan, environment={})

    def suggested(self) -> None:
        trial_id = f"{sum(event['event'] == 'trial_suggested' for event in self.events):04d}"
        self.open[trial_id] = {"attempt": -1, "reached": 0, "runs": False, "decided": False}
        self.write("trial_suggested", trial_id=trial_id, config={"best": "NaN", "x": 1}, config_id="c", state={})

    def some(self, runs: bool) -> tuple[str, dict[str, Any]]:
        found = [(trial_id, trial) for trial_id, trial in self.open.items() if trial["runs"] == runs]
        return self.rng.choice(found) if found else ("", {})

    def started(self) -> None:
        trial_id, trial = self.some(runs=False)
        if trial_id:
            since = self.rng.choice([0, trial["reached"]])
            trial.update(attempt=trial["attempt"] + 1, runs=True, since=since, reached=since)
            gpus = self.rng.choice([0.0, 0.5, 1.0])
            self.write("trial_started", trial_id=trial_id, attempt=trial["attempt"], ray_id="x", gpus=gpus)

    def reported(self) -> None:
        trial_id, trial = self.some(runs=True)
        if not trial_id:
            return
        late = self.rng.random() < 0.1 and trial["attempt"] > 0
        since = {"since": float(trial["since"])} if trial["since"] else {}
        if not late:
            trial["since"] = 0
            trial["reached"] += self.rng.choice([1, 1, 2])
        # The same whenever it is measured; few values, so that some are equal.
        there = random.Random(f"{trial_id} {trial['reached']}")
        value = there.choice([1.0, 2.0, 3.0, 4.5, math.nan, math.inf])
        told = {"fidelity": float(trial["reached"]), "metrics": {"loss": value} if there.random() < 0.9 else {}}
        self.write("trial_reported", trial_id=trial_id, attempt=trial["attempt"] - late, **told, elapsed_s=0.1, **since)

    def decided(self) -> None:
        trial_id, trial = self.some(runs=True)
        if trial_id and not trial["decided"]:
            trial["decided"] = True
            kept = self.rng.random() < 0.5
            self.write("rung_decided", trial_id=trial_id, attempt=0, rung=3.0, value=1.0, cutoff=1.0, kept=kept)

    def ended(self) -> None:
        trial_id, trial = self.some(runs=True)
        if trial_id:
            status = self.rng.choice([*FINAL, "interrupted", "interrupted"])
            self.write("trial_ended", trial_id=trial_id, attempt=trial["attempt"], status=status, reason="")
            trial["runs"] = False
            if status != "interrupted":
                del self.open[trial_id]

    def driver(self) -> None:
        """Now and then the driver ends, or dies without a word, and another takes over."""
        if self.rng.random() < 0.2:
            if self.rng.random() < 0.5:
                self.write("run_ended", status="interrupted", reason="interrupted")
            self.clock += 10_000
            for trial in self.open.values():
                trial["runs"] = False
            self.began()


def wall_time_s(events: list[Event]) -> float:
    starts = [index for index, event in enumerate(events) if event["event"] == "run_started"]
    ends = [*(index - 1 for index in starts[1:]), len(events) - 1]
    return float(sum(events[end]["time"] - events[start]["time"] for start, end in zip(starts, ends, strict=True)))


def trained(events: list[Event], run: History) -> float:
    """All training: what each attempt reported last, less what it went on from."""
    total, attempts, final = 0.0, dict.fromkeys(run.trials, 0), set()
    spans: dict[tuple[str, int], list[float]] = {}
    for event in events:
        trial_id = event.get("trial_id")
        if event["event"] == "trial_started":
            attempts[trial_id] = event["attempt"]
        elif event["event"] == "trial_reported" and trial_id not in final and event["attempt"] == attempts[trial_id]:
            spans.setdefault((trial_id, event["attempt"]), [event.get("since", 0.0), 0.0])[1] = event["fidelity"]
        elif event["event"] == "trial_ended" and event["status"] != "interrupted":
            final.add(trial_id)
    for start, end in spans.values():
        total += end - start
    return total


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS)
def test_totals_agree_with_the_whole_history(seed: int) -> None:
    events = Story(seed).events
    run = fold(Path("r"), events)
    tally = run.tally
    assert tally.counts == {status: run.count(status) for status in FINAL}
    assert tally.suggested == len(run.trials)
    assert tally.open.keys() == {t.trial_id for t in run.trials.values() if t.status not in FINAL}
    assert all(trial["status"] == run.trials[trial_id].status for trial_id, trial in tally.open.items())
    best = run.best()
    assert (tally.best is None) == (best is None)
    if best is not None and tally.best is not None:
        trial, row = best
        assert tally.best == {
            "trial_id": trial.trial_id,
            "value": row.metrics["loss"],
            "fidelity": row.fidelity,
            "config": trial.config,
        }
    assert tally.rungs == {f"{rung:g}": [sum(kept.values()), len(kept)] for rung, kept in run.rungs.items()}
    assert tally.wall_time_s == pytest.approx(wall_time_s(events))
    assert tally.total_fidelity == pytest.approx(trained(events, run))


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_a_snapshot_from_anywhere_leads_to_the_same_totals(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    story, lines, tally = Story(seed), [], Tally()
    cut = story.rng.randrange(len(story.events) + 1)
    for number, event in enumerate(story.events):
        if number == cut:
            Snapshots(folder).write(tally, sum(map(len, lines)))
        tally.apply(event)
        lines.append(json.dumps(encode(event)).encode() + b"\n")
        (folder / journal.FILE_NAME).write_bytes(b"".join(lines))
    expected = encode(tally.state())
    assert encode(snapshot.load(folder).state()) == expected
    path = folder / snapshot.FILE_NAME
    if path.exists():
        head = f'{{"v":{snapshot.VERSION},"offset":0'.encode()
        whole = path.read_bytes()
        for damaged in (whole[:-20], b"", b"\xff\x00", b"[]", b'{"v":1}', head + b',"tally":[]}', head + b"}"):
            path.write_bytes(damaged)
            assert encode(snapshot.load(folder).state()) == expected
        path.unlink()
    assert encode(snapshot.load(folder).state()) == expected


def test_a_snapshot_of_another_journal_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / journal.FILE_NAME).write_bytes(b'{"v":1,"time":5.0,"event":"run_ended","status":"completed"}\n')
    Snapshots(tmp_path).write(Tally(total_fidelity=7.0), 10_000)
    assert snapshot.load(tmp_path).total_fidelity == 0.0


def test_a_snapshot_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / snapshot.FILE_NAME).mkdir()
    Snapshots(tmp_path).write(Tally(), 0)
    assert list((tmp_path / snapshot.FILE_NAME).iterdir()) == []
