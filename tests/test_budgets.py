"""When a sweep has had enough: each limit by arithmetic, then whole runs that end at one and go on beyond it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import runner
from hpo_ray.budgets import FEWEST_ENDED, broken, spent
from hpo_ray.experiment import RetryConfig
from hpo_ray.journal import Event, Journal
from hpo_ray.tally import Tally
from tests.sweeps import Listener, events_of, experiment, resume, told

SPACE = {"x": "uniform(0, 1)"}


def tally(**state: Any) -> Tally:
    return Tally(head={"metric": "loss"}, started_at=1000.0, last_seen=1050.0, **state)


def best(value: float) -> dict[str, Any]:
    return {"trial_id": "0003", "value": value, "fidelity": 2.0, "config": {}}


def running(**state: Any) -> dict[str, Any]:
    return {"0004": {"gpus": 0.5, "since": 1040.0, **state}}


@pytest.mark.parametrize(
    ("rules", "so_far", "reason"),
    [
        (["stop.wall_time_s=60"], tally(), "stop.wall_time_s=60 reached"),
        (["stop.wall_time_s=60.5"], tally(), ""),
        (["stop.wall_time_s=100"], tally(earlier_s=40.0), "stop.wall_time_s=100 reached"),
        (["stop.total_fidelity=12"], tally(total_fidelity=12.0), "stop.total_fidelity=12 reached"),
        (["stop.total_fidelity=12"], tally(total_fidelity=11.9), ""),
        (["stop.gpu_hours=0.01"], tally(gpu_s=36.0), "stop.gpu_hours=0.01 reached"),
        (["stop.gpu_hours=0.01"], tally(gpu_s=26.0, open=running()), "stop.gpu_hours=0.01 reached"),
        (["stop.gpu_hours=0.01"], tally(gpu_s=25.9, open=running()), ""),
        (["stop.gpu_hours=0.01"], tally(gpu_s=35.9, open=running(since=math.nan)), ""),
        (["stop.target=0.5"], tally(best=best(0.5)), "stop.target=0.5 reached: loss 0.5"),
        (["stop.target=0.5"], tally(best=best(0.51)), ""),
        (["stop.target=0.5"], tally(), ""),
        (["stop.target=0.5", "mode=max"], tally(best=best(0.5)), "stop.target=0.5 reached: loss 0.5"),
        (["stop.target=0.5", "mode=max"], tally(best=best(0.49)), ""),
        (["stop.target=-2", "mode=max"], tally(best=best(-1.5)), "stop.target=-2 reached: loss -1.5"),
        (
            ["stop.plateau_trials=3"],
            tally(since_best=3),
            "stop.plateau_trials=3 reached: no new best in as many trials",
        ),
        (["stop.plateau_trials=3"], tally(since_best=2), ""),
        ([], tally(total_fidelity=1e9, gpu_s=1e9, since_best=10**6, best=best(-1e9)), ""),
    ],
)
def test_each_limit_is_told_when_it_is_reached_and_not_before(rules: list[str], so_far: Tally, reason: str) -> None:
    assert spent(experiment(SPACE, *rules), so_far, now=1060.0) == reason


def ended(failed: int, out_of_memory: int = 0, completed: int = 0, stopped: int = 0) -> Tally:
    counts = {"completed": completed, "stopped": stopped, "failed": failed, "out_of_memory": out_of_memory}
    return Tally(counts=counts)


@pytest.mark.parametrize(
    ("rules", "so_far", "reason"),
    [
        ({"max_failures": 3}, ended(2, 2), "4 trials failed, more than retry.max_failures=3"),
        ({"max_failures": 3}, ended(2, 1), ""),
        ({"max_failure_share": 0.5}, ended(5, 1, 4), "6 of 10 trials failed, more than retry.max_failure_share=0.5"),
        ({"max_failure_share": 0.5}, ended(5, 0, 4, 1), ""),
        ({"max_failure_share": 0.5}, ended(FEWEST_ENDED - 1), ""),
        ({}, ended(10), "10 of 10 trials failed, more than retry.max_failure_share=0.9"),
        ({}, ended(9, 0, 1), ""),
        ({"max_failure_share": 1.0}, ended(100), ""),
        ({"max_failure_share": None}, ended(100), ""),
    ],
)
def test_so_many_failures_end_a_sweep_and_no_fewer(rules: dict[str, Any], so_far: Tally, reason: str) -> None:
    assert broken(RetryConfig(**rules), so_far) == reason


def falling(epochs: int = 4, pause_s: float = 0.05) -> Callable[[dict[str, Any], hpo_ray.Trial], None]:
    """A loss that falls from epoch to epoch, with checkpoints. Travels by value, as from a notebook."""

    def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        import time

        saved = trial.load_checkpoint()
        done = int(saved.name.removeprefix("checkpoint-")) if saved else 0
        for epoch in range(done + 1, epochs + 1):
            time.sleep(pause_s)
            trial.report(epoch=epoch, loss=config["x"] + 1 / epoch, checkpoint=lambda folder: None)

    return train


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("rules", "reason", "more"),
    [
        (["stop.target=1.4"], "stop.target=1.4 reached: loss 1.", ["stop.target=null"]),
        (["stop.total_fidelity=6"], "stop.total_fidelity=6 reached", ["stop.total_fidelity=100"]),
        pytest.param(
            *(["stop.wall_time_s=3", "trials=400"], "stop.wall_time_s=3 reached", ["stop.wall_time_s=900", "trials=3"]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_ends_at_its_limit_and_goes_on_beyond_it(
    in_tmp: Path, rules: list[str], reason: str, more: list[str]
) -> None:
    listener = Listener()
    plan = experiment({"x": "uniform(1, 2)"}, "trials=5", *rules)
    run = runner.start(plan, objective=falling(), out=in_tmp / "r", listener=listener)
    assert run.ended is not None
    assert (run.ended["status"], run.ended["reason"][: len(reason)]) == ("stopped", reason)
    assert f"ending: {run.ended['reason']}" in "".join(listener.notes)
    unfinished = [trial for trial in run.trials.values() if trial.status == "interrupted"]
    assert all(trial.reason == run.ended["reason"] for trial in unfinished)
    before = len(events_of(run.run_dir, "trial_reported"))
    again = resume(run.run_dir, falling())
    assert again.ended is not None
    assert again.ended["status"] == "stopped"  # the same limit still holds
    assert len(events_of(run.run_dir, "trial_reported")) == before
    last = resume(run.run_dir, falling(), *more)
    assert last.ended is not None
    assert (last.ended["status"], last.ended["reason"]) == ("completed", "")
    assert {trial.status for trial in last.trials.values()} == {"completed"}
    assert last.tally.total_fidelity == 4 * len(last.trials)  # nothing was trained twice


@pytest.mark.usefixtures("ray_here")
def test_a_plateau_is_counted_in_trials_without_a_new_best(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(epoch=1, loss=[3.0, 2.0, 2.5, 2.0, 9.0, 9.0, 1.0][int(trial.id)])

    run = runner.start(
        experiment(SPACE, "trials=7", "slots=1", "stop.plateau_trials=3"), objective=objective, out=in_tmp / "r"
    )
    assert run.ended is not None
    assert run.ended["reason"] == "stop.plateau_trials=3 reached: no new best in as many trials"
    assert run.count("completed") == 5  # the second was the best


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_reports_nothing_is_ended_after_the_time_of_grace(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        import time

        trial.report(epoch=1, loss=1.0)
        time.sleep(600 * (trial.id == "0000"))
        trial.report(epoch=2, loss=0.5)

    noted: list[float] = []

    def note(event: Event, history: object) -> None:
        if event["event"] == "note":
            noted.append(time.monotonic())

    listener = Listener(note)
    plan = experiment(SPACE, "trials=2", "stop.target=0.5", "stop.grace_s=1")
    run = runner.start(plan, objective=objective, out=in_tmp / "r", listener=listener)
    assert time.monotonic() - noted[0] < 30
    assert listener.notes == ["ending: stop.target=0.5 reached: loss 0.5; running trials go on to their next report"]
    end = events_of(run.run_dir, "trial_ended", "0000")[-1]
    assert (end["status"], end["reason"]) == ("interrupted", "stop.target=0.5 reached: loss 0.5")
    assert run.ended is not None
    assert run.ended["status"] == "stopped"


@pytest.mark.usefixtures("ray_here")
def test_the_command_tells_why_it_ended_and_how_to_go_on(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(loss=config['x'])\n")
    mine = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "searcher=random"]
    code, out, _ = told(capfd, "run", *mine, "trials=50", "stop.total_fidelity=3", "slots=1", "--out", "r")
    assert code == 0
    on = "hpo-ray resume r stop.total_fidelity=null\n"
    assert f"\nended       stopped: stop.total_fidelity=3 reached\nresume      {on}" in out
    assert told(capfd, "status", "r")[1].endswith(f"\nnext   {on}")
    # What may change has nothing to change where all is done.
    assert told(capfd, "resume", "r", "stop.total_fidelity=null", "trials=4", "--quiet")[0] == 0
    code, _, err = told(capfd, "resume", "r", "slots=2", "--quiet")
    assert (code, err) == (0, "note: 'r' is complete: slots=2 has nothing to change; --add-trials N adds trials\n")


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_fails_while_its_sweep_ends_is_tried_again_by_the_next_driver(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        trial.report(loss=config["x"])
        if trial.attempt == 0 and trial.id == "0001":
            time.sleep(4)  # its neighbour ends the sweep meanwhile
            raise ValueError("too late")
        time.sleep(1)
        trial.report(loss=config["x"])

    listener = Listener()
    plan = experiment({"x": "uniform(1, 2)"}, "trials=2", "stop.total_fidelity=3", "fidelity=null")
    run = runner.start(plan, objective=objective, out=in_tmp / "r", listener=listener)
    assert "trial 0001: ValueError: too late; attempt 1 follows once the run is resumed" in listener.notes
    again = resume(run.run_dir, objective, "stop.total_fidelity=null")
    assert [trial.status for trial in again.trials.values()] == ["completed"] * 2


@pytest.fixture
def interrupted(in_tmp: Path) -> Path:
    """A run whose driver died before its first trial."""
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(loss=config['x'])\n")
    with Journal(in_tmp / "r") as log:
        plan = experiment(SPACE, "trainable.target=my.py:train").model_dump()
        log.append("run_started", experiment=plan, environment={})
    return in_tmp / "r"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (
                change,
                "it stays as it is when a run is resumed, because the results so far depend on it; only 'trials', "
                "'slots', 'stop', 'retry', 'resources', 'ray', 'storage', 'loggers' may change (a new run can have "
                "another, and learn from this one with prior.runs=…)",
            )
            for change in (
                "space.x=uniform(0, 2)",
                "~space.x",
                "searcher=random",
                "training.lr=1",
                "seed=1",
                "mode=max",
            )
        ),
        ("stpo.target=1", "unknown key; did you mean 'stop'?"),
        ("stop.tarqet=1", "unknown key; did you mean 'target'?"),
        ("stop.target=low", "'low': expected a number"),
        ("stop=1", "it has keys of its own: set one of them, e.g. stop.total_fidelity=…"),
        ("ray=cluster", "here it takes no choice from conf/: set its values, e.g. ray.address=…"),
        ("target", "expected key=value"),
    ],
)
def test_what_would_change_results_stays_as_it_was(
    interrupted: Path, capfd: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    before = (interrupted / "events.jsonl").read_bytes()
    key = change.partition("=")[0]
    expected = f"1 mistake\n  {key}: {message}  [command line]\n"
    assert told(capfd, "resume", str(interrupted), "--", change) == (2, "", expected)
    assert (interrupted / "events.jsonl").read_bytes() == before
