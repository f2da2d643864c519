"""The covariance, its log-evidence and the gradients: Matérn-5/2 with one length scale a column, plus a trend.

K = s² k(r) + τ² B Bᵀ + σ² I, where B holds the trend's basis functions: a linear model of them with a normal prior on
its coefficients (Rasmussen & Williams 2006, section 2.7). Must not know: what the points or outputs mean.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from hpo_ray.gp.columns import TREND, Array, Integers

SQRT5 = np.sqrt(5.0)


class NotPositiveDefinite(ArithmeticError):
    """A covariance matrix has no Cholesky factor."""


def sqdist(a: Array, b: Array) -> Array:
    """`n x m` squared Euclidean distances between the rows of `n x p` and `m x p`."""
    r2 = a @ (-2.0 * b.T)
    r2 += np.einsum("ij,ij->i", a, a)[:, None]
    r2 += np.einsum("ij,ij->i", b, b)
    return np.maximum(r2, 0.0, out=r2)


def matern52(r2: Array) -> Array:
    """k(r) = (1 + √5 r + 5/3 r²) exp(-√5 r) of squared scaled distances (Rasmussen & Williams 2006, eq. 4.17)."""
    t = np.sqrt(5.0 * r2)
    return (1.0 + t + t * t / 3.0) * np.exp(-t)


def matern52_and_slope(r2: Array) -> tuple[Array, Array]:
    """The kernel, and its derivative by r²: -(5/6)(1 + √5 r) exp(-√5 r)."""
    t = np.sqrt(5.0 * r2)
    e = np.exp(-t)
    slope = (1.0 + t) * e
    t *= t / 3.0
    t *= e
    t += slope
    slope *= -5.0 / 6.0
    return t, slope


def cholesky(k: Array) -> Array:
    """The lower factor L, L Lᵀ = K. `NotPositiveDefinite` if there is none."""
    factor, info = lapack.dpotrf(k, lower=1, clean=1)
    if info != 0:
        raise NotPositiveDefinite(f"leading minor {info} of {len(k)}")
    return np.asarray(factor)


def solve_lower(factor: Array, b: Array) -> Array:
    """L⁻¹ b."""
    x, _ = lapack.dtrtrs(factor, b, lower=1)
    return np.asarray(x)


def solve_lower_t(factor: Array, b: Array) -> Array:
    """L⁻ᵀ b."""
    x, _ = lapack.dtrtrs(factor, b, lower=1, trans=1)
    return np.asarray(x)


def solve(factor: Array, b: Array) -> Array:
    """K⁻¹ b."""
    x, _ = lapack.dpotrs(factor, b, lower=1)
    return np.asarray(x)


def log_evidence(
    theta: Array, features: Array, owner: Integers, y: Array, extra: Array | float = 0.0
) -> tuple[float, Array]:
    """The log marginal likelihood and its gradient (Rasmussen & Williams 2006, eqs. 2.30, 5.9).

    log p(y) = -½ (y - m)ᵀ K⁻¹ (y - m) - ½ log|K| - n/2 log 2π, with K = s² k(r) + τ² B Bᵀ + (σ² + extra) I, and the
    constant mean m at its generalised least-squares value 1ᵀK⁻¹y / 1ᵀK⁻¹1, where its own derivative vanishes.

    Args:
        theta: `d + 3`: log length scales, log s², log σ², log τ².
        features: `n x p`.
        owner: `p`, the column that each feature is a coordinate of; `TREND` for a basis function.
        y: `n` outputs.
        extra: `n` known noise variances.

    Raises:
        NotPositiveDefinite: K has no Cholesky factor.
    """
    n, d = len(y), len(theta) - 3
    scale, noise, steep = np.exp(theta[d:])
    coordinate = owner != TREND
    basis, owner = features[:, ~coordinate], owner[coordinate]
    a = features[:, coordinate] * np.exp(-theta[:d])[owner]
    correlation, slope = matern52_and_slope(sqdist(a, a))
    trend = basis @ basis.T
    covariance = scale * correlation + steep * trend
    covariance.flat[:: n + 1] += noise + extra
    factor = cholesky(covariance)
    mean, alphas = weights(factor, y[:, None])
    alpha = alphas[:, 0]
    value = -0.5 * (y - mean[0]) @ alpha - np.log(factor.diagonal()).sum() - 0.5 * n * np.log(2 * np.pi)
    inverse, _ = lapack.dpotri(factor, lower=1)
    inverse += np.tril(inverse, -1).T
    w = np.multiply.outer(alpha, alpha)  # w = 2 d log p / dK
    w -= inverse
    gradient = np.empty(d + 3)
    gradient[d + 2] = 0.5 * steep * np.einsum("ij,ij->", w, trend)
    gradient[d + 1] = 0.5 * noise * w.trace()
    gradient[d] = 0.5 * scale * np.einsum("ij,ij->", w, correlation)
    # dr²/d log ℓ_j = -2 q_j, q_j the column's share of r²; Σ_ab W_ab (a_a - b_b)² needs no n x n x p array.
    w *= slope
    by_feature = np.einsum("ij,i->j", a * a, w.sum(axis=1)) - np.einsum("ij,ij->j", a, w @ a)
    gradient[:d] = -2.0 * scale * np.bincount(owner, by_feature, minlength=d)
    return float(value), gradient


def weights(factor: Array, y: Array) -> tuple[Array, Array]:
    """The constant means m (`s`) and K⁻¹ (y - m) (`n x s`) of `n x s` outputs."""
    solved = solve(factor, np.column_stack([np.ones(len(y)), y]))
    ones = solved[:, 0]
    mean = (ones @ y) / ones.sum()
    return mean, solved[:, 1:] - ones[:, None] * mean
