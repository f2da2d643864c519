"""Whether early values rank trials as late ones do: correlations between fidelities. Frames in, frames out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo_ray.results.values import require, require_confidence

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# Fidelities that are compared with each other unless the caller says which.
MOST_FIDELITIES = 12


def fidelity_correlation(
    reports: pd.DataFrame,
    metric: str,
    *,
    fidelities: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Does an early value rank trials as a later one does? Spearman's correlation for every pair of fidelities.

    Only trials that reported at both count, so that it is the correlation among survivors: where a scheduler had the
    worst stopped in between, it is lower than it would be among all (the range is restricted). `reached` says how many
    of those at the lower fidelity are in.

    Args:
        reports: As from `load_results` with ``level="reports"``; trials of several runs are ranked within their run,
            and the runs' correlations averaged, weighed by their trials less 3.
        metric: The metric.
        fidelities: Which; None: the first, the last, and those at which trials ended, 12 at most.
        confidence: Of the interval.

    Returns:
        A row per pair: ``low_fidelity, high_fidelity, n, reached`` (share), ``rho, low, high``. The interval is by
        Fisher's transform with the standard error of Bonett & Wright 2000, √((1 + ρ²/2)/(n - 3)); NaN below 4 trials,
        as is `rho` below 3 or where all values are equal.

    Raises:
        InvalidInput: A column is missing, or `confidence` is not between 0 and 1.
    """
    import pandas as pd

    require(reports, "run", "trial_id", "fidelity", metric)
    require_confidence(confidence)
    rows: list[dict[str, Any]] = []
    finite = reports[np.isfinite(reports[metric].astype("float64"))]
    chosen = sorted(fidelities) if fidelities is not None else _fidelities(finite)
    kept = finite[finite["fidelity"].isin(chosen)]
    tables = [
        group.pivot_table(index="trial_id", columns="fidelity", values=metric, aggfunc="last")
        for _, group in kept.groupby("run", sort=False)
    ]
    for i, low in enumerate(chosen):
        for high in chosen[i + 1 :]:
            pairs = [table[[low, high]].dropna() for table in tables if low in table and high in table]
            before = sum(int(table[low].notna().sum()) for table in tables if low in table)
            n = sum(map(len, pairs))
            row = {"low_fidelity": low, "high_fidelity": high, "n": n, "reached": n / before if before else math.nan}
            rho, ends = _correlation([pair.to_numpy() for pair in pairs], confidence)
            rows.append({**row, "rho": rho, "low": ends[0], "high": ends[1]})
    return pd.DataFrame(rows, columns=["low_fidelity", "high_fidelity", "n", "reached", "rho", "low", "high"])


def _correlation(pairs: list[Array], confidence: float) -> tuple[float, tuple[float, float]]:
    from scipy.stats import norm, spearmanr  # half a second, which importing this module should not cost

    unknown = (math.nan, math.nan)
    usable = [pair for pair in pairs if len(pair) >= 3 and (np.ptp(pair, axis=0) > 0).all()]
    if not usable:
        return math.nan, unknown
    rhos = np.array([float(spearmanr(pair).statistic) for pair in usable])
    weights = np.array([max(len(pair) - 3, 0) for pair in usable], dtype=float)
    if not weights.any():
        return float(rhos.mean()), unknown
    rho = float(weights @ rhos / weights.sum())
    half = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt((1 + rho**2 / 2) / weights.sum())
    # Trials in the very same order are no proof of it: half a step of the scale short of 1.
    n = max(map(len, usable))
    most = 1 - 6 / (n * (n**2 - 1))
    centre = math.atanh(float(np.clip(rho, -most, most)))
    return rho, (min(rho, math.tanh(centre - half)), max(rho, math.tanh(centre + half)))


def _fidelities(reports: pd.DataFrame) -> list[float]:
    """The first, the last and those at which trials ended; of too many some, evenly in logarithm."""
    if not len(reports):
        return []
    ends = reports.groupby(["run", "trial_id"])["fidelity"].max()
    found = sorted({float(reports["fidelity"].min()), *(float(end) for end in ends.unique())})
    if len(found) <= MOST_FIDELITIES:
        return found
    places = np.geomspace(1, len(found), MOST_FIDELITIES).round().astype(int) - 1
    return [found[i] for i in np.unique(places)]
