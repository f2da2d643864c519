"""Trials that fail in every way they can: what the journal says of it, what is tried again, what the user sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import runner
from hpo_ray.driver import Driver
from hpo_ray.errors import RunFailed
from hpo_ray.experiment import ResourcesConfig
from hpo_ray.history import History
from hpo_ray.journal import Event, Journal
from hpo_ray.keeper import Keeper
from hpo_ray.results.frame import load_results
from hpo_ray.results.summary import summarise
from tests.sweeps import Listener, call, events_of, experiment, resume, told

Objective = Callable[[dict[str, Any], hpo_ray.Trial], None]

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB"
# What happens at the third of four epochs; which causes lead to another attempt; how the trial ends, and with what.
KINDS: dict[str, tuple[list[str], str, str]] = {
    "nothing": ([], "completed", ""),
    "cuda_memory_splits": (["out_of_memory"], "completed", ""),
    "cuda_memory": ([], "out_of_memory", f"OutOfMemoryError: {CUDA}"),
    "host_memory_splits": (["out_of_memory"], "completed", ""),
    "host_memory": ([], "out_of_memory", "MemoryError"),
    "not_a_number": ([], "failed", "loss = nan at epoch 3"),
    "the_same": (["exception"], "failed", "ValueError: the same"),
    "another": (["exception", "exception"], "failed", "ValueError: number 2"),
    "raised_once": (["exception"], "completed", ""),
    "exits": (["exited", "exited"], "failed", "SystemExit: 3"),
    "exits_once": (["exited"], "completed", ""),
    "hard_exit_once": (["exited"], "completed", ""),
    "killed": (
        ["killed", "killed"],
        "failed",
        "the worker process was killed by SIGKILL; the machine may have run out",
    ),
    "killed_once": (["killed"], "completed", ""),
    "damaged_once": (["killed"], "completed", ""),
}


def misbehaving() -> Objective:
    """Four epochs with checkpoints; `kind` happens before the third report. Travels by value, as from a notebook."""

    def allocate(mb: int) -> None:
        import os
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + 300 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            bytearray(mb * 2**20)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def misbehave(kind: str, trial: hpo_ray.Trial) -> None:
        import os
        import signal
        import sys

        if kind.startswith("cuda_memory") and not (kind.endswith("splits") and trial.micro_batches > 1):
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if kind.startswith("host_memory"):
            allocate(500 // (trial.micro_batches if kind.endswith("splits") else 1))
        if kind.endswith("once") and trial.attempt > 0:
            return
        if kind == "the_same":
            raise ValueError("the same")
        if kind in ("another", "raised_once"):
            raise ValueError(f"number {trial.attempt}")
        if kind.startswith("exits"):
            sys.exit(3)
        if kind == "hard_exit_once":
            os._exit(4)
        if kind == "damaged_once":
            os.truncate(trial.dir / "checkpoint-2" / "epoch", 0)
        if kind.startswith(("killed", "damaged")):
            os.kill(os.getpid(), signal.SIGKILL)

    def train(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        def save(folder: Path) -> None:
            (folder / "epoch").write_text(str(epoch))

        saved = trial.load_checkpoint()
        for epoch in range(1 + (int((saved / "epoch").read_text()) if saved else 0), 5):
            if epoch == 3:
                misbehave(config["kind"], trial)
            loss = float("nan") if epoch == 3 and config["kind"] == "not_a_number" else 1 / epoch
            trial.report(epoch=epoch, loss=loss, checkpoint=save)

    return train


class Sweep:
    """One run in which a trial of every kind takes part."""

    def __init__(self, folder: Path) -> None:
        self.listener = Listener()
        space = {"kind": f"choice({', '.join(KINDS)})"}
        plan = experiment(space, "searcher=grid", "trials=null", "retry.max_failure_share=null")
        self.run = runner.start(plan, objective=misbehaving(), out=folder / "r", listener=self.listener)
        self.trial_of = {trial.config["kind"]: trial for trial in self.run.trials.values()}

    def events(self, kind: str, event: str) -> list[Event]:
        return events_of(self.run.run_dir, event, self.trial_of[kind].trial_id)


@pytest.fixture(scope="module")
def sweep(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("failures"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_has_its_cause_its_attempts_and_its_end(sweep: Sweep, kind: str) -> None:
    causes, status, reason = KINDS[kind]
    ends, starts = sweep.events(kind, "trial_ended"), sweep.events(kind, "trial_started")
    assert [end.get("cause") for end in ends[:-1]] == causes
    assert [end["status"] for end in ends] == ["interrupted"] * len(causes) + [status]
    assert [end["attempt"] for end in ends] == [start["attempt"] for start in starts] == [*range(len(causes) + 1)]
    for end in ends[:-1]:
        assert end["reason"].startswith(f"{end['fault']}; attempt {end['attempt'] + 1} follows in ")
        assert f"trial {end['trial_id']}: {end['reason']}" in sweep.listener.notes
    assert ends[-1]["reason"].startswith(reason)
    assert bool(reason) == bool(ends[-1]["reason"])
    fidelities = [report["fidelity"] for report in sweep.events(kind, "trial_reported")]
    assert fidelities[:2] == [1, 2]
    assert (fidelities[-1] == 4) == (status == "completed")
    assert sweep.trial_of[kind].fidelity == (4 if status == "completed" else 3 if kind == "not_a_number" else 2)


@pytest.mark.parametrize("kind", [kind for kind, (causes, _, _) in KINDS.items() if causes])
def test_another_attempt_goes_on_from_the_last_good_checkpoint(sweep: Sweep, kind: str) -> None:
    reports = sweep.events(kind, "trial_reported")
    again = [report for report in reports if report["attempt"] == 1]
    if KINDS[kind][1] == "failed":
        assert again == []  # it came no further than before, and trained nothing twice
    else:
        reached = 1 if kind == "damaged_once" else 2
        assert [report["fidelity"] for report in again] == [*range(reached + 1, 5)]
        assert again[0]["since"] == reached


def test_a_damaged_checkpoint_is_named_in_the_trials_output(sweep: Sweep) -> None:
    folder = sweep.run.run_dir / "trials" / sweep.trial_of["damaged_once"].trial_id
    said = (folder / "attempt-1" / "output.log").read_text()
    damaged = folder / "attempt-0" / "checkpoint-2"
    assert said == f"checkpoint '{damaged}' is passed over: its file 'epoch' has 0 bytes, 1 were saved\n"


def test_an_exceptions_traceback_and_what_was_measured_before_are_kept(sweep: Sweep) -> None:
    for end in sweep.events("the_same", "trial_ended"):
        assert "in misbehave" in end["traceback"]
        assert "hpo_ray" not in end["traceback"]  # the objective's own frames alone
    frame = load_results(sweep.run.run_dir).set_index("config/kind")
    assert frame.loc["the_same", "loss"] == frame.loc["not_a_number", "loss_best"] == 0.5
    assert math.isnan(frame.loc["not_a_number", "loss"])


@pytest.mark.parametrize("kind", ["cuda_memory_splits", "host_memory_splits"])
def test_out_of_memory_is_met_with_batches_in_more_pieces(sweep: Sweep, kind: str) -> None:
    starts = sweep.events(kind, "trial_started")
    assert [start.get("micro_batches", 1) for start in starts] == [1, 2]
    first = sweep.events(kind, "trial_ended")[0]
    assert first["reason"].endswith("; attempt 1 follows in 0.1 s, batches in 2 pieces")
    assert first["replaced"] == "it ran out of memory"


def test_failures_never_touch_other_trials_and_all_is_counted(sweep: Sweep) -> None:
    summary = summarise(sweep.run)
    assert summary["trials"] == len(KINDS)
    assert summary["failed"] == sum(status in ("failed", "out_of_memory") for _, status, _ in KINDS.values())
    assert summary["completed"] == len(KINDS) - summary["failed"]
    assert sweep.run.ended is not None
    assert sweep.run.ended["status"] == "completed"
    others = [note for note in sweep.listener.notes if " follows in " not in note]
    assert set(others) == {
        f"trial {sweep.trial_of[kind].trial_id} is not tried again: it ran out of memory, and its objective does not "
        "ask for trial.micro_batches to split its batches by"
        for kind in ("cuda_memory", "host_memory")
    }


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_hangs_is_ended_and_tried_again(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        import time

        if config["always"] or trial.attempt == 0:
            time.sleep(600)
        trial.report(epoch=1, loss=1.0)

    listener = Listener()
    plan = experiment(
        {"always": "choice(false, true)"}, "searcher=grid", "trials=2", "retry.timeout_s=2", "retry.max_retries=1"
    )
    run = runner.start(plan, objective=objective, out=in_tmp / "r", listener=listener)
    assert [trial.status for trial in run.trials.values()] == ["completed", "failed"]
    assert [trial.attempt for trial in run.trials.values()] == [1, 1]
    ends = events_of(run.run_dir, "trial_ended")
    assert {end.get("cause") for end in ends} == {None, "hung"}
    assert "trial 0000: no report for 2 s: the trial was ended; attempt 1 follows in 0.1 s" in listener.notes
    assert run.trials["0001"].reason == "no report for 2 s: the trial was ended"


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("rule", "kind", "status", "reason"),
    [
        ("retry.max_retries=0", "raised_once", "failed", "ValueError: number 0"),
        ("retry.out_of_memory=fail", "cuda_memory_splits", "out_of_memory", f"OutOfMemoryError: {CUDA}"),
    ],
)
def test_no_second_attempt_where_the_rules_say_so(in_tmp: Path, rule: str, kind: str, status: str, reason: str) -> None:
    run = runner.start(experiment({"kind": kind}, "trials=1", rule), objective=misbehaving(), out=in_tmp / "r")
    [end] = events_of(run.run_dir, "trial_ended")
    assert (end["status"], end["reason"], end["attempt"]) == (status, reason, 0)


@pytest.mark.usefixtures("ray_here")
def test_pauses_grow_and_keep_nobody_else_waiting(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        import time

        if config["n"] == 0:
            raise ValueError(f"number {trial.attempt}")
        time.sleep(0.1)
        trial.report(epoch=1, loss=1.0)

    rules = ["retry.backoff_s=0.5", "retry.max_retries=3"]
    plan = experiment({"n": "int(0, 9)"}, "searcher=grid", "trials=null", "slots=1", *rules)
    run = runner.start(plan, objective=objective, out=in_tmp / "r")
    ended = [event["time"] for event in events_of(run.run_dir, "trial_ended", "0000")]
    started = [event["time"] for event in events_of(run.run_dir, "trial_started", "0000")]
    pauses = [start - end for start, end in zip(started[1:], ended, strict=False)]
    assert all(pause >= wait_s for pause, wait_s in zip(pauses, (0.5, 1, 2), strict=True))
    meanwhile = [event for event in events_of(run.run_dir, "trial_ended") if event["time"] < started[1]]
    assert len({event["trial_id"] for event in meanwhile}) > 1  # the one slot had other trials to do
    assert [trial.status for trial in run.trials.values()] == ["failed"] + ["completed"] * 9


def test_a_larger_share_of_a_gpu_is_asked_of_ray(in_tmp: Path) -> None:
    plan = experiment({"x": "uniform(0, 1)"}, "trials=1", "retry.out_of_memory=gpu_share", "retry.backoff_s=0")
    plan = plan.model_copy(update={"resources": ResourcesConfig(gpus_per_trial=0.3)})
    history = History(in_tmp)
    with Journal(in_tmp, history.apply) as log:
        driver = Driver(plan, log, history, Keeper(history, 5))
        log.append("run_started", experiment=plan.model_dump(), environment={})
        bundles = []
        for number in range(3):
            attempt = driver.next_attempt(f"ray{number}")
            assert attempt is not None
            bundles += attempt["bundles"]
            driver.started(f"ray{number}")
            end = {"status": "out_of_memory", "reason": CUDA, "cause": "out_of_memory", "problems": []}
            driver.judge(f"ray{number}", {"ended": end})
            driver.ended(f"ray{number}")
    assert bundles == [{"CPU": 1, "GPU": gpus} for gpus in (0.3, 0.6, 1.0)]
    assert driver.notes[0] == f"trial 0000: {CUDA}; attempt 1 follows, on 0.6 GPUs"
    assert history.trials["0000"].status == "out_of_memory"
    assert [event["gpus"] for event in events_of(in_tmp, "trial_started")] == [0.3, 0.6, 1.0]


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_in_which_nearly_all_fails_ends_and_can_be_resumed(in_tmp: Path) -> None:
    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        if not Path("mended").exists():
            raise ValueError("not yet mended")
        trial.report(epoch=1, loss=config["x"])

    space = {"x": "uniform(0, 1)"}
    with pytest.raises(RunFailed) as caught:
        runner.start(experiment(space, "trials=14", "retry.max_retries=0"), objective=objective, out=in_tmp / "r")
    message = "10 of 10 trials failed, more than retry.max_failure_share=0.9; the last: ValueError: not yet mended"
    assert str(caught.value).startswith(message)
    assert events_of(in_tmp / "r", "run_ended")[-1]["status"] == "failed"
    assert (hpo_ray.load_results(in_tmp / "r")["status"] == "failed").sum() == 10
    (in_tmp / "mended").touch()
    run = resume(in_tmp / "r", objective)
    assert (run.count("failed"), run.count("completed")) == (10, 4)
    assert [event["status"] for event in events_of(run.run_dir, "run_ended")] == ["failed", "completed"]


MY_OBJECTIVE = """
import pathlib
def train(config, trial):
    if config['x'] > 0.2 and not pathlib.Path('mended').exists():
        raise ValueError('the data are not there')
    trial.report(loss=config['x'])
