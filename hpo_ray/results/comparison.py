"""Searchers, or anything else that runs differ in, compared across seeds: curves, ranks, paired differences.

Frames in, frames out. What runs differ in, and what pairs them, are columns that the caller adds to the trials:
``trials.assign(searcher=trials["run"].map(...), seed=trials["run"].map(...))``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.results.values import coarseness, losses, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

DRAWS = 4000


def curves(
    trials: pd.DataFrame,
    metric: str,
    mode: str = "min",
    *,
    by: str = "searcher",
    optimum: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The best value after 1, 2, … trials, averaged over each group's runs.

    Trials count in the order they were suggested. A run that ended early keeps its last value; before a run's first
    finite value it has none, and the group has no row until all of its runs have one.

    Args:
        trials: As from `load_results`, with the column `by`.
        metric: The metric; ``<metric>_best`` is used where there is one.
        mode: ``min`` or ``max``.
        by: The column that runs are grouped by.
        optimum: The best possible value: values are then regrets, their distance from it, and 0 is best.
        confidence: Of the interval.
        seed: Of the bootstrap.

    Returns:
        ``<by>, trials, mean, low, high, runs``; the interval is the percentile bootstrap over runs, NaN of one run.

    Raises:
        InvalidInput: A column is missing, or `mode` is neither.
    """
    import pandas as pd

    sign = sign_of(mode)
    table = _curves(trials, metric, mode, by)
    rows = []
    for name, runs in table.groupby(level=by, sort=False):
        values = sign * runs.to_numpy()
        if optimum is not None:
            values = np.abs(values - optimum)
        low, high = _bootstrap(values, confidence, np.random.default_rng(seed))
        rows += [
            {by: name, "trials": k + 1, "mean": mean, "low": low[k], "high": high[k], "runs": len(runs)}
            for k, mean in enumerate(values.mean(axis=0))
            if math.isfinite(mean)
        ]
    return pd.DataFrame(rows, columns=[by, "trials", "mean", "low", "high", "runs"])


