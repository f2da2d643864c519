"""Log expected improvement against quadrature to 50 digits, textbook formulas, Monte Carlo and finite differences."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.stats import norm

from hpo_ray.gp.acquisition import CAUTION, LogEI, log_ei, log_h
from hpo_ray.gp.columns import Array, Column, Columns
from hpo_ray.gp.surrogate import Posterior
from tests.gp.strategies import MIXED, TRENDS, hyperparameters, settled_points
from tests.gp.textbook import GaussianProcess, Points, derivative

WITH_FIDELITY = Columns([*MIXED.columns, Column()])
FIDELITY = 0.8


def log_h_by_quadrature(z: float) -> mpmath.mpf:
    """log ∫₀^∞ u φ(z - u) du, which is log E[max(z - f, 0)] of a standard normal f, to about 50 digits."""
    with mpmath.workdps(50):
        z = mpmath.mpf(float(z))
        top = mpmath.log(2 * mpmath.pi) / 2
        if z <= 0:  # with exp(-z²/2) taken out; the rest falls off as exp(-|z| u - u²/2)
            reach = [k / max(mpmath.mpf(1), -z) for k in (0, 2, 8, 30, 130)]
            return mpmath.log(mpmath.quad(lambda u: u * mpmath.exp(z * u - u * u / 2), reach)) - z * z / 2 - top
        return mpmath.log(mpmath.quad(lambda f: (z - f) * mpmath.exp(-f * f / 2), [-18, -8, -3, 0, z])) - top


def log_h_by_formula(z: float) -> mpmath.mpf:
    with mpmath.workdps(60):
        z = mpmath.mpf(float(z))
        return mpmath.log(mpmath.npdf(z) + z * mpmath.erfc(-z / mpmath.sqrt(2)) / 2)


def errors(z: Array, reference: list[mpmath.mpf]) -> Array:
    """Of the log, relative to the log, or absolute where the log is less than 1."""
    return np.array(
        [float(abs(mpmath.mpf(float(v)) - r) / max(1, abs(r))) for v, r in zip(log_h(z), reference, strict=True)]
    )


def test_log_h_is_its_defining_integral() -> None:
    z = np.concatenate([np.linspace(-40, 10, 26), np.random.default_rng(0).uniform(-2, 2, 6)])
    integral = [log_h_by_quadrature(v) for v in z]
    assert max(float(abs(i - log_h_by_formula(v))) for i, v in zip(integral, z, strict=True)) < 1e-40
    assert errors(z, integral).max() < 2e-15


def test_log_h_is_exact_from_far_below_to_far_above() -> None:
    z = np.concatenate(
        [np.linspace(-40, 10, 1001), -np.geomspace(1e-12, 1e7, 500), np.geomspace(1e-12, 1e7, 200), [0.0]]
    )
    assert errors(z, [log_h_by_formula(v) for v in z]).max() < 2e-15


def test_log_h_is_within_a_few_steps_of_float64() -> None:
    """Of one at -1, of 5e11 at -1e6: what exp(-log h) in the gradients has to live with."""
    z = -np.geomspace(1.0, 1e6, 600)
    exact = [log_h_by_formula(v) for v in z]
    off = [
        float(abs(mpmath.mpf(float(v)) - e)) / np.spacing(abs(float(e))) for v, e in zip(log_h(z), exact, strict=True)
    ]
    assert max(off) < 10


@pytest.mark.parametrize("z", [-1e3, -1001.0, -1e5])
def test_far_below_h_is_the_density_over_z_squared(z: float) -> None:
    asymptotic = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z)
    assert log_h(np.array([z]))[0] == pytest.approx(asymptotic + np.log1p(-3 / z**2 + 15 / z**4), rel=1e-15)
    assert log_h(np.array([z]))[0] == pytest.approx(asymptotic, abs=max(4 / z**2, 1e-15 * abs(asymptotic)))


def test_far_above_h_is_z() -> None:
    assert log_h(np.array([1e3, 1e8]))[:].tolist() == pytest.approx([np.log(1e3), np.log(1e8)], rel=1e-15)


@pytest.mark.parametrize("join", [-1.0, -1e3])
def test_across_a_join_log_h_is_continuous_and_rises(join: float) -> None:
    beside = log_h(np.array([np.nextafter(join, -np.inf), join, np.nextafter(join, np.inf)]))
    # Below -1 the factor beside the density has cancelled by 1/z², which is a rounding error of about ε z².
    assert np.abs(np.diff(beside)).max() <= 1e-15 * max(1.0, join**2)
    z = join + 1e-14 * join**2 * np.arange(-200, 201)
    assert np.all(np.diff(log_h(z)) > 0)


def test_log_h_rises_everywhere() -> None:
    assert np.all(np.diff(log_h(np.linspace(-1500, 100, 200_001))) > 0)


@pytest.mark.parametrize(("mean", "sd", "best"), [(0.3, 2.0, 1.0), (5.0, 0.01, 4.9), (-1.0, 1e-3, -1.02), (2, 3, 2)])
def test_log_ei_is_the_log_of_the_expected_improvement(mean: float, sd: float, best: float) -> None:
    with mpmath.workdps(40):
        m, s, b = (mpmath.mpf(float(v)) for v in (mean, sd, best))
        reach = [s * k / max(mpmath.mpf(1), (m - b) / s) for k in (0, 0.5, 1, 2, 4, 8, 16, 30, 130)]
        expected = mpmath.log(mpmath.quad(lambda gain: gain * mpmath.npdf(b - gain, m, s), reach))
    assert log_ei(np.array([mean]), np.array([sd]), best)[0] == pytest.approx(float(expected), rel=1e-12)


def data_and_outputs(columns: Columns, n: int, s: int, seed: int) -> tuple[Points, Array]:
    points = settled_points(columns, n, seed)
    x, used = points
    y = np.sin(4 * x[:, :1]) + x[:, 1:2] + used.sum(axis=1)[:, None] / 5
    return points, y + 0.3 * np.random.default_rng([seed, 2]).standard_normal((n, s))


def posterior(columns: Columns, theta: Array, points: Points, y: Array) -> Posterior:
    """Of mixed columns; a fidelity beyond them is a coordinate behind all their features, without a trend."""
    x, used = points
    f, owner = MIXED.features(x[:, : MIXED.d], used[:, : MIXED.d]), MIXED.owner
    if columns is WITH_FIDELITY:
        f, owner = np.hstack([f, x[:, MIXED.d :]]), np.append(owner, MIXED.d)
    return Posterior(theta, owner, f, y)


def acquisition(
    s: int,
    *,
    failures: bool = False,
    fidelity: bool = False,
    trend: float = 0.2,
    seed: int = 0,
    shift: float = 0.0,
) -> LogEI:
    """Over mixed columns; `shift` lowers the incumbents, so that improvement gets unlikely."""
    columns = WITH_FIDELITY if fidelity else MIXED
    theta = hyperparameters(columns.d, seed, trend=trend)
    model = posterior(columns, theta, *data_and_outputs(columns, 20, s, seed))
    feasible = None
    if failures:
        points, y = data_and_outputs(MIXED, 25, 1, seed + 50)
        theta = hyperparameters(MIXED.d, seed + 1, 0.1, trend)
        feasible = posterior(MIXED, theta, points, np.sign(y - y.mean()))
    context = np.array([FIDELITY]) if fidelity else None
    best = model.predict_at_data().min(axis=0) - shift
    return LogEI(model, best, MIXED, feasible=feasible, context=context)


KINDS = [
    pytest.param(
        {"s": s, "failures": failures, "fidelity": fidelity, "trend": trend},
        id=f"s={s}-failures={failures}-fidelity={fidelity}-trend={trend}",
    )
    for s, failures, fidelity, trend in itertools.product([1, 5], [False, True], [False, True], TRENDS)
]


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_textbook_formula(kind: dict[str, Any]) -> None:
    got = acquisition(**kind)
    at = settled_points(MIXED, 30, 9)
    columns, x, used = MIXED, *at
    if kind["fidelity"]:
        columns, x = WITH_FIDELITY, np.column_stack([x, np.full(30, FIDELITY)])
        used = np.column_stack([used, np.full(30, True)])
    points, y = data_and_outputs(columns, 20, kind["s"], 0)
    theta = hyperparameters(columns.d, 0, trend=kind["trend"])
    gps = [GaussianProcess(columns, theta, points, y[:, j], trended=MIXED) for j in range(kind["s"])]
    expected = np.log(np.mean([gp.expected_improvement((x, used)) for gp in gps], axis=0))
    if kind["failures"]:
        points, y = data_and_outputs(MIXED, 25, 1, 50)
        theta = hyperparameters(MIXED.d, 1, 0.1, kind["trend"])
        mean, cov = GaussianProcess(MIXED, theta, points, np.sign(y - y.mean())[:, 0]).predict(at)
        expected += CAUTION * norm.logcdf(mean / np.sqrt(cov.diagonal() + np.exp(theta[-2])))
    np.testing.assert_allclose(got(*at), expected, rtol=1e-8, atol=1e-9)


def test_values_are_the_mean_improvement_of_draws() -> None:
    got = acquisition(1)
    at = settled_points(MIXED, 5, 9)
    mean, variance = got.posterior.predict(MIXED.features(*at))
    f = mean + np.sqrt(variance)[:, None] * np.random.default_rng(0).standard_normal((5, 400_000))
    gain = np.maximum(got.best - f, 0.0)
    error = gain.std(axis=1) / np.sqrt(gain.shape[1])
    assert np.all(np.abs(np.exp(got(*at)) - gain.mean(axis=1)) < 4 * error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [0.0, 3.0, 1e3], ids=lambda shift: f"shift={shift}")
def test_the_gradient_is_that_of_finite_differences_and_the_value_is_the_same(
    kind: dict[str, Any], shift: float
) -> None:
    f = acquisition(**kind, shift=shift * max(1.0, np.sqrt(kind["trend"])))
    x, used = settled_points(MIXED, 20, 11)
    value, gradient = f.with_gradient(x, used)
    np.testing.assert_allclose(value, f(x, used), rtol=1e-13)
    expected = np.zeros_like(gradient)
    for i in np.flatnonzero(MIXED.continuous):
        step = np.eye(MIXED.d)[i] * used[:, i : i + 1]
        expected[:, i] = derivative(lambda t, step=step: f(x + t * step, used), 4e-3)
    assert np.all(np.abs(expected[:, 0]) > 0)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert np.all(np.abs(gradient - expected) <= 1e-6 * np.abs(expected) + 1e-8 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_zero_in_columns_that_are_discrete_or_not_in_use(kind: dict[str, Any]) -> None:
    x, used = settled_points(MIXED, 30, 12)
    assert not used[:, 4].all()
    _, gradient = acquisition(**kind).with_gradient(x, used)
    assert np.all(gradient[:, ~MIXED.continuous] == 0)
    assert np.all(gradient[~used] == 0)
    assert np.all(gradient[used & MIXED.continuous] != 0)


def test_at_the_data_and_where_improvement_is_hopeless_all_is_finite() -> None:
    for shift in (0.0, 1e2, 1e5):
        f = acquisition(3, failures=True, shift=shift)
        for points in (settled_points(MIXED, 20, 0), settled_points(MIXED, 20, 1)):
            value, gradient = f.with_gradient(*points)
            assert np.isfinite(value).all()
            assert np.isfinite(gradient).all()


def with_fantasies(model: Posterior, pending: Array, noise: Array) -> tuple[Posterior, Array]:
    """The posterior grown by what is pending, its outputs drawn from the joint prediction by `q x s` normals."""
    mean, cov = model.joint(pending)
    draws = mean + np.linalg.cholesky(cov + model.noise * np.eye(len(pending))) @ noise
    y = np.vstack([np.repeat(model.y, noise.shape[1], axis=1), draws])
    return model.grown(pending, y), y


@pytest.mark.parametrize(("q", "s"), [(1, 1), (1, 8), (4, 8), (9, 3)])
@pytest.mark.parametrize("trend", TRENDS)
def test_averaging_over_fantasies_is_the_mean_of_that_many_posteriors(q: int, s: int, trend: float) -> None:
    theta = hyperparameters(MIXED.d, 3, trend=trend)
    (x, used), y = data_and_outputs(MIXED, 15 + q, 1, 3)
    features = MIXED.features(x, used)
    first = Posterior(theta, MIXED.owner, features[:15], y[:15])
    grown, outputs = with_fantasies(first, features[15:], np.random.default_rng(0).standard_normal((q, s)))
    at = settled_points(MIXED, 25, 4)
    together = LogEI(grown, grown.predict_at_data().min(axis=0), MIXED)
    each, gradients = [], []
    for j in range(s):
        fresh = Posterior(theta, MIXED.owner, features, outputs[:, j])
        value, gradient = LogEI(fresh, fresh.predict_at_data().min(axis=0), MIXED).with_gradient(*at)
        book = GaussianProcess(MIXED, theta, (x, used), outputs[:, j]).expected_improvement(at)
        np.testing.assert_allclose(np.exp(value), book, rtol=1e-8)
        each.append(np.exp(value))
        gradients.append(np.exp(value)[:, None] * gradient)
    value, gradient = together.with_gradient(*at)
    np.testing.assert_allclose(together(*at), np.log(np.mean(each, axis=0)), rtol=1e-8)
    expected = np.mean(gradients, axis=0) / np.mean(each, axis=0)[:, None]
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())


def test_with_more_fantasies_the_value_approaches_the_mean_over_all_outcomes() -> None:
    """One point pending, so that the mean over its outcome is an integral over one normal."""
    theta = hyperparameters(MIXED.d, 3)
    (x, used), y = data_and_outputs(MIXED, 15, 1, 3)
    first = posterior(MIXED, theta, (x, used), y)
    alone = LogEI(first, first.predict_at_data().min(axis=0), MIXED)
    others, others_used = settled_points(MIXED, 200, 4)
    order = np.argsort(-alone(others, others_used))
    pending, at = order[:1], (others[order[:10]], others_used[order[:10]])
    grid = np.linspace(-8.0, 8.0, 161)
    book = GaussianProcess(MIXED, theta, (x, used), y[:, 0])
    mean, cov = book.predict((others[pending], others_used[pending]))
    both = np.vstack([x, others[pending]]), np.vstack([used, others_used[pending]])
    improvements = [
        GaussianProcess(MIXED, theta, both, np.append(y, outcome)).expected_improvement(at)
        for outcome in mean + np.sqrt(cov[0, 0] + np.exp(theta[-2])) * grid
    ]
    weight, improvement = norm.pdf(grid) * (grid[1] - grid[0]), np.array(improvements)
    exact = weight @ improvement
    sd = np.sqrt(weight @ (improvement - exact) ** 2)
    for s in (64, 1024, 16384):
        noise = np.random.default_rng(1).standard_normal((1, s))
        grown, _ = with_fantasies(first, MIXED.features(others[pending], others_used[pending]), noise)
        got = np.exp(LogEI(grown, grown.predict_at_data().min(axis=0), MIXED)(*at))
        assert np.all(np.abs(got - exact) < 4 * sd / np.sqrt(s))
    # What is pending makes a difference, most of all where it is.
    assert np.exp(alone(*at))[0] > 2 * exact[0]


def test_equal_fantasies_are_one() -> None:
    f = acquisition(1, failures=True)
    at = settled_points(MIXED, 10, 4)
    model = replace(f, posterior=posterior_like(f.posterior, 6), best=np.repeat(f.best, 6))
    np.testing.assert_allclose(model(*at), f(*at), rtol=1e-13)
    np.testing.assert_allclose(model.with_gradient(*at)[1], f.with_gradient(*at)[1], rtol=1e-11)


def posterior_like(model: Posterior, s: int) -> Posterior:
    return Posterior(model.theta, model.owner, model.features, np.repeat(model.y, s, axis=1))
