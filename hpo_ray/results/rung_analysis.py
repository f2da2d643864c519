"""What stopping early did: who survived which rung, what it saved, and what it risked.

Frames in, frames out. Reads the fidelities at which trials ended, not the scheduler's decisions: any schedule will do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo_ray.results.values import losses, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

DRAWS = 2000
HUGE = 1e100  # a loss whose square no float holds
# A regression from one rung to the next starts from "differences stay as they are": worth so many trials.
BELIEVED = 8.0
# What the errors were a step before is worth so many trials.
BORROWED = 8.0


def rung_survival(trials: pd.DataFrame) -> pd.DataFrame:
    """How many trials reached each fidelity at which any was stopped, and what became of them there.

    Args:
        trials: As from `load_results`.

    Returns:
        Run by run, rungs rising: ``run, rung, reached, stopped, kept`` (trained further, or completed there), ``other``
        (failed or interrupted there, or running), ``survival`` (kept, of those stopped or kept).

    Raises:
        InvalidInput: A column is missing.
    """
    import pandas as pd

    require(trials, "run", "status", "fidelity")
    rows = []
    for run, group in trials.groupby("run", sort=False):
        fidelity, stopped, done = group["fidelity"], group["status"] == "stopped", group["status"] == "completed"
        for rung in sorted(fidelity[stopped].dropna().unique()):
            counts = {
                "reached": int((fidelity >= rung).sum()),
                "stopped": int((stopped & (fidelity == rung)).sum()),
                "kept": int(((fidelity > rung) | (done & (fidelity == rung))).sum()),
                "other": int((~stopped & ~done & (fidelity == rung)).sum()),
            }
            survival = counts["kept"] / (counts["kept"] + counts["stopped"])
            rows.append({"run": run, "rung": float(rung), **counts, "survival": survival})
    return pd.DataFrame(rows, columns=["run", "rung", "reached", "stopped", "kept", "other", "survival"])


def savings(trials: pd.DataFrame, reports: pd.DataFrame, metric: str, mode: str = "min", seed: int = 0) -> pd.DataFrame:
    """What stopping trials early saved each run, against training them all to the end, and what it risked.

    Args:
        trials: As from `load_results`.
        reports: As from `load_results` with ``level="reports"``.
        metric: The metric.
        mode: ``min`` or ``max``.
        seed: Of the random draws.

    Returns:
        A row per run: ``run, trials, stopped, spent`` (fidelity of all trials), ``full`` (had the stopped ones gone on
        to the highest fidelity that any reached; what failed or was interrupted would have so all the same),
        ``saved`` (their difference), ``saved_share``; ``chance`` (that at least one that was stopped would have ended
        better than the best that was not) and ``regret`` (by how much, on average, no loss counting as 0, in the
        metric's unit): see `stopped_chances`, whose assumptions they share. NaN where nothing can be said.

    Raises:
        InvalidInput: A column is missing, or `mode` is neither.
    """
    import pandas as pd

    require(trials, "run", "trial_id", "status", "fidelity")
    rows = []
    for run, group in trials.groupby("run", sort=False):
        stopped = group["status"] == "stopped"
        spent, top = float(group["fidelity"].sum()), float(group["fidelity"].max())
        saved = float((top - group.loc[stopped, "fidelity"]).sum())
        gains = _gains(group, reports[reports["run"] == run], metric, mode, seed)
        most = None if gains is None or not gains[1].size else gains[1].max(axis=0)
        none = 0.0 if not stopped.any() else math.nan
        rows.append(
            {
                "run": run,
                "trials": len(group),
                "stopped": int(stopped.sum()),
                "spent": spent,
                "full": spent + saved,
                "saved": saved,
                "saved_share": saved / (spent + saved) if spent + saved > 0 else 0.0,
                "chance": none if most is None else float((most > 0).mean()),
                "regret": none if most is None else float(np.maximum(most, 0.0).mean()),
            }
        )
    return pd.DataFrame(rows)


def stopped_chances(
    trials: pd.DataFrame, reports: pd.DataFrame, metric: str, mode: str = "min", seed: int = 0
) -> pd.DataFrame:
    """For every trial that was stopped: would it have ended better than the best that was not?

    A stopped trial's value is carried from rung to rung by linear regressions with normal errors, each from the trials
    that passed the rung, with its uncertainty (conjugate Bayesian regression; the prior, worth eight trials, is that
    differences stay as they are and errors are as large as a rung before). A rung stops trials by their value there, on
    which the regression conditions: that the worse ones are missing above it does not bias it (Rubin 1976, missing at
    random), while it would a correlation.

    Assumed: from rung to rung one straight line for all trials, never falling, where in truth slow configurations may
    catch up; normal errors, though a metric may have a bound; and that the value at a rung says all that earlier ones
    do, which under noise it does not. All this errs to one side: take chances and gains for upper bounds. On simulated
    sweeps of 60 trials one that was stopped would have been best in 3 % of sweeps with little noise and 20 % with much,
    and `savings` says 20 % and 45 %; with a dozen trials it says hardly anything. The order of trials is good.

    Args:
        trials: As from `load_results`.
        reports: As from `load_results` with ``level="reports"``.
        metric: The metric.
        mode: ``min`` or ``max``.
        seed: Of the random draws.

    Returns:
        The most likely first: ``run, trial_id, rung`` (where it was stopped), ``value`` (there), ``expected`` (at the
        highest fidelity reached), ``chance`` (to be better than the run's best value there), ``gain`` (by how much on
        average, worse counting as 0).

    Raises:
        InvalidInput: A column is missing, or `mode` is neither.
    """
    import pandas as pd

    require(trials, "run", "trial_id", "status", "fidelity")
    sign = sign_of(mode)
    rows: list[dict[str, Any]] = []
    for run, group in trials.groupby("run", sort=False):
        found = _gains(group, reports[reports["run"] == run], metric, mode, seed)
        if found is None:
            continue
        names, gains, best, table = found[0], found[1], found[2], found[3]
        for name, drawn in zip(names, gains, strict=True):
            value = table.loc[name].dropna()
            rows.append(
                {
                    "run": run,
                    "trial_id": name,
                    "rung": float(value.index[-1]),
                    "value": sign * float(value.to_numpy()[-1]),
                    "expected": sign * float(best - np.median(drawn)),
                    "chance": float((drawn > 0).mean()),
                    "gain": float(np.maximum(drawn, 0.0).mean()),
                }
            )
    frame = pd.DataFrame(rows, columns=["run", "trial_id", "rung", "value", "expected", "chance", "gain"])
    return frame.sort_values("chance", ascending=False, kind="stable", ignore_index=True)


def _gains(
    trials: pd.DataFrame, reports: pd.DataFrame, metric: str, mode: str, seed: int
) -> tuple[list[str], Array, float, pd.DataFrame] | None:
    """One run's stopped trials, by how much each beats the best finished one in `s` draws, that one's loss, the losses.

    Losses are trials x rungs. None where nothing was stopped, nothing reached the top with a finite value, or one is
    beyond ±1e100.
    """
    require(reports, "run", "trial_id", "fidelity")
    stopped = trials[(trials["status"] == "stopped") & trials["fidelity"].notna()]
    top = float(trials["fidelity"].max())
    rungs = sorted({float(rung) for rung in stopped["fidelity"]} - {top})
    finite = reports.assign(loss=losses(reports, metric, mode))
    finite = finite[finite["loss"].notna() & finite["fidelity"].isin([*rungs, top])]
    if not rungs or not (finite["fidelity"] == top).any() or finite["loss"].abs().max() > HUGE:
        return None
    table = finite.pivot_table(index="trial_id", columns="fidelity", values="loss", aggfunc="last")
    names = [name for name in stopped["trial_id"] if name in table.index and math.isnan(table[top].get(name, math.nan))]
    best = float(table[top].min())
    if not names:
        return [], np.zeros((0, DRAWS)), best, table
    rng = np.random.default_rng([seed, len(names)])
    levels = [*(rung for rung in rungs if rung in table), top]
    at = table.loc[names, levels].to_numpy()
    # A stopped trial's last value; where it is then carried on from.
    last = np.array([np.flatnonzero(np.isfinite(row))[-1] for row in at])
    carried = np.full((len(names), DRAWS), np.nan)
    # Of the first step's errors nothing is known but that a rung is there because it predicts.
    spread = _scale(table[levels[0]].to_numpy()) / 2
    for step in range(len(levels) - 1):
        here = last == step
        carried[here] = at[here, step][:, None]
        going = last <= step
        now, later = (table[levels[k]].to_numpy() for k in (step, step + 1))
        carried[going], spread = _carried(now, later, carried[going], spread, rng)
    return names, best - carried, best, table


def _scale(values: Array) -> float:
    """A standard deviation that one diverged trial does not set: from the quartiles, where they differ."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.25, 0.75])
    return float(high - low) / 1.349 or float(finite.std())


def _carried(now: Array, later: Array, values: Array, spread: float, rng: np.random.Generator) -> tuple[Array, float]:
    """`m x s` values at a rung carried to the next, each draw with its own line, and the errors' standard deviation.

    `spread` is what the latter was a step before: later steps have few trials, and their errors are hardly larger.
    Source: Gelman et al. 2013, "Bayesian data analysis", section 14.8.
    """
    both = np.isfinite(now) & np.isfinite(later)
    x, y = now[both], later[both]
    centre = float(x.mean()) if len(x) else 0.0
    unit = _scale(now)
    # y = a + b (x - centre): flat in a; b about 1, as if from `BELIEVED` trials a standard deviation off.
    design = np.stack([np.ones(len(x)), x - centre], axis=1)
    weight = BELIEVED * unit**2
    precision = design.T @ design + np.diag([1e-9, weight + 1e-300])
    mean = np.linalg.solve(precision, design.T @ y + np.array([0.0, weight]))
    residual = float(((y - design @ mean) ** 2).sum() + weight * (mean[1] - 1.0) ** 2)
    dof = BORROWED + max(len(x) - 1, 0)
    whole = residual + BORROWED * spread**2
    variance = whole / rng.chisquare(dof, values.shape[1])
    root = np.linalg.cholesky(np.linalg.inv(precision))
    lines = mean[:, None] + root @ rng.standard_normal((2, values.shape[1])) * np.sqrt(variance)
    # However uncertain the line, the worse at a rung are not expected to end as the better ones.
    moved = lines[0] + np.maximum(lines[1], 0.0) * (values - centre)
    moved += rng.standard_normal(values.shape) * np.sqrt(variance)
    return moved, math.sqrt(whole / dof)
