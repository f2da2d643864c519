"""Folds in a sweep: ASHA stops a configuration with all of its folds, and a killed sweep goes on with all of them."""

from __future__ import annotations

import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
import ray

from hpo_ray import config, journal
from hpo_ray.history import History, fold
from hpo_ray.preflight import check
from hpo_ray.runner import resume, start
from tests.sweeps import Command, events_of, wait_for, written

FOLDS = 3
OVERRIDES = [
    "experiment=digits",
    "model.arch=mlp",
    "searcher=random",
    f"folds={FOLDS}",
    "trials=6",
    "slots=1",
    "scheduler.max_t=4",
    "scheduler.grace_period=1",
    "scheduler.reduction_factor=2",
]


def decided(run_dir: Path) -> list[Any]:
    keys = ("trial_id", "rung", "value", "cutoff", "kept", "rank", "n")
    return [tuple(event[key] for key in keys) for event in events_of(run_dir, "rung_decided")]


def measured(run: History) -> dict[str, Any]:
    """What each trial was, became and reported, seconds aside."""
    return {
        trial.trial_id: (trial.config, trial.status, [(r.fidelity, {**r.metrics, "epoch_s": 0}) for r in trial.reports])
        for trial in run.trials.values()
    }


@pytest.mark.usefixtures("ray_here")
def test_folds_stay_together_under_asha_and_through_a_kill(in_tmp: Path) -> None:
    whole = start(check(config.load(OVERRIDES)), out=in_tmp / "whole")

    statuses = {trial.status for trial in whole.trials.values()}
    assert statuses == {"completed", "stopped"}
    for trial in whole.trials.values():
        assert [row.fidelity for row in trial.reports] == list(range(1, len(trial.reports) + 1))
        for row in trial.reports:
            children = {name for name in row.metrics if name.startswith("val_error_f")}
            assert children == {f"val_error_f{index}_r0" for index in range(FOLDS)}
            errors = [row.metrics[name] for name in children]
            assert row.metrics["val_error"] == pytest.approx(statistics.fmean(errors))
            assert row.metrics["val_error_se"] == pytest.approx(statistics.stdev(errors) / FOLDS**0.5)
    values = {(trial.trial_id, row.fidelity): row for trial in whole.trials.values() for row in trial.reports}
    assert decided(in_tmp / "whole")
    for trial_id, rung, value, *_ in decided(in_tmp / "whole"):
        assert value == values[trial_id, rung].metrics["val_error"]

    here = f"ray.address={ray.get_runtime_context().gcs_address}"
    with Command("run", *OVERRIDES, here, "--out", "r", "--quiet") as command:
        wait_for(lambda: written(in_tmp / "r", "trial_reported") >= 6)
        command.end(signal.SIGKILL)
    resume(in_tmp / "r")
    log = journal.read(in_tmp / "r")
    assert sum(event["event"] == "run_started" for event in log.events) == 2
    assert measured(fold(in_tmp / "r", log.events)) == measured(whole)
    assert decided(in_tmp / "r") == decided(in_tmp / "whole")
