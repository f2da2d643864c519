"""The winner by what is known of the objective, beside the winner by the luckiest value."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpo_ray.results.surrogate import Surrogate, as_space, config_of, fit
from hpo_ray.results.values import losses, require, require_confidence, sign_of

if TYPE_CHECKING:
    import pandas as pd

    from hpo_ray.space import SearchSpace

COLUMNS = ["rule", "run", "trial_id", "config_id", "fidelity", "value", "mean", "low", "high"]


def best(
    trials: pd.DataFrame,
    space: SearchSpace | Mapping[str, Any],
    metric: str,
    mode: str = "min",
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The best trial by posterior mean, and the best by raw value, each with what the posterior says of it.

    Among noisy values the lowest is mostly the luckiest: it promises more than it keeps, and often hides a better
    configuration. The posterior mean of a Gaussian process draws each value towards those of similar configurations, by
    as much as the noise, which is learned, makes it right to.

    The posterior is of the noise-free metric at the highest fidelity that a trial reached. Trials that were stopped
    early count with the value that they had at their fidelity, as evidence about others; the winner by posterior mean
    is one that completed (or any, if none did). By raw value it is any trial's best report, as ``hpo-ray best`` has it.

    A scheduler keeps the lucky: where noise is as large as the differences, the interval after early stopping holds the
    truth in 5 to 8 of 10 sweeps rather than in 9 or more (`benchmarks/README.md`).

    Args:
        trials: As from `load_results`; of several runs if their objective is the same.
        space: What was searched; or as in an experiment: ``{"lr": "loguniform(1e-5, 1e-1)"}``.
        metric: The metric.
        mode: ``min`` or ``max``.
        confidence: Of the interval.
        seed: Of the hyper-parameters that the interval is averaged over.

    Returns:
        Two rows, ``rule`` being ``posterior mean`` and ``raw value``; one trial may be both. ``value`` is its last, or
        for the second rule its best, ``fidelity`` where it was measured (NaN for a best value that is not the last),
        ``mean`` and the interval ``low`` to ``high`` are the posterior's, NaN where there
        is none: with fewer than two different values, or a configuration outside the space; the first rule then takes
        the best last value. Empty without a finite value. ``attrs``: ``noise_sd``, the standard deviation of a repeated
        trial's value (NaN without a posterior), and ``r2`` (see `Surrogate`).

    Raises:
        InvalidInput: A column is missing, `mode` is neither, `confidence` is not between 0 and 1, or no configuration
            lies in the space.
    """
    import pandas as pd

    require(trials, "run", "trial_id", "config_id", "status", "fidelity", metric)
    require_confidence(confidence)
    space = as_space(space)
    last = losses(trials, metric, mode).to_numpy(dtype=float)
    lowest = last
    if f"{metric}_best" in trials.columns:
        peak = losses(trials, f"{metric}_best", mode).to_numpy(dtype=float)
        lowest = np.where(np.isfinite(peak), peak, last)
    about: dict[Hashable | None, Any] = {"noise_sd": math.nan, "r2": 0.0}
    frame = pd.DataFrame(columns=COLUMNS)
    frame.attrs = about
    if not np.isfinite(lowest).any():
        return frame
    surrogate = fit(trials, space, metric, mode, tamed=True)
    # Means and deviations as losses, so that the smallest is best whichever way the metric goes.
    known: dict[int, tuple[float, float]] = {}
    if surrogate is not None:
        about = {"noise_sd": surrogate.noise_sd, "r2": surrogate.r2}
        with threadpool_limits(1, user_api="blas"):
            known = _posterior(trials, surrogate, np.random.default_rng([seed, 2]))
    by_value = int(np.nanargmin(lowest))
    finite = np.isfinite(last)
    done = finite & (trials["status"] == "completed").to_numpy(dtype=bool)
    contenders = [int(i) for i in np.flatnonzero(done if done.any() else finite)]
    inside = [i for i in contenders if i in known]
    by_mean = by_value
    if inside:
        by_mean = min(inside, key=lambda i: known[i][0])
    elif contenders:
        by_mean = min(contenders, key=lambda i: last[i])
    sign, width = sign_of(mode), _normal(confidence)
    rows = []
    for rule, i, value in (("posterior mean", by_mean, last[by_mean]), ("raw value", by_value, lowest[by_value])):
        mean, sd = known.get(i, (math.nan, math.nan))
        rows.append(
            {
                "rule": rule,
                **{name: trials[name].iloc[i] for name in ("run", "trial_id", "config_id")},
                # Of a value that is not the last the frame does not say where it was measured.
                "fidelity": trials["fidelity"].iloc[i] if value == last[i] else math.nan,
                "value": sign * float(value),
                "mean": sign * mean,
                "low": sign * mean - width * sd,
                "high": sign * mean + width * sd,
            }
        )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame.attrs = about
    return frame


def _posterior(trials: pd.DataFrame, surrogate: Surrogate, rng: np.random.Generator) -> dict[int, tuple[float, float]]:
    """Each trial's posterior mean as a loss, and its standard deviation; those outside the space are left out."""
    configs = [config_of(trials.iloc[i], surrogate.space) for i in surrogate.rows]
    mean, sd = surrogate.at([config for config in configs if config is not None], rng)
    pairs = zip((surrogate.sign * mean).tolist(), sd.tolist(), strict=True)
    return dict(zip(surrogate.rows, pairs, strict=True))


def _normal(confidence: float) -> float:
    from scipy.stats import norm  # half a second, which importing this module should not cost

    return float(norm.ppf(0.5 + confidence / 2))
