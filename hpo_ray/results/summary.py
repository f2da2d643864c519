"""The answer of a run in one mapping: which configuration, how sure, at what cost. Pure: history in, plain data out."""

from __future__ import annotations

import math
from typing import Any

from hpo_ray.history import History, ReportRow
from hpo_ray.results.intervals import wilson

CONFIDENCE = 0.95
# The two-sided 95 % point of the normal distribution.
Z = 1.959963984540054


def summarise(run: History) -> dict[str, Any]:
    """A run's summary, in the shape that ``--json`` prints.

    Returns:
        ``run_dir, metric, mode, best_trial, best_config, best_value`` (validation), ``best_se`` (its standard
        error, or None), ``best_fidelity``, ``test``
        (``errors, n, error`` of the winner on images that no choice was made on, or None), ``interval``
        (``[low, high, 0.95]``: Wilson's for the test error, else the metric's from its standard error, else None),
        ``gap`` (``[train_loss, val_loss]`` of the best report if it fits new data far worse, else None),
        ``unreadable`` (images left out), ``trials, completed, stopped, failed, interrupted, running,
        total_fidelity, wall_time_s, seed``.
    """
    best = run.best()
    test = (run.ended or {}).get("test")
    return {
        "run_dir": str(run.run_dir),
        "metric": run.metric,
        "mode": run.mode,
        "best_trial": best[0].trial_id if best else None,
        "best_config": best[0].config if best else None,
        "best_value": best[1].metrics[run.metric] if best else None,
        "best_se": _se(run, best[1]) if best else None,
        "best_fidelity": best[1].fidelity if best else None,
        "test": {**test, "error": test["errors"] / test["n"]} if test else None,
        "interval": _interval(run, test),
        "gap": _gap(best[1].metrics) if best else None,
        "unreadable": int(best[1].metrics.get("unreadable", 0)) if best else 0,
        "trials": len(run.trials),
        "completed": run.count("completed"),
        "stopped": run.count("stopped"),
        "failed": run.count("failed", "out_of_memory"),
        "interrupted": run.count("interrupted"),
        "running": run.count("pending", "running"),
        "total_fidelity": run.tally.total_fidelity,
        "wall_time_s": round(run.tally.wall_time_s, 3),
        "seed": run.experiment.get("seed"),
    }


def _se(run: History, row: ReportRow) -> float | None:
    se = row.metrics.get(f"{run.metric}_se", math.nan)
    return se if math.isfinite(se) else None


def _gap(metrics: dict[str, float]) -> list[float] | None:
    """Training and validation loss where the second is above the first by half, and by more than chance would have."""
    train, valid = (metrics.get(name, math.nan) for name in ("train_loss", "val_loss"))
    return [train, valid] if valid > 1.5 * train and valid > train + 0.1 else None


def _interval(run: History, test: dict[str, Any] | None) -> list[float] | None:
    if test:
        return [*wilson(test["errors"], test["n"], CONFIDENCE), CONFIDENCE]
    best = run.best()
    se = _se(run, best[1]) if best else None
    if best is None or se is None:
        return None
    value = best[1].metrics[run.metric]
    return [value - Z * se, value + Z * se, CONFIDENCE]
