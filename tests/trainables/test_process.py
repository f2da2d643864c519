"""A worker process under its parent: reports, ends, deaths, leaks and slow clean-up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo_ray.trainables.trial import Report, Trial, TrialSpec
from hpo_ray.trainables.worker import Ended


def spec_for(folder: Path, number: int = 0, **config: Any) -> TrialSpec:
    trial_dir = folder / f"{number:04d}" / "attempt-0"
    return TrialSpec(f"{number:04d}", config, seed=number, attempt=0, dir=trial_dir, fidelity="epoch", metric="loss")


def test_reports_arrive_one_by_one_and_wait_for_the_decision(start: Callable, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        for epoch in range(1, 4):
            trial.report(epoch=epoch, loss=config["x"] / epoch)

    worker = start(objective)
    worker.run(spec_for(tmp_path, x=6.0))
    for epoch in range(1, 4):
        report = worker.next_message(30)
        assert isinstance(report, Report)
        assert (report.fidelity, report.metrics) == (epoch, {"epoch": epoch, "loss": 6.0 / epoch})
        assert worker.next_message(0.05) is None  # blocked until decided
        worker.decide(True)
    assert worker.next_message(30) == Ended("completed")


def test_a_stopped_trial_unwinds_even_past_except_exception(start: Callable, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        try:
            try:
                trial.report(epoch=1, loss=1.0)
            except Exception:
                Path(config["wrong"]).touch()
        finally:
            Path(config["unwound"]).touch()
        Path(config["wrong"]).touch()

    worker = start(objective)
    worker.run(spec_for(tmp_path, wrong=str(tmp_path / "wrong"), unwound=str(tmp_path / "unwound")))
    assert isinstance(worker.next_message(30), Report)
    worker.decide(False)
    assert worker.next_message(30) == Ended("stopped")
    assert (tmp_path / "unwound").exists()
    assert not (tmp_path / "wrong").exists()


def test_an_exception_comes_back_with_the_objectives_own_frames(start: Callable, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        print("about to fail")
        raise ValueError("units must be positive")

    worker = start(objective)
    spec = spec_for(tmp_path)
    worker.run(spec)
    ended = worker.next_message(30)
    assert isinstance(ended, Ended)
    assert (ended.status, ended.reason) == ("failed", "ValueError: units must be positive")
    assert "in objective" in ended.traceback
    assert "worker.py" not in ended.traceback
    assert "about to fail" in (spec.dir / "output.log").read_text()
    worker.run(spec_for(tmp_path, 1))  # the process lives on
    assert isinstance(worker.next_message(30), Ended)


def test_a_process_whose_memory_grew_gives_itself_up(start: Callable, tmp_path: Path) -> None:
    kept: list[bytearray] = []

    def objective(config: dict, trial: Trial) -> None:
        kept.append(bytearray(config["mb"] * 2**20))
        trial.report(epoch=1, loss=0.0)

    worker = start(objective, max_growth_mb=100)
    ends = []
    for number, mb in enumerate((10, 10, 150)):
        worker.run(spec_for(tmp_path, number, mb=mb))
        assert isinstance(worker.next_message(30), Report)
        worker.decide(True)
        ends.append(worker.next_message(30))
    assert [bool(end.replaced) for end in ends] == [False, False, True]  # type: ignore[union-attr]
    assert "grew by" in ends[-1].replaced  # type: ignore[union-attr]


def test_the_process_dies_with_its_parents_end_of_the_pipe(start: Callable, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        time.sleep(60)

    worker = start(objective)
    worker.run(spec_for(tmp_path))
    time.sleep(0.5)
    os.close(worker._life_line)
    ended = worker.next_message(10)
    assert isinstance(ended, Ended)
    assert "SIGKILL" in ended.reason
    worker._life_line = os.open(os.devnull, os.O_RDONLY)  # for close() to close


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([{"epoch": 2, "loss": 1.0}, {"epoch": 2, "loss": 1.0}], "epoch=2 was reported after epoch=2"),
        ([{"epoch": 2, "loss": 1.0}, {"epoch": 1, "loss": 1.0}], "epoch=1 was reported after epoch=2"),
        ([{"loss": "low"}], "report(loss=…) got str 'low', expected a number"),
        ([{"loss": [1, 2]}], "report(loss=…) got list [1, 2], expected a number"),
    ],
)
def test_a_wrong_report_fails_the_trial_and_says_why(
    start: Callable, tmp_path: Path, reports: list[dict], message: str
) -> None:
    def objective(config: dict, trial: Trial) -> None:
        for metrics in config["reports"]:
            trial.report(**metrics)

    worker = start(objective)
    worker.run(spec_for(tmp_path, reports=reports))
    while isinstance(ended := worker.next_message(30), Report):
        worker.decide(True)
    assert isinstance(ended, Ended)
    assert message in ended.reason
