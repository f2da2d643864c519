"""The answer of a run: the right winner, an honest interval, the counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo_ray.history import fold
from hpo_ray.results.intervals import wilson
from hpo_ray.results.summary import summarise
from hpo_ray.screen import answer


def run_of(reports: dict[str, list[tuple[float, float]]], **ended: Any) -> Any:
    """A history from trial id -> (fidelity, loss) pairs."""
    events: list[dict[str, Any]] = [
        {"event": "run_started", "time": 100.0, "experiment": {"metric": "loss", "mode": "min", "seed": 3}}
    ]
    for trial_id, rows in reports.items():
        identity = {"trial_id": trial_id, "attempt": 0, "time": 101.0}
        events.append({**identity, "event": "trial_suggested", "config": {"x": trial_id}, "config_id": trial_id})
        events.append({**identity, "event": "trial_started"})
        events += [
            {**identity, "event": "trial_reported", "fidelity": fidelity, "elapsed_s": 1.0,
             "metrics": {"loss": loss, "loss_se": 0.1}}
            for fidelity, loss in rows
        ]  # fmt: skip
        events.append({**identity, "event": "trial_ended", "status": "completed", "reason": ""})
    events.append({"event": "run_ended", "time": 160.5, "status": "completed", **ended})
    return fold(Path("r"), events)


def test_among_equals_the_longest_trained_then_the_first_wins() -> None:
    run = run_of({"0000": [(1, 0.5)], "0001": [(1, 0.9), (3, 0.5)], "0002": [(3, 0.5)], "0003": [(9, 0.7)]})
    assert summarise(run)["best_trial"] == "0001"
    assert summarise(run)["best_fidelity"] == 3


def test_the_interval_is_the_tests_if_there_was_one_else_the_metrics_own() -> None:
    rows = {"0000": [(1.0, 0.5)]}
    tested = summarise(run_of(rows, test={"errors": 7, "n": 360}))
    assert tested["test"] == {"errors": 7, "n": 360, "error": 7 / 360}
    assert tested["interval"] == [*wilson(7, 360), 0.95]
    plain = summarise(run_of(rows))
    assert plain["test"] is None
    assert plain["interval"] == pytest.approx([0.5 - 0.196, 0.5 + 0.196, 0.95], abs=1e-4)


@pytest.mark.parametrize(
    ("train", "valid", "gap"),
    [(0.1, 0.5, [0.1, 0.5]), (0.5, 0.6, None), (0.01, 0.05, None), (0.9, 0.4, None), (float("nan"), 0.4, None)],
)
def test_a_gap_between_training_and_validation_is_named(train: float, valid: float, gap: list[float] | None) -> None:
    run = run_of({"0000": [(1, 0.5)]})
    run.trials["0000"].reports[0].metrics.update(train_loss=train, val_loss=valid)
    summary = summarise(run)
    assert summary["gap"] == gap
    text = answer(summary, run).plain
    assert ("val_loss 0.5 against train_loss 0.1: augmentation" in text) == (gap is not None)


def test_counts_cost_and_time() -> None:
    summary = summarise(run_of({"0000": [(1, 0.5), (2, 0.4)], "0001": [(1, 0.9)]}))
    assert (summary["trials"], summary["completed"], summary["stopped"], summary["failed"]) == (2, 2, 0, 0)
    assert summary["total_fidelity"] == 3
    assert summary["wall_time_s"] == 60.5
    assert summary["seed"] == 3


def test_a_run_without_a_finite_value_has_no_best() -> None:
    summary = summarise(run_of({"0000": [(1, float("nan"))], "0001": []}))
    assert summary["best_trial"] is summary["best_value"] is summary["interval"] is None
