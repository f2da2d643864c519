"""The actor between Tune and a worker process, as a real Ray actor: what each step answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray

from hpo_ray.trainables.actor import actor_class
from hpo_ray.trainables.trial import Trial
from hpo_ray.trainables.worker import Setup
from tests.trainables.conftest import fill

Step = Callable[[], dict[str, Any]]


class Slot:
    """A running actor; `next` gives it another trial."""

    def __init__(self, objective: Callable[[dict, Trial], None], folder: Path, **fields: Any) -> None:
        self._folder, self._number = folder, 0
        setup = Setup(cloudpickle.dumps(objective), (), str(folder), 512)
        self.actor = ray.remote(num_cpus=1)(actor_class(setup)).remote(config=self._config(fields))

    def step(self) -> dict[str, Any]:
        return dict(ray.get(self.actor.train.remote(), timeout=60))

    def next(self, **fields: Any) -> None:
        self._number += 1
        assert ray.get(self.actor.reset.remote(self._config(fields)), timeout=60)

    def _config(self, fields: dict[str, Any]) -> dict[str, Any]:
        spec = {"id": f"{self._number:04d}", "config": {}, "seed": 0, "attempt": 0, "fidelity": "epoch"}
        return {"spec": {**spec, "metric": "loss", "dir": str(self._folder / f"{self._number:04d}"), **fields}}


@pytest.fixture
def slot(ray_here: None, tmp_path: Path) -> Iterator[Callable[..., Slot]]:
    made: list[Slot] = []

    def make(objective: Callable[[dict, Trial], None], folder: Path = tmp_path, **fields: Any) -> Slot:
        made.append(Slot(objective, folder, **fields))
        return made[-1]

    yield make
    for one in made:
        ray.get(one.actor.stop.remote(), timeout=60)
        ray.kill(one.actor)


def save(folder: Path) -> None:
    (folder / "w").write_bytes(bytes(2**21))


def test_a_trial_that_says_nothing_for_too_long_is_ended_and_its_process_replaced(slot: Callable[..., Slot]) -> None:
    def objective(config: dict, trial: Trial) -> None:
        trial.report(epoch=1, loss=float(os.getpid()))
        time.sleep(config.get("sleep_s", 0))
        trial.report(epoch=2, loss=float(os.getpid()))

    one = slot(objective)
    first = one.step()["report"]["worker"]
    assert (one.step()["report"]["fidelity"], one.step()["ended"]["status"]) == (2, "completed")
    one.next(config={"sleep_s": 600}, timeout_s=4.0)
    assert one.step()["report"]["worker"] == first  # a process that has started, so that it answers at once
    began = time.monotonic()
    last = one.step()
    assert time.monotonic() - began > 3.9
    assert last["done"]
    assert (last["ended"]["status"], last["ended"]["cause"]) == ("failed", "hung")
    assert last["ended"]["reason"] == "no report for 4 s: the trial was ended"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    one.next(timeout_s=60.0)
    assert one.step()["report"]["worker"] != first
    assert (one.step()["report"]["fidelity"], one.step()["ended"]["status"]) == (2, "completed")


def test_starting_counts_too(slot: Callable[..., Slot]) -> None:
    def objective(config: dict, trial: Trial) -> None:
        time.sleep(600)

    assert slot(objective, timeout_s=2.0).step()["ended"]["cause"] == "hung"


def test_a_pause_is_told_and_the_step_after_it_waits(slot: Callable[..., Slot], small_disk: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        trial.report(epoch=1, loss=0.5, checkpoint=save)

    ballast = fill(small_disk)
    ballast.write_bytes(bytes(3 * 2**20))
    one = slot(objective, small_disk, timeout_s=8.0)  # less than the time between two messages of a paused trial
    for _ in range(2):
        answer = one.step()
        assert answer["paused"] == f"no room to save checkpoint 1 in '{small_disk / '0000'}'; once there is some"
        assert not answer["done"]
        assert "report" not in answer
    ballast.unlink()
    report = one.step()
    assert (report["loss"], report["report"]["checkpoint"]) == (0.5, str(small_disk / "0000" / "checkpoint-1"))
    assert one.step()["ended"]["status"] == "completed"


def test_a_paused_trial_gives_way_to_the_next(slot: Callable[..., Slot], small_disk: Path, tmp_path: Path) -> None:
    def objective(config: dict, trial: Trial) -> None:
        trial.report(epoch=1, loss=0.5, checkpoint=save)

    fill(small_disk).write_bytes(bytes(3 * 2**20))
    one = slot(objective, small_disk)
    assert "paused" in one.step()
    one.next(dir=str(tmp_path / "roomy"))
    assert one.step()["report"]["checkpoint"] == str(tmp_path / "roomy" / "checkpoint-1")
    assert one.step()["ended"]["status"] == "completed"


def test_the_checkpoint_that_an_attempt_goes_on_from_is_told(slot: Callable[..., Slot]) -> None:
    def objective(config: dict, trial: Trial) -> None:
        start = 3 if trial.load_checkpoint() else 0
        for epoch in (start + 1, start + 2):
            trial.report(epoch=epoch, loss=1.0, checkpoint=save)

    one = slot(objective)
    first, second = one.step()["report"], one.step()["report"]
    assert "since" not in first
    assert one.step()["done"]
    one.next(checkpoints=[str(Path(second["checkpoint"]).with_name("gone")), second["checkpoint"], first["checkpoint"]])
    third, fourth = one.step()["report"], one.step()["report"]
    assert (third["fidelity"], third["since"]) == (4.0, 2.0)
    assert "since" not in fourth


def test_a_trial_that_ran_out_of_memory_has_its_process_replaced(slot: Callable[..., Slot]) -> None:
    def objective(config: dict, trial: Trial) -> None:
        if trial.micro_batches < 2:
            raise MemoryError
        trial.report(epoch=1, loss=1.0)

    one = slot(objective)
    ended = one.step()["ended"]
    assert (ended["status"], ended["cause"], ended["splits"]) == ("out_of_memory", "out_of_memory", True)
    assert ended["replaced"] == "it ran out of memory"
    one.next(micro_batches=2)
    assert one.step()["report"]["metrics"] == {"epoch": 1.0, "loss": 1.0}
