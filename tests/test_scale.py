"""The benchmarks of scale: their loop drives a whole sweep, and tells of every event once. Nothing is timed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hpo_ray import history, journal

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import scale_loop  # noqa: E402


@pytest.mark.parametrize("searcher", ["random", "hyperopt", "gp_ei"])
def test_the_loop_drives_a_sweep_to_its_end(tmp_path: Path, searcher: str) -> None:
    chunks, _ = scale_loop.sweep(tmp_path / "run", searcher, 6, 30)
    run = history.load(tmp_path / "run")
    assert len(run.trials) == run.tally.finished == chunks["suggest_n"].sum() == chunks["end_n"].sum() == 30
    assert run.tally.counts["stopped"] > run.tally.counts["completed"] > 0
    assert chunks["report_n"].sum() == sum(len(trial.reports) for trial in run.trials.values())
    assert 0 < len(list((tmp_path / "run").glob("trials/*/attempt-*/checkpoint-*"))) <= 5
    windows = scale_loop.windows(chunks)
    assert windows["events"].sum() == chunks["report_n"].sum() + 60
    assert windows["trials_so_far"].iloc[-1] == 30


def test_slots_are_used_at_the_same_time(tmp_path: Path) -> None:
    scale_loop.sweep(tmp_path / "run", "random", 8, 20)
    events = pd.DataFrame(journal.read(tmp_path / "run").events)
    running = (events["event"] == "trial_started").cumsum() - (events["event"] == "trial_ended").cumsum()
    assert running.max() == 8


def test_the_script_writes_a_table_and_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/scale_loop.py", "--searchers", "random,gp_ei", "--slots", "3,50"]
    out = tmp_path / "made" / "scale.csv"
    done = subprocess.run(
        [*command, "--trials", "12", "--slow", "5", "--out", str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(out)
    assert set(table["searcher"]) == {"random"}
    assert set(table["slots"]) == {3}  # none with more slots than trials
    assert (table["event_us"] > 0).all()
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
