"""A cluster that loses a node, or its head, while a sweep runs: nothing measured is lost, every trial finishes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray.journal import Event
from tests.processes import with_variable
from tests.sweeps import Command, call, events_of, wait_for

EPOCHS = 12
# Works in the driver's folder, imports what lies beside it, and writes each report down for itself before it makes it.
OBJECTIVE = """
import json, os, time
from pathlib import Path
from neighbour import loss

def train(config, trial):
    saved = trial.load_checkpoint()
    for epoch in range(1 + (int((saved / "epoch").read_text()) if saved else 0), config["epochs"] + 1):
        time.sleep(0.25)
        row = {"trial_id": trial.id, "attempt": trial.attempt, "epoch": epoch, "loss": loss(config, trial, epoch)}
        with Path("truth.jsonl").open("a") as file:
            file.write(json.dumps({**row, "raylet": int(os.environ["RAY_RAYLET_PID"])}) + "\\n")
        trial.report(epoch=epoch, loss=row["loss"], checkpoint=lambda folder: (folder / "epoch").write_text(str(epoch)))
"""
NEIGHBOUR = """
def loss(config, trial, epoch):
    return config["x"] + 1 / epoch + trial.attempt / 1000
"""
MARK = "HPO_RAY_TEST_CLUSTER"
Row = tuple[str, int, float, float]  # trial, attempt, epoch, loss


@pytest.fixture(autouse=True)
def sweep_folder(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the objective, in an environment that has a token and nothing else of Ray's; no process is left."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "TUNE_"))]:
        monkeypatch.delenv(name)
    (in_tmp / "token").touch(0o600)
    (in_tmp / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(in_tmp / "token"))
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    (in_tmp / "slow.py").write_text(OBJECTIVE)
    (in_tmp / "neighbour.py").write_text(NEIGHBOUR)
    yield in_tmp
    wait_for(lambda: not with_variable(MARK, mark), timeout_s=20)


class RayCluster:
    """`ray_cluster`, under way; a context manager that ends it.

    Attributes:
        address: Of its head, as ``host:port``.
        raylets: The number of each node's own process.
    """

    address: str
    raylets: list[int]

    def __init__(self, **environment: str) -> None:
        # Ray's sockets need short paths; its note of the newest cluster must not lie where others look for theirs.
        self._folder = tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=Path("cluster.err").open("ab"),  # noqa: SIM115
            cwd=Path(__file__).parents[1],
            env={**os.environ, "RAY_TMPDIR": self._folder.name, **environment},
            text=True,
        )

    def tell(self, words: str = "") -> None:
        """Have something happen to it; returns when it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if words:
            self._process.stdin.write(words + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, Path("cluster.err").read_text()[-3000:]
        vars(self).update(json.loads(answer))

    def __enter__(self) -> RayCluster:
        self.tell()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._process.communicate(timeout=60)
        finally:
            self._process.kill()
            self._folder.cleanup()


def sweep(cluster: RayCluster, trials: int, *overrides: str) -> Command:
    words = ["experiment=function", "trainable.target=slow.py:train", "searcher=random", "fidelity=epoch"]
    space = ["space.x=uniform(0, 1)", f"space.epochs={EPOCHS}"]
    return Command(
        "run", *words, *space, f"ray.address={cluster.address}", f"trials={trials}", "--out", "r", *overrides
    )


def truth() -> list[dict[str, Any]]:
    path = Path("truth.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def both_at_work(cluster: RayCluster) -> list[Row]:
    """Wait until each node has made some reports; what the journal holds then."""
    rows_of = lambda raylet: [row for row in truth() if row["raylet"] == raylet]  # noqa: E731
    wait_for(lambda: all(len(rows_of(raylet)) >= 4 for raylet in cluster.raylets))
    return journalled()


def journalled() -> list[Row]:
    return [_row(event) for event in events_of(Path("r"), "trial_reported")]


def _row(event: Event) -> Row:
    return event["trial_id"], event["attempt"], event["fidelity"], event["metrics"]["loss"]


def check_whole(trials: int, before: list[Row]) -> None:
    """All trials are complete, each epoch was measured once, nothing from before the accident has changed."""
    assert list(hpo_ray.load_results("r")["status"]) == ["completed"] * trials
    frame = hpo_ray.load_results("r", level="reports")
    kept = [tuple(row) for row in frame[["trial_id", "attempt", "epoch", "loss"]].itertuples(index=False)]
    assert sorted((trial_id, epoch) for trial_id, _, epoch, _ in kept) == [
        (f"{number:04d}", epoch) for number in range(trials) for epoch in range(1, EPOCHS + 1)
    ]
    assert set(before) <= set(kept)
    assert sorted(journalled()) == sorted(kept)  # no fidelity was reported twice, even if overwritten later
    assert set(kept) <= {(row["trial_id"], row["attempt"], row["epoch"], row["loss"]) for row in truth()}
    under_way = set()
    for event in events_of(Path("r")):
        attempt = event.get("trial_id"), event.get("attempt")
        if event["event"] == "trial_started":
            under_way.add(attempt)
        elif event["event"] == "trial_ended":
            under_way.discard(attempt)
        assert event["event"] != "trial_reported" or attempt in under_way, "a report of an attempt that had ended"


def check_lost(cause: str = "lost", reason: str = "the trial's process was lost: The actor ") -> None:
    """Trials were lost with their node, which was not held against them, and went on where they had come to."""
    faults = [event for event in events_of(Path("r"), "trial_ended") if event.get("cause")]
    assert faults
    for fault in faults:
        assert (fault["cause"], fault["status"]) == (cause, "interrupted")
        assert fault["reason"].startswith(reason)
        reports = events_of(Path("r"), "trial_reported", fault["trial_id"])
        came_to = max(event["fidelity"] for event in reports if event["attempt"] == fault["attempt"])
        first = next(event for event in reports if event["attempt"] == fault["attempt"] + 1)
        assert (first["since"], first["fidelity"]) == (came_to, came_to + 1)
    ids = [fault["trial_id"] for fault in faults]
    attempts = hpo_ray.load_results("r").set_index("trial_id")["attempt"]
    assert dict(attempts[attempts > 0]) == {trial_id: ids.count(trial_id) for trial_id in ids}


def test_a_node_that_dies_costs_its_trials_a_restart_from_their_last_checkpoint() -> None:
    with RayCluster() as cluster, sweep(cluster, 5, "--json") as driver:
        before = both_at_work(cluster)  # as many slots as the cluster holds: two
        cluster.tell("kill 1")
        assert driver.end() == 0, driver.err
        check_whole(5, before)
        check_lost()
        assert json.loads(driver.out)["failed"] == 0  # nothing of Ray's about the node is on stdout


@pytest.mark.slow
def test_two_trials_with_half_a_gpu_each_share_one_at_a_time() -> None:
    Path("slow.py").write_text(
        "import os, time\n"
        "def train(config, trial):\n"
        "    start = time.time()\n"
        "    time.sleep(1)\n"
        "    gpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
        "    trial.report(loss=config['x'], start=start, end=time.time(), gpu=int(gpu), cuda=trial.device == 'cuda')\n"
    )
    share = ["resources.gpus_per_trial=0.5", "resources.cpus_per_trial=0.5", "fidelity=null"]
    with RayCluster() as cluster:
        cluster.tell("gpu")
        with sweep(cluster, 4, *share) as driver:
            assert driver.end() == 0, driver.err
    trials = hpo_ray.load_results("r")
    assert list(trials["status"]) == ["completed"] * 4
    assert (trials["gpu"] == 0).all()
    assert (trials["cuda"] == 1).all()
    at_once = [((trials["start"] <= start) & (trials["end"] > start)).sum() for start in trials["start"]]
    assert max(at_once) == 2


@pytest.mark.slow
def test_a_node_that_is_taken_back_with_notice_costs_its_trials_a_restart_that_is_not_their_fault() -> None:
    with RayCluster() as cluster, sweep(cluster, 5, "retry.max_retries=0") as driver:
        before = both_at_work(cluster)
        cluster.tell("drain 1")
        assert driver.end() == 0, driver.err
        check_whole(5, before)
        check_lost("preempted", "its machine was taken back; the trial's process was lost: The actor ")


@pytest.mark.slow
def test_processes_that_outlive_their_node_work_on_until_it_is_given_up_and_spoil_nothing() -> None:
    with RayCluster() as cluster, sweep(cluster, 14) as driver:
        before = both_at_work(cluster)
        cluster.tell("raylet 1")
        cluster.tell("add")
        assert driver.end() == 0, driver.err
        check_whole(14, before)
        check_lost()
        assert {row["raylet"] for row in truth()} == set(cluster.raylets)  # the new node had its share


@pytest.mark.slow
def test_a_node_that_falls_silent_is_given_up_and_comes_back_too_late() -> None:
    with RayCluster(RAY_health_check_timeout_ms="1000") as cluster, sweep(cluster, 5) as driver:
        before = both_at_work(cluster)
        cluster.tell("freeze 1")
        wait_for(lambda: [event for event in events_of(Path("r"), "trial_ended") if event.get("cause") == "lost"])
        cluster.tell("thaw 1")
        assert driver.end() == 0, driver.err
        check_whole(5, before)
        check_lost()


@pytest.mark.slow
def test_a_driver_whose_cluster_lost_its_head_ends_and_goes_on_in_another_cluster() -> None:
    with RayCluster() as cluster, sweep(cluster, 6) as driver:
        before = both_at_work(cluster)
        cluster.tell("gcs")
        assert driver.end() == 1
        assert f"the cluster's head at {cluster.address} has not answered for" in driver.err
        assert f"go on with `hpo-ray resume {Path('r').absolute()}`" in driver.err
    last = events_of(Path("r"))[-1]
    assert (last["event"], last["status"], last["cause"]) == ("run_ended", "failed", "ray_lost")
    with RayCluster() as another:
        done = call("resume", "r", f"ray.address={another.address}")
        assert done.returncode == 0, done.stderr
    check_whole(6, before)
