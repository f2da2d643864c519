"""ASHA inside a plain `tune.Tuner` that knows nothing of hpo_ray."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hpo_ray.schedulers.asha import ASHAScheduler


def objective(config: dict[str, Any]) -> None:
    from ray import tune

    for epoch in range(1, 10):
        loss = math.nan if config["x"] == 3 and epoch == 2 else config["x"] / epoch
        tune.report({"epoch": epoch, "loss": loss})


@pytest.mark.usefixtures("ray_here")
def test_plain_tune_trials_are_stopped_at_rungs(tmp_path: Path) -> None:
    from ray import tune

    decisions: list[Any] = []
    scheduler = ASHAScheduler(max_t=9, fidelity="epoch", on_decision=lambda trial, decision: decisions.append(decision))
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"x": tune.grid_search([0, 1, 2, 3])},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", scheduler=scheduler, max_concurrent_trials=1, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    reached = {result.config["x"]: result.metrics["epoch"] for result in results}
    assert reached[0] == 9  # the best goes on to max_t
    assert [reached[x] for x in (1, 2)] == [1, 1]
    assert reached[3] == 1
    assert [decision.rung for decision in decisions[:2]] == [1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_t": 9, "reduction_factor": 1}, "`reduction_factor` is 1, but must be at least 2"),
        ({"max_t": 9, "grace_period": 0}, "`grace_period` is 0, but must be at least 1"),
        ({"max_t": 2, "grace_period": 3}, "`max_t` is 2, but must be at least 3"),
        ({"max_t": 9, "rungs": [3, 2]}, r"`rungs` is \[3, 2\], but must rise from 1 to below 9"),
        ({"max_t": 9, "rungs": [3, 9]}, r"`rungs` is \[3, 9\], but must rise from 1 to below 9"),
        ({"max_t": 9, "rungs": "cycles"}, "`rungs` is 'cycles', but must be 'geometric' or a list"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASHAScheduler(**options)


def test_rungs_may_be_given() -> None:
    scheduler = ASHAScheduler(max_t=9, rungs=[2, 6], mode="min")
    found = [scheduler.record("a", fidelity, 1.0) for fidelity in range(1, 9)]
    assert [decision.rung for decision in found if decision is not None] == [2, 6]


class _Trial:
    trial_id = "a"


@pytest.mark.parametrize("missing", ["epoch", "loss"])
def test_a_report_without_metric_or_fidelity_is_an_error(missing: str) -> None:
    scheduler = ASHAScheduler(max_t=9, fidelity="epoch", metric="loss", mode="min")
    result = {"epoch": 1, "loss": 0.1}
    del result[missing]
    with pytest.raises(KeyError, match=f"no '{missing}'"):
        scheduler.on_trial_result(None, _Trial(), result)
