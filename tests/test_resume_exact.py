"""A sweep with one slot that was killed and resumed is the sweep that was not: same configurations, same decisions."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from hpo_ray import config, journal
from hpo_ray.driver import Driver
from hpo_ray.experiment import Experiment
from hpo_ray.history import History, fold
from hpo_ray.journal import Event, Journal, encode
from hpo_ray.keeper import Keeper
from hpo_ray.preflight import check
from hpo_ray.runner import resume, start
from tests.objectives import curve

OBJECTIVE = Path(__file__).parent / "objectives" / "curve.py"
TRIALS = 14
OVERRIDES = [
    "experiment=function",
    f"trainable.target={OBJECTIVE}:train",
    "space.lr=loguniform(1e-4, 1e-1)",
    "space.depth=int(1, 5)",
    "space.optimizer=choice(sgd, adam)",
    "space.momentum=uniform(0, 0.99, when={optimizer: sgd})",
    "fidelity=epoch",
    f"trials={TRIALS}",
    "slots=1",
    "seed=5",
]
ASHA = ["scheduler=asha", f"scheduler.max_t={curve.EPOCHS}"]
# After so many suggestions GP-EI fills the space no longer, but asks its model: twice as many as there are parameters.
MODELLED = 8


def experiment(*overrides: str) -> Experiment:
    return check(config.load([*OVERRIDES, *overrides]))


def suggested(events: list[Event]) -> list[Any]:
    return encode([(e["trial_id"], e["config"]) for e in events if e["event"] == "trial_suggested"])


def decided(events: list[Event]) -> list[Any]:
    keys = ("trial_id", "rung", "value", "cutoff", "kept", "rank", "n")
    return encode([[e[key] for key in keys] for e in events if e["event"] == "rung_decided"])


def measured(events: list[Event]) -> Any:
    """How each trial ended or stands, and what it reported."""
    trials = fold(Path(), events).trials.values()
    return encode({t.trial_id: (t.status, [(r.fidelity, r.metrics["loss"]) for r in t.reports]) for t in trials})


def assert_same(found: list[Event], expected: list[Event]) -> None:
    assert suggested(found) == suggested(expected)
    assert decided(found) == decided(expected)
    assert measured(found) == measured(expected)


# By the driver alone, without Ray: from every line of the journal


def go_on(run_dir: Path, made: Experiment, suggestions: int = TRIALS + 1) -> list[Event]:
    """Take a run over from its journal and run its trials one by one, until so many configurations were suggested."""
    log = journal.read(run_dir).events if (run_dir / journal.FILE_NAME).exists() else []
    history = History(run_dir)
    keeper = Keeper(history, made.storage.keep_checkpoints)

    def follow(event: Event) -> None:
        history.apply(event)
        keeper.follow(event)

    with Journal(run_dir, follow) as file:
        driver = Driver(made, file, history, keeper)
        driver.replay(log)
        file.append("run_started", experiment=made.model_dump())
        keeper.clear()
        driver.take_over()
        for number in itertools.count():
            attempt = driver.next_attempt(f"ray-{number}")
            if attempt is None or len(history.trials) >= suggestions:
                break
            _attempt(driver, f"ray-{number}", attempt["spec"])
    assert driver.failure is None
    return journal.read(run_dir).events


def _attempt(driver: Driver, ray_id: str, spec: dict[str, Any]) -> None:
    """What `curve.train` would report, from the newest checkpoint on."""
    driver.started(ray_id)
    done = int(spec["checkpoints"][0].rpartition("-")[2]) if spec["checkpoints"] else 0
    for epoch in range(done + 1, curve.EPOCHS + 1):
        metrics = {"epoch": float(epoch), "loss": curve.loss(spec["config"], epoch)}
        path = f"{spec['dir']}/checkpoint-{epoch}"
        told = {"fidelity": float(epoch), "metrics": metrics, "elapsed_s": 0.0, "checkpoint": path}
        if driver.judge(ray_id, {"report": told}):
            break
    else:
        driver.judge(ray_id, {"ended": {"status": "completed", "reason": "", "problems": []}})
    driver.ended(ray_id)


def up_to(events: list[Event], suggestions: int) -> list[Event]:
    """The events up to suggestion number so many, which is among them."""
    places = [place for place, event in enumerate(events) if event["event"] == "trial_suggested"]
    return events[: places[suggestions - 1] + 1] if suggestions <= len(places) else events


CASES = [("random", ASHA), ("hyperopt", ASHA), ("gp_ei", ASHA), ("gp_ei", ["scheduler=none"])]


@pytest.mark.parametrize(("searcher", "scheduler"), CASES, ids=["random", "hyperopt", "gp_ei", "gp_ei-no-asha"])
def test_from_every_line_of_the_journal_the_next_decisions_and_suggestion_are_the_same(
    tmp_path: Path, searcher: str, scheduler: list[str]
) -> None:
    made = experiment(f"searcher={searcher}", *scheduler)
    whole = go_on(tmp_path / "whole", made)
    assert len(suggested(whole)) == TRIALS
    assert {"completed", "stopped" if scheduler == ASHA else "failed"} <= {end for end, _ in measured(whole).values()}
    lines = (tmp_path / "whole" / journal.FILE_NAME).read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines) + 1):
        run_dir = tmp_path / f"cut-{cut}"
        run_dir.mkdir()
        # Every second one lacks its last newline: that line counts.
        (run_dir / journal.FILE_NAME).write_bytes(b"".join(lines[:cut])[: -1 if cut % 2 else None])
        wanted = len(suggested(whole[:cut])) + 1
        assert_same(go_on(run_dir, made, wanted), up_to(whole, wanted))


# By the command, with Ray: killed twice


def killed(run_dir: Path, *arguments: str, suggestions: int) -> None:
    """Run a command and kill its driver once so many configurations were suggested in all."""
    command = [sys.executable, "-m", "hpo_ray.cli", *arguments, "--quiet"]
    driver = subprocess.Popen(command, cwd=run_dir.parent, start_new_session=True)
    try:
        path, deadline = run_dir / journal.FILE_NAME, time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b'"trial_suggested"') < suggestions:
            assert driver.poll() is None, "the driver ended before it was killed"
            assert time.monotonic() < deadline, "the driver got nowhere"
            time.sleep(0.005)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    "searcher", ["gp_ei", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "hyperopt"))]
)
def test_a_sweep_that_was_killed_twice_ends_as_one_that_was_not(tmp_path: Path, searcher: str) -> None:
    overrides = [f"searcher={searcher}", *ASHA]
    made = experiment(*overrides)
    start(made, out=tmp_path / "whole")
    whole = journal.read(tmp_path / "whole").events
    run_dir = tmp_path / "r"
    here = f"ray.address={ray.get_runtime_context().gcs_address}"
    killed(run_dir, "run", *OVERRIDES, *overrides, here, "--out", "r", suggestions=4)
    killed(run_dir, "resume", "r", suggestions=MODELLED + 2)
    resume(run_dir)
    found = journal.read(run_dir)
    assert sum(event["event"] == "run_started" for event in found.events) == 3
    assert found.damaged == 0
    assert_same(found.events, whole)
    assert_same(go_on(tmp_path / "alone", made), whole)
