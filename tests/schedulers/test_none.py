"""The order in which trials get their turn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray.schedulers import none
from tests.sweeps import events_of


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_finds_no_room_gets_the_next_place_that_another_leaves(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def objective(config: dict[str, Any], trial: hpo_ray.Trial) -> None:
        time.sleep(0.6)
        trial.report(loss=config["x"])

    monkeypatch.setattr(none, "PATIENCE_S", 0.3)
    # Something else holds one of the two processors, as if a node of one had been lost.
    holder = ray.remote(num_cpus=1)(type("Holder", (), {"here": lambda self: True})).remote()
    assert ray.get(holder.here.remote(), timeout=60)
    try:
        run = hpo_ray.run(objective, {"x": "uniform(0, 1)"}, searcher="random", trials=5, slots=2, out=in_tmp / "r")
    finally:
        ray.kill(holder)
    assert list(run.frame()["status"]) == ["completed"] * 5
    starts = [event["trial_id"] for event in events_of(run.path, "trial_started")]
    assert sorted(starts[:2]) + starts[2:] == [f"{number:04d}" for number in range(5)]
