"""The posterior against textbook formulas, its growth against starting afresh, the fit against global searches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import differential_evolution
from scipy.stats import multivariate_normal, norm

from hpo_ray.gp.columns import TREND, Array, Column, Columns
from hpo_ray.gp.kernel import NotPositiveDefinite, matern52_and_slope, sqdist
from hpo_ray.gp.surrogate import JITTERS, NOISE_FLOOR, Posterior, Prior, fit, robust_cholesky
from tests.gp.strategies import CHECKED, MIXED, SEEDS, TRENDS, hyperparameters, mixed_columns, settled_points
from tests.gp.textbook import GaussianProcess, Points, covariance, matern_covariance, trend_basis

PLANE = Columns([Column(), Column()])
PRIOR = Prior()


def outputs(points: Points, s: int, seed: int) -> Array:
    """`n x s` outputs with some structure and an offset."""
    x, used = points
    rng = np.random.default_rng([seed, 7])
    return 5.0 + np.sin(3 * x[:, :1]) + used.sum(axis=1)[:, None] / 4 + 0.5 * rng.standard_normal((len(x), s))


def posterior(columns: Columns, theta: Array, points: Points, y: Array, extra: Array | None = None) -> Posterior:
    return Posterior(theta, columns.owner, columns.features(*points), y, extra=extra)


def rows(points: Points, which: slice) -> Points:
    return points[0][which], points[1][which]


@CHECKED
@given(mixed_columns(), st.integers(1, 25), st.integers(1, 3), st.booleans(), st.sampled_from(TRENDS), SEEDS)
def test_predictions_are_those_of_the_textbook(
    columns: Columns, n: int, s: int, noisy: bool, trend: float, seed: int
) -> None:
    data, at = settled_points(columns, n, seed), settled_points(columns, 6, seed + 1)
    theta, y = hyperparameters(columns.d, seed, trend=trend), outputs(data, s, seed)
    extra = np.random.default_rng(seed).choice([0.0, 0.05, 1.0], n) if noisy else None
    model, f = posterior(columns, theta, data, y, extra), columns.features(*at)
    mean, variance = model.predict(f)
    joint_mean, cov = model.joint(f)
    at_data = model.predict_at_data()
    assert mean.shape == joint_mean.shape == (6, s)
    for j in range(s):
        book = GaussianProcess(columns, theta, data, y[:, j], 0.0 if extra is None else extra)
        book_mean, book_cov = book.predict(at)
        np.testing.assert_allclose(model.mean[j], book.mean, rtol=1e-9)
        np.testing.assert_allclose(mean[:, j], book_mean, rtol=1e-9)
        np.testing.assert_allclose(joint_mean[:, j], book_mean, rtol=1e-9)
        np.testing.assert_allclose(variance, book_cov.diagonal(), rtol=1e-8)
        np.testing.assert_allclose(cov, book_cov, atol=1e-11)
        np.testing.assert_allclose(at_data[:, j], book.predict(data)[0], rtol=1e-9)


@CHECKED
@given(mixed_columns(), st.sampled_from(TRENDS), SEEDS)
def test_before_any_observation_it_is_the_prior_of_the_textbook(columns: Columns, trend: float, seed: int) -> None:
    at = settled_points(columns, 12, seed)
    theta, f = hyperparameters(columns.d, seed, trend=trend), columns.features(*at)
    model = posterior(columns, theta, settled_points(columns, 3, seed + 1), np.zeros(3))
    expected = covariance(columns, theta, at, at)
    np.testing.assert_allclose(model.gram(f), expected, rtol=1e-12, atol=1e-13 * expected.max())
    np.testing.assert_allclose(model.own(f), expected.diagonal(), rtol=1e-13)
    assert np.array_equal(model.gram(f).diagonal(), model.own(f))
    eigenvalues = np.linalg.eigvalsh(model.gram(f))
    assert eigenvalues.min() > -1e-14 * len(f) * eigenvalues.max()
    between = covariance(columns, theta, settled_points(columns, 3, seed + 1), at)
    np.testing.assert_allclose(model.cross(f), between, rtol=1e-12, atol=1e-13 * expected.max())
    both, slope = model.cross_and_slope(f)
    np.testing.assert_allclose(both, between, rtol=1e-12, atol=1e-13 * expected.max())
    by_hand = np.exp(theta[-3]) * matern52_and_slope(sqdist(model.scaled, model.split(f)[0]))[1]
    np.testing.assert_allclose(slope, by_hand, rtol=1e-14)


@pytest.mark.parametrize("trend", TRENDS)
def test_the_trend_is_a_linear_model_with_a_normal_prior_on_its_coefficients(trend: float) -> None:
    """Rasmussen & Williams 2006, eqs. 2.41 and 2.42 with b = 0, B = τ² I, of outputs less their constant mean."""
    data, at = settled_points(MIXED, 30, 0), settled_points(MIXED, 8, 1)
    theta, y = hyperparameters(MIXED.d, 0, trend=trend), outputs(data, 1, 0)
    model = posterior(MIXED, theta, data, y)
    h, h_at = trend_basis(MIXED, data).T, trend_basis(MIXED, at).T
    noisy = matern_covariance(MIXED, theta, data, data) + np.exp(theta[-2]) * np.eye(30)
    k = matern_covariance(MIXED, theta, data, at)
    by_h, by_k = np.linalg.solve(noisy, h.T), np.linalg.solve(noisy, k)
    precision, rest = np.eye(len(h)) / trend + h @ by_h, y[:, 0] - model.mean
    beta = np.linalg.solve(precision, by_h.T @ rest)
    mean = model.mean + h_at.T @ beta + by_k.T @ (rest - h.T @ beta)
    r = h_at - h @ by_k
    cov = matern_covariance(MIXED, theta, at, at) - k.T @ by_k + r.T @ np.linalg.solve(precision, r)
    got_mean, got_cov = model.joint(MIXED.features(*at))
    np.testing.assert_allclose(got_mean[:, 0], mean, rtol=1e-9)
    np.testing.assert_allclose(got_cov, cov, atol=1e-10 * max(1.0, cov.max()))


def test_a_trend_is_continued_beyond_the_data() -> None:
    """Short length scales: the kernel forgets, the line does not."""
    line = Columns([Column()])
    x, at = np.linspace(0, 0.6, 20)[:, None], line.features(np.array([[0.9]]), np.array([[True]]))
    y = 3.0 * x[:, 0] - 1.0
    steep, flat = (posterior(line, np.log([0.05, 0.01, 1e-4, t]), (x, x >= 0), y).predict(at)[0] for t in (1e2, 1e-4))
    assert steep[0, 0] == pytest.approx(1.7, abs=0.1)
    assert flat[0, 0] == pytest.approx(y.mean(), abs=0.1)


@pytest.mark.parametrize("levelled", [False, True])
def test_features_are_split_into_coordinates_over_their_lengths_and_the_basis_and_put_together_again(
    levelled: bool,
) -> None:
    points = settled_points(MIXED, 9, 0)
    f, owner, d = MIXED.features(*points), MIXED.owner, MIXED.d + levelled
    if levelled:  # one more coordinate behind the basis
        f, owner = np.hstack([f, np.linspace(0, 1, 9)[:, None]]), np.append(owner, MIXED.d)
    theta = hyperparameters(d, 1)
    model = Posterior(theta, owner, f, np.arange(9.0))
    coordinates, basis = model.split(f)
    width = sum(MIXED.widths)
    lengths = np.repeat(np.exp(theta[:d]), [*MIXED.widths, 1][:d])
    np.testing.assert_allclose(coordinates, np.hstack([f[:, :width], f[:, len(MIXED.owner) :]]) / lengths, rtol=1e-14)
    np.testing.assert_array_equal(basis, f[:, width : len(MIXED.owner)])
    np.testing.assert_allclose(model.unsplit(coordinates * lengths, basis), f, rtol=1e-14)


def test_one_output_may_be_a_vector_and_outputs_can_be_exchanged() -> None:
    data, at = settled_points(MIXED, 15, 0), MIXED.features(*settled_points(MIXED, 5, 1))
    theta, y, z = hyperparameters(MIXED.d, 0), outputs(data, 1, 0), outputs(data, 4, 1)
    model = posterior(MIXED, theta, data, y[:, 0])
    np.testing.assert_array_equal(model.predict(at)[0], posterior(MIXED, theta, data, y).predict(at)[0])
    model.set_outputs(z)
    np.testing.assert_array_equal(model.predict(at)[0], posterior(MIXED, theta, data, z).predict(at)[0])


@pytest.mark.parametrize("trend", TRENDS)
def test_with_hardly_any_noise_it_interpolates_and_the_variance_stays_positive(trend: float) -> None:
    data = settled_points(PLANE, 12, 3)
    y = outputs(data, 1, 3)
    theta = np.array([np.log(0.3), np.log(0.3), 0.0, np.log(1e-14), np.log(trend)])
    mean, variance = posterior(PLANE, theta, data, y).predict(PLANE.features(*data))
    np.testing.assert_allclose(mean, y, atol=1e-6)
    assert np.all(variance > 0)
    assert np.all(variance < 1e-6)


@pytest.mark.parametrize("trend", TRENDS)
def test_far_from_all_data_and_without_a_trend_it_is_the_prior(trend: float) -> None:
    data = settled_points(PLANE, 12, 3)
    theta = hyperparameters(2, 0, trend=trend)
    model = posterior(PLANE, theta, data, outputs(data, 2, 3))
    mean, variance = model.predict(np.where(PLANE.owner == TREND, 0.0, 1e3)[None])
    np.testing.assert_allclose(mean[0], model.mean, rtol=1e-12)
    np.testing.assert_allclose(variance, np.exp(theta[2]), rtol=1e-12)


@CHECKED
@given(
    mixed_columns(),
    st.integers(1, 15),
    st.integers(1, 8),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(TRENDS),
    SEEDS,
)
def test_a_grown_posterior_is_the_posterior_of_all_rows(
    columns: Columns, n: int, q: int, s: int, noisy: bool, trend: float, seed: int
) -> None:
    everything, at = settled_points(columns, n + q, seed), columns.features(*settled_points(columns, 6, seed + 1))
    theta, y = hyperparameters(columns.d, seed, noise=1e-3, trend=trend), outputs(everything, s, seed)
    extra = np.random.default_rng(seed).choice([0.0, 0.05, 1.0], n + q) if noisy else np.zeros(n + q)
    f = columns.features(*everything)
    fresh = posterior(columns, theta, everything, y, extra)
    first = posterior(columns, theta, rows(everything, slice(n)), y[:n], extra[:n])
    at_once = first.grown(f[n:], y, extra[n:])
    singly = first
    for k in range(n, n + q):
        singly = singly.grown(f[k : k + 1], y[: k + 1], extra[k : k + 1])
    for grown in (at_once, singly):
        np.testing.assert_allclose(grown.factor, fresh.factor, atol=1e-11)
        np.testing.assert_allclose(grown.predict(at)[0], fresh.predict(at)[0], rtol=1e-8)
        np.testing.assert_allclose(grown.predict(at)[1], fresh.predict(at)[1], rtol=1e-8)
        np.testing.assert_allclose(grown.joint(at)[1], fresh.joint(at)[1], atol=1e-11)
        np.testing.assert_allclose(grown.predict_at_data(), fresh.predict_at_data(), rtol=1e-8)


def test_growing_leaves_the_first_posterior_as_it_was() -> None:
    data = settled_points(PLANE, 8, 0)
    f, y = PLANE.features(*data), outputs(data, 1, 0)
    model = posterior(PLANE, hyperparameters(2, 0), rows(data, slice(6)), y[:6])
    before, _ = model.predict(f)
    model.grown(f[6:], y).grown(f[:1], np.vstack([y, y[:1]]))
    np.testing.assert_array_equal(model.predict(f)[0], before)


@pytest.mark.parametrize("trend", TRENDS)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_same_point_can_be_added_many_times(scale: float, trend: float) -> None:
    data = settled_points(PLANE, 5, 0)
    f, y = PLANE.features(*data), outputs(data, 1, 0)
    theta = np.log([0.5, 0.5, scale, NOISE_FLOOR, trend])
    model = posterior(PLANE, theta, data, y)
    for _ in range(20):
        y = np.vstack([y, y[:1]])
        model = model.grown(f[:1], y)
    mean, variance = model.predict(f)
    np.testing.assert_allclose(mean, y[:5], atol=1e-4)
    assert np.all(variance > 0)


def test_a_matrix_without_a_factor_gets_as_little_on_its_diagonal_as_it_takes() -> None:
    root = np.random.default_rng(0).standard_normal((4, 4))
    regular, singular = root @ root.T + np.eye(4), np.ones((4, 4))
    np.testing.assert_array_equal(robust_cholesky(regular, 1e9), np.linalg.cholesky(regular))
    for scale in (1.0, 1e-3):
        factor = robust_cholesky(singular, scale)
        np.testing.assert_allclose(factor @ factor.T, singular + JITTERS[1] * scale * np.eye(4), rtol=0, atol=1e-15)
    # Eigenvalues 1 ± 1.005: only the largest jitter lifts them above 0.
    nearly = np.array([[1.0, 1.005], [1.005, 1.0]])
    np.testing.assert_allclose(robust_cholesky(nearly, 1.0), np.linalg.cholesky(nearly + JITTERS[-1] * np.eye(2)))
    with pytest.raises(NotPositiveDefinite, match="2 x 2"):
        robust_cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]), 1.0)


def test_known_variances_may_take_noise_away() -> None:
    """Values of the function itself, drawn rather than observed, have none."""
    data, at = settled_points(PLANE, 9, 0), PLANE.features(*settled_points(PLANE, 4, 1))
    theta, y = hyperparameters(2, 0, noise=0.5), outputs(data, 1, 0)
    f = PLANE.features(*data)
    quiet = np.full(3, 1e-4 - 0.5)
    grown = posterior(PLANE, theta, rows(data, slice(6)), y[:6]).grown(f[6:], y, quiet)
    book = GaussianProcess(PLANE, theta, data, y[:, 0], np.append(np.zeros(6), quiet))
    np.testing.assert_allclose(grown.predict(at)[0][:, 0], book.predict((at[:, :2], at[:, :2] >= 0))[0], rtol=1e-8)
    np.testing.assert_allclose(grown.predict(f[6:])[0], y[6:], atol=0.01)


def log_density(theta: Array, columns: Columns, points: Points, y: Array, extra: Array | float = 0.0) -> float:
    """Evidence plus log prior without its constant, by scipy."""
    d = columns.d
    gp = GaussianProcess(columns, theta, points, y, extra)
    evidence = multivariate_normal(np.full(len(y), gp.mean), gp.covariance, allow_singular=True).logpdf(y)
    mean, sd = PRIOR.mean(d), PRIOR.sd(d)
    return float(evidence + (norm.logpdf(theta, mean, sd) - norm.logpdf(mean, mean, sd)).sum())


def bump(points: Points, seed: int, noise: float) -> Array:
    x = points[0]
    y = np.sin(5 * x[:, 0]) + (x[:, -1] - 0.4) ** 2 + noise * np.random.default_rng(seed).standard_normal(len(x))
    return np.asarray((y - y.mean()) / y.std())


@pytest.mark.parametrize(("n", "noise", "seed"), [(5, 0.0, 0), (15, 0.01, 1), (25, 0.5, 2)])
def test_the_fit_is_as_good_as_differential_evolution_finds(n: int, noise: float, seed: int) -> None:
    points = settled_points(PLANE, n, seed)
    y, f = bump(points, seed, noise), PLANE.features(*points)
    mean = PRIOR.mean(2)
    starts = mean + np.array([[0, 0, 0, 0, 0], [1, 1, 0, 3, 1], [-0.5, 1.5, 0, 5, -1]])
    theta, value = max((fit(f, PLANE.owner, y, start, prior=PRIOR) for start in starts), key=lambda found: found[1])
    assert value == pytest.approx(log_density(theta, PLANE, points, y), abs=1e-8)
    best = differential_evolution(
        lambda t: -log_density(t, PLANE, points, y), PRIOR.bounds(2), rng=seed, maxiter=12, popsize=6, tol=1e-6
    )
    assert value >= -best.fun - 1e-3


def test_the_fit_is_as_good_as_many_starts_find_on_mixed_columns_with_known_noise() -> None:
    points = settled_points(MIXED, 25, 4)
    f, y = MIXED.features(*points), bump(points, 4, 0.1)
    extra = np.random.default_rng(4).choice([0.0, 0.2], 25)
    theta, value = fit(f, MIXED.owner, y, PRIOR.mean(MIXED.d), prior=PRIOR, extra=extra)
    assert value == pytest.approx(log_density(theta, MIXED, points, y, extra), abs=1e-8)
    rng = np.random.default_rng(5)
    for _ in range(20):
        start = PRIOR.mean(MIXED.d) + PRIOR.sd(MIXED.d) * rng.standard_normal(MIXED.d + 3)
        assert value >= fit(f, MIXED.owner, y, start, prior=PRIOR, extra=extra, iterations=500)[1] - 1e-2


def assert_within_bounds(theta: Array, d: int) -> None:
    low, high = np.array(PRIOR.bounds(d)).T
    assert np.all(np.isfinite(theta))
    assert np.all((low <= theta) & (theta <= high))


@CHECKED
@given(mixed_columns(), st.integers(1, 12), st.sampled_from([0.0, 1e-6, 1.0, 1e3]), SEEDS)
def test_a_fit_stays_within_its_bounds_and_never_loses_to_its_start(
    columns: Columns, n: int, spread: float, seed: int
) -> None:
    """Constant outputs (spread 0), duplicates (few levels) and starts out of bounds among them."""
    rng = np.random.default_rng(seed)
    points = settled_points(columns, n, seed)
    start, y = PRIOR.mean(columns.d) + 4 * rng.standard_normal(columns.d + 3), spread * rng.standard_normal(n)
    theta, value = fit(columns.features(*points), columns.owner, y, start, prior=PRIOR, iterations=20)
    assert_within_bounds(theta, columns.d)
    low, high = np.array(PRIOR.bounds(columns.d)).T
    begun = log_density(np.clip(start, low, high), columns, points, y)
    assert value >= begun - 1e-6 * max(1.0, abs(begun))


def test_one_observation_leaves_the_length_scales_at_their_prior() -> None:
    at = np.array([[0.3, 0.6], [0.5, 0.5]])
    f = PLANE.features(at, at >= 0)
    theta, _ = fit(f[:1], PLANE.owner, np.array([0.0]), PRIOR.mean(2) + 1.0, prior=PRIOR)
    assert_within_bounds(theta, 2)
    np.testing.assert_allclose(theta[:2], PRIOR.mean(2)[:2], atol=1e-2)
    model = Posterior(theta, PLANE.owner, f[:1], np.array([2.5]))
    mean, variance = model.predict(f)
    np.testing.assert_allclose(mean, 2.5, rtol=1e-12)
    assert np.all((variance > 0) & (variance <= model.own(f)))


def test_constant_outputs_are_predicted_everywhere() -> None:
    points = settled_points(PLANE, 20, 0)
    f = PLANE.features(*points)
    theta, _ = fit(f, PLANE.owner, np.zeros(20), PRIOR.mean(2), prior=PRIOR)
    assert_within_bounds(theta, 2)
    mean, _ = Posterior(theta, PLANE.owner, f, np.full(20, 3.0)).predict(PLANE.features(*settled_points(PLANE, 50, 1)))
    np.testing.assert_allclose(mean, 3.0, rtol=1e-9)


def test_duplicates_that_disagree_are_noise() -> None:
    x = np.repeat(settled_points(PLANE, 10, 0)[0], 3, axis=0)
    y = np.random.default_rng(0).standard_normal(30)
    theta, _ = fit(PLANE.features(x, x >= 0), PLANE.owner, y, PRIOR.mean(2), prior=PRIOR)
    assert_within_bounds(theta, 2)
    within = y.reshape(10, 3).var(axis=1, ddof=1).mean()
    assert 0.3 * within < np.exp(theta[-2]) < 3.0 * within


def test_a_line_is_found_to_be_a_trend() -> None:
    x = np.random.default_rng(0).random((20, 2))
    y = x[:, 0] - 2 * x[:, 1]
    theta, _ = fit(PLANE.features(x, x >= 0), PLANE.owner, (y - y.mean()) / y.std(), PRIOR.mean(2), prior=PRIOR)
    assert_within_bounds(theta, 2)
    bent = np.sin(25 * x[:, 0]) * np.sin(25 * x[:, 1])
    other, _ = fit(PLANE.features(x, x >= 0), PLANE.owner, bent / bent.std(), PRIOR.mean(2), prior=PRIOR)
    assert theta[-1] - theta[2] > other[-1] - other[2] + 1.0


@pytest.mark.parametrize("d", [1, 5])
def test_the_prior_and_the_bounds_are_on_lengths_and_then_scale_noise_and_trend(d: int) -> None:
    prior = Prior(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    np.testing.assert_allclose(prior.mean(d), [1.0 + 0.5 * np.log(d)] * d + [3.0, 5.0, 7.0])
    assert prior.sd(d).tolist() == [2.0] * d + [4.0, 6.0, 8.0]
    bounds = prior.bounds(d)
    assert len(bounds) == d + 3
    assert bounds[-2][0] == np.log(NOISE_FLOOR)
    assert all(low < centre < high for (low, high), centre in zip(bounds, PRIOR.mean(d), strict=True))


def test_the_prior_on_length_scales_has_the_mode_of_hvarfners_lognormal() -> None:
    for d in (1, 4, 100):
        length = np.exp(PRIOR.mean(d)[0])
        # log ℓ ~ N(√2 + log √d, √3²); its density by ℓ has the mode exp(μ - σ²).
        mu = np.sqrt(2) + np.log(np.sqrt(d))
        density = norm(mu, np.sqrt(3.0))
        near = length * np.exp(np.linspace(-0.1, 0.1, 201))
        assert np.argmax(density.logpdf(np.log(near)) - np.log(near)) == 100
