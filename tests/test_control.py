"""A run from outside: asked to stop, asked how it stands, taken over from a dead driver, kept alive by a supervisor."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import hpo_ray
from hpo_ray import lock, snapshot
from hpo_ray.journal import Journal
from hpo_ray.lock import Holder, Lock
from tests import sweeps
from tests.sweeps import Command, driver_of, events_of, experiment, wait_for, written

Told = Callable[..., tuple[int, str, str]]
MINE = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "fidelity=epoch", "slots=2"]
OBJECTIVE = """
import os, pathlib, signal, time

def parent(pid):
    return int(pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[1])

def kill_driver():
    pid = os.getppid()
    while pid > 1:
        command = pathlib.Path(f'/proc/{pid}/cmdline').read_text()
        if 'hpo_ray.cli' in command:
            if '--supervise' not in command:  # else the driver is dead already
                os.kill(pid, signal.SIGKILL)
            return
        pid = parent(pid)

def train(config, trial):
    def save(folder):
        (folder / 'epoch').write_text(str(epoch))
    if pathlib.Path('deadly').exists():
        kill_driver()
        time.sleep(60)
    if pathlib.Path('broken').exists():
        raise ValueError('broken')
    saved = trial.load_checkpoint()
    for epoch in range(1 + (int((saved / 'epoch').read_text()) if saved else 0), 9):
        time.sleep(0.05)
        trial.report(epoch=epoch, loss=config['x'] / epoch, checkpoint=save)
