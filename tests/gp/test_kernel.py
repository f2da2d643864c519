"""The kernel and the evidence against closed forms, scikit-learn, scipy and finite differences."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.gaussian_process.kernels import Matern

from hpo_ray.gp import kernel
from hpo_ray.gp.columns import TREND, Array, Column, Columns
from tests.gp.strategies import CHECKED, MIXED, SEEDS, TRENDS, hyperparameters, mixed_columns, settled_points
from tests.gp.textbook import GaussianProcess, derivative, matern_covariance, trend_basis

RADII = np.concatenate([[0.0], np.geomspace(1e-8, 40.0, 200)])


def matern(r: float | mpmath.mpf) -> mpmath.mpf:
    """Eq. 4.14 of Rasmussen & Williams (2006) with ν = 5/2, by the Bessel function."""
    nu, r = mpmath.mpf(5) / 2, mpmath.mpf(r)
    t = mpmath.sqrt(2 * nu) * r
    return mpmath.mpf(1) if r == 0 else 2 ** (1 - nu) / mpmath.gamma(nu) * t**nu * mpmath.besselk(nu, t)


def test_the_kernel_is_matern_by_its_bessel_form_and_by_its_closed_form() -> None:
    got = kernel.matern52(RADII**2)
    closed = (1 + np.sqrt(5) * RADII + 5 * RADII**2 / 3) * np.exp(-np.sqrt(5) * RADII)
    np.testing.assert_allclose(got, closed, rtol=1e-13)
    few = slice(None, None, 10)
    with mpmath.workdps(40):
        np.testing.assert_allclose(got[few], [float(matern(r)) for r in RADII[few]], rtol=1e-13)


def test_the_kernel_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b, length = rng.random((20, 4)), rng.random((15, 4)), np.array([0.1, 0.5, 1.0, 3.0])
    got = kernel.matern52(kernel.sqdist(a / length, b / length))
    np.testing.assert_allclose(got, Matern(length_scale=length, nu=2.5)(a, b), rtol=1e-12)


def test_the_slope_is_the_derivative_by_the_squared_distance() -> None:
    r2 = np.concatenate([[0.0], np.geomspace(1e-6, 400.0, 40)])
    value, slope = kernel.matern52_and_slope(r2)
    np.testing.assert_allclose(value, kernel.matern52(r2), rtol=1e-14)
    assert slope[0] == pytest.approx(-5 / 6, rel=1e-15)
    with mpmath.workdps(40):
        expected = [float(mpmath.diff(lambda s: matern(mpmath.sqrt(s)), mpmath.mpf(float(s)))) for s in r2[1:]]
    np.testing.assert_allclose(slope[1:], expected, rtol=1e-10)


@CHECKED
@given(SEEDS)
def test_squared_distances_are_those_of_scipy_and_never_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((8, 3)) * 10 ** rng.uniform(-2, 2), rng.random((5, 3))
    b[:2] = a[:2]
    got = kernel.sqdist(a, b)
    largest = max(float((a**2).sum(axis=1).max()), float((b**2).sum(axis=1).max()))
    assert np.all(got >= 0)
    np.testing.assert_allclose(got, cdist(a, b, "sqeuclidean"), rtol=1e-13, atol=8e-16 * largest)


@CHECKED
@given(mixed_columns(), SEEDS)
def test_covariances_of_mixed_and_conditional_points_are_positive_semi_definite(columns: Columns, seed: int) -> None:
    length = np.exp(hyperparameters(columns.d, seed)[: columns.d])
    coordinate = columns.owner != TREND
    a = columns.features(*settled_points(columns, 30, seed))[:, coordinate] / length[columns.owner[coordinate]]
    gram = kernel.matern52(kernel.sqdist(a, a))
    assert np.allclose(gram, gram.T, atol=1e-14)
    assert np.linalg.eigvalsh(gram).min() > -1e-12 * len(gram)
    factor = kernel.cholesky(gram + 1e-9 * np.eye(len(gram)))
    np.testing.assert_allclose(factor @ factor.T, gram + 1e-9 * np.eye(len(gram)), atol=1e-13)


def test_a_factor_solves_its_systems_and_is_lower_triangular() -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((6, 6))
    k, b = root @ root.T + np.eye(6), rng.standard_normal((6, 3))
    factor = kernel.cholesky(k)
    np.testing.assert_allclose(factor, np.linalg.cholesky(k), atol=1e-12)
    np.testing.assert_allclose(kernel.solve(factor, b), np.linalg.solve(k, b), rtol=1e-10)
    np.testing.assert_allclose(kernel.solve_lower(factor, b), np.linalg.solve(factor, b), rtol=1e-10)
    np.testing.assert_allclose(kernel.solve_lower_t(factor, b), np.linalg.solve(factor.T, b), rtol=1e-10)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(kernel.NotPositiveDefinite, match="leading minor 2 of 2"):
        kernel.cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]))


def evidence_problem(seed: int) -> tuple[Array, Array, Array, Array]:
    """Points, features, outputs and known noise variances over every kind of column."""
    x, used = settled_points(MIXED, 25, seed)
    rng = np.random.default_rng([seed, 1])
    y = rng.standard_normal(25) + 3.0 * x[:, 0]
    return x, used, y, rng.choice([0.0, 0.01, 0.3], 25)


THETAS = {
    "plausible": hyperparameters(MIXED.d, 0)[:-1],
    "long": np.array([np.log(8.0)] * MIXED.d + [1.0, np.log(1e-1)]),
    "short": np.array([np.log(0.05)] * MIXED.d + [-1.0, np.log(1e-4)]),
    "uneven": np.array([*np.linspace(np.log(0.03), np.log(100.0), MIXED.d), 3.0, np.log(1e-3)]),
}
THETAS = {f"{name}-trend={trend}": np.append(t, np.log(trend)) for name, t in THETAS.items() for trend in TRENDS}


@pytest.mark.parametrize("with_extra", [False, True])
@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_evidence_is_the_normal_density_at_the_gls_mean(theta: Array, with_extra: bool, seed: int) -> None:
    x, used, y, noise = evidence_problem(seed)
    extra: Array | float = noise if with_extra else 0.0
    gp = GaussianProcess(MIXED, theta, (x, used), y, extra)
    expected = multivariate_normal(np.full(len(y), gp.mean), gp.covariance).logpdf(y)
    got, _ = kernel.log_evidence(theta, MIXED.features(x, used), MIXED.owner, y, extra)
    assert got == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("with_extra", [False, True])
@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_the_evidence_is_that_of_finite_differences(theta: Array, with_extra: bool, seed: int) -> None:
    x, used, y, noise = evidence_problem(seed)
    features, extra = MIXED.features(x, used), noise if with_extra else 0.0
    _, gradient = kernel.log_evidence(theta, features, MIXED.owner, y, extra)
    expected = [
        float(derivative(lambda t, e=e: kernel.log_evidence(theta + t * e, features, MIXED.owner, y, extra)[0], 0.05))
        for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_the_evidence_of_a_matrix_without_a_factor_is_refused() -> None:
    theta = np.array([np.log(1e3), np.log(1e3), np.log(1e-30), np.log(1e2)])
    with pytest.raises(kernel.NotPositiveDefinite):
        kernel.log_evidence(theta, np.zeros((5, 2)), np.array([0, TREND]), np.arange(5.0))


@pytest.mark.parametrize("trend", TRENDS)
def test_the_evidence_is_that_of_a_linear_model_with_its_coefficients_integrated_out(trend: float) -> None:
    """By Bayes' rule, at any β: log p(y) = log p(y|β) + log p(β) - log p(β|y)."""
    x, used, y, _ = evidence_problem(3)
    theta = hyperparameters(MIXED.d, 3, trend=trend)
    features = MIXED.features(x, used)
    basis = trend_basis(MIXED, (x, used))
    noisy = matern_covariance(MIXED, theta, (x, used), (x, used)) + np.exp(theta[-2]) * np.eye(len(y))
    mean = GaussianProcess(MIXED, theta, (x, used), y).mean
    precision = basis.T @ np.linalg.solve(noisy, basis) + np.eye(basis.shape[1]) / trend
    beta = np.linalg.solve(precision, basis.T @ np.linalg.solve(noisy, y - mean))
    given_beta = multivariate_normal(mean + basis @ beta, noisy).logpdf(y)
    prior = multivariate_normal(np.zeros(len(beta)), trend * np.eye(len(beta))).logpdf(beta)
    at_its_centre = 0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1]
    got, _ = kernel.log_evidence(theta, features, MIXED.owner, y)
    assert got == pytest.approx(given_beta + prior - at_its_centre, rel=1e-10)


