"""What people see: the live table, plain lines, the answer; from histories, without a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hpo_ray import history
from hpo_ray.results.summary import summarise
from hpo_ray.screen import answer, configured, duration, failures, live_table, number, plain_line
from tests.results.test_frame import write_run


def shown(renderable: object, width: int = 120) -> str:
    console = Console(width=width, record=True, color_system=None, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_live_table_says_how_the_run_stands(tmp_path: Path) -> None:
    run = history.load(write_run(tmp_path / "r", live=True, ended=False))
    text = shown(live_table(run.tally, now=run.tally.started_at + 30))
    assert "r  3/4 trials · 30 s · about 10 s left · 1 running · 1 failed" in text
    assert "rungs  1: 0 of 1 went on" in text
    assert "best   loss 0.2 · trial 0000 · lr=0.1  momentum=0.9  layers=0" in text
    assert "0003       1   0.6   0.6  lr=0.4  layers=3" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_of_the_live_table_wraps(tmp_path: Path, width: int) -> None:
    run = history.load(write_run(tmp_path / "r", live=True, ended=False))
    assert len(shown(live_table(run.tally), width).splitlines()) <= 8


def test_failures_are_grouped_with_a_place_to_look(tmp_path: Path) -> None:
    run = history.load(write_run(tmp_path / "r"))
    text = shown(failures(run), 300)
    assert "1 × nan" in text
    assert "trials/0002/attempt-0/output.log" in text


def test_the_answer_of_a_run_that_never_got_anywhere(tmp_path: Path) -> None:
    run = history.fold(tmp_path / "r", [])
    text = shown(answer(summarise(run), run), 300)
    assert "none: no trial reported a finite value" in text
    assert "hpo-ray resume" in text


def test_plain_lines_are_sparse_but_failures_are_told_at_once(tmp_path: Path) -> None:
    run = history.load(write_run(tmp_path / "r"))
    ended = {"event": "trial_ended", "trial_id": "0000", "time": run.tally.started_at + 5}
    assert plain_line(run, ended, run.tally.started_at) is None
    later = plain_line(run, {**ended, "time": run.tally.started_at + 60}, run.tally.started_at)
    assert later is not None
    assert "3/4 trials" in later
    failed = plain_line(run, {**ended, "trial_id": "0002"}, run.tally.started_at)
    assert failed == "trial 0002 failed: nan"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (float("nan"), "–")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_configurations() -> None:
    assert number(0.000123456) == "0.0001235"
    assert number(float("nan")) == "–"
    assert configured({"lr": 0.00312345, "units": 64, "opt": "sgd"}) == "lr=0.003123  units=64  opt=sgd"
