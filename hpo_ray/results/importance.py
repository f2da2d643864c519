"""What mattered: how much of the metric's variation over the search space each parameter accounts for, and its slice.

Functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) of the sweep's Gaussian process rather than of a random forest:
a forest's steps blur small effects and take noise for interactions (`benchmarks/importance.py` compares).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpo_ray.encoding import levels_of
from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.gp import outputs
from hpo_ray.gp.columns import Array
from hpo_ray.results import anova
from hpo_ray.results.surrogate import as_space, fit
from hpo_ray.results.values import require_confidence
from hpo_ray.space import Domain

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.space import SearchSpace

# Functions drawn under each of the surrogate's hyper-parameters.
DRAWS = 24
# No share is claimed more exactly than this: averages are over finitely many points, and no function is quite Gaussian.
EXACT = 0.01
# Below this share of the values' variance predicted, the surrogate is told to be a poor one.
POOR = 0.2
# Points of a slice of one parameter, and along each of two; fewer levels are all shown.
SLICE, CONTOUR = 25, 15
OTHERS = 128


def importance(
    trials: pd.DataFrame,
    space: SearchSpace | Mapping[str, Any],
    metric: str,
    mode: str = "min",
    *,
    tamed: bool = False,
    confidence: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of the metric's variance over the space that each parameter, and each pair, accounts for.

    Configurations are weighed as `SearchSpace.sample` draws them, whatever the searcher preferred, trained to the
    highest fidelity that a trial reached; noise is no part of the variance. A parameter's share is that of its main
    effect; a pair's is what both do together beyond their main effects. A conditional parameter has no effect where it
    is not in use, and its share counts all the same over the whole space: what it does shows as its own share and,
    since it does so under some of its parent's values only, as the pair of both.

    Trials without a finite value are left out, those outside the space too. With more than about 16 parameters pairs
    are averaged over fewer points; the interval does not show that.

    Args:
        trials: As from `load_results`; of several runs if their objective is the same.
        space: What was searched; or as in an experiment: ``{"lr": "loguniform(1e-5, 1e-1)"}``.
        metric: The metric; its last value counts.
        mode: ``min`` or ``max``; shares are the same but for `tamed`.
        tamed: Whether values far worse than the others are drawn in (`hpo_ray.results.surrogate.tame`): for a loss that
            diverges in places, which would otherwise account for everything.
        confidence: Of the interval.
        seed: Of the random draws.

    Returns:
        One row each, the largest first: ``parameter``, ``with`` (the other of a pair, else missing), ``importance``
        (0..1), ``low``, ``high``, ``active`` (share of the space where it, or both, are in use). Shares sum to at most
        1; what is missing is of three and more parameters together. ``attrs``: ``trials`` (used), ``r2`` (share of
        the values' variance that the surrogate predicts of trials left out), ``noise_sd`` and ``note``, a sentence
        where the shares are not to be relied on, else empty.

        `importance` is midway between the posterior mean's share, which lacks what the data cannot resolve, and the
        median over functions drawn from the posterior, which counts it in. The interval holds both the percentile and
        the basic interval of the draws, and 0.01 more on either side. Where all values are equal all is 0, with
        fewer than two all is NaN.

    Raises:
        InvalidInput: A column is missing, `mode` is neither, `confidence` is not between 0 and 1, or no configuration
            lies in the space.
    """
    import pandas as pd

    require_confidence(confidence)
    space = as_space(space)
    names, d = space.names, len(space.names)
    surrogate = fit(trials, space, metric, mode, tamed=tamed)
    keys = [(i,) for i in range(d)] + [(i, j) for i in range(d) for j in range(i + 1, d)]
    # Equal values say that nothing mattered there; no value says nothing.
    measured = int(np.isfinite(trials[metric].to_numpy(dtype=float, na_value=np.nan)).sum())
    estimates = dict.fromkeys(keys, (0.0, 0.0, 0.0) if measured >= 2 else (np.nan, np.nan, np.nan))
    active = np.ones(d)
    about: dict[Hashable | None, Any] = {"trials": 0, "r2": 0.0, "noise_sd": 0.0, "note": _nothing(trials, metric)}
    if surrogate is not None and d:
        rng = np.random.default_rng([seed, 1])
        with threadpool_limits(1, user_api="blas"):
            cube = anova.Cube(surrogate, seed)
            active = cube.active()
            found = [anova.shares(cube, draws, d) for draws in surrogate.draws(DRAWS, rng)]
        for key in keys:
            drawn = [alone[key[0]] if len(key) == 1 else pairs[key] for alone, pairs, _ in found]
            estimates[key] = _estimate(drawn[0][0], np.concatenate([each[1:] for each in drawn[1:]]), confidence)
        note = "" if surrogate.r2 >= POOR else _poor(surrogate.r2, len(surrogate.rows))
        about = {"trials": len(surrogate.rows), "r2": surrogate.r2, "noise_sd": surrogate.noise_sd, "note": note}
    # Averages over different points: a sum may come out above 1 by as much as they are apart.
    over = max(1.0, sum(share for share, _, _ in estimates.values()))
    rows = [
        {
            "parameter": names[key[0]],
            "with": names[key[1]] if len(key) == 2 else None,
            "importance": share / over,
            "low": min(low, share / over),
            "high": high,
            "active": float(min(active[i] for i in key)),
        }
        for key, (share, low, high) in estimates.items()
    ]
    columns = ["parameter", "with", "importance", "low", "high", "active"]
    frame = pd.DataFrame(rows, columns=columns).astype({"parameter": "str", "with": "str"})
    frame = frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    frame.attrs = about
    return frame