def test_features_without_a_trend_have_none() -> None:
    """One more coordinate after the basis, as the level of training is."""
    x, used, y, _ = evidence_problem(4)
    more = np.random.default_rng(4).random((len(y), 1))
    theta = hyperparameters(MIXED.d + 1, 4, trend=10.0)
    owner = np.append(MIXED.owner, MIXED.d)
    longer = Columns([*MIXED.columns, Column()])
    points = np.hstack([x, more]), np.column_stack([used, np.full(len(y), True)])
    gp = GaussianProcess(longer, theta, points, y, trended=MIXED)
    expected = multivariate_normal(np.full(len(y), gp.mean), gp.covariance).logpdf(y)
    features = np.hstack([MIXED.features(x, used), more])
    got, gradient = kernel.log_evidence(theta, features, owner, y)
    assert got == pytest.approx(expected, rel=1e-10)
    by_hand = [
        float(derivative(lambda t, e=e: kernel.log_evidence(theta + t * e, features, owner, y)[0], 0.05))
        for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-6, atol=1e-9 * np.abs(by_hand).max())


def test_the_constant_mean_is_that_of_generalised_least_squares_for_every_output() -> None:
    rng = np.random.default_rng(2)
    root, y = rng.standard_normal((7, 7)), rng.standard_normal((7, 3))
    k = root @ root.T + np.eye(7)
    mean, alpha = kernel.weights(kernel.cholesky(k), y)
    inverse = np.linalg.inv(k)
    np.testing.assert_allclose(mean, (inverse @ y).sum(axis=0) / inverse.sum(), rtol=1e-10)
    np.testing.assert_allclose(alpha, inverse @ (y - mean), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alpha.sum(axis=0), 0.0, atol=1e-12)
