"""The Gaussian process of a sweep's finished trials: what the objective is at full training, anywhere in the space.

Must not know: what is asked of it (a winner, importances, a slice). Losses inside, metric values outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpo_ray.encoding import columns_of
from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.gp import kernel, outputs, surrogate
from hpo_ray.gp.columns import Array, Columns, Integers, Mask
from hpo_ray.gp.surrogate import Posterior, Prior
from hpo_ray.results.values import losses, require, sign_of
from hpo_ray.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd


# Wider about the noise than the searcher's, which would take noise for a rugged function, and smoother: a search
# gains by looking where a rugged function might be low, an analysis would report the ruggedness.
PRIOR = Prior(length_mean=-0.6, length_sd=0.8, noise_mean=math.log(0.02), noise_sd=3.0)
# The hyper-parameters' evidence is computed on at most so many trials.
FIT_AT_MOST = 400
# Hyper-parameters beside the most probable ones; what is unknown of them matters most with few trials.
ALTERNATIVES = 6
# A posterior is computed from at most so many trials: its cost grows as their cube.
MOST = 1000
# Random features of a draw from the prior (Rahimi & Recht 2007); its error is repaired wherever there are data.
FEATURES = 512


@dataclass(frozen=True)
class Surrogate:
    """A sweep's objective at the highest fidelity that a trial reached, as a distribution over functions.

    Attributes:
        space: The search space.
        columns: Its encoding.
        rows: Places in the frame of the trials that it was made of, `n`, best first.
        posterior: Of standardised losses.
        levelled: Whether trials were trained for different lengths, so that fidelity is one more column.
        centre, spread: A metric's value is ``sign * (centre + spread * z)``.
        sign: -1 where the metric is maximised.
        r2: Share of the values' variance that is predicted when each trial is left out in turn, noise included; below
            0.2 or so what the surrogate says about the space is little more than a guess.
    """

    space: SearchSpace
    columns: Columns
    rows: list[int]
    posterior: Posterior
    levelled: bool
    centre: float
    spread: float
    sign: float
    r2: float

    @property
    def noise_sd(self) -> float:
        """Standard deviation of what a repetition of a trial adds to its value, in the metric's unit."""
        return self.spread * math.sqrt(self.posterior.noise)

    def features(self, x: Array, used: Mask) -> Array:
        """`m x p` of settled points at full training."""
        features = self.columns.features(x, used)
        return np.hstack([features, np.ones((len(x), 1))]) if self.levelled else features

    def value(self, z: Array) -> Array:
        """The metric's values of standardised losses."""
        return self.sign * (self.centre + self.spread * z)

    def at(self, configs: Sequence[dict[str, Any]], rng: np.random.Generator) -> tuple[Array, Array]:
        """The metric's mean and standard deviation (`m` each), noise left out, at `m` configurations, fully trained.

        Over `ALTERNATIVES` hyper-parameters: what isn't known of them is part of the deviation.
        """
        features = self.features(*encoded(self.space, self.columns, configs))
        found = [posterior.predict(features) for posterior in self.alternatives(ALTERNATIVES, rng)]
        means = np.stack([mean[:, 0] for mean, _ in found])
        variances = np.stack([variance for _, variance in found])
        return self.value(means.mean(axis=0)), self.spread * np.sqrt(variances.mean(axis=0) + means.var(axis=0))

    def draws(self, count: int, rng: np.random.Generator) -> list[Draws]:
        """The mean function, then `count` functions drawn from each of `ALTERNATIVES` posteriors."""
        return [Draws(self.posterior, 0, rng), *(Draws(p, count, rng) for p in self.alternatives(ALTERNATIVES, rng))]

    def alternatives(self, count: int, rng: np.random.Generator) -> list[Posterior]:
        """Posteriors under `count` other hyper-parameters, each drawn by how probable it is given the data.

        Sampling/importance resampling (Rubin 1988) from Laplace's approximation about the most probable ones: the
        evidence's curvature, where it has any, with that of the prior.
        """
        best, some = self.posterior, _spread(len(self.rows))
        data = best.features[some], best.owner, best.y[some, 0], best.extra[some]
        d = len(best.theta) - 3
        centre, sd, step = PRIOR.mean(d), PRIOR.sd(d), 0.05
        low, high = np.array(PRIOR.bounds(d)).T
        slopes = np.empty((d + 3, d + 3))
        for i in range(d + 3):
            move = np.zeros(d + 3)
            move[i] = step * sd[i]
            ends = [kernel.log_evidence(best.theta + side * move, *data)[1] for side in (-1, 1)]
            slopes[i] = (ends[1] - ends[0]) * sd / (2 * step)
        curvature, axes = np.linalg.eigh(-(slopes + slopes.T) / 2)
        normal = rng.standard_normal((5 * count, d + 3))
        thetas = best.theta + (normal / np.sqrt(1.0 + np.maximum(curvature, 0.0))) @ axes.T * sd
        thetas = np.clip(thetas, low, high)
        weights = np.array([_log_density(theta, data) for theta in thetas]) + 0.5 * (normal**2).sum(axis=1)
        weights += -0.5 * (((thetas - centre) / sd) ** 2).sum(axis=1)
        weights = np.exp(weights - weights.max())
        chosen = rng.choice(len(thetas), size=count, p=weights / weights.sum())
        return [Posterior(thetas[i], best.owner, best.features, best.y, extra=best.extra) for i in chosen]


