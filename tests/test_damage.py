"""Damaged journal lines, checkpoints that not each report has, objectives that fork: nothing is lost or redone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import history, journal, runner, snapshot
from hpo_ray.errors import InvalidInput

pytestmark = pytest.mark.usefixtures("ray_here")

SPACE = {"x": "uniform(0, 1)"}


def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    trial.report(loss=config["x"])


def damage(run_dir: Path, *, event: str, trial_id: str) -> None:
    """Spoil the lines of one kind and trial; leave out how that trial and the run ended, as if the driver had died."""
    lines = []
    for line in (run_dir / journal.FILE_NAME).read_text().splitlines():
        known = json.loads(line)
        if known["event"] == event and known.get("trial_id") == trial_id:
            line = line[:20]
        elif known["event"] == "run_ended" or (known["event"], known.get("trial_id")) == ("trial_ended", trial_id):
            continue
        lines.append(line)
    (run_dir / journal.FILE_NAME).write_text("\n".join(lines) + "\n")
    (run_dir / snapshot.FILE_NAME).unlink()


@pytest.mark.parametrize(
    "searcher", ["gp_ei", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "hyperopt"))]
)
def test_a_trial_whose_suggestion_is_damaged_is_not_run_with_nothing(in_tmp: Path, searcher: str) -> None:
    options: dict[str, Any] = {"searcher": searcher, "slots": 1, "seed": 3}
    whole = hpo_ray.run(objective, SPACE, trials=6, out=in_tmp / "whole", **options).frame()
    run = hpo_ray.run(objective, SPACE, trials=4, out=in_tmp / "r", **options)
    damage(run.path, event="trial_suggested", trial_id="0002")
    said: list[str] = []
    listener = lambda event, run: said.append(event.get("text", ""))  # noqa: E731
    runner.resume(run.path, add_trials=2, objective=objective, listener=listener)
    trials = hpo_ray.load_results(run.path)
    assert list(trials["trial_id"]) == [f"{n:04d}" for n in range(6)]
    lost = trials.set_index("trial_id").loc["0002"]
    assert lost["status"] == "failed"
    assert "its configuration is lost" in lost["reason"]
    assert lost["loss"] == whole["loss"][2]  # what it measured is kept
    assert trials["config_id"].is_unique
    assert any("1 damaged line" in text for text in said)
    if searcher == "random":  # those that learn have one result less to learn from
        assert list(trials["config/x"].drop(2)) == list(whole["config/x"].drop(2))


def test_a_trial_of_which_no_line_is_left_leaves_its_number_unused(in_tmp: Path) -> None:
    run = hpo_ray.run(objective, SPACE, searcher="random", trials=4, slots=1, out=in_tmp / "r")
    path = run.path / journal.FILE_NAME
    kept = [line for line in path.read_text().splitlines() if '"0001"' not in line and '"run_ended"' not in line]
    path.write_text("\n".join(kept) + "\n")
    again = hpo_ray.resume(run.path, objective, add_trials=1).frame()
    assert list(again["trial_id"]) == ["0000", "0002", "0003", "0004"]
    assert (again["attempt"] == 0).all()


def test_a_damaged_first_line_is_told_and_spoils_no_other_run(in_tmp: Path) -> None:
    for name in ("a", "b"):
        hpo_ray.run(objective, SPACE, searcher="random", trials=2, out=in_tmp / name)
    path = in_tmp / "a" / journal.FILE_NAME
    path.write_text("garbage\n" + path.read_text().split("\n", 1)[1])
    (in_tmp / "a" / snapshot.FILE_NAME).unlink()
    assert len(hpo_ray.load_results(in_tmp / "*")) == 4
    assert snapshot.load(in_tmp / "a").finished == 2
    with pytest.raises(InvalidInput, match="first event"):
        hpo_ray.resume(in_tmp / "a", objective)


def test_the_best_checkpoint_that_there_is_is_kept(in_tmp: Path) -> None:
    def sparse(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        for epoch in range(1, 8):
            save = (lambda folder: (folder / "w").touch()) if epoch % 3 == 0 else None
            trial.report(epoch=epoch, loss=abs(epoch - 4.0), checkpoint=save)
        (trial.dir / "checkpoint-500").mkdir()  # the objective's own

    run = hpo_ray.run(sparse, SPACE, searcher="random", fidelity="epoch", trials=3, out=in_tmp / "r")
    kept = sorted(path.relative_to(run.path / "trials").as_posix() for path in run.path.glob("trials/*/*/checkpoint-3"))
    assert kept == [f"000{n}/attempt-0/checkpoint-3" for n in range(3)]
    assert not list(run.path.glob("trials/*/*/checkpoint-6"))
    hpo_ray.resume(run.path, sparse, add_trials=1)
    assert len(list(run.path.glob("trials/*/*/checkpoint-500"))) == 4


def test_a_process_that_the_objective_forks_is_not_its_trial(in_tmp: Path) -> None:
    def forks(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(loss=1.0)
        child = os.fork()
        if not child:
            raise SystemExit(3)
        trial.report(loss=float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))

    run = hpo_ray.run(forks, SPACE, searcher="random", trials=2, out=in_tmp / "r")
    assert list(run.frame()["status"]) == ["completed", "completed"]
    assert list(run.frame()["loss"]) == [3.0, 3.0]


def test_a_killed_worker_is_noticed_though_its_child_lives(in_tmp: Path) -> None:
    def leaves_a_child(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(loss=1.0)
        if not os.fork():
            time.sleep(300)
        os.kill(os.getpid(), signal.SIGKILL)

    started = time.monotonic()
    run = hpo_ray.run(
        leaves_a_child, SPACE, searcher="random", trials=1, out=in_tmp / "r", overrides=["retry.max_retries=0"]
    )
    assert time.monotonic() - started < 60
    assert "SIGKILL" in run.frame()["reason"][0]


def test_a_stopped_run_has_no_running_trials(in_tmp: Path) -> None:
    def slow(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        for epoch in range(1, 100):
            time.sleep(0.1)
            trial.report(epoch=epoch, loss=1 / epoch)

    overrides = ["stop.wall_time_s=2"]
    run = hpo_ray.run(slow, SPACE, searcher="random", fidelity="epoch", slots=2, out=in_tmp / "r", overrides=overrides)
    assert run.best["running"] == 0
    assert not snapshot.load(run.path).open or all(
        trial["status"] == "interrupted" for trial in snapshot.load(run.path).open.values()
    )
    assert history.load(run.path).ended is not None
