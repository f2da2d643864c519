"""Which of a few contenders is best, from repetitions on the same seeds or folds: the statistics of `hpo-ray confirm`.

Pure: scores in, a standing out. Must not know how contenders are run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.results.values import coarseness, losses, require, sign_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

# A pair's own variance, from few repeats, is drawn towards that of all: as if the latter were known from so many more.
BORROWED = 4
# The allowance for errors is spent as the third power of the share of repeats that are in: hardly any on the first
# look, where only what is far behind can be told, and more than half on the last.
SPENDING = 3.0


@dataclass(frozen=True)
class Standing:
    """A race as it stands. Values are in the metric's own unit.

    Attributes:
        alive: Contenders that may still be best, best mean first.
        dropped: Contender -> why it is out, in the order they went.
        winner: The best mean among those alive; None if every contender failed.
        runner_up: Of all others the one that is least clearly beaten; None without one.
        difference: Winner's mean less the runner-up's, over the repeats that both have; NaN without a runner-up.
        interval: Of `difference`; holds for all pairs and looks at once with at least the confidence asked for.
            Infinite before the second repeat.
        real: Whether the winner is told apart from every other.
        repeats: How many repeats all that are alive have.
        table: One row per contender, best first: ``config_id, repeats, mean, se, difference`` (its mean less the
            leader's at the last look that it was in), ``low, high`` (of that, as `interval`), ``verdict``.
    """

    alive: tuple[str, ...]
    dropped: dict[str, str]
    winner: str | None
    runner_up: str | None
    difference: float
    interval: tuple[float, float]
    real: bool
    repeats: int
    table: pd.DataFrame

    def text(self) -> str:
        """One sentence: who won, and whether that is more than luck."""
        if self.winner is None:
            return "every contender failed in a repeat: there is no winner"
        if self.runner_up is None:
            return f"{self.winner} is the only contender: nothing was compared"
        low, high = self.interval
        measured = f"{self.difference:+.4g} against {self.runner_up}, between {low:+.4g} and {high:+.4g}"
        if self.real:
            return f"{self.winner} is better than every other: {measured}"
        return f"undecided after {self.repeats} repeats: {self.winner} has the best mean, {measured}"


def race(scores: pd.DataFrame, mode: str = "min", *, planned: int | None = None, confidence: float = 0.95) -> Standing:
    """Judge contenders by the repeats that are in: who is clearly beaten, who leads, whether that is real.

    Repeats are paired: number r is the same seed, or fold, for every contender, so that a hard fold is nobody's bad
    luck. After each repeat from the second every contender is compared with the leader by its paired differences; one
    that is clearly worse is dropped and needs no more repeats. The looks so far are gone through again, so that the
    standing is a function of the scores alone. A contender with a score that is not finite has failed, and is dropped.

    The test is Tukey's for all pairs (the leader is chosen by the very scores that it is judged by) of means with
    paired errors, each pair's variance drawn towards all contenders' (Smyth 2004, "Linear models and empirical Bayes
    methods", section 3, with 4 prior degrees of freedom at most; of two contenders it is the paired t-test), and no
    smaller than `coarseness` allows. Errors are
    bounded over all looks by spending the allowance as the cube of the share of repeats (Lan & DeMets 1983), by
    Bonferroni's inequality.

    Args:
        scores: Columns ``config_id``, ``repeat`` (0, 1, …) and ``value``, one row per run, in any order. A contender
            that is alive should have all repeats; those that only some have do not count.
        mode: ``min`` or ``max``.
        planned: How many repeats there will be in all; None: as many as there are.
        confidence: 0.95: with equal contenders one is called beaten, at whatever look, in at most 5 of 100 races.

    Raises:
        InvalidInput: A column is missing, a score is there twice, there are no scores, `mode` is neither, `confidence`
            is not in 0.5..1, or `planned` is fewer than there are.
    """
    table = _table(scores, mode)
    if not 0.5 <= confidence < 1:
        raise InvalidInput(Problem("confidence", f"{confidence:g} is out of range: expected 0.5 to below 1"))
    if planned is not None and planned < len(table):
        message = f"{planned} are planned, but {len(table)} are in: plan as many at least"
        raise InvalidInput(Problem("repeats", message))
    names, values = [str(name) for name in table.columns], table.to_numpy(dtype=float)
    failed = np.isinf(values)
    dropped = {
        names[j]: f"failed in repeat {table.index[failed[:, j]][0]}"
        for j in np.flatnonzero(failed.any(axis=0)).tolist()
    }
    alive = [j for j, name in enumerate(names) if name not in dropped]
    looks = max(1, (planned or len(table)) - 1)
    # Each contender's loss less the leader's, and how far that may be off, at the last look that it was in.
    gaps: dict[str, tuple[float, float]] = {}
    spent = 0.0
    for n in range(2, len(table) + 1):
        seen = _common(values[:, alive])[:n]
        if len(alive) < 2 or len(seen) < n:
            break
        allowance = (1.0 - confidence) * ((n - 1) / looks) ** SPENDING
        leader = int(seen.mean(axis=0).argmin())
        gap, half = _against(seen, leader, allowance - spent)
        spent = allowance
        gaps |= {names[alive[j]]: (float(gap[j]), float(half[j])) for j in range(len(alive)) if j != leader}
        beaten = gap > half
        for j in np.argsort(-gap)[: int(beaten.sum())].tolist():
            dropped[names[alive[j]]] = f"beaten by {names[alive[leader]]} after {n} repeats"
        alive = [j for j, lost in zip(alive, beaten.tolist(), strict=True) if not lost]
    common = _common(values[:, alive])
    means = dict(zip(alive, common.mean(axis=0).tolist() if len(common) else [math.inf] * len(alive), strict=True))
    alive.sort(key=lambda j: (means[j], names[j]))
    for j in alive[1:]:
        gaps.setdefault(names[j], (means[j] - means[alive[0]], math.inf))
    scored = {name: column[np.isfinite(column)] for name, column in zip(names, values.T, strict=True)}
    sign = sign_of(mode)
    return _standing(scored, [names[j] for j in alive], dropped, gaps, sign, len(common) if alive else 0)


def _common(values: Array) -> Array:
    """The repeats that all of some contenders have."""
    return np.asarray(values[np.isfinite(values).all(axis=1)])


def _against(seen: Array, leader: int, allowance: float) -> tuple[Array, Array]:
    """Each mean less the leader's (`k`), and the half-widths of their simultaneous intervals; `seen` is `n x k`."""
    n, k = seen.shape
    apart = seen - seen[:, [leader]]
    own = apart.var(axis=0, ddof=1)
    residual = seen - seen.mean(axis=0) - seen.mean(axis=1)[:, None] + seen.mean()
    common = 2.0 * (residual**2).sum() / ((n - 1) * (k - 1))
    borrowed = min(BORROWED, (k - 2) * (n - 1))
    dof = borrowed + n - 1
    variance = np.maximum((borrowed * common + (n - 1) * own) / dof, coarseness(seen) ** 2)
    return apart.mean(axis=0), _critical(round(allowance, 12), k, dof) * np.sqrt(variance / n)


@lru_cache(maxsize=256)
def _critical(allowance: float, k: int, dof: int) -> float:
    """How many standard errors a difference must be from 0, the largest of all pairs of `k` means."""
    from scipy.stats import studentized_range, t  # half a second, which importing this module should not cost

    if k == 2:
        return float(t.ppf(1.0 - allowance / 2, dof))
    return float(studentized_range.ppf(1.0 - allowance, k, dof)) / math.sqrt(2.0)


def _standing(
    scored: dict[str, Array],
    alive: list[str],
    dropped: dict[str, str],
    gaps: dict[str, tuple[float, float]],
    sign: float,
    repeats: int,
) -> Standing:
    """The standing, once it is known who is alive."""
    import pandas as pd

    winner = alive[0] if alive else None
    # The one that is dropped last stood longest against what was left.
    order = [*alive, *reversed(list(dropped))]
    others = [name for name in order[1:] if name in gaps]
    runner_up = others[0] if others and winner is not None else None
    rows = []
    for name in order:
        values = scored[name]
        gap, half = (0.0, 0.0) if name == winner else gaps.get(name, (math.nan, math.nan))
        row = {
            "config_id": name,
            "repeats": len(values),
            "mean": sign * values.mean() if len(values) else math.nan,
            "se": values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan,
            "difference": sign * gap,
            "low": sign * gap - half,
            "high": sign * gap + half,
            "verdict": dropped.get(name, "best mean" if name == winner else "may be as good"),
        }
        rows.append(row)
    gap, half = gaps[runner_up] if runner_up is not None else (math.nan, math.nan)
    return Standing(
        alive=tuple(alive),
        dropped=dropped,
        winner=winner,
        runner_up=runner_up,
        difference=-sign * gap,
        interval=(-sign * gap - half, -sign * gap + half),
        real=len(alive) == 1 and runner_up is not None,
        repeats=repeats,
        table=pd.DataFrame(rows),
    )


def _table(scores: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Losses, repeats x contenders, NaN where a repeat is not in, infinite where it failed."""
    require(scores, "config_id", "repeat", "value")
    if not len(scores):
        raise InvalidInput(Problem("scores", "there are none: expected one row per configuration and repeat"))
    twice = scores[scores.duplicated(["config_id", "repeat"])]
    if len(twice):
        row = twice.iloc[0]
        message = f"{row['config_id']} has repeat {row['repeat']} twice: expected one score each"
        raise InvalidInput(Problem("repeat", message))
    loss = losses(scores, "value", mode).fillna(math.inf)
    filled = scores.assign(config_id=scores["config_id"].astype("str"), value=loss)
    return filled.pivot(index="repeat", columns="config_id", values="value").sort_index()