class Draws:
    """Functions drawn from a posterior, to be evaluated anywhere at little cost: linear in `n + FEATURES`.

    Source: Wilson et al. 2020, "Efficiently sampling functions from Gaussian process posteriors", eq. 12: a draw from
    the prior (random Fourier features; the trend exactly) plus what the data add to it. A Matérn-5/2 kernel's
    frequencies are Student's t with 5 degrees of freedom.

    Attributes:
        weights: `q x (1 + count)`, of the columns of `embed`; the first column is the mean.
        mean: The constant that is added to all.
    """

    def __init__(self, posterior: Posterior, count: int, rng: np.random.Generator) -> None:
        self._posterior = posterior
        d = posterior.scaled.shape[1]
        self._frequencies = rng.standard_normal((d, FEATURES)) * np.sqrt(5.0 / rng.chisquare(5, FEATURES))
        self._phases = rng.uniform(0, 2 * np.pi, FEATURES)
        prior = rng.standard_normal((FEATURES, count)) * math.sqrt(2.0 * posterior.scale / FEATURES)
        slopes = rng.standard_normal((posterior.basis.shape[1], count)) * math.sqrt(posterior.steep)
        at_data = self._waves(posterior.scaled) @ prior + posterior.basis @ slopes
        spread = np.sqrt(posterior.noise + posterior.extra)[:, None]
        residual = posterior.y - posterior.mean - at_data - spread * rng.standard_normal(at_data.shape)
        # The factor may be of a jittered matrix; the mean's weights come from the very same one.
        update = np.hstack([posterior.alpha, kernel.solve(posterior.factor, residual)])
        self.mean = float(posterior.mean[0])
        zeros = np.zeros((FEATURES + len(slopes), 1))
        self.weights = np.vstack([update, np.hstack([zeros, np.vstack([prior, slopes])])])

    def embed(self, features: Array) -> Array:
        """`m x q` of `m x p` features: values are ``embed(...) @ weights + mean``, and so are averages of them."""
        scaled, basis = self._posterior.split(features)
        return np.hstack([self._posterior.cross(features).T, self._waves(scaled), basis])

    def __call__(self, features: Array) -> Array:
        """`m x (1 + count)` standardised losses at `m x p` features; the mean first."""
        return np.asarray(self.embed(features) @ self.weights + self.mean)

    def _waves(self, scaled: Array) -> Array:
        waves = scaled @ self._frequencies
        waves += self._phases
        np.cos(waves, out=waves)
        return np.asarray(waves)


def fit(
    trials: pd.DataFrame, space: SearchSpace, metric: str, mode: str = "min", *, tamed: bool = False
) -> Surrogate | None:
    """Fit the surrogate to the last value of every trial that has a finite one.

    A trial that was stopped early counts at the fidelity that it reached, on a log scale as the searcher has it: what
    it says about full training is learned from the others. Its standard error, ``<metric>_se``, is used where there is
    one; else the noise is learned. Of more than 1,000 trials 1,000 are used, spread over good and bad ones.

    Args:
        trials: As from `load_results`.
        space: What was searched; configurations outside it are left out.
        metric: The metric.
        mode: ``min`` or ``max``.
        tamed: Whether losses far above the others are drawn in (see `tame`), so that one that diverged doesn't hide
            what happens among the good ones.

    Returns:
        None where no two trials have different values, or one is beyond ±1e100: there is nothing to learn.

    Raises:
        InvalidInput: A column is missing, `mode` is neither, or no configuration lies in the space.
    """
    require(trials, metric, "fidelity")
    loss = losses(trials, metric, mode).to_numpy(dtype=float)
    order = [int(i) for i in np.argsort(loss, kind="stable") if math.isfinite(loss[i])]
    configs = {i: config for i in order if (config := config_of(trials.iloc[i], space)) is not None}
    if order and not configs:
        raise InvalidInput(Problem("space", "no trial's configuration lies in this space: is it another run's?"))
    rows = list(configs)
    if len(rows) > MOST:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, MOST).astype(int)]
    y: Array = loss[rows].astype(np.float64)
    if len(rows) < 2 or np.abs(y).max() > outputs.HUGE or not y.std() > outputs.EQUAL * np.abs(y).max():
        return None
    columns = columns_of(space)
    x, used = encoded(space, columns, [configs[i] for i in rows])
    levels = _levels(trials["fidelity"].to_numpy(dtype=float, na_value=math.nan)[rows])
    features, owner = columns.features(x, used), columns.owner
    if levels is not None:
        features, owner = np.hstack([features, levels[:, None]]), np.append(owner, columns.d)
    se = np.zeros(len(rows))
    if f"{metric}_se" in trials.columns:
        se = np.nan_to_num(trials[f"{metric}_se"].to_numpy(dtype=float, na_value=0.0)[rows], nan=0.0, posinf=0.0)
    bent = tame(y) if tamed else outputs.Warped(y, np.ones(len(y)))
    centre, spread = float(bent.z.mean()), float(bent.z.std())
    extra = np.minimum(np.maximum(se, 0.0) * bent.slope / spread, 1e3) ** 2
    with threadpool_limits(1, user_api="blas"):
        model = _most_probable(features, owner, (bent.z - centre) / spread, extra)
    return Surrogate(space, columns, rows, model, levels is not None, centre, spread, sign_of(mode), _left_out(model))


