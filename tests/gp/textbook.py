"""The formulas as books print them, over points rather than features, slow and plain: what the tests compare with."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.polynomial.legendre import legvander
from scipy.stats import norm

from hpo_ray.gp.columns import LEGENDRE, TREND, Array, Columns, Mask

Points = tuple[Array, Mask]


def squared_differences(columns: Columns, p: Points, q: Points) -> Array:
    """`n x m x d`: (a - b)² of numbers; of categoricals 0 if alike, 1 if not, ½ if one of the two is not in use."""
    (a, a_used), (b, b_used) = p, q
    out = np.zeros((len(a), len(b), columns.d))
    for i, column in enumerate(columns.columns):
        one, other = a[:, None, i], b[None, :, i]
        if column.categorical:
            here, there = a_used[:, None, i], b_used[None, :, i]
            out[:, :, i] = np.where(here & there, one != other, 0.5 * (here != there))
        else:
            out[:, :, i] = (one - other) ** 2
    return out


def trend_basis(columns: Columns, p: Points) -> Array:
    """`n x b`: of each number in use the weighted Legendre polynomials; of each categorical in use 1/√2 at its level.

    In this order: all numbers' polynomials of degree 1, of degree 2, …; then the categoricals, level by level. Nothing
    for columns without a trend.
    """
    x, used = p
    if not (columns.owner == TREND).any():
        return np.zeros((len(x), 0))
    number = ~columns.categorical
    polynomials = legvander(2 * x[:, number] - 1, len(LEGENDRE))
    out = [weight * polynomials[:, :, degree] * used[:, number] for degree, weight in enumerate(LEGENDRE, start=1)]
    for i in np.flatnonzero(columns.categorical):
        out.append((x[:, [i]] == columns.columns[i].levels) * used[:, [i]] / np.sqrt(2))
    return np.hstack(out)


def matern_covariance(columns: Columns, theta: Array, p: Points, q: Points) -> Array:
    """s² (1 + √5 r + 5 r²/3) exp(-√5 r), r² a sum over the columns (Rasmussen & Williams 2006, eq. 4.17)."""
    d = columns.d
    r = np.sqrt((squared_differences(columns, p, q) / np.exp(2 * theta[:d])).sum(axis=2))
    return np.exp(theta[d]) * (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


def covariance(columns: Columns, theta: Array, p: Points, q: Points, trended: Columns | None = None) -> Array:
    """The same plus τ² b(p)ᵀ b(q); only the first columns, `trended`, have a trend, all of them unless given."""
    first = columns if trended is None else trended
    a, b = (trend_basis(first, (x[:, : first.d], used[:, : first.d])) for x, used in (p, q))
    return matern_covariance(columns, theta, p, q) + np.exp(theta[-1]) * (a @ b.T)


class GaussianProcess:
    """One output, everything by `numpy.linalg.solve`."""

    def __init__(
        self,
        columns: Columns,
        theta: Array,
        data: Points,
        y: Array,
        extra: Array | float = 0.0,
        trended: Columns | None = None,
    ) -> None:
        self.columns, self.theta, self.data, self.y, self.trended = columns, theta, data, y, trended
        n, ones = len(y), np.ones(len(y))
        self.covariance = self.prior(data, data) + np.diag((np.exp(theta[columns.d + 1]) + extra) * np.ones(n))
        # Generalised least squares: (1ᵀK⁻¹1)⁻¹ 1ᵀK⁻¹y.
        self.mean = (ones @ np.linalg.solve(self.covariance, y)) / (ones @ np.linalg.solve(self.covariance, ones))

    def prior(self, p: Points, q: Points) -> Array:
        """`n x m` covariances of the function."""
        return covariance(self.columns, self.theta, p, q, self.trended)

    def predict(self, at: Points) -> tuple[Array, Array]:
        """Mean (`m`) and covariance (`m x m`) of the function (Rasmussen & Williams 2006, eqs. 2.23, 2.24)."""
        k = self.prior(self.data, at)
        mean = self.mean + k.T @ np.linalg.solve(self.covariance, self.y - self.mean)
        return mean, self.prior(at, at) - k.T @ np.linalg.solve(self.covariance, k)

    def expected_improvement(self, at: Points) -> Array:
        """`m`: (b - μ) Φ(z) + σ φ(z), z = (b - μ)/σ, b the lowest mean at a point of the data (Jones et al. 1998)."""
        mean, cov = self.predict(at)
        sd = np.sqrt(cov.diagonal())
        gain = self.predict(self.data)[0].min() - mean
        return np.asarray(gain * norm.cdf(gain / sd) + sd * norm.pdf(gain / sd))


def derivative(f: Callable[[float], Array | float], h: float) -> Array:
    """f'(0): central differences at h, h/2, h/4, h/8, extrapolated to 0 (Richardson), with an error of O(h⁸)."""
    table = [(np.asarray(f(h / 2**k)) - np.asarray(f(-h / 2**k))) / (2 * h / 2**k) for k in range(4)]
    for order in (1, 2, 3):
        table = [b + (b - a) / (4.0**order - 1) for a, b in itertools.pairwise(table)]
    return np.asarray(table[0])
