"""Transforms of losses against scipy, arithmetic to 50 digits, finite differences and known distributions."""

from __future__ import annotations

import itertools
from functools import partial

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata, yeojohnson

from hpo_ray.gp import outputs
from hpo_ray.gp.columns import Array
from hpo_ray.gp.outputs import (
    HALF_RANK,
    PLAIN,
    POWERS,
    Warped,
    by_half_rank,
    by_rank,
    prepare,
    standardise,
    with_power,
    yeo_johnson,
)
from tests.gp.strategies import CHECKED, SEEDS

WAYS = (PLAIN, HALF_RANK)
MANY_POWERS = sorted({*POWERS, *np.linspace(-5, 5, 41), -1e-9, 1e-9, 2 - 1e-9, 2 + 1e-9, 1 + 1e-9})
SCALES = (1e-12, 1e-3, 1.0, 1e12)


def z_values(seed: int = 0) -> Array:
    """Of all sizes and both signs, with 0."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.standard_normal(80) * 10 ** rng.uniform(-9, 3, 80), [0.0, 1e-300, -1e-300, 1e6, -1e6]])


def losses(n: int, seed: int) -> Array:
    """`n` of one of several kinds: normal, heavy-tailed, with ties, with an offset or of another size."""
    rng = np.random.default_rng(seed)
    kinds = [
        rng.standard_normal(n),
        np.exp(3 * rng.standard_normal(n)),
        rng.standard_cauchy(n),
        np.round(2 * rng.standard_normal(n)) / 2,
        np.full(n, rng.standard_normal()),
        rng.choice([0.1, 0.5, 0.9], n),
    ]
    return (kinds[rng.integers(len(kinds))] + float(rng.choice([0.0, 0.0, 100.0]))) * float(rng.choice(SCALES))


def constant(y: Array) -> bool:
    return bool(y.std() <= 1e-12 * np.abs(y).max())


# Yeo & Johnson's transform.


@pytest.mark.parametrize("power", MANY_POWERS)
def test_the_power_transform_is_that_of_scipy(power: float) -> None:
    z = z_values()
    np.testing.assert_allclose(yeo_johnson(z, power).z, yeojohnson(z, power), rtol=1e-13)


def exact(z: float, power: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Yeo & Johnson 2000, eq. 2.1, and its derivative."""
    z, power = mpmath.mpf(float(z)), mpmath.mpf(float(power))
    if z >= 0:
        return mpmath.log(1 + z) if power == 0 else ((1 + z) ** power - 1) / power, (1 + z) ** (power - 1)
    p = 2 - power
    return -mpmath.log(1 - z) if p == 0 else -((1 - z) ** p - 1) / p, (1 - z) ** (p - 1)


@pytest.mark.parametrize("power", MANY_POWERS[::3])
def test_the_power_transform_and_its_slope_are_exact(power: float) -> None:
    z = z_values(1)
    with mpmath.workdps(400):
        both = [exact(v, power) for v in z]
    got = yeo_johnson(z, power)
    np.testing.assert_allclose(got.z, [float(value) for value, _ in both], rtol=4e-14)
    np.testing.assert_allclose(got.slope, [float(slope) for _, slope in both], rtol=4e-14)


def test_power_one_changes_nothing_and_zero_and_two_are_logarithms() -> None:
    z = z_values()
    np.testing.assert_allclose(yeo_johnson(z, 1.0).z, z, rtol=1e-14)
    np.testing.assert_array_equal(yeo_johnson(z, 1.0).slope, 1.0)
    np.testing.assert_array_equal(yeo_johnson(z[z >= 0], 0.0).z, np.log1p(z[z >= 0]))
    np.testing.assert_array_equal(yeo_johnson(z[z < 0], 2.0).z, -np.log1p(-z[z < 0]))
    # Mirrored, 2 - power does what the power does.
    for power in POWERS:
        np.testing.assert_allclose(yeo_johnson(-z, 2.0 - power).z, -yeo_johnson(z, power).z, rtol=1e-15)


# All ways and powers: the order is kept, sizes do not matter.