def as_space(space: SearchSpace | Mapping[str, Any]) -> SearchSpace:
    """A search space, also from what an experiment has of it.

    Raises:
        InvalidInput: That is no search space.
    """
    if isinstance(space, SearchSpace):
        return space
    if isinstance(space, Mapping):
        return SearchSpace.parse(dict(space))
    raise InvalidInput(Problem("space", f"{space!r:.80} is no search space: `hpo_ray.results.space_of(run)` has it"))


def tame(y: Array) -> outputs.Warped:
    """Losses with a heavy upper tail drawn in: beyond median + 2 s as a logarithm, s being median - 5 % quantile.

    Values below stay as they are, so that what is said of good configurations needs no way back; of a normal
    distribution that is all but one in two thousand. Without a spread below the median nothing changes.
    """
    median, low = (float(value) for value in np.quantile(y, [0.5, 0.05]))
    unit = median - low
    if not unit > outputs.EQUAL * np.abs(y).max():
        return outputs.Warped(y, np.ones(len(y)))
    over = np.maximum(y - median - 2.0 * unit, 0.0) / unit
    return outputs.Warped(np.where(over > 0, median + unit * (2.0 + np.log1p(over)), y), 1.0 / (1.0 + over))


def encoded(space: SearchSpace, columns: Columns, configs: Sequence[dict[str, Any]]) -> tuple[Array, Mask]:
    """`m x d` settled points of `m` configurations, and which entries are in use."""
    x, used = space.encode(configs)
    return columns.settle(np.where(used, x, columns.rest))


def _most_probable(features: Array, owner: Integers, z: Array, extra: Array) -> Posterior:
    """The posterior under the most probable hyper-parameters, from a start without noise and one with much."""
    n, d = len(z), int(owner.max()) + 1
    some = _spread(n)
    quiet = PRIOR.mean(d)
    noisy = quiet.copy()
    noisy[:d], noisy[d + 1] = 0.0, math.log(0.3)
    found = [
        surrogate.fit(features[some], owner, z[some], start, prior=PRIOR, extra=extra[some], iterations=100)
        for start in (quiet, noisy)
    ]
    theta, _ = max(found, key=lambda pair: pair[1])
    return Posterior(theta, owner, features, z, extra=extra)


def _log_density(theta: Array, data: tuple[Array, Integers, Array, Array]) -> float:
    """The data's log evidence; where it cannot be computed next to none."""
    try:
        return kernel.log_evidence(theta, *data)[0]
    except kernel.NotPositiveDefinite:
        return -1e25


def _spread(n: int) -> Integers:
    """The rows, sorted by loss as they are, from which hyper-parameters are learned."""
    return np.linspace(0, n - 1, min(n, FIT_AT_MOST)).astype(np.int64)


def config_of(row: pd.Series[Any], space: SearchSpace) -> dict[str, Any] | None:
    """A trial's sampled parameters, what a frame turned into a float turned back; None if not in the space."""
    import pandas as pd

    config: dict[str, Any] = {}
    for name in space.names:
        value = row.get(f"config/{name}")
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            continue  # inactive, unknown, or the level None
        config[name] = value.item() if isinstance(value, np.generic) else value
    # A column of integers with gaps may have been read as floats.
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in config.items()}
    for read in (config, whole):
        for name in space.active(read):
            if name not in read and space.domains[name].contains(None):
                read[name] = None
        if space.contains(read):
            return read
    return None


def _levels(fidelity: Array) -> Array | None:
    """How far each was trained, 0 to 1 on a log scale as rungs are; None if all alike."""
    finite = np.isfinite(fidelity)
    if not finite.any():
        return None
    top = float(fidelity[finite].max())
    levels = np.log1p(np.maximum(fidelity, 0.0)) / np.log1p(max(top, 1e-12))
    levels = np.where(finite, levels, 1.0)
    return None if (levels == levels[0]).all() else levels


def _left_out(posterior: Posterior) -> float:
    """R² of leave-one-out predictions (Rasmussen & Williams 2006, eq. 5.12), at most 1, at least 0."""
    from scipy.linalg import lapack

    inverse, _ = lapack.dpotri(posterior.factor, lower=1)
    errors = posterior.alpha[:, 0] / inverse.diagonal()
    return float(np.clip(1.0 - np.mean(errors**2) / np.var(posterior.y[:, 0]), 0.0, 1.0))
