"""Room for a trial on a cluster's nodes: what fits, what is told where nothing does, and that nobody waits for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpo_ray
from hpo_ray import capacity, config, journal, runner, winner
from hpo_ray.capacity import fits, shortage
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.preflight import check
from tests.sweeps import Listener

ONE = {"CPU": 1.0, "GPU": 0.0}


@pytest.mark.parametrize(
    ("bundles", "nodes", "expected"),
    [
        ([ONE] * 3, [{"CPU": 2.0}, {"CPU": 1.0}], True),
        ([{"CPU": 3.0}], [{"CPU": 2.0}, {"CPU": 1.0}], False),
        ([ONE] * 4, [{"CPU": 2.0}, {"CPU": 1.0}], False),
        ([{"CPU": 1.0, "GPU": 0.5}] * 2, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], True),
        ([{"CPU": 1.0, "GPU": 1.0}] * 2, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], False),
        ([ONE], [], False),
    ],
)
def test_what_fits(bundles: list, nodes: list, expected: bool) -> None:
    assert fits(bundles, nodes) is expected
    assert bool(shortage(bundles, nodes, {"CPU": 100.0, "GPU": 100.0})) is not expected


def test_a_shortage_says_what_is_asked_for_and_what_there_is() -> None:
    assert shortage([ONE] * 8, [{"CPU": 2.0}, {"CPU": 1.0}], {"CPU": 3.0}) == (
        "it asks for 8 x 1 CPUs, each on one node; the cluster's nodes have 2 CPUs and 1 CPUs"
    )
    assert shortage([ONE] * 2, [{"CPU": 2.0, "GPU": 1.0}], {"CPU": 1.0}) == (
        "it asks for 2 x 1 CPUs; others use the cluster, which has 1 CPUs to spare"
    )


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_that_no_node_has_room_for_says_so_once(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "PATIENCE_S", 1.0)
    listener = Listener()
    overrides = ["ray.address=auto", "resources.cpus_per_trial=8", "resources.workers_per_trial=8"]
    overrides += ["stop.wall_time_s=4", "stop.grace_s=0.1", "scheduler=none"]
    checked = check(config.load(["experiment=digits", *overrides]))
    history = runner.start(checked, out=in_tmp / "r", listener=listener)
    assert not any(trial.reports for trial in history.trials.values())
    told = [note for note in listener.notes if "no trial can start" in note]
    assert told == [
        "no trial can start: it asks for 8 x 1 CPUs, each on one node; the cluster's nodes have 2 CPUs; waiting until "
        "there is room"
    ]


@pytest.mark.usefixtures("ray_here")
def test_the_winner_is_tried_with_one_workers_share_and_never_waited_for_in_vain(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hpo_ray.run("digits", trials=1, out=in_tmp / "r", overrides=["scheduler.max_t=1", "training.epochs=1"])
    history = History(run.path)
    events = journal.read(run.path).events
    for event in events:
        history.apply(event)
    experiment = Experiment.model_validate(events[0]["experiment"])

    def tried(**resources: int) -> dict[str, Any]:
        asked = experiment.resources.model_copy(update=resources)
        return winner.try_winner(experiment.model_copy(update={"resources": asked}), history)

    assert tried(cpus_per_trial=6, workers_per_trial=6)["test"]["n"] == 360
    monkeypatch.setattr(winner, "PLACE_S", 1.0)
    told = tried(cpus_per_trial=6, workers_per_trial=1)["test_failure"]
    assert "no node of the cluster has room for it, which asks for 6 CPUs on one node" in told
