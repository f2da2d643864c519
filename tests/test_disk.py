"""The disk of a run: full, not writable, and how much of it checkpoints take."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import runner
from hpo_ray.history import UNFINISHED, History
from hpo_ray.journal import Event, Journal
from hpo_ray.trainables import checkpoints
from tests.sweeps import Command, Listener, call, events_of, experiment, resume, told, wait_for, written
from tests.trainables.conftest import fill

MINE = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "fidelity=epoch"]
OBJECTIVE = """
import time
def save(folder):
    (folder / 'w').write_bytes(bytes(2**20))
def train(config, trial):
    for epoch in range(1, 40):
        time.sleep(0.02)
        trial.report(epoch=epoch, loss=config['x'], checkpoint=save if trial.id in ('0001', '0003') else None)
"""


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a disk of its own: a little more than a run wants to see free at its start."""
    folder = tmp_path_factory.mktemp("small-disk")
    if shutil.which("mount") is None:
        pytest.skip("there is no 'mount' to make a small disk with")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted (not root?): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def saving(mb: int = 1, epochs: int = 4) -> Callable[[dict[str, Any], hpo_ray.Trial], None]:
    """Epochs with checkpoints; the loss is lowest at the last but one. Travels by value, as from a notebook."""

    def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        def save(folder: Path) -> None:
            (folder / "w").write_bytes(bytes(mb * 2**20))

        saved = trial.load_checkpoint()
        done = int(saved.name.removeprefix("checkpoint-")) if saved else 0
        for epoch in range(done + 1, epochs + 1):
            trial.report(epoch=epoch, loss=config["x"] + abs(epoch - epochs + 1), checkpoint=save)

    return train


def saving_and_reporting() -> Callable[[dict[str, Any], hpo_ray.Trial], None]:
    """Half of the trials save large checkpoints, the others report often and save none."""
    save = saving()

    def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        if config["saves"]:
            return save({"x": 0.0}, trial)
        deadline = time.monotonic() + 60  # the first of them must not be through before the disk is full
        while config["n"] == 1 and not (trial.dir.parents[3] / "ballast").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for epoch in range(1, 60):
            trial.report(epoch=epoch, loss=1.0)

    return train


