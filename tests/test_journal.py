"""The event log: what is written is what is read, whatever happened in between."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_ray import journal
from hpo_ray.errors import InvalidInput, RunFailed
from hpo_ray.journal import FILE_NAME, Journal

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=60)
@given(metrics=st.dictionaries(st.text(min_size=1), NUMBERS, max_size=4), fidelity=st.floats(0, 1e6))
def test_metrics_come_back_as_they_were_reported(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float], fidelity: float
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with Journal(folder) as log:
        log.append("trial_reported", trial_id="0000", attempt=0, fidelity=fidelity, metrics=metrics, elapsed_s=0.1)
    [event] = journal.read(folder).events
    assert event["fidelity"] == fidelity
    assert event["metrics"].keys() == metrics.keys()
    for name, value in metrics.items():
        assert event["metrics"][name] == value or (math.isnan(value) and math.isnan(event["metrics"][name]))


def test_every_line_is_strict_json_and_a_configs_strings_stay_strings(tmp_path: Path) -> None:
    with Journal(tmp_path) as log:
        config = {"a": "NaN", "b": np.int64(3), "c": (1, 2), "d": np.float32(0.5), "e": None, "f": np.bool_(True)}
        log.append("trial_suggested", trial_id="0000", config=config, config_id="x")
        log.append("trial_reported", trial_id="0000", attempt=0, fidelity=1, metrics={"loss": math.nan}, elapsed_s=0)
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    documents = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in lines]
    assert documents[1]["metrics"] == {"loss": "NaN"}
    expected = {"a": "NaN", "b": 3, "c": [1, 2], "d": 0.5, "e": None, "f": True}
    assert journal.read(tmp_path).events[0]["config"] == expected


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(1, 200))
def test_a_torn_tail_costs_one_event_and_the_next_writer_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with Journal(folder) as log:
        for number in range(5):
            log.append("trial_started", trial_id=f"{number:04d}", attempt=0)
    path = folder / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    complete = path.read_bytes().count(b"\n")
    torn = journal.read(folder)
    # A line torn just before its end is whole but for the newline: it still counts, and goes on to count.
    assert len(torn.events) - complete in (0, 1)
    assert torn.damaged <= 1
    with Journal(folder) as log:
        log.append("run_ended", status="interrupted")
    after = journal.read(folder)
    assert after.damaged == 0
    assert [event["event"] for event in after.events] == ["trial_started"] * len(torn.events) + ["run_ended"]


def test_unknown_events_are_skipped_and_damaged_lines_counted(tmp_path: Path) -> None:
    lines = [
        '{"v":2,"time":1,"event":"from_the_future"}',
        '{"v":1,"time":2,"event":"run_ended","status":"completed"}',
        "not json",
        '["no", "event"]',
        "\x00\x00",
    ]
    (tmp_path / FILE_NAME).write_text("\n".join(lines))
    found = journal.read(tmp_path)
    assert [event["event"] for event in found.events] == ["run_ended"]
    assert found.damaged == 3


def test_a_reader_sees_each_event_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path) as log:
        for number in range(3):
            log.append("trial_started", trial_id=f"{number:04d}", attempt=0)
            assert len(journal.read(tmp_path).events) == number + 1


class FillsUp:
    """A raw file on a disk that takes `room` more bytes."""

    def __init__(self, file: io.FileIO, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: self.room]
        self.room -= len(taken)
        return self.file.write(taken) or 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_is_an_error_that_leaves_no_half_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as log:
        log.append("run_started", experiment={})
        log._file = FillsUp(log._file, 10)  # type: ignore[assignment]
        with pytest.raises(RunFailed, match="No space left on device"):
            log.append("run_ended", status="completed")
    found = journal.read(tmp_path)
    assert [event["event"] for event in found.events] == ["run_started"]
    assert found.damaged == 0


def test_a_full_disk_is_waited_for_where_there_is_somebody_to_tell(tmp_path: Path) -> None:
    told: list[str] = []
    with Journal(tmp_path, on_full=told.append) as log:
        full = log._file = FillsUp(log._file, 10)  # type: ignore[assignment]
        threading.Timer(0.5, lambda: setattr(full, "room", 10_000)).start()
        log.append("run_started", experiment={})
        assert log.offset == log.path.stat().st_size
    assert [event["event"] for event in journal.read(tmp_path).events] == ["run_started"]
    assert len(told) == 1
    assert "is full: waiting until there is room" in told[0]


def test_reading_can_start_behind_what_is_known(tmp_path: Path) -> None:
    with Journal(tmp_path) as log:
        log.append("run_started", experiment={})
        known = log.offset
        log.append("run_ended", status="completed")
    assert [event["event"] for event in journal.read(tmp_path, offset=known).events] == ["run_ended"]


def test_what_is_no_run_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a run"):
        journal.read(tmp_path)
    with pytest.raises(InvalidInput, match="no run found"):
        journal.find_runs(tmp_path / "*")


def test_globs_name_runs_and_skip_other_folders(tmp_path: Path) -> None:
    for name in ("b", "a", "other"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        Journal(tmp_path / name).close()
    assert [path.name for path in journal.find_runs(tmp_path / "*")] == ["a", "b"]
    assert [path.name for path in journal.find_runs(str(tmp_path / "a"))] == ["a"]