"""


@pytest.fixture
def folder(in_tmp: Path) -> Path:
    (in_tmp / "my.py").write_text(OBJECTIVE)
    return in_tmp


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Told:
    return partial(sweeps.told, capfd)


def started(run_dir: Path, trials: int = 2) -> Path:
    """A run whose driver died before its first trial."""
    with Journal(run_dir) as log:
        plan = experiment({"x": "uniform(0, 1)"}, "trainable.target=my.py:train", f"trials={trials}").model_dump()
        log.append("run_started", experiment=plan, environment={})
    return run_dir


# While it lives


def test_a_live_run_says_how_it_stands_is_not_run_twice_and_ends_when_asked(folder: Path, told: Told) -> None:
    with Command("run", *MINE, "trials=1000", "--out", "r") as driver:
        wait_for(lambda: written(folder / "r", "trial_ended") > 3)
        who = rf"process {driver.process.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        code, out, _ = told("status", "r")
        assert code == 0
        assert re.match(rf"running  {who}\nfunction  \d+/1000 trials · .*\d running", out)
        assert "next" not in out
        status = json.loads(told("status", "r", "--json")[1])
        assert status["state"] == "running"
        assert re.fullmatch(who, status["reason"])
        assert status["counts"]["completed"] > 3
        assert status["ended"] is None
        code, out, err = told("resume", "r")
        assert (code, out) == (2, "")
        message = rf"1 mistake\n  run: 'r' is still running \({who}\): stop it first with `hpo-ray stop r`\n"
        assert re.fullmatch(message, err)
        code, out, err = told("stop", "r")
        assert code == 0
        assert re.fullmatch(rf"note: asked {who} to end; its trials go on to their next report\n", err)
        assert re.match(
            r"stopped  asked to stop\nfunction  \d+/1000 trials · .* s · 0 running · [12] interrupted\n", out
        )
        assert out.endswith("next   hpo-ray resume r\n")
        assert driver.end() == 0
        assert "\nended       stopped: asked to stop\nresume      hpo-ray resume r\n" in driver.out
        assert "\nnote: ending: asked to stop; running trials go on to their next report\n" in driver.err
    assert {end["status"] for end in events_of(folder / "r", "trial_ended")} == {"completed", "interrupted"}
    assert not (folder / "r/stop.request").exists()
    assert told("stop", "r")[::2] == (2, "1 mistake\n  run: 'r' is not running: there is nothing to stop\n")


def test_what_is_no_run_has_no_status(folder: Path, told: Told) -> None:
    for command in ("status", "stop", "resume", "report"):
        code, out, err = told(command, "my")
        assert (code, out) == (2, "")
        assert err == "1 mistake\n  run: 'my' is not a run: it has no events.jsonl\n"


# Its driver's death


@pytest.mark.usefixtures("ray_here")
def test_a_killed_run_is_taken_over_and_goes_on_from_its_last_good_checkpoints(folder: Path, told: Told) -> None:
    run_dir = folder / "r"

    def half_way() -> bool:
        """A trial has ended, another one has checkpoints to go on from."""
        ended = written(run_dir, "trial_ended") > 0
        return ended and any(2 < trial["fidelity"] < 6 for trial in snapshot.load(run_dir).open.values())

    with Command("run", *MINE, "trials=8", "--out", "r") as driver:
        wait_for(half_way)
        assert (hpo_ray.load_results("r")["status"] == "running").any()
        assert driver.end(signal.SIGKILL) == -signal.SIGKILL
    before, finished = hpo_ray.load_results("r"), snapshot.load(run_dir).finished
    assert set(before["status"]) == {"completed", "interrupted"}
    code, out, _ = told("status", "r")
    assert code == 0
    assert re.match(rf"dead  its driver died\nfunction  {finished}/8 trials · .* s · 0 running · \d interrupted\n", out)
    assert out.endswith("next   hpo-ray resume r\n")
    # What was saved last is damaged: so the attempt goes on from what was saved before.
    unfinished = set(before.loc[before["status"] == "interrupted", "trial_id"])
    saved = [event for event in events_of(run_dir, "trial_checkpointed") if event["fidelity"] > 1]
    last = [event for event in saved if event["trial_id"] in unfinished][-1]
    os.truncate(run_dir / last["path"] / "epoch", 0)
    code, _, err = told("resume", "r")
    assert code == 0, err
    assert re.match(rf"note: taking over from process {driver.process.pid} on .*, since .*, which is gone\n", err)
    first = events_of(run_dir, "trial_started", last["trial_id"])[-1]
    again = next(e for e in events_of(run_dir, "trial_reported", last["trial_id"]) if e["attempt"] == first["attempt"])
    assert again["since"] == last["fidelity"] - 1
    log = (run_dir / "trials" / last["trial_id"] / f"attempt-{first['attempt']}" / "output.log").read_text()
    assert f"checkpoint '{run_dir / last['path']}' is passed over: its file 'epoch' has 0 bytes, 1 were saved" in log
    after = hpo_ray.load_results("r")
    assert (after["status"] == "completed").all()
    assert after["config_id"].is_unique
    same = ["trial_id", "config/x", "loss", "attempt", "started_at"]
    whole = before["status"] == "completed"
    pd.testing.assert_frame_equal(after.loc[whole[whole].index, same], before.loc[whole, same])


@pytest.mark.usefixtures("ray_here")
def test_a_lock_from_another_machine_holds_as_long_as_it_is_touched(folder: Path, told: Told) -> None:
    run_dir = started(folder / "r", trials=1)
    holder = Holder("elsewhere", 4711, "1", time.time())
    (run_dir / lock.FILE_NAME).write_text(json.dumps(asdict(holder)))
    assert lock.holder(run_dir) == holder
    assert told("status", "r")[1].startswith(f"running  {holder}\n")
    assert told("resume", "r")[2].startswith(f"1 mistake\n  run: 'r' is still running ({holder}): stop it first")
    os.utime(run_dir / lock.FILE_NAME, (time.time() - 50,) * 2)
    assert lock.holder(run_dir) == holder
    assert re.search(r"; should it be dead, its lock runs out in ([1-9]|10) s\n$", told("resume", "r")[2])
    os.utime(run_dir / lock.FILE_NAME, (time.time() - 61,) * 2)
    assert lock.holder(run_dir) is None
    assert told("status", "r")[1].startswith("dead  its driver died\n")
    code, _, err = told("resume", "r")
    assert code == 0
    assert err.startswith(f"note: taking over from {holder}, which is gone\nrun directory ")
    assert not (run_dir / lock.FILE_NAME).exists()
    # Complete: more trials can be asked for, and a plain resume changes nothing.
    code, out, _ = told("resume", "r", "--add-trials", "2")
    assert (code, snapshot.load(run_dir).finished) == (0, 3)
    assert "trials      3: 3 completed" in out
    journal = (run_dir / "events.jsonl").read_bytes()
    assert told("resume", "r")[:2] == (0, out)
    assert (run_dir / "events.jsonl").read_bytes() == journal


def test_a_lock_of_this_machine_holds_as_long_as_its_process_lives(tmp_path: Path) -> None:
    with Lock(tmp_path):
        mine = lock.holder(tmp_path)
        assert mine is not None
        assert mine.pid == os.getpid()
        for other in (replace(mine, process_start="1"), replace(mine, pid=2**22 + 1)):
            (tmp_path / lock.FILE_NAME).write_text(json.dumps(asdict(other)))
            assert lock.holder(tmp_path) is None
        # Of another container of this name its number says nothing; an older version did not say where it counts.
        for machine, silent_s, held in (("elsewhere", 0, True), ("elsewhere", 61, False), ("", 0, False)):
            other = replace(mine, pid=2**22 + 1, machine=machine)
            (tmp_path / lock.FILE_NAME).write_text(json.dumps(asdict(other)))
            os.utime(tmp_path / lock.FILE_NAME, (time.time() - silent_s,) * 2)
            assert (lock.holder(tmp_path) == other) == held
        old = asdict(mine)
        assert "pid:[" in old.pop("machine")
        (tmp_path / lock.FILE_NAME).write_text(json.dumps(old))
        assert lock.holder(tmp_path) == replace(mine, machine="")
    for text in ("", "{}", "[]", '{"host": 1', '{"host": "h", "pid": "x", "process_start": null, "since": 1}'):
        (tmp_path / lock.FILE_NAME).write_text(text)
        assert lock.written(tmp_path) is lock.holder(tmp_path) is None


# A supervisor


def test_a_supervised_run_goes_on_by_itself_when_its_driver_is_killed(folder: Path) -> None:
    with Command("run", *MINE, "trials=8", "--supervise", "--out", "r") as supervisor:
        wait_for(lambda: written(folder / "r", "trial_ended"))
        victim = driver_of(folder / "r")
        assert victim != supervisor.process.pid
        os.kill(victim, signal.SIGKILL)
        assert supervisor.end() == 0, supervisor.err
        assert "note: the driver was killed by SIGKILL: resuming in 1 s\n" in supervisor.err
        assert supervisor.err.count("run directory ") == 2
        assert "trials      8: 8 completed" in supervisor.out
        assert supervisor.out.count("best  ") == 1


@pytest.mark.slow
def test_a_supervisor_gives_up_where_nothing_is_gained_and_where_too_much_fails(folder: Path, told: Told) -> None:
    (folder / "deadly").touch()
    with Command("run", *MINE, "trials=8", "--supervise", "--restarts", "1", "--out", "r") as supervisor:
        assert supervisor.end() == 1
        assert supervisor.err.count("note: the driver was killed by SIGKILL: resuming in 1 s\n") == 1
        assert supervisor.err.endswith(
            "note: the driver was killed by SIGKILL: giving up after 2 deaths without progress; "
            f"`hpo-ray resume {folder}/r` goes on\n"
        )
    assert told("status", "r")[1].startswith("dead  its driver died\n")
    (folder / "deadly").unlink()
    (folder / "broken").touch()
    with Command("resume", "r", "--supervise", "retry.max_failures=1", "retry.max_retries=0") as supervisor:
        assert supervisor.end() == 1
        assert supervisor.err.count("run directory") == 1  # that was decided, and would be again
        assert (
            "failed: 2 trials failed, more than retry.max_failures=1; the last: ValueError: broken (" in supervisor.err
        )
    assert told("status", "r")[1].startswith("failed  2 trials failed, more than retry.max_failures=1; ")