@pytest.mark.usefixtures("ray_here")
def test_a_full_disk_is_waited_for_and_nothing_is_lost(small_disk: Path) -> None:
    ballast: list[Path] = []

    def fill_and_free(event: Event, history: History) -> None:
        if event["event"] == "trial_checkpointed" and event["fidelity"] == 2 and not ballast:
            ballast.append(fill(small_disk))
        elif event["event"] == "note" and "is full" in event["text"]:
            with ballast[0].open("rb+") as file:
                file.truncate(ballast[0].stat().st_size - 2**19)  # room for the journal, not for a checkpoint
        if all(any(part in note for note in listener.notes) for part in ("is full", "no room")):
            ballast[0].unlink(missing_ok=True)

    listener = Listener(fill_and_free)
    plan = experiment({"n": "int(1, 2)", "saves": "choice(true, false)"}, "searcher=grid", "trials=4")
    run = runner.start(plan, objective=saving_and_reporting(), out=small_disk / "r", listener=listener)
    assert sorted(listener.notes) == [
        f"the disk that holds '{run.run_dir}' is full: waiting until there is room "
        "(Ctrl-C ends the sweep, which can be resumed)",
        f"trial 0000 waits: no room to save checkpoint 3 in '{run.run_dir}/trials/0000/attempt-0'; "
        "once there is some it goes on",
    ]
    assert [trial.status for trial in run.trials.values()] == ["completed"] * 4
    for trial in run.trials.values():
        fidelities = [event["fidelity"] for event in events_of(run.run_dir, "trial_reported", trial.trial_id)]
        assert fidelities == [*range(1, 5 if trial.config["saves"] else 60)]
        found = [checkpoints.verify(run.run_dir / path) for path in trial.checkpoints.values()]
        assert found == ([""] if trial.config["saves"] else [])
    assert not list(run.run_dir.glob("trials/*/*/.partial-*"))
    assert hpo_ray.load_results(run.run_dir)["status"].eq("completed").all()


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_has_no_room_for_files_of_its_own_is_tried_again_when_there_may_be_some(small_disk: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        (trial.dir / "mine").write_bytes(bytes(2**20))
        trial.report(epoch=1, loss=1.0)

    def fill_and_free(event: Event, history: History) -> None:
        ballast = small_disk / "ballast"
        if event["event"] == "trial_suggested":
            fill(small_disk)
            os.truncate(ballast, ballast.stat().st_size - 2**19)  # room for the journal
        elif event["event"] == "note":
            ballast.unlink()

    listener = Listener(fill_and_free)
    plan = experiment({"x": "uniform(0, 1)"}, "trials=1", "retry.max_retries=0")
    run = runner.start(plan, objective=objective, out=small_disk / "r", listener=listener)
    assert listener.notes == ["trial 0000: OSError: [Errno 28] No space left on device; attempt 1 follows in 2 s"]
    assert [end.get("cause") for end in events_of(run.run_dir, "trial_ended")] == ["disk_full", None]
    assert run.count("completed") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_ctrl_c_ends_a_sweep_that_waits_for_room(in_tmp: Path, small_disk: Path) -> None:
    (in_tmp / "my.py").write_text(OBJECTIVE)
    run_dir = small_disk / "r"
    with Command("run", *MINE, "trials=4", "slots=2", "--out", str(run_dir)) as driver:
        wait_for(lambda: written(run_dir, "trial_reported") > 2)
        ballast = fill(small_disk)
        wait_for(lambda: "is full" in driver.err)
        code, err = driver.end(signal.SIGINT), driver.err
    assert code == 130, err
    assert err.endswith(f"note: `hpo-ray resume {run_dir}` goes on\ninterrupted: what was journalled is kept\n")
    before = events_of(run_dir)
    fill(small_disk)
    full = call("resume", str(run_dir))
    assert (full.returncode, full.stdout) == (2, "")
    assert full.stderr == f"1 mistake\n  run: '{run_dir}' cannot be written to: No space left on device\n"
    ballast.unlink()
    assert runner.resume(run_dir).count("completed") == 4
    assert events_of(run_dir)[: len(before)] == before


def test_a_disk_that_cannot_be_written_to_is_the_users_to_mend(
    small_disk: Path, in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "my.py").write_text(OBJECTIVE)
    run_dir = small_disk / "r"
    with Journal(run_dir) as log:
        plan = experiment({"x": "uniform(0, 1)"}, "trainable.target=my.py:train").model_dump()
        log.append("run_started", experiment=plan, environment={})
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    said = "1 mistake\n  {}: '{}' cannot be {}: Read-only file system\n"
    assert told(capfd, "run", *MINE, "--out", f"{small_disk}/s") == (
        2,
        "",
        said.format("--out", f"{small_disk}/s", "used"),
    )
    assert told(capfd, "resume", str(run_dir)) == (2, "", said.format("run", run_dir, "written to"))
    assert told(capfd, "status", str(run_dir))[::2] == (0, "")


@pytest.mark.usefixtures("ray_here")
def test_trials_that_cannot_write_fail_with_the_place(in_tmp: Path) -> None:
    def block(event: Event, history: History) -> None:
        if event["event"] == "run_started":
            (history.run_dir / "trials").touch()

    plan = experiment({"x": "uniform(0, 1)"}, "trials=2", "retry.backoff_s=0")
    run = runner.start(plan, objective=saving(), out=in_tmp / "r", listener=block)
    for trial in run.trials.values():
        where = f"{in_tmp}/r/trials/{trial.trial_id}/attempt-2"
        assert (trial.status, trial.attempt) == ("failed", 2)
        assert trial.reason == f"NotADirectoryError: [Errno 20] Not a directory: '{where}'"


@pytest.mark.usefixtures("ray_here")
def test_only_the_best_checkpoints_stay(in_tmp: Path) -> None:
    """Unfinished trials keep their newest two and their best; of the others the best two keep their best."""
    known: list[str] = []
    most = 0

    def count(event: Event, history: History) -> None:
        nonlocal most
        if event["event"] == "trial_checkpointed":
            known.append(event["path"])
        there = sum((history.run_dir / path).exists() for path in known)
        most = max(most, there)
        assert there <= 2 + 3 * sum(trial.status in UNFINISHED for trial in history.trials.values())

    plan = experiment({"x": "uniform(0, 1)"}, "trials=10", "storage.keep_checkpoints=2")
    run = runner.start(plan, objective=saving(epochs=6), out=in_tmp / "r", listener=count)
    assert len(known) == 60
    assert most > 2
    best = sorted(run.trials.values(), key=lambda trial: trial.config["x"])[:2]
    left = {path.relative_to(run.run_dir).as_posix() for path in run.run_dir.glob("trials/*/*/*checkpoint-*")}
    assert left == {f"trials/{trial.trial_id}/attempt-0/checkpoint-5" for trial in best}


@pytest.mark.usefixtures("ray_here")
def test_what_a_dead_attempt_left_is_removed_on_resume(in_tmp: Path) -> None:
    rules = ["trials=2", "storage.keep_checkpoints=2"]
    plan = experiment({"x": "uniform(0, 1)"}, *rules, "stop.total_fidelity=4")
    run = runner.start(plan, objective=saving(epochs=6), out=in_tmp / "r")
    assert run.count("interrupted") == 2
    attempts = [run.run_dir / f"trials/000{number}/attempt-0" for number in (0, 1)]
    left = [checkpoints.save(attempt, 9.0, lambda folder: None) for attempt in attempts]  # never reported
    for attempt in attempts:
        left.append(attempt / ".partial-10")
        left[-1].mkdir()
    seen: list[bool] = []
    look = Listener(lambda event, history: seen.append(any(folder.exists() for folder in left)))
    run = resume(in_tmp / "r", saving(epochs=6), "stop.total_fidelity=null", listener=look)
    assert run.count("completed") == 2
    assert [index for index, there in enumerate(seen) if there] == [0]  # at `run_started`, and never again
    assert len(list(run.run_dir.glob("trials/*/*/*checkpoint-*"))) == 2
