"""Loggers beside a real run: they see it live, survive its driver, never harm it; what is missing is told at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import history, journal, loggers, runner
from hpo_ray.loggers.background import Background
from hpo_ray.loggers.event_files import CLAIM_NAME
from hpo_ray.loggers.exporting import export
from hpo_ray.loggers.study import LATE_S
from tests.loggers.journals import lines_of, sweep, write
from tests.loggers.test_event_files import accumulated, contents
from tests.sweeps import Listener, experiment, resume, told, wait_for

pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
optuna = pytest.importorskip("optuna", reason="the extra 'optuna' is not installed")

SPACE = {"x": "uniform(0, 1)", "kind": "choice(a, null)"}
LINES = lines_of(sweep())


def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
    for epoch in range(1, 4):
        trial.report(epoch=epoch, loss=config["x"] / epoch)


def written(claim: Path) -> bool:
    """Whether nobody writes there any more."""
    with claim.open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_a_run_is_there_in_tensorboard_and_goes_on_when_resumed(ray_here: None, tmp_path: Path) -> None:
    given = experiment(SPACE, "trials=3", "loggers=[tensorboard, optuna]")
    run = runner.start(given, objective=train, out=tmp_path / "a")
    resume(run.run_dir, train, add_trials=2)
    wait_for(lambda: written(run.run_dir / "tensorboard" / CLAIM_NAME))
    wait_for(lambda: written(run.run_dir / ".optuna.db.hpo_ray"))
    run = history.load(run.run_dir)
    assert len(run.trials) == 5
    for trial in run.trials.values():
        points = accumulated(run.run_dir / "tensorboard" / trial.trial_id).Scalars("loss")
        wanted = [(int(row.fidelity), pytest.approx(row.metrics["loss"]), row.time) for row in trial.reports]
        assert [(point.step, point.value, point.wall_time) for point in points] == wanted
    before = contents(run.run_dir / "tensorboard")
    export(run.run_dir, "tensorboard")
    assert contents(run.run_dir / "tensorboard") == before
    study = optuna.load_study(study_name="a", storage=f"sqlite:///{run.run_dir}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
    for trial, ours in zip(study.trials, run.trials.values(), strict=True):
        assert abs(trial.datetime_complete.timestamp() - ours.last_seen) < LATE_S


def test_a_logger_that_cannot_write_is_told_once_and_harms_nothing(ray_here: None, tmp_path: Path) -> None:
    run = runner.start(experiment(SPACE, "trials=1"), objective=train, out=tmp_path / "a")
    (run.run_dir / "tensorboard").write_text("in its place")
    listener = Listener()
    run = resume(run.run_dir, train, "loggers=[tensorboard, optuna]", add_trials=1, listener=listener)
    assert run.count("completed") == 2
    [note] = [note for note in listener.notes if "in the background" not in note]
    assert note.startswith("tensorboard is no longer written: ")
    assert f"`hpo-ray export {run.run_dir} --to tensorboard`" in note
    assert (run.run_dir / "optuna.db").exists()


def test_a_journal_is_written_to_its_end_though_its_driver_is_killed(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", LINES[:20])
    driver = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; "
         "from hpo_ray.loggers.background import Background; "
         "b = Background(Path(sys.argv[1]), ['tensorboard']); print(b._started[0][1].pid, flush=True); time.sleep(60)",
         str(run_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    follower = int(driver.stdout.readline())
    first = run_dir / "tensorboard" / "0000"
    wait_for(lambda: first.exists())
    with (run_dir / journal.FILE_NAME).open("ab") as file:
        file.write(b"".join(LINES[20:])[:-1])  # the last line lacks its end
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not Path(f"/proc/{follower}").exists())
    whole = write(tmp_path / "b" / "a", LINES)
    export(whole, "tensorboard")
    assert contents(run_dir / "tensorboard") == contents(whole / "tensorboard")


def test_the_end_of_a_run_does_not_wait_for_long(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "a", LINES)
    background = Background(run_dir, ["tensorboard"])
    [(_, process)] = background._started
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    background.close(0.2)
    assert time.monotonic() - began < 5
    assert "still being written, in the background" in background.messages.get(timeout=5)
    os.kill(process.pid, signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    assert "was killed by signal 9" in background.messages.get(timeout=30)


def test_what_is_wrong_with_loggers_is_told_before_anything_starts(
    in_tmp: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = replace(loggers.LOGGERS["mlflow"], needs=("json", "no_such_package"))
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", mlflow)
    (in_tmp / "my.py").write_text("def train(config, trial):\n    trial.report(loss=0)\n")
    mine = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)"]
    code, out, err = told(capfd, "run", *mine, "loggers=[tensorbord, mlflow, optuna, optuna]")
    assert (code, out) == (2, "")
    assert "loggers: there is no 'tensorbord'; did you mean 'tensorboard'?" in err
    assert "loggers: 'mlflow' needs no_such_package, not installed here: pip install mlflow-skinny" in err
    assert "loggers: 'optuna' is there twice" in err
    code, _, err = told(capfd, "run", *mine, "loggers=tensorboard")
    assert code == 2
    assert "loggers: " in err
    assert list(in_tmp.iterdir()) == [in_tmp / "my.py"]


def test_export_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = write(tmp_path / "a", LINES)
    code, out, err = told(capfd, "export", str(run_dir), "--to", "optuna")
    assert code == 0
    assert f"{run_dir} written to {run_dir}/optuna.db" in out
    assert f"optuna-dashboard sqlite:///{run_dir}/optuna.db" in err
    code, out, err = told(capfd, "export", str(run_dir), str(tmp_path / "logs"), "--to", "tensorboard")
    assert code == 0
    assert f"tensorboard --logdir {tmp_path}/logs" in err
    for arguments, complaint in {
        (str(run_dir), "--to", "optun"): "--to: there is no 'optun'; did you mean 'optuna'?",
        (str(run_dir), "--to", "optuna", "--level", "trials"): "--level: --to optuna writes all there is",
        (str(run_dir), "x.db"): "--to optuna writes a study",
        (str(run_dir),): "FILE: expected FILE.parquet or FILE.csv, or --to",
        (str(tmp_path / "none"), "--to", "optuna"): "no run found",
    }.items():
        code, out, err = told(capfd, "export", *arguments)
        assert (code, out) == (2, "")
        assert complaint in " ".join(err.split())
