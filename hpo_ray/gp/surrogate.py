"""The Gaussian process: priors, MAP fit of its hyper-parameters, posterior, growth by one row at a time.

Must not know: where points come from, what is done with the predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from hpo_ray.gp import kernel
from hpo_ray.gp.columns import TREND, Array, Integers

# σ² of standardised outputs is never below this: it keeps K well-conditioned.
NOISE_FLOOR = 1e-6
JITTERS = (0.0, 1e-8, 1e-6, 1e-4, 1e-2)


@dataclass(frozen=True)
class Prior:
    """Normal priors on θ = (log length scales, log s², log σ², log τ²), and its bounds.

    Length scales: Hvarfner et al. 2024 ("Vanilla Bayesian optimization performs great in high dimensions", eq. 9) take
    log ℓ ~ N(√2 + ½ log d, 3), so that distances, which grow as √d, keep their meaning in d dimensions. As a density
    of ℓ it has its mode at log ℓ = √2 - 3 + ½ log d; we centre there, and maximise in log ℓ. The width is ours: 1 in
    place of √3, which found better configurations (2 found worse ones; see benchmarks/README.md).
    """

    length_mean: float = np.sqrt(2.0) - 3.0
    length_sd: float = 1.0
    scale_mean: float = 0.0
    scale_sd: float = 1.0
    noise_mean: float = np.log(1e-3)
    noise_sd: float = 2.5
    trend_mean: float = -1.5
    trend_sd: float = 1.5

    def mean(self, d: int) -> Array:
        """`d + 3` centres."""
        length = self.length_mean + 0.5 * np.log(max(d, 1))
        return np.array([length] * d + [self.scale_mean, self.noise_mean, self.trend_mean])

    def sd(self, d: int) -> Array:
        """`d + 3` standard deviations."""
        return np.array([self.length_sd] * d + [self.scale_sd, self.noise_sd, self.trend_sd])

    def bounds(self, d: int) -> list[tuple[float, float]]:
        """Where θ is searched."""
        rest = [(1e-3, 1e3), (NOISE_FLOOR, 10.0), (1e-4, 1e2)]
        return [(np.log(low), np.log(high)) for low, high in [(5e-3, 1e3)] * d + rest]


def fit(
    features: Array,
    owner: Integers,
    y: Array,
    start: Array,
    *,
    prior: Prior,
    extra: Array | float = 0.0,
    iterations: int = 50,
) -> tuple[Array, float]:
    """The most probable θ given the data, by L-BFGS-B with analytic gradients.

    Args:
        features: `n x p` inputs.
        owner: `p`, what each feature is (see `kernel.log_evidence`).
        y: `n` outputs, standardised.
        start: `d + 3`, where to begin.
        prior: The prior.
        extra: `n` known noise variances.
        iterations: At most so many.

    Returns:
        θ, and its log posterior density (evidence plus prior, up to a constant).
    """
    d = len(start) - 3
    mean, sd = prior.mean(d), prior.sd(d)

    def objective(theta: Array) -> tuple[float, Array]:
        deviation = (theta - mean) / sd
        try:
            value, gradient = kernel.log_evidence(theta, features, owner, y, extra)
        except kernel.NotPositiveDefinite:
            return 1e25, np.zeros_like(theta)
        return -value + 0.5 * float(deviation @ deviation), -gradient + deviation / sd

    bounds = prior.bounds(d)
    low, high = np.array(bounds).T
    result = minimize(
        objective,
        np.clip(start, low, high),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-5, "gtol": 1e-2},
    )
    return np.asarray(result.x), -float(result.fun)


class Posterior:
    """A Gaussian process given `n` observations, for `s` alternative outputs at once (fantasies).

    Attributes:
        theta: `d + 3` hyper-parameters.
        factor: `n x n`, L of K.
        scale, noise, steep: s², σ², τ².
        y: `n x s` outputs.
    """

    def __init__(
        self,
        theta: Array,
        owner: Integers,
        features: Array,
        y: Array,
        *,
        extra: Array | None = None,
        factor: Array | None = None,
    ) -> None:
        self.theta, self.owner, self.features = theta, owner, features
        d = len(theta) - 3
        self._coordinate = owner != TREND
        self.inverse_length = np.exp(-theta[:d])[owner[self._coordinate]]
        self.scale, self.noise, self.steep = (float(value) for value in np.exp(theta[d:]))
        self.scaled, self.basis = self.split(features)
        self.extra = np.zeros(len(features)) if extra is None else extra
        self.factor = self._factorise() if factor is None else factor
        self.set_outputs(y)

    def set_outputs(self, y: Array) -> None:
        """Take other outputs, `n` or `n x s`, at the same inputs."""
        self.y = y[:, None] if y.ndim == 1 else y
        self.mean, self.alpha = kernel.weights(self.factor, self.y)

    def split(self, features: Array) -> tuple[Array, Array]:
        """Coordinates over their length scales, and basis functions."""
        return features[:, self._coordinate] * self.inverse_length, features[:, ~self._coordinate]

    def unsplit(self, coordinates: Array, basis: Array) -> Array:
        """`m x p` of two parts as `split` has them."""
        both = np.empty((len(coordinates), len(self.owner)))
        both[:, self._coordinate], both[:, ~self._coordinate] = coordinates, basis
        return both

    def cross(self, features: Array) -> Array:
        """`n x m` covariances of the function at the inputs and at `m x p` others."""
        scaled, basis = self.split(features)
        covariance = self.scale * kernel.matern52(kernel.sqdist(self.scaled, scaled))
        covariance += self.steep * (self.basis @ basis.T)
        return covariance

    def cross_and_slope(self, features: Array) -> tuple[Array, Array]:
        """`cross`, and its kernel's derivative by the squared scaled distances, s² k'(r²): both `n x m`."""
        scaled, basis = self.split(features)
        correlation, slope = kernel.matern52_and_slope(kernel.sqdist(self.scaled, scaled))
        return self.scale * correlation + self.steep * (self.basis @ basis.T), self.scale * slope

    def gram(self, features: Array) -> Array:
        """`m x m` covariances of the function at `m x p`, before any observation."""
        scaled, basis = self.split(features)
        covariance = self.scale * kernel.matern52(kernel.sqdist(scaled, scaled)) + self.steep * (basis @ basis.T)
        covariance.flat[:: len(features) + 1] = self.own(features)
        return covariance

    def own(self, features: Array) -> Array:
        """`m` variances of the function at `m x p`, before any observation."""
        basis = features[:, ~self._coordinate]
        return np.asarray(self.scale + self.steep * np.einsum("ij,ij->i", basis, basis))

    def predict(self, features: Array) -> tuple[Array, Array]:
        """The function's mean (`m x s`) and variance (`m`) at `m x p` (Rasmussen & Williams 2006, eqs. 2.25, 2.26)."""
        k = self.cross(features)
        v = kernel.solve_lower(self.factor, k)
        return self.mean + k.T @ self.alpha, self.left(features, v)

    def left(self, features: Array, v: Array) -> Array:
        """`m` variances that remain, given v = L⁻¹k; never quite nothing."""
        own = self.own(features)
        return np.asarray(np.maximum(own - np.einsum("ij,ij->j", v, v), 1e-12 * own))

    def joint(self, features: Array) -> tuple[Array, Array]:
        """The mean (`m x s`) and the covariance (`m x m`) of the function at `m x p`."""
        k = self.cross(features)
        v = kernel.solve_lower(self.factor, k)
        return self.mean + k.T @ self.alpha, self.gram(features) - v.T @ v

    def predict_at_data(self) -> Array:
        """`n x s` means of the function at the inputs: y - noise · α, without another matrix product."""
        return self.y - (self.noise + self.extra)[:, None] * self.alpha

    def grown(self, features: Array, y: Array, extra: Array | None = None) -> Posterior:
        """The posterior given `q` more observations, by adding rows to the factor: O(n² q).

        Args:
            features: `q x p`.
            y: `n + q` or `(n + q) x s`: all outputs, the new ones last.
            extra: `q` known noise variances.
        """
        q, n = len(features), len(self.features)
        extra = np.zeros(q) if extra is None else extra
        below = kernel.solve_lower(self.factor, self.cross(features)).T
        corner = self.gram(features) - below @ below.T
        corner.flat[:: q + 1] = np.maximum(corner.diagonal() + self.noise + extra, 0.5 * (self.noise + extra))
        factor = np.zeros((n + q, n + q), order="F")
        factor[:n, :n], factor[n:, :n] = self.factor, below
        factor[n:, n:] = robust_cholesky(corner, self.scale)
        return Posterior(
            self.theta,
            self.owner,
            np.vstack([self.features, features]),
            y,
            extra=np.concatenate([self.extra, extra]),
            factor=factor,
        )

    def _factorise(self) -> Array:
        k = self.gram(self.features)
        k.flat[:: len(k) + 1] += self.noise + self.extra
        return robust_cholesky(k, self.scale)


def robust_cholesky(k: Array, scale: float) -> Array:
    """The factor of K, with as little added to its diagonal as it takes."""
    for jitter in JITTERS:
        try:
            return kernel.cholesky(k + jitter * scale * np.eye(len(k)) if jitter else k)
        except kernel.NotPositiveDefinite:
            continue
    raise kernel.NotPositiveDefinite(f"{len(k)} x {len(k)}, with a jitter of {JITTERS[-1]}")
