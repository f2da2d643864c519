"""Log expected improvement, averaged over fantasies, with its gradient.

Must not know: how it is maximised, what the points mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from hpo_ray.gp import kernel
from hpo_ray.gp.columns import Array, Columns, Mask
from hpo_ray.gp.surrogate import Posterior

# The power to which the probability of success is raised. With 1 (Gardner et al. 2014, eq. 5) a search that has
# converged at a cliff goes over it again and again, since what it could still gain on this side is next to nothing.
CAUTION = 8.0

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SQRT_PI_2 = np.sqrt(np.pi / 2)


def log_h(z: Array) -> Array:
    """log(φ(z) + z Φ(z)), exact to rounding for every z (Ament et al. 2023, eq. 9, in another form).

    Below -1 as log φ(z) + log(1 - |z| √(π/2) erfcx(|z|/√2)); below -1000, where that difference would cancel, by the
    asymptotic series of the same factor: (1 - 3/z² + 15/z⁴)/z².
    """
    z = np.asarray(z, dtype=np.float64)
    out = np.empty_like(z)
    near, far = z > -1.0, z < -1e3
    middle = ~(near | far)
    a = z[near]
    out[near] = np.log(np.exp(-0.5 * a * a - _LOG_SQRT_2PI) + a * ndtr(a))
    a = z[middle]
    out[middle] = -0.5 * a * a - _LOG_SQRT_2PI + np.log1p(a * _SQRT_PI_2 * erfcx(-a / np.sqrt(2)))
    a = z[far]
    i = a**-2.0
    out[far] = -0.5 * a * a - _LOG_SQRT_2PI + np.log(i) + np.log1p(-3 * i + 15 * i * i)
    return out


def log_ei(mean: Array, sd: Array, best: Array | float) -> Array:
    """log E[max(best - f, 0)] for f ~ N(mean, sd²): log sd + log h((best - mean)/sd)."""
    return np.log(sd) + log_h((best - mean) / sd)


@dataclass(frozen=True)
class LogEI:
    """log EI under a posterior, plus `CAUTION` times the log probability that a point does not fail.

    Over `s` fantasies of what is pending it is the log of the mean EI, each fantasy with its own incumbent: the lowest
    posterior mean at a point of the data, not the lowest observation, which under noise is the luckiest.

    Attributes:
        posterior: Of the loss, with `s` alternative outputs.
        best: `s` incumbents.
        columns: The shape of a point.
        feasible: Posterior of +1 (worked) and -1 (failed), or None if nothing ever failed.
        context: Features appended to every point (the fidelity asked about); empty for none.
    """

    posterior: Posterior
    best: Array
    columns: Columns
    feasible: Posterior | None = None
    context: Array | None = None

    def __call__(self, x: Array, used: Mask) -> Array:
        """`m` values at `m x d` settled points."""
        features = self._features(x, used)
        mean, variance = self.posterior.predict(features)
        value = _log_mean_exp(log_ei(mean, np.sqrt(variance)[:, None], self.best))
        if self.feasible is not None:
            mean, variance = self.feasible.predict(self.columns.features(x, used))
            value = value + CAUTION * log_ndtr(mean[:, 0] / np.sqrt(variance + self.feasible.noise))
        return value

    def with_gradient(self, x: Array, used: Mask) -> tuple[Array, Array]:
        """`m` values and `m x d` gradients (zero in columns that are not continuous, or not in use)."""
        features = self._features(x, used)
        b, mean, variance, slope = _moments(self.posterior, features)
        sd = np.sqrt(variance)[:, None]
        z = (self.best - mean) / sd
        h = log_h(z)
        each = np.log(sd) + h
        value = _log_mean_exp(each)
        share = np.exp(each - value[:, None]) / each.shape[1]
        # d log h / dz = Φ/h, and d log EI / d sd = φ/(sd h), both from logs so that neither under- nor overflows.
        by_mean = -share * np.exp(log_ndtr(z) - h) / sd
        by_variance = (share * np.exp(-0.5 * z * z - _LOG_SQRT_2PI - h)).sum(axis=1) / (2.0 * variance)
        gradient = _pull(self.posterior, features, by_mean @ self.posterior.alpha.T, by_variance, b, slope)
        gradient = self.columns.pull_back(gradient, x, used)
        if self.feasible is not None:
            features = self.columns.features(x, used)
            b, mean, variance, slope = _moments(self.feasible, features)
            spread = np.sqrt(variance + self.feasible.noise)
            z = mean[:, 0] / spread
            log_p = log_ndtr(z)
            value = value + CAUTION * log_p
            ratio = CAUTION * np.exp(-0.5 * z * z - _LOG_SQRT_2PI - log_p)
            by_mean = (ratio / spread)[:, None]
            by_variance = -0.5 * ratio * z / spread**2
            gradient += self.columns.pull_back(
                _pull(self.feasible, features, by_mean @ self.feasible.alpha.T, by_variance, b, slope), x, used
            )
        return value, gradient

    def _features(self, x: Array, used: Mask) -> Array:
        features = self.columns.features(x, used)
        if self.context is None:
            return features
        return np.hstack([features, np.broadcast_to(self.context, (len(features), len(self.context)))])


def _moments(posterior: Posterior, features: Array) -> tuple[Array, Array, Array, Array]:
    """K⁻¹k (`n x m`), mean (`m x s`), variance (`m`), and s² k'(r²) (`n x m`)."""
    k, slope = posterior.cross_and_slope(features)
    v = kernel.solve_lower(posterior.factor, k)
    mean = posterior.mean + k.T @ posterior.alpha
    return kernel.solve_lower_t(posterior.factor, v), mean, posterior.left(features, v), slope


def _pull(posterior: Posterior, features: Array, by_mean: Array, by_variance: Array, b: Array, slope: Array) -> Array:
    """`m x p` derivatives by the features, given those by the mean (as `m x n`, by each k) and the variance (`m`).

    dμ = αᵀ dk and d var = d own - 2 (K⁻¹k)ᵀ dk; by coordinates dk_i/da = s² k'(r²) · 2 (a - a_i), by basis functions
    dk_i/dc = τ² c_i and d own/dc = 2 τ² c.
    """
    a, basis = posterior.split(features)
    by_k = by_mean - 2.0 * by_variance[:, None] * b.T
    t = by_k * (2.0 * slope.T)
    coordinates = (t.sum(axis=1)[:, None] * a - t @ posterior.scaled) * posterior.inverse_length
    trend = posterior.steep * (by_k @ posterior.basis + 2.0 * by_variance[:, None] * basis)
    return posterior.unsplit(coordinates, trend)


def _log_mean_exp(values: Array) -> Array:
    if values.shape[1] == 1:
        return values[:, 0]
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).mean(axis=1)))
