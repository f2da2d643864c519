"""The answer of a run in one mapping: which configuration, how sure, at what cost. Pure: history in, plain data out."""

from __future__ import annotations

import math
from typing import Any

from hpo_ray.history import History

CONFIDENCE = 0.95
# The two-sided 95 % point of the normal distribution.
_Z = 1.959963984540054


def summarise(run: History) -> dict[str, Any]:
    """A run's summary, in the shape that ``--json`` prints.

    Returns:
        ``run_dir, metric, mode, best_trial, best_config, best_value`` (validation), ``best_fidelity``, ``test``
        (``errors, n, error`` of the winner on images that no choice was made on, or None), ``interval``
        (``[low, high, 0.95]``: Wilson's for the test error, else the metric's from its standard error, else None),
        ``trials, completed, stopped, failed, total_fidelity, wall_time_s, seed``.
    """
    best = run.best()
    ended = run.ended or {}
    test = ended.get("test")
    end = ended.get("time", run.last_seen)
    return {
        "run_dir": str(run.run_dir),
        "metric": run.metric,
        "mode": run.mode,
        "best_trial": best[0].trial_id if best else None,
        "best_config": best[0].config if best else None,
        "best_value": best[1].metrics[run.metric] if best else None,
        "best_fidelity": best[1].fidelity if best else None,
        "test": {**test, "error": test["errors"] / test["n"]} if test else None,
        "interval": _interval(run, test),
        "trials": len(run.trials),
        "completed": run.count("completed"),
        "stopped": run.count("stopped"),
        "failed": run.count("failed", "out_of_memory"),
        "interrupted": run.count("interrupted", "pending", "running"),
        "total_fidelity": run.total_fidelity(),
        "wall_time_s": round(end - run.started_at, 3),
        "seed": run.experiment.get("seed"),
    }


def wilson(errors: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of errors.

    Args:
        errors: How many were wrong.
        n: How many there were; at least 1.

    Returns:
        Its lower and upper end, each in [0, 1]. Source: Wilson 1927; Brown, Cai & DasGupta 2001, section 3.1.1.
    """
    share, z2 = errors / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if errors == 0 else centre - half, 1.0 if errors == n else centre + half)


def _interval(run: History, test: dict[str, Any] | None) -> list[float] | None:
    if test:
        return [*wilson(test["errors"], test["n"]), CONFIDENCE]
    best = run.best()
    se = best[1].metrics.get(f"{run.metric}_se", math.nan) if best else math.nan
    if best is None or not math.isfinite(se):
        return None
    value = best[1].metrics[run.metric]
    return [value - _Z * se, value + _Z * se, CONFIDENCE]
