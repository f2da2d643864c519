"""The map of numbers to the unit interval: exact round trips, and the share of it that each value gets."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.stats import norm

from hpo_ray.domains import Numeric, integer, logint, lognormal, loguniform, normal, ordinal, uniform
from tests.domains.strategies import CHECKED, UNITS, continuous, finite_numbers, parsed, signed_pairs

# Round trips


@CHECKED
@given(signed_pairs(), UNITS)
@example((0.0, 1.0), 1e-200)
@example((-1.0, 1.0), 0.5000000001)
@example((1.0, math.nextafter(1.0, 2)), 0.5)
@example((-1e-6, 1e307), 0.3)
def test_uniform_comes_back(bounds: tuple[float, float], unit: float) -> None:
    low, high = bounds
    domain = uniform(low, high)
    value = min(max(low + unit * (high - low), low), high)
    back = domain.from_unit(domain.to_unit(value))
    scale = abs(value) if low >= 0 else max(abs(low), abs(high))
    assert low <= back <= high
    assert abs(back - value) <= 1e-12 * scale


@CHECKED
@given(signed_pairs(), UNITS)
@example((1e-300, 1e300), 0.123456789)
@example((5e-324, 1.7e308), 0.987)
@example((1e5, math.nextafter(1e5, 2e5)), 0.7)
@example((1e5, 1e5 * (1 + 1e-13)), 0.7)
def test_log_comes_back(bounds: tuple[float, float], unit: float) -> None:
    low, high = bounds
    assume(low > 0)
    domain = loguniform(low, high)
    for value in (math.exp(math.log(low) + unit * (math.log(high) - math.log(low))), low + unit * (high - low)):
        value = min(max(value, low), high)
        back = domain.from_unit(domain.to_unit(value))
        assert low <= back <= high
        assert math.isclose(back, value, rel_tol=1e-12)


@CHECKED
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), UNITS, st.floats(-6.1, 6.1))
@example(0.0, 1.0, 1 - 2**-53, 6.1)
@example(0.0, 1.0, 2**-53, -6.1)
@example(0.0, 1.0, 1 - 1e-12, 4.0)
def test_normal_comes_back(mean: float, sd: float, unit: float, z: float) -> None:
    domain = normal(mean, sd)
    reach = max(abs(domain.low), abs(domain.high))
    made = domain.from_unit(unit)
    assert abs(domain.from_unit(domain.to_unit(made)) - made) <= 1e-12 * reach
    value = min(max(mean + sd * z, domain.low), domain.high)
    error = abs(domain.from_unit(domain.to_unit(value)) - value)
    assert error <= (1e-12 * reach if z <= 4 else 1e-12 * reach + 2e-8 * sd)


@CHECKED
@given(st.floats(-50, 50), st.floats(1e-3, 90), UNITS)
def test_lognormal_comes_back(mean: float, sd: float, unit: float) -> None:
    domain = lognormal(mean, sd)
    made = domain.from_unit(unit)
    assert domain.low <= made <= domain.high
    assert math.isclose(domain.from_unit(domain.to_unit(made)), made, rel_tol=1e-12)


@CHECKED
@given(finite_numbers(), UNITS, st.randoms(use_true_random=False))
def test_every_level_comes_back_exactly(domain: Numeric, unit: float, random: object) -> None:
    assert domain.levels is not None
    last = domain.levels - 1
    picked = {0, 1, last - 1, last, round(unit * last), last // 2}
    for index in (index for index in picked if 0 <= index <= last):
        value = domain.level(index)
        back = domain.from_unit(domain.to_unit(value))
        assert back == value
        assert type(back) is (int if domain.kind == "int" else float)
        assert 0 < domain.to_unit(value) < 1
        assert domain.low <= value <= domain.high
    assert domain.from_unit(0.0) == domain.low
    assert domain.from_unit(1.0) == domain.high


@pytest.mark.parametrize(
    "domain", [integer(0, 2**53 - 1), integer(-(2**52), 2**52 - 1), integer(7, 7 + 3 * 10**15, q=3)]
)
def test_huge_ranges_of_ints_come_back_exactly(domain: Numeric) -> None:
    assert domain.levels is not None
    for index in [0, 1, 2, domain.levels // 3, domain.levels - 3, domain.levels - 2, domain.levels - 1]:
        value = domain.level(index)
        assert domain.from_unit(domain.to_unit(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "int(-3, 40)",
        "logint(1, 500)",
        "logint(2, 100, q=7)",
        "uniform(0, 1, q=0.01)",
        "loguniform(0.01, 1, q=0.01)",
        "normal(0, 1, q=0.05)",
        "lognormal(0, 1, q=0.5)",
    ],
)
def test_all_levels_of_small_lattices_come_back(text: str) -> None:
    domain = parsed(text)
    assert isinstance(domain, Numeric)
    values = domain.grid_values()
    assert [domain.from_unit(domain.to_unit(value)) for value in values] == values
    units = [domain.to_unit(value) for value in values]
    assert units == sorted(set(units))


# Where the unit interval lands


@CHECKED
@given(st.one_of(continuous(), finite_numbers()), UNITS, UNITS)
def test_values_stay_inside_and_in_order(domain: Numeric, a: float, b: float) -> None:
    assert domain.from_unit(0.0) == domain.low
    assert domain.from_unit(1.0) == domain.high
    for unit in (a, b, math.nextafter(0, 1), math.nextafter(1, 0)):
        value = domain.from_unit(unit)
        assert domain.low <= value <= domain.high
        assert domain.contains(value)
    low, high = sorted((a, b))
    slack = 4 * math.ulp(max(abs(domain.low), abs(domain.high)))
    assert domain.from_unit(low) <= domain.from_unit(high) + slack


def test_rounding_does_not_lead_outside() -> None:
    for m in range(1, 60):
        for domain in (loguniform(m * 1e-301, m * 1.7e300), loguniform(m * 0.1, m * 7.7), uniform(m * -0.1, m * 0.3)):
            for unit in (5e-324, math.nextafter(0.5, 0), math.nextafter(1, 0)):
                assert domain.low <= domain.from_unit(unit) <= domain.high


@pytest.mark.parametrize("power", [-14, -12, -9, -4, 0])
def test_a_narrow_log_range_is_even(power: int) -> None:
    for low in (1e-280, 1e5, 1e300):
        high = low * (1 + 10.0**power)
        domain = loguniform(low, high)
        ulps = 4 * math.ulp(high) / (high - low)
        for share in (0.25, 0.5, 0.75):
            assert domain.to_unit(low * (1 + 10.0**power) ** share) == pytest.approx(share, abs=ulps + 1e-15)
            assert domain.from_unit(share) == pytest.approx(low * (high / low) ** share, rel=1e-15)


def test_levels_that_are_fine_beside_their_size_come_back() -> None:
    domains = [
        loguniform(1e300, 3e300, q=1e287),
        loguniform(1e-280, 3e-280, q=1e-293),
        logint(1, 10**12),
        normal(1e9, 1, q=2e-6),
        normal(-1e12, 100, q=0.001),
        lognormal(600, 0.5, q=1e256),
        lognormal(100, 1e-9, q=math.exp(100) * 3e-13),
    ]
    rng = np.random.default_rng(0)
    for domain in domains:
        assert domain.levels is not None
        ends = [*range(5), *range(domain.levels - 5, domain.levels)]
        for index in [*ends, *rng.integers(0, domain.levels, size=300).tolist()]:
            value = domain.level(index)
            assert domain.from_unit(domain.to_unit(value)) == value


def test_beyond_the_unit_interval_is_clipped() -> None:
    assert uniform(2, 3).from_unit(-0.5) == 2
    assert integer(2, 30).from_unit(7.0) == 30
    assert ordinal("a", "b").from_unit(1.1) == "b"


def test_uniform_log_and_normal_follow_their_distributions() -> None:
    assert uniform(-2, 6).from_unit(0.25) == 0.0
    assert loguniform(1e-4, 1).from_unit(0.25) == pytest.approx(1e-3, rel=1e-14)
    for unit in (1e-12, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6, 1 - 1e-12):
        expected = norm.ppf(0.5e-9 + unit * (1 - 1e-9)) if unit < 0.5 else -norm.ppf(0.5e-9 + (1 - unit) * (1 - 1e-9))
        assert normal(3, 2).from_unit(unit) == pytest.approx(3 + 2 * expected, rel=1e-12)
        assert lognormal(3, 2).from_unit(unit) == pytest.approx(math.exp(3 + 2 * expected), rel=1e-11)
    assert normal(3, 2).from_unit(0.5) == 3
    assert normal(0, 1).low == pytest.approx(norm.ppf(0.5e-9), rel=1e-12)
    assert normal(0, 1).high == -normal(0, 1).low


def test_the_upper_tail_is_as_precise_as_the_lower() -> None:
    domain = normal(0, 1)
    for power in range(1, 53):
        assert domain.from_unit(1 - 2.0**-power) == pytest.approx(-domain.from_unit(2.0**-power), rel=1e-13, abs=1e-15)


def shares(domain: Numeric, points: int = 200_000) -> Counter[float]:
    return Counter(domain.from_unit((i + 0.5) / points) for i in range(points))


def test_every_int_has_an_equal_share_the_ends_too() -> None:
    assert set(shares(integer(3, 10), 8000).values()) == {1000}
    assert set(shares(uniform(0, 1, q=0.25), 5000).values()) == {1000}
    assert Counter(ordinal(1, 2, 3).from_unit((i + 0.5) / 300) for i in range(300)) == {1: 100, 2: 100, 3: 100}


def test_a_log_int_has_the_share_of_its_bin() -> None:
    found = shares(logint(1, 10), 20_000)
    total = math.log(10.5 / 0.5)
    for level in range(1, 11):
        assert found[level] / 20_000 == pytest.approx(math.log((level + 0.5) / (level - 0.5)) / total, abs=1e-4)


def test_a_log_bin_that_would_reach_zero_starts_at_half_of_low() -> None:
    found = shares(logint(1, 21, q=5), 20_000)  # 1, 6, 11, 16, 21: bins from 0.5, 3.5, 8.5, …
    total = math.log(23.5 / 0.5)
    assert found[1] / 20_000 == pytest.approx(math.log(3.5 / 0.5) / total, abs=1e-4)
    assert found[21] / 20_000 == pytest.approx(math.log(23.5 / 18.5) / total, abs=1e-4)


@pytest.mark.parametrize(("domain", "scale"), [(normal(0.3, 1, q=0.5), float), (lognormal(0, 0.5, q=0.5), math.log)])
def test_a_quantised_normal_has_the_share_of_its_bins(domain: Numeric, scale: type[float]) -> None:
    found = shares(domain, 20_000)
    mean, sd = domain.mean or 0.0, domain.sd or 1.0
    ends = norm.cdf([(scale(x) - mean) / sd for x in (domain.low - 0.25, domain.high + 0.25)])
    for level in domain.grid_values():
        mass = np.diff(norm.cdf([(scale(x) - mean) / sd for x in (level - 0.25, level + 0.25)]))[0]
        assert found[level] / 20_000 == pytest.approx(mass / (ends[1] - ends[0]), abs=1e-4)