@CHECKED
@given(st.integers(1, 40), st.sampled_from(WAYS), st.sampled_from(POWERS), SEEDS)
def test_the_order_is_kept_and_ties_stay_ties(n: int, way: str, power: float, seed: int) -> None:
    y = losses(n, seed)
    warped = with_power(prepare(y, way), power)
    assert warped.z.shape == warped.slope.shape == (n,)
    assert np.isfinite(warped.z).all()
    assert np.all((warped.slope > 0) & np.isfinite(warped.slope))
    assert np.isfinite(warped.log_jacobian)
    order = np.argsort(y, kind="stable")
    rise, step = np.diff(y[order]), np.diff(warped.z[order])
    assert np.all(step >= 0)
    assert np.all(step[rise == 0] == 0)


@CHECKED
@given(st.integers(2, 40), st.sampled_from(WAYS), st.sampled_from(POWERS), st.sampled_from(SCALES), SEEDS)
def test_different_losses_stay_different(n: int, way: str, power: float, scale: float, seed: int) -> None:
    y = scale * np.sort(np.random.default_rng(seed).standard_normal(n))
    assert np.all(np.diff(with_power(prepare(y, way), power).z) > 0)


@CHECKED
@given(st.integers(1, 40), st.sampled_from(WAYS), st.sampled_from(POWERS), SEEDS)
def test_outputs_have_mean_nought_and_variance_one_or_are_all_nought(n: int, way: str, power: float, seed: int) -> None:
    y = losses(n, seed)
    z = with_power(prepare(y, way), power).z
    assert abs(z.mean()) < 1e-9
    assert z.std() == pytest.approx(0.0 if constant(y) else 1.0, abs=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_unit_of_the_loss_does_not_matter(way: str, power: float, factor: float) -> None:
    y = np.append(np.exp(np.random.default_rng(0).standard_normal(30)), [1.0, 1.0])
    one, other = with_power(prepare(y, way), power), with_power(prepare(factor * y, way), power)
    np.testing.assert_allclose(other.z, one.z, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(factor * other.slope, one.slope, rtol=1e-10)
    assert other.log_jacobian == pytest.approx(one.log_jacobian - 32 * np.log(factor), rel=1e-10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_losses_and_a_single_one_become_nought(way: str, n: int) -> None:
    for power, value in itertools.product(POWERS, [0.0, 0.1, -3e12, 1e-12]):
        warped = with_power(prepare(np.full(n, value), way), power)
        assert warped.z.tolist() == [0.0] * n
        assert warped.slope.tolist() == [1.0] * n
        assert warped.log_jacobian == 0.0


def test_what_is_equal_to_rounding_is_taken_as_equal() -> None:
    y = 0.1 * (1 + 2.0**-52 * np.arange(-3.0, 4.0))
    assert len(np.unique(y)) > 3
    assert np.abs(prepare(y, PLAIN).z).max() < 1e-12
    np.testing.assert_array_equal(prepare(y, PLAIN).slope, 1.0)


def test_what_is_equal_to_rounding_is_taken_as_equal_under_a_power_as_well() -> None:
    y = 0.1 * (1 + 2.0**-52 * np.arange(-3.0, 4.0))
    for power in POWERS:
        assert np.abs(with_power(prepare(y, PLAIN), power).z).max() < 1e-12


def test_what_is_equal_to_rounding_is_small_at_any_size() -> None:
    y = 1e20 * (1 + 2.0**-52 * np.arange(-3.0, 4.0))
    assert np.abs(prepare(y, PLAIN).z).max() <= 3.0


def test_the_worse_half_stays_apart_where_the_better_is_equal_to_rounding() -> None:
    y = np.array([*np.repeat([0.1, np.nextafter(0.1, 1)], 3), 0.5, 0.7, 0.9])
    warped = prepare(y, HALF_RANK)
    assert np.all(np.diff(warped.z[-4:]) > 0.1)
    assert np.all(warped.slope > 0)


# Slopes.


@CHECKED
@given(st.integers(2, 12), st.sampled_from([PLAIN, "log"]), st.sampled_from(POWERS), st.sampled_from(SCALES), SEEDS)
def test_a_slope_is_that_of_finite_differences(n: int, kind: str, power: float, scale: float, seed: int) -> None:
    """Each loss has a companion on either side, so that one transform is seen at all three."""
    middle = np.random.default_rng(seed).standard_normal(n)
    middle = scale * (np.exp(2 * middle) if kind == "log" else middle)
    h = 1e-4 * middle.std()
    y = np.concatenate([middle, *(middle + k * h for k in (-2, -1, 1, 2))])
    prepared = prepare(y, PLAIN)
    if np.abs(prepared.z[:n]).min() < 1e-2:
        return  # at 0 the transform has a kink in its second derivative
    warped = with_power(prepared, power)
    z = warped.z.reshape(5, n)
    by_hand = (8 * (z[3] - z[2]) - (z[4] - z[1])) / (12 * h)
    np.testing.assert_allclose(warped.slope[:n], by_hand, rtol=1e-6, atol=1e-10 * warped.slope[:n].max())


@pytest.mark.parametrize("power", POWERS)
def test_the_slope_of_the_power_transform_is_that_of_finite_differences(power: float) -> None:
    z = np.concatenate([np.linspace(-20, -0.05, 40), np.linspace(0.05, 20, 40)])
    h = 1e-3 * np.abs(z)
    f = [yeo_johnson(z + k * h, power).z for k in (-2, -1, 1, 2)]
    by_hand = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h)
    np.testing.assert_allclose(yeo_johnson(z, power).slope, by_hand, rtol=1e-8)


def test_at_nought_the_slope_of_the_power_transform_is_one() -> None:
    for power in MANY_POWERS:
        got = yeo_johnson(np.array([0.0, 1e-13, -1e-13]), power)
        np.testing.assert_allclose(got.slope, 1.0, rtol=1e-11)
        np.testing.assert_allclose(got.z, [0.0, 1e-13, -1e-13], rtol=1e-11)


@pytest.mark.parametrize("way", ["rank", HALF_RANK])
def test_slopes_by_rank_are_those_of_a_known_distribution(way: str) -> None:
    """Quantiles of a lognormal: by rank, z = log y and dz/dy = 1/y; by half rank above the median the same, scaled."""
    n = 2001
    log_y = norm.ppf((np.arange(n) + 0.5) / n)
    y = np.exp(log_y)[np.random.default_rng(0).permutation(n)]
    log_y, inner = np.log(y), np.abs(np.log(y)) < 2.0
    if way == "rank":
        got = by_rank(y)
        np.testing.assert_allclose(got.z, log_y, atol=1e-9)
        np.testing.assert_allclose(got.slope[inner], 1 / y[inner], rtol=1e-4)
        return
    got, good = by_half_rank(y), y <= 1.0 + 1e-12
    spread = np.sqrt(np.mean((y[good] - 1.0) ** 2))
    np.testing.assert_array_equal(got.z[good], y[good])
    np.testing.assert_array_equal(got.slope[good], 1.0)
    np.testing.assert_allclose(got.z[~good], 1.0 + spread * log_y[~good], atol=1e-9)
    inner &= log_y > 0.01  # next to the median the neighbour is of the other half
    np.testing.assert_allclose(got.slope[inner], spread / y[inner], rtol=1e-4)


@CHECKED
@given(st.integers(1, 30), SEEDS)
def test_by_rank_is_the_normal_quantile_of_the_middle_rank(n: int, seed: int) -> None:
    y = losses(n, seed)
    warped = by_rank(y)
    np.testing.assert_allclose(warped.z, norm.ppf((rankdata(y) - 0.5) / n), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(by_rank(-y).z, -warped.z, rtol=1e-10, atol=1e-14)
    values, index = np.unique(y, return_index=True)
    if len(values) == 1:
        np.testing.assert_array_equal(warped.slope, 1.0)
        return
    # Between the slopes to either neighbour; at the ends that to the only one.
    beside = np.diff(warped.z[index]) / np.diff(values)
    low, high = (np.append(*pair) for pair in ((beside[:1], beside), (beside, beside[-1:])))
    slope = warped.slope[index]
    assert np.all(slope >= np.minimum(low, high) * (1 - 1e-9))
    assert np.all(slope <= np.maximum(low, high) * (1 + 1e-9))
    np.testing.assert_array_equal(warped.slope, slope[np.searchsorted(values, y)])


@CHECKED
@given(st.integers(1, 30), SEEDS)
def test_by_half_rank_leaves_the_better_half_alone_and_tames_the_worse(n: int, seed: int) -> None:
    y = losses(n, seed)
    warped, median = by_half_rank(y), np.median(y)
    good = y <= median
    spread = np.sqrt(np.mean((y[good] - median) ** 2))
    if spread == 0:
        np.testing.assert_array_equal(warped.z, by_rank(y).z)
        return
    np.testing.assert_array_equal(warped.z[good], y[good])
    expected = median + spread * norm.ppf((rankdata(y) - 0.5) / n)[~good]
    np.testing.assert_allclose(warped.z[~good], expected, rtol=1e-12, atol=1e-12 * spread)
    np.testing.assert_array_equal(warped.slope[good], 1.0)


def test_one_diverged_loss_does_not_push_the_others_together_by_half_rank() -> None:
    y = np.append(np.linspace(0, 1, 20), 1e15)
    assert np.ptp(prepare(y, PLAIN).z[:-1]) < 1e-12
    for way in (HALF_RANK,):
        assert np.ptp(prepare(y, way).z[:-1]) > 1.0


@pytest.mark.parametrize("way", [HALF_RANK])
def test_one_diverged_loss_leaves_the_slopes_of_the_others_as_they_were(way: str) -> None:
    """Or else their standard errors would no longer count."""
    y = np.random.default_rng(0).random(21)
    slopes = [prepare(np.append(y, top), way).slope[:-1] for top in (10.0, 1e15)]
    assert np.median(slopes[1]) > 0.5 * np.median(slopes[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("top", [1e99, 1e101, 1e200, 1e308])
def test_losses_may_be_as_large_as_numbers_get(way: str, top: float) -> None:
    y = np.random.default_rng(0).uniform(-1, 1, 20)
    y[7] = 1.0
    for power in POWERS:
        one, other = (with_power(prepare(scale * y, way), power) for scale in (1.0, top))
        np.testing.assert_allclose(other.z, one.z, rtol=1e-10, atol=1e-11)
        assert np.all((other.slope >= 0) & np.isfinite(other.log_jacobian))
        np.testing.assert_allclose(other.slope * top, one.slope, rtol=1e-3)


# The Jacobian, and how transforms are put together.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("power", POWERS)
def test_the_log_jacobian_is_the_sum_of_log_slopes(way: str, power: float) -> None:
    y = np.exp(np.random.default_rng(3).standard_normal(25))
    warped = with_power(prepare(y, way), power)
    assert warped.log_jacobian == pytest.approx(np.log(warped.slope).sum(), rel=1e-13)


def test_the_log_jacobian_turns_a_density_of_outputs_into_one_of_losses() -> None:
    """Standard normal under a power (as scipy's log-likelihood has it): the likeliest power of scipy is found again."""
    y = np.random.default_rng(0).lognormal(sigma=0.5, size=400)
    z = standardise(y)
    grid = np.linspace(-1, 1, 81)
    likelihood = [with_power(z, power).log_jacobian - 0.5 * len(y) for power in grid]
    _, best = yeojohnson(z.z)
    assert grid[int(np.argmax(likelihood))] == pytest.approx(best, abs=0.02)


def test_slopes_of_nought_do_not_make_the_jacobian_infinite() -> None:
    assert np.isfinite(Warped(np.zeros(2), np.array([0.0, 1.0])).log_jacobian)


def test_of_one_transform_after_another_the_slopes_are_multiplied() -> None:
    first = Warped(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    both = first.then(Warped(np.array([5.0, 6.0]), np.array([0.5, 2.0])))
    assert both.z.tolist() == [5.0, 6.0]
    assert both.slope.tolist() == [1.5, 8.0]


@pytest.mark.parametrize("transform", [standardise, by_rank, by_half_rank, partial(outputs.yeo_johnson, power=0.5)])
def test_what_is_given_is_left_as_it_was(transform: object) -> None:
    y = np.random.default_rng(0).standard_normal(9)
    before = y.copy()
    assert callable(transform)
    transform(y)
    np.testing.assert_array_equal(y, before)


def test_standardised_losses_have_the_slope_of_their_spread() -> None:
    y = np.array([1.0, 2.0, 6.0, 7.0])
    warped = standardise(y)
    np.testing.assert_allclose(warped.z, (y - 4.0) / y.std(), rtol=1e-15)
    np.testing.assert_allclose(warped.slope, 1 / y.std(), rtol=1e-15)


def test_losses_too_small_for_their_slope_are_no_error() -> None:
    seen = outputs.prepare(np.array([2.2e-313, 2.2e-313, 4.4e-313]), "plain")
    assert np.isfinite(seen.z).all()
    assert np.isfinite(seen.slope).all()