def ranks(
    trials: pd.DataFrame,
    metric: str,
    mode: str = "min",
    *,
    by: str = "searcher",
    pair: str = "seed",
    at: Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Each group's mean rank by its best value, 1 being best, over the pairs that all groups have; ties share.

    Args:
        trials: As from `load_results`, with the columns `by` and `pair`.
        metric: The metric.
        mode: ``min`` or ``max``.
        by: The column that runs are grouped by.
        pair: The column that pairs runs of different groups, such as the seed.
        at: After how many trials; None: at the end of the longest run.
        confidence: Of the interval.
        seed: Of the bootstrap.

    Returns:
        ``<by>, trials, rank, low, high, pairs``, the best first; the interval is the percentile bootstrap over pairs.

    Raises:
        InvalidInput: A column is missing, a pair is there twice in a group, or `mode` is neither.
    """
    import pandas as pd

    rows = []
    for budget, table in _paired(trials, metric, mode, by, pair, at):
        complete = table.dropna()
        placed = complete.rank(axis=1).to_numpy()
        low, high = _bootstrap(placed, confidence, np.random.default_rng(seed))
        rows += [
            {
                by: name,
                "trials": budget,
                "rank": placed[:, i].mean(),
                "low": low[i],
                "high": high[i],
                "pairs": len(placed),
            }
            for i, name in enumerate(complete.columns)
            if len(placed)
        ]
    frame = pd.DataFrame(rows, columns=[by, "trials", "rank", "low", "high", "pairs"])
    return frame.sort_values(["trials", "rank"], kind="stable", ignore_index=True)


def compare(
    trials: pd.DataFrame,
    metric: str,
    mode: str = "min",
    *,
    by: str = "searcher",
    pair: str = "seed",
    at: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How much better one group's best value is than another's, on the same seeds.

    Args:
        trials: As from `load_results`, with the columns `by` and `pair`.
        metric: The metric.
        mode: ``min`` or ``max``.
        by: The column that runs are grouped by.
        pair: The column that pairs runs of different groups, such as the seed.
        at: After how many trials; None: at the end of the longest run.
        confidence: Of the interval.

    Returns:
        A row per two groups: ``a, b, trials, difference`` (mean of a's value less b's), ``low, high`` (Student's t over
        pairs, as a bootstrap of few is too narrow: of 2 pairs it would find a difference half of the time; NaN of one),
        ``a_better`` (share of pairs, ties half), ``pairs``, ``better`` (the one that the interval says is, else
        missing).

    Raises:
        InvalidInput: A column is missing, a pair is there twice in a group, or `mode` is neither.
    """
    import pandas as pd

    sign = sign_of(mode)
    rows: list[dict[str, Any]] = []
    for budget, table in _paired(trials, metric, mode, by, pair, at):
        for a, b in combinations(table.columns, 2):
            losses_ = table[[a, b]].dropna().to_numpy()
            apart = losses_[:, 0] - losses_[:, 1]
            if not len(apart):
                continue
            low, high = _student(losses_, confidence)
            better = a if high < 0 else b if low > 0 else None
            ends = (low, high) if sign > 0 else (-high, -low)
            won = ((apart < 0) + 0.5 * (apart == 0)).mean()
            row = {"a": a, "b": b, "trials": budget, "difference": sign * apart.mean(), "low": ends[0], "high": ends[1]}
            rows.append({**row, "a_better": won, "pairs": len(apart), "better": better})
    return pd.DataFrame(rows, columns=["a", "b", "trials", "difference", "low", "high", "a_better", "pairs", "better"])


def _curves(trials: pd.DataFrame, metric: str, mode: str, by: str) -> pd.DataFrame:
    """Runs, indexed by (`by`, run), x trials: the lowest loss so far, carried on to the longest run's end."""
    require(trials, "run", "trial_id", by)
    peak = f"{metric}_best" if f"{metric}_best" in trials.columns else metric
    ordered = trials.assign(loss=losses(trials, peak, mode)).sort_values(["run", "trial_id"], kind="stable")
    groups = ordered.groupby([by, "run"], sort=False)
    ordered["place"] = groups.cumcount()
    table = ordered.pivot(index=[by, "run"], columns="place", values="loss")
    return table.cummin(axis=1).ffill(axis=1)


def _paired(
    trials: pd.DataFrame, metric: str, mode: str, by: str, pair: str, at: Sequence[int] | None
) -> list[tuple[int, pd.DataFrame]]:
    """After how many trials, and the lowest losses then: pairs x groups."""
    require(trials, "run", by, pair)
    table = _curves(trials, metric, mode, by)
    pairs = trials.drop_duplicates("run").set_index("run")[pair]
    keys = table.index.to_frame(index=False).assign(**{pair: pairs[table.index.get_level_values("run")].to_numpy()})
    twice = keys[keys.duplicated([by, pair])]
    if len(twice):
        row = twice.iloc[0]
        message = f"{row[by]} has two runs with {pair} {row[pair]}, one is {row['run']}: leave one of them out"
        raise InvalidInput(Problem(pair, message))
    found = []
    for budget in at or [table.shape[1]]:
        place = min(budget, table.shape[1]) - 1
        frame = keys.assign(loss=table[place].to_numpy())
        found.append((int(budget), frame.pivot(index=pair, columns=by, values="loss")))
    return found


def _student(pairs: Array, confidence: float) -> tuple[float, float]:
    """The interval of the mean difference of `n x 2` values; NaN of one pair."""
    from scipy.stats import t  # half a second, which importing this module should not cost

    apart = pairs[:, 0] - pairs[:, 1]
    n = len(apart)
    if n < 2:
        return math.nan, math.nan
    spread = max(float(apart.std(ddof=1)), coarseness(pairs))
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * spread / math.sqrt(n)
    return float(apart.mean()) - half, float(apart.mean()) + half


def _bootstrap(values: Array, confidence: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The percentile intervals of `n x m` values' means over `n`; NaN of fewer than two."""
    n, m = values.shape
    if n < 2:
        return np.full(m, np.nan), np.full(m, np.nan)
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=DRAWS)
    means = counts @ values / n
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(means, [tail, 100.0 - tail], axis=0)
    return low, high
