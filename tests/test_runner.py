"""Whole runs on a real Ray: what reaches the journal, the frames and the caller, whatever objectives do."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpo_ray
from hpo_ray import journal, runner
from hpo_ray.results import source, tables

pytestmark = pytest.mark.usefixtures("ray_here")


def parabola(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    for epoch in range(1, 10):
        trial.report(epoch=epoch, loss=(config["x"] - 0.3) ** 2 + 1 / epoch)


ASHA = {"name": "asha", "max_t": 9}


def events_of(run: hpo_ray.Run, kind: str) -> list[dict[str, Any]]:
    return [event for event in journal.read(run.path).events if event["event"] == kind]


def test_a_run_ends_in_pandas(in_tmp: Path) -> None:
    run = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, scheduler=ASHA, fidelity="epoch", trials=12, out=in_tmp / "r")
    trials = run.frame()
    expected = [
        "run",
        "trial_id",
        "config_id",
        "status",
        "reason",
        "fidelity",
        "attempt",
        "started_at",
        "duration_s",
        "config/x",
        "epoch",
        "loss",
        "loss_best",
    ]
    assert list(trials.columns) == expected
    assert list(trials["trial_id"]) == [f"{n:04d}" for n in range(12)]
    assert set(trials["status"]) <= {"completed", "stopped"}
    assert (trials.loc[trials["status"] == "completed", "fidelity"] == 9).all()
    assert trials.loc[trials["status"] == "stopped", "reason"].str.contains("ranked").all()
    assert str(trials["started_at"].dtype).startswith("datetime64[")
    assert str(trials["started_at"].dt.tz) == "UTC"
    reports = run.frame("reports")
    assert list(reports.columns) == ["run", "trial_id", "attempt", "fidelity", "elapsed_s", "epoch", "loss"]
    assert len(reports) == trials["fidelity"].sum()
    pd.testing.assert_frame_equal(hpo_ray.load_results(run.path), trials)
    pd.testing.assert_frame_equal(hpo_ray.load_results(run.path, level="reports"), reports)
    assert run.best["best_value"] == pytest.approx(trials["loss"].min())


def test_rung_decisions_in_the_journal_follow_the_rule(in_tmp: Path) -> None:
    run = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, scheduler=ASHA, fidelity="epoch", trials=15, out=in_tmp / "r")
    seen: dict[float, list[float]] = {}
    for event in events_of(run, "rung_decided"):
        values = seen.setdefault(event["rung"], [])
        values.append(event["value"])
        rank = 1 + sum(value <= event["value"] for value in values[:-1])
        assert event["kept"] == (rank <= max(1, len(values) // 3))
        assert event["cutoff"] == sorted(values)[max(1, len(values) // 3) - 1]
    assert set(seen) == {1, 3}


def test_maximising_is_minimising_with_the_sign_turned(in_tmp: Path) -> None:
    def negative(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        for epoch in range(1, 10):
            trial.report(epoch=epoch, score=-((config["x"] - 0.3) ** 2 + 1 / epoch))

    options: dict[str, Any] = {"scheduler": ASHA, "fidelity": "epoch", "trials": 10, "slots": 1, "seed": 2}
    down = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, out=in_tmp / "down", **options)
    up = hpo_ray.run(negative, {"x": "uniform(0, 1)"}, metric="score", mode="max", out=in_tmp / "up", **options)
    assert up.best["best_trial"] == down.best["best_trial"]
    assert up.best["best_value"] == pytest.approx(-down.best["best_value"])
    assert list(up.frame()["status"]) == list(down.frame()["status"])


def test_a_lost_actor_costs_its_own_trial_a_restart(in_tmp: Path) -> None:
    def deadly(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        if config["n"] == 1 and trial.attempt == 0:
            os.kill(os.getppid(), signal.SIGKILL)  # the Ray actor, as a lost node would
            time.sleep(30)
        trial.report(loss=1.0)

    space = {"n": "choice(0, 1, 2)"}
    rules = ["retry.max_retries=0"]  # it is not the trial's fault
    run = hpo_ray.run(deadly, space, searcher="grid", trials=3, slots=1, out=in_tmp / "r", overrides=rules)
    trials = run.frame()
    assert (trials["status"] == "completed").all()
    assert list(trials["attempt"]) == [0, 1, 0]
    [lost] = [event for event in events_of(run, "trial_ended") if event["status"] == "interrupted"]
    assert (lost["trial_id"], lost["cause"]) == ("0001", "lost")
    assert lost["reason"].endswith("; attempt 1 follows")


@pytest.mark.parametrize(
    ("reported", "options", "message"),
    [
        ({"los": 1.0}, {}, "metric: the objective does not report 'loss'; did you mean 'los'?"),
        ({"loss": 1.0, "step": 1}, {"scheduler": ASHA, "fidelity": "epoch"}, "does not report 'epoch'"),
    ],
)
def test_an_objective_without_its_metric_is_stopped_at_the_first_report(
    in_tmp: Path, reported: dict[str, float], options: dict[str, Any], message: str
) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(**config["reported"])

    space = {"x": "uniform(0, 1)"}
    objective_with = lambda config, trial: objective({"reported": reported}, trial)  # noqa: E731
    with pytest.raises(hpo_ray.InvalidInput) as caught:
        hpo_ray.run(objective_with, space, trials=20, out=in_tmp / "r", **options)
    assert message in str(caught.value)
    trials = hpo_ray.load_results(in_tmp / "r")
    assert len(trials) <= 3
    [end] = [event for event in journal.read(in_tmp / "r").events if event["event"] == "run_ended"]
    assert end["status"] == "failed"


@pytest.mark.parametrize("searcher", ["random", "hyperopt", pytest.param("grid", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_configurations(in_tmp: Path, searcher: str) -> None:
    def once(folder: str, slots: int, scheduler: Any) -> list[dict[str, Any]]:
        space = {"x": "uniform(0, 1, grid=5)", "k": "choice(a, b, c)"}
        run = hpo_ray.run(
            parabola,
            space,
            searcher=searcher,
            trials=15,
            seed=7,
            slots=slots,
            scheduler=scheduler,
            fidelity="epoch",
            out=in_tmp / folder,
        )
        return [event["config"] for event in events_of(run, "trial_suggested")]

    if searcher == "hyperopt":  # learns from results, so only the order of one slot and no scheduler is certain
        assert once("a", 1, "none") == once("b", 1, "none")
    else:
        assert once("a", 1, ASHA) == once("b", 2, ASHA) == once("c", 2, "none")


def test_a_leak_replaces_the_process_and_never_fails_a_trial(in_tmp: Path) -> None:
    kept: list[bytearray] = []

    def leaky(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        kept.append(bytearray(60 * 2**20))
        trial.report(loss=config["x"], pid=os.getpid(), kept=len(kept))

    run = hpo_ray.run(
        leaky, {"x": "uniform(0, 1)"}, trials=16, slots=2, out=in_tmp / "r", overrides=["resources.max_growth_mb=100"]
    )
    trials = run.frame()
    assert (trials["status"] == "completed").all()
    assert trials["pid"].nunique() >= 4
    assert trials["kept"].max() <= 4
    assert any("grew by" in event.get("replaced", "") for event in events_of(run, "trial_ended"))


def test_slow_clean_up_never_fails_a_trial(in_tmp: Path) -> None:
    def slow(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        try:
            for epoch in range(1, 10):
                trial.report(epoch=epoch, loss=config["x"])
        finally:
            time.sleep(5)
            (trial.dir / "unwound").touch()

    run = hpo_ray.run(
        slow, {"x": "uniform(0, 1)"}, scheduler=ASHA, fidelity="epoch", trials=8, slots=2, seed=1, out=in_tmp / "r"
    )
    trials = run.frame()
    assert set(trials["status"]) == {"completed", "stopped"}
    assert len(list(run.path.glob("trials/*/attempt-0/unwound"))) == 8


def test_checkpoints_are_journalled_beside_the_run(in_tmp: Path) -> None:
    def saving(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        for epoch in range(1, 4):
            trial.report(epoch=epoch, loss=1 / epoch, checkpoint=lambda folder: (folder / "w").write_text("x"))

    run = hpo_ray.run(saving, {"x": "uniform(0, 1)"}, fidelity="epoch", trials=2, out=in_tmp / "r")
    paths = {event["path"] for event in events_of(run, "trial_checkpointed")}
    assert "trials/0000/attempt-0/checkpoint-3" in paths
    assert (run.path / "trials/0000/attempt-0/checkpoint-3/w").read_text() == "x"


def test_constants_reach_the_objective_but_are_no_columns(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(loss=config["x"] + config["shift"])

    run = hpo_ray.run(objective, {"x": "uniform(0, 1)", "shift": 5}, trials=2, out=in_tmp / "r")
    trials = run.frame()
    assert [name for name in trials.columns if name.startswith("config/")] == ["config/x"]
    assert (trials["loss"] >= 5).all()
    assert run.best["best_config"].keys() == {"x"}


def test_provenance_is_in_the_first_event(in_tmp: Path) -> None:
    run = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, trials=1, seed=5, out=in_tmp / "r")
    [start] = events_of(run, "run_started")
    assert start["experiment"]["seed"] == 5
    assert start["experiment"]["space"] == {"x": "uniform(0, 1)"}
    environment = start["environment"]
    assert {"python", "ray", "torch", "hpo-ray"} <= environment["versions"].keys()
    assert environment["pid"] == os.getpid()
    assert {"host", "git", "cpus", "gpus", "command", "cwd"} <= environment.keys()


def test_nothing_in_the_run_directory_is_pickled_or_left_over(in_tmp: Path) -> None:
    run = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, trials=2, out=in_tmp / "r")
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert names == {
        "events.jsonl",
        "snapshot.json",
        "trials/0000/attempt-0/output.log",
        "trials/0001/attempt-0/output.log",
    }
    for line in (run.path / "events.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_large_journal_has_its_rows_beside_it_when_the_run_ends(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hpo_ray.run(parabola, {"x": "uniform(0, 1)"}, metric="loss", trials=2, out=in_tmp / "r")
    assert not (run.path / "frames").exists()
    monkeypatch.setattr(runner, "LARGE_JOURNAL", 1000)
    run = hpo_ray.resume(run.path, train=parabola, add_trials=2)
    assert sorted(path.stem for path in (run.path / "frames").iterdir()) == sorted(tables.COLUMNS)
    monkeypatch.setattr(source, "read", lambda place: pytest.fail("it read the journal"))
    assert run.frame()["trial_id"].tolist() == ["0000", "0001", "0002", "0003"]