"""


@pytest.mark.usefixtures("ray_here")
def test_the_command_says_which_limit_was_passed_and_how_to_go_on(
    in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "my.py").write_text(MY_OBJECTIVE)
    mine = ["experiment=function", "trainable.target=my.py:train", "space.x=uniform(0, 1)", "trials=8"]
    done = call("run", *mine, "slots=1", "retry.max_failures=2", "retry.backoff_s=0", "--out", "r")
    assert done.returncode == 1
    error = "ValueError: the data are not there"
    assert [line for line in done.stderr.splitlines() if not line.startswith("function  ")] == [
        f"run directory {in_tmp}/r",
        *(
            line
            for number in range(3)
            for line in (
                f"note: trial 000{number}: {error}; attempt 1 follows",
                f"trial 000{number} failed: {error}",
            )
        ),
        f"failed: 3 trials failed, more than retry.max_failures=2; the last: {error} "
        f"({in_tmp}/r/trials/0002/attempt-1/output.log); once that is mended, `hpo-ray resume {in_tmp}/r` goes on",
    ]
    assert events_of(in_tmp / "r", "run_ended")[-1]["status"] == "failed"
    assert done.stdout.startswith(f"failures\n   3 × {error}  r/trials/0000/attempt-1/output.log\nbest ")
    (in_tmp / "mended").touch()
    code, out, err = told(capfd, "resume", "r")
    assert code == 0, err
    assert out.startswith(f"failures\n   3 × {error}  r/trials/0000/attempt-1/output.log\nbest ")
    assert "trials      8: 5 completed, 0 stopped early, 3 failed" in out