def partial_dependence(
    trials: pd.DataFrame,
    space: SearchSpace | Mapping[str, Any],
    metric: str,
    parameters: str | tuple[str, str],
    mode: str = "min",
    *,
    confidence: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """The metric against one parameter or two, averaged over all others: a slice of the surrogate, or a contour.

    Source: Friedman 2001, "Greedy function approximation", section 8.2. Of a conditional parameter the average is over
    configurations that use it.

    Args:
        trials: As from `load_results`.
        space: What was searched; or as in an experiment: ``{"lr": "loguniform(1e-5, 1e-1)"}``.
        metric: The metric.
        parameters: One name, or two.
        mode: ``min`` or ``max``.
        confidence: Of the interval.
        seed: Of the random draws.

    Returns:
        A row per point: ``config/<key>`` for each parameter (25 values of one, 15 x 15 of two, or all levels where
        there are fewer; a categorical's always), ``mean``, ``low``, ``high`` in the metric's unit, of the noise-free
        function at the highest fidelity that was reached. Empty where no two trials have different values.

    Raises:
        InvalidInput: A parameter is not in the space, or what `importance` raises.
    """
    import pandas as pd

    require_confidence(confidence)
    space = as_space(space)
    names = [parameters] if isinstance(parameters, str) else list(parameters)
    wrong = [Problem(name, f"it is not in the search space; {nearest(name, space.names)}") for name in names]
    if problems := [problem for problem in wrong if problem.key not in space.names]:
        raise InvalidInput(*problems)
    if len(names) not in (1, 2) or len(set(names)) < len(names):
        raise InvalidInput(Problem("parameters", f"{len(names)} names were given: expected one, or two different ones"))
    columns = [f"config/{name}" for name in names]
    surrogate = fit(trials, space, metric, mode)
    if surrogate is None:
        return pd.DataFrame(columns=[*columns, "mean", "low", "high"])
    kept = [space.names.index(name) for name in names]
    axes = [_values(space.domains[name], SLICE if len(names) == 1 else CONTOUR) for name in names]
    grid = np.stack([g.ravel() for g in np.meshgrid(*[[x for _, x in axis] for axis in axes], indexing="ij")], axis=1)
    with threadpool_limits(1, user_api="blas"):
        cube = anova.Cube(surrogate, seed)
        drawn = [
            cube.averaged(draws, kept, grid, OTHERS, in_use=True)
            for draws in surrogate.draws(DRAWS, np.random.default_rng([seed, 1]))
        ]
    values = surrogate.value(np.hstack([drawn[0], *(table[:, 1:] for table in drawn[1:])]))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values[:, 1:], [tail, 1.0 - tail], axis=1)
    shown = [[value for value, _ in axis] for axis in axes]
    points = zip(*itertools.product(*shown), strict=True)  # levels may be lists, which no index takes
    found = {
        name: pd.Series(list(side), dtype=object).infer_objects() for name, side in zip(columns, points, strict=True)
    }
    frame = pd.DataFrame({**found, "mean": values[:, 1:].mean(axis=1), "low": low, "high": high})
    return frame[np.isfinite(values[:, 0])].reset_index(drop=True)


def _estimate(plug_in: float, drawn: Array, confidence: float) -> tuple[float, float, float]:
    """A share, and its interval's ends, from the mean function's and those of draws."""
    tail = (1.0 - confidence) / 2.0
    low, middle, high = (float(value) for value in np.quantile(drawn, [tail, 0.5, 1.0 - tail]))
    ends = min(low, 2 * plug_in - high) - EXACT, max(high, 2 * plug_in - low) + EXACT
    return (plug_in + middle) / 2, float(np.clip(ends[0], 0.0, 1.0)), float(np.clip(ends[1], 0.0, 1.0))


def _values(domain: Domain, count: int) -> list[tuple[Any, float]]:
    """Values along one parameter, and where they are in its column."""
    if domain.kind == "choice":
        return [(level, float(i)) for i, level in enumerate(levels_of(domain))]
    if domain.levels is not None and domain.levels <= count:
        return [(level, domain.to_unit(level)) for level in levels_of(domain)]
    values = dict.fromkeys(domain.from_unit(unit) for unit in np.linspace(0.0, 1.0, count).tolist())
    return [(value, domain.to_unit(value)) for value in values]


def _nothing(trials: pd.DataFrame, metric: str) -> str:
    finite = int(np.isfinite(trials[metric].astype("float64")).sum())
    if finite < 2:
        return f"{finite} of {len(trials)} trials have a finite {metric}: nothing can be said of any parameter"
    if trials[metric].astype("float64").abs().between(outputs.HUGE, np.inf, inclusive="neither").any():
        return f"{metric} has values beyond ±{outputs.HUGE:g}, of which no model is made"
    return f"all {finite} trials with a finite {metric} have the same value: no parameter made a difference"


def _poor(r2: float, n: int) -> str:
    return f"the parameters predict {r2:.0%} of the variation among {n} trials: noise, or too few trials to tell"
