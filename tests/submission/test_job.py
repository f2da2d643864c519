"""Runs sent as jobs to real clusters with token authentication: followed, fetched, resumed on another cluster."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from tests.ray_start import Started
from tests.sweeps import events_of, wait_for

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None,
    reason="no dashboard without ray[default]: pip install 'hpo-ray[cluster]'",
)
EPOCHS = 12
OBJECTIVE = """
import os, time
from neighbour import loss

def train(config, trial):
    saved = trial.load_checkpoint()
    for epoch in range(1 + (int((saved / "epoch").read_text()) if saved else 0), config["epochs"] + 1):
        time.sleep(config["pause"])
        value = loss(config, epoch) + sum(name.startswith(("SECRET", "AWS_")) for name in os.environ)
        trial.report(epoch=epoch, loss=value, checkpoint=lambda folder: (folder / "epoch").write_text(str(epoch)))
"""
NEIGHBOUR = """
def loss(config, epoch):
    return config["x"] + 1 / epoch
"""


@pytest.fixture
def work(in_tmp: Path) -> Path:
    """A user's folder, with code and a few things that are nobody else's."""
    folder = in_tmp / "work"
    folder.mkdir()
    (folder / "slow.py").write_text(OBJECTIVE)
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    (folder / ".env").write_text("SECRET=1")
    return folder


def words(cluster: Started, *arguments: str) -> list[str]:
    """The command; what it runs has the token where nothing else says."""
    return [sys.executable, "-m", "hpo_ray.cli", "submit", "--address", cluster.dashboard, *arguments]


def sweep(trials: int, pause: float) -> list[str]:
    space = ["space.x=uniform(0, 1)", f"space.epochs={EPOCHS}", f"space.pause={pause}"]
    target = ["experiment=function", "trainable.target=slow.py:train", "searcher=random", "fidelity=epoch"]
    return [*target, *space, f"trials={trials}"]


def submit(cluster: Started, folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in (cluster.client | changes).items() if value}
    return subprocess.run(
        words(cluster, *arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=150
    )


@pytest.mark.slow
def test_a_run_is_sent_followed_and_fetched_and_nobody_gets_in_without_the_token(work: Path) -> None:
    home = work.parent / "home"
    home.mkdir()
    with Started(work.parent / "cluster") as cluster:
        cluster.head("--num-cpus=2", HOME=str(home))
        (work / "notes.txt").write_text(cluster.token.read_text())  # a copy that was left lying about
        secret = {"SECRET_OF_MINE": "1", "AWS_SECRET_ACCESS_KEY": "1"}
        done = submit(cluster, work, *sweep(2, 0.0), "--out", "~/there/r", "--json", **secret)
        assert done.returncode == 0, done.stdout + done.stderr + cluster.said()
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["completed"] == 2
        assert answer["best_value"] < 2  # no variable of ours was in the trials' environment
        assert "left out 2 as secrets: .env, notes.txt" in done.stderr
        nobody = {"HOME": str(work), "RAY_AUTH_TOKEN_PATH": ""}
        without = submit(cluster, work, *sweep(1, 0.0), **nobody)
        environment = {name: value for name, value in (cluster.client | nobody).items() if value}
        looking = [sys.executable, "-m", "hpo_ray.cli", "doctor", "--address", cluster.address]
        blind = subprocess.run(looking, env=environment, capture_output=True, text=True, timeout=90)
        seeing = subprocess.run(looking, env=cluster.client, capture_output=True, text=True, timeout=90)
        (work / "wrong").write_text("f" * 64)
        wrong = submit(cluster, work, *sweep(1, 0.0), RAY_AUTH_TOKEN_PATH=str(work / "wrong"))
    for refused in (without, wrong):
        assert refused.returncode == 2
        assert "asks for the cluster's token, and this machine has none or another" in refused.stderr
    assert (blind.returncode, "--address: there is no token in" in blind.stderr) == (2, True)
    assert (seeing.returncode, "all is well" in seeing.stdout) == (0, True), seeing.stdout + seeing.stderr
    assert [path.name for path in sorted((home / "there" / ".code" / "r").iterdir())] == ["neighbour.py", "slow.py"]
    assert not (home / "runs").exists()  # nothing of the refused
    there, here = home / "there" / "r", work / "runs" / "r"
    assert (here / "events.jsonl").read_bytes() == (there / "events.jsonl").read_bytes()
    assert len(hpo_ray.load_results(here)) == 2


@pytest.mark.slow
def test_a_sweep_loses_a_node_and_its_cluster_and_is_resumed_by_the_same_command_on_another(work: Path) -> None:
    run = work.parent / "shared" / "r"
    command = [*sweep(4, 0.25), "--out", str(run)]
    with Started(work.parent / "one") as cluster:
        cluster.head()
        cluster.node()
        doomed = cluster.node()
        cluster.wait(3)
        doctor = [sys.executable, "-m", "hpo_ray.cli", "doctor", "--address", cluster.address]
        looked = subprocess.run(
            [*doctor, "--storage", str(run.parent)], env=cluster.client, capture_output=True, text=True, timeout=90
        )
        assert looked.returncode == 0, looked.stdout + looked.stderr
        with subprocess.Popen(
            words(cluster, *command),
            cwd=work,
            env=cluster.client,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as following:
            wait_for(lambda: run.exists() and len(events_of(run, "trial_reported")) >= 8)
            cluster.kill(doomed)
            wait_for(lambda: [event for event in events_of(run, "trial_ended") if event.get("cause") == "lost"])
            following.send_signal(signal.SIGINT)
            told = following.communicate(timeout=30)[1]
        assert following.returncode == 130
        assert "the job goes on; `hpo-ray submit --address" in told
        before = len(events_of(run, "trial_reported"))
        wait_for(lambda: len(events_of(run, "trial_reported")) > before)  # it does
    time.sleep(1)
    before = len(events_of(run, "trial_reported"))
    with Started(work.parent / "two") as another:
        another.head()
        another.node()
        another.node()
        another.wait(3)
        done = submit(another, work, *command)
        assert done.returncode == 0, done.stdout + done.stderr + another.said()
    assert f"results: {run}, which is seen from here too" in done.stderr
    assert list(hpo_ray.load_results(run)["status"]) == ["completed"] * 4
    frame = hpo_ray.load_results(run, level="reports")
    assert sorted(zip(frame["trial_id"], frame["epoch"], strict=True)) == [
        (f"{number:04d}", epoch) for number in range(4) for epoch in range(1, EPOCHS + 1)
    ]
    assert len(events_of(run, "trial_reported")) >= max(before, 4 * EPOCHS)
