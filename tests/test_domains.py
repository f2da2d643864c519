"""Domains: exact round trips, shares of the unit interval, the text form, and what each mistake is told."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from hpo_ray.domains import (
    UNSET,
    Levelled,
    Numeric,
    choice,
    integer,
    logint,
    lognormal,
    loguniform,
    normal,
    ordinal,
    parse_domain,
    uniform,
)
from hpo_ray.errors import InvalidInput

CHECKED = settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
UNITS = st.floats(0, 1)
MAGNITUDES = st.builds(lambda m, e: float(f"{m}e{e}"), st.integers(1, 99_999), st.integers(-300, 300))


def parsed(text: str) -> Numeric | Levelled:
    domain = parse_domain(text)
    assert isinstance(domain, Numeric | Levelled)
    return domain


def complaint(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_domain(text)
    assert caught.value.problems
    return str(caught.value)


@st.composite
def signed_pairs(draw: st.DrawFn) -> tuple[float, float]:
    values = st.one_of(MAGNITUDES, MAGNITUDES.map(lambda x: -x), st.just(0.0), st.floats(-10, 10))
    low, high = sorted((draw(values), draw(values)))
    assume(low < high)
    return low, high


@st.composite
def lattices(draw: st.DrawFn) -> tuple[float, float, float, int]:
    """Low, high, q of decimals such as 0.05, 0.95, 0.1, and the number of steps."""
    digits, step, start = draw(st.integers(0, 9)), draw(st.integers(1, 5000)), draw(st.integers(-(10**6), 10**6))
    steps = draw(st.one_of(st.integers(1, 20), st.integers(1, 10**6)))
    low, high, q = (float(f"{n}e-{digits}") for n in (start, start + steps * step, step))
    return low, high, q, steps


@st.composite
def finite_numbers(draw: st.DrawFn) -> Numeric:
    kind = draw(st.sampled_from(["int", "logint", "q", "logq", "normal", "lognormal"]))
    if kind in ("q", "logq"):
        low, high, q, _ = draw(lattices())
        assume(low > 0 or kind == "q")
        return uniform(low, high, q=q) if kind == "q" else loguniform(low, high, q=q)
    if kind in ("normal", "lognormal"):
        mean, sd = draw(st.floats(-3, 3)), draw(st.floats(0.05, 3))
        if kind == "normal":
            return normal(mean, sd, q=sd * draw(st.floats(1e-5, 3)))
        q = math.exp(mean) * draw(st.floats(1e-3, 1))
        try:
            return lognormal(mean, sd, q=q)
        except InvalidInput:
            assume(False)
    top = 10**12 if kind == "logint" else 2**53 - 2
    low = draw(st.integers(1 if kind == "logint" else -(10**6), 10**6))
    q, steps = draw(st.integers(1, 1000)), draw(st.one_of(st.integers(1, 50), st.integers(1, (top - 10**6) // 1000)))
    make = logint if kind == "logint" else integer
    return make(low, low + steps * q, q=q)


SCALARS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["adam", "none", "True", "nan", "inf", "class", "lambda", "a b", "x.y", "-1", "1", "ﬁ", "\\'\"\n"]),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
    st.booleans(),
    st.none(),
)
LEVELS = st.one_of(SCALARS, st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=3))
WHENS = st.one_of(
    st.none(),
    st.dictionaries(
        st.one_of(st.sampled_from(["opt", "a.b", "x y", "if"]), st.text(min_size=1, max_size=5)),
        st.one_of(SCALARS, st.lists(LEVELS, min_size=1, max_size=3)),
        min_size=1,
        max_size=1,
    ),
)


def identity(value: object) -> str:
    """Type and value; a list and a tuple are the same."""
    return json.dumps(value)


@st.composite
def levelled(draw: st.DrawFn) -> Levelled:
    values = draw(st.lists(LEVELS, min_size=1, max_size=5, unique_by=identity))
    default = draw(st.one_of(st.just(UNSET), st.sampled_from(values)))
    return draw(st.sampled_from([choice, ordinal]))(values, default=default, when=draw(WHENS))


@st.composite
def continuous(draw: st.DrawFn) -> Numeric:
    kind = draw(st.sampled_from(["uniform", "log", "normal", "lognormal"]))
    options = {"grid": draw(st.one_of(st.none(), st.integers(2, 20))), "when": draw(WHENS)}
    if kind in ("uniform", "log"):
        low, high = draw(signed_pairs())
        assume(kind == "uniform" or low > 0)
        return uniform(low, high, **options) if kind == "uniform" else loguniform(low, high, **options)
    if kind == "lognormal":
        return lognormal(draw(st.floats(-50, 50)), draw(st.floats(1e-3, 100)), **options)
    return normal(draw(st.floats(-1e6, 1e6)), draw(st.floats(1e-3, 1e6)), **options)


ANY = st.one_of(continuous(), finite_numbers(), levelled())


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


@CHECKED
@given(levelled())
def test_levels_come_back(domain: Levelled) -> None:
    for index, value in enumerate(domain.grid_values()):
        assert domain.index(value) == index
        assert identity(domain.from_unit(domain.to_unit(value))) == identity(value)


def test_a_list_comes_back_as_the_list_that_was_given() -> None:
    domain = choice([[64, 64], [128], "none"])
    assert domain.from_unit(0.0) == [64, 64]
    assert domain.contains([64, 64])
    assert domain.contains((128,))
    first = domain.from_unit(0.0)
    assert isinstance(first, list)
    first.append(1)  # the user's own copy
    assert domain.from_unit(0.0) == [64, 64]


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


# Levels, grids, membership


def test_quantised_values_are_exact_decimals() -> None:
    assert uniform(0, 1, q=0.1).grid_values() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert uniform(0.05, 0.35, q=0.1).grid_values() == [0.05, 0.15, 0.25, 0.35]
    assert integer(16, 64, q=16).grid_values() == [16, 32, 48, 64]
    assert normal(0, 1, q=2.5).grid_values() == [-5.0, -2.5, 0.0, 2.5, 5.0]
    assert uniform(0, 0.1 + 0.2, q=0.1).high == 0.3  # dust in a computed bound


@CHECKED
@given(lattices(), UNITS)
def test_a_lattice_is_low_plus_a_multiple_of_q(lattice: tuple[float, float, float, int], unit: float) -> None:
    low, high, q, steps = lattice
    domain = uniform(low, high, q=q)
    assert domain.levels == steps + 1
    value = domain.level(round(unit * steps))
    assert len(repr(value).lstrip("-").replace(".", "").strip("0")) <= 16
    assert domain.contains(value)
    assert domain.canonical(math.nextafter(value, low) if value > low else value) == value
    assert not domain.contains(value + q / 3)


def test_grid_values_are_spread_on_the_domains_own_scale() -> None:
    assert uniform(0, 1, grid=5).grid_values() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert uniform(0.1, 0.5, grid=5).grid_values() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert loguniform(1e-4, 1e-1, grid=4).grid_values() == [1e-4, 1e-3, 1e-2, 1e-1]
    assert normal(0, 1, grid=3).grid_values() == pytest.approx(norm.ppf([1 / 6, 0.5, 5 / 6]))
    assert integer(0, 100, grid=5).grid_values() == [0, 25, 50, 75, 100]
    assert choice("b", "a").grid_values() == ["b", "a"]
    assert logint(1, 1000, grid=4).grid_values() == [1, 10, 100, 1000]
    assert logint(1, 6, grid=6).grid_values() == [1, 2, 3, 4, 5, 6]
    assert normal(6, 1, q=6, grid=3).grid_values() == [0, 6, 12]


@CHECKED
@given(finite_numbers(), st.integers(2, 30))
def test_a_grid_over_levels_has_exactly_that_many(domain: Numeric, points: int) -> None:
    assert domain.levels is not None
    assume(points <= domain.levels)
    values = parsed(f"{domain.text()[:-1]}, grid={points})").grid_values()
    assert len(set(values)) == len(values) == points
    assert values == sorted(values)
    assert all(domain.contains(value) for value in values)
    if domain.mean is None:
        assert (values[0], values[-1]) == (domain.low, domain.high)


def test_a_grid_needs_points() -> None:
    for domain, hint in [(uniform(0, 1), "needs grid=n, e.g. uniform(0, 1, grid=5)"), (integer(0, 10**9), "too many")]:
        with pytest.raises(InvalidInput, match="grid") as caught:
            domain.grid_values()
        assert hint in str(caught.value)


def test_types_tell_levels_apart() -> None:
    domain = choice(1, 1.0, True, "1")
    assert domain.levels == 4
    assert [domain.index(value) for value in (1, 1.0, True, "1")] == [0, 1, 2, 3]
    assert choice(0, 1) != choice(False, True)
    assert choice(0, 1).contains(np.int64(1))
    assert not choice(0, 1).contains(True)
    assert not choice(0, 1).contains(1.0)
    assert len({choice(0, 1), choice(0, 1), choice(0.0, 1.0)}) == 2


def test_membership_of_numbers() -> None:
    assert integer(1, 3).contains(2.0)
    assert integer(1, 3).contains(np.int32(3))
    for value in (0, 4, 2.5, True, "2", None, math.nan, math.inf, [2], 10**400):
        assert not integer(1, 3).contains(value)
    assert uniform(0, 1).contains(1)
    assert not uniform(0, 1).contains(math.nextafter(1, 2))


# Text


@CHECKED
@given(ANY)
def test_text_gives_the_same_domain_back(domain: Numeric | Levelled) -> None:
    again = parsed(domain.text())
    assert again == domain
    assert hash(again) == hash(domain)
    assert again.text() == domain.text() == repr(domain)
    assert (again.when, again.default, again.levels) == (domain.when, domain.default, domain.levels)
    assert pickle.loads(pickle.dumps(domain)) == domain
    json.dumps(domain.text())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loguniform(1e-4, 1e-1, default=1e-3)", loguniform(1e-4, 0.1, default=1e-3)),
        ("  uniform( -3,1_000 ) ", uniform(-3, 1000)),
        ("uniform(low=0, high=1)", uniform(0, 1)),
        ("int(1, 1e3)", integer(1, 1000)),
        ("integer(1, 8, q=1)", integer(1, 8)),
        ("choice(sgd, adam)", choice("sgd", "adam")),
        ("choice([sgd, 'two words', 1e-4])", choice("sgd", "two words", 1e-4)),
        ("choice(true, True, false)", None),
        ("choice(true, none, null_, yes)", choice(True, None, "null_", "yes")),
        ("choice(none, a, default=none)", choice(None, "a", default=None)),
        ("ordinal(s, m, l, default=m)", ordinal("s", "m", "l", default="m")),
        ("choice([1, 2], [3], -4)", choice([1, 2], [3], -4)),
        ("normal(0, 1, when={model.arch: [vit, cnn]})", normal(0, 1, when={"model.arch": ["vit", "cnn"]})),
        ("int(0, 9, when={opt:sgd}, grid=4)", integer(0, 9, when={"opt": "sgd"}, grid=4)),
    ],
)
def test_text_forms(text: str, expected: Numeric | Levelled | None) -> None:
    if expected is None:
        assert "given twice" in complaint(text)
    else:
        assert parse_domain(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sgd", "sgd"),
        ("'a b'", "a b"),
        ("1e-4", 1e-4),
        ("-3", -3),
        ("1_000", 1000),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("normal", "normal"),
        ("-0.5", -0.5),
        ('"nan"', "nan"),
    ],
)
def test_a_bare_scalar_is_a_constant(text: str, expected: object) -> None:
    value = parse_domain(text)
    assert value == expected
    assert type(value) is type(expected)


# Mistakes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("uniform(0.1, 0.001)", ["low 0.1 is above high 0.001: swap them"]),
        ("int(5, 5)", ["both 5", "write a constant"]),
        ("loguniform(0, 1)", ["low 0 must be above 0 on a log scale", "uniform(0, 1)"]),
        ("logint(-2, 8)", ["low -2 must be above 0", "int(-2, 8)"]),
        ("uniform(0, inf)", ["high is inf", "finite"]),
        ("uniform(-inf, nan)", ["low is -inf", "high is nan"]),
        ("uniform(0, 1e999)", ["high is inf"]),
        ("uniform(-1e308, 1e308)", ["wider than a float"]),
        ("choice()", ["no values", "choice(a, b, …)"]),
        ("choice([])", ["no values"]),
        ("choice(16, 32, 16)", ["16 is given twice"]),
        ("choice([1, 2], [1, 2])", ["[1, 2]"]),
        ("choice(nan, 1)", ["nan", "finite"]),
        ("uniform(0, 1, default=2)", ["default", "2 is above high 1"]),
        ("uniform(0, 1, q=0.25, default=0.3)", ["default", "0.3", "nearest is 0.25"]),
        ("choice(adam, sgd, default=adm)", ["default", "'adm'", "did you mean 'adam'"]),
        ("int(1, 5, default=2.5)", ["default", "2.5"]),
        ("uniform(0, 1, default=none)", ["default", "None"]),
        ("uniform(0, 1, q=0)", ["q 0 must be above 0"]),
        ("uniform(0, 1, q=-0.1)", ["q -0.1 must be above 0"]),
        ("uniform(0, 1, q=2)", ["q 2 is larger than the range 0 to 1"]),
        ("int(16, 130, q=16)", ["high 130", "low 16", "q 16", "nearest valid high is 128"]),
        ("uniform(0, 1, q=0.3)", ["nearest valid high is 0.9"]),
        ("int(1, 10, q=1.5)", ["q 1.5 is not a whole number"]),
        ("normal(0, 1, q=20)", ["q 20 is too large"]),
        ("uniform(0, 1, grid=1)", ["grid 1", "from 2"]),
        ("uniform(0, 1, grid=2.5)", ["grid 2.5 is not a whole number"]),
        ("int(1, 3, grid=9)", ["grid 9", "grid=3"]),
        ("int(1, 3.7)", ["high 3.7 is not a whole number", "nearest is 4"]),
        ("int(a, 3)", ["low must be a whole number, not 'a'"]),
        ("uniform(true, 3)", ["low must be a number, not True"]),
        ("uniform(1)", ["low and high", "not 1", "uniform(low, high)"]),
        ("normal(1, 2, 3)", ["mean and sd", "not 3", "normal(mean, sd)"]),
        ("uniform(0, 1, low=3)", ["low is given twice"]),
        ("uniform(0, 1, q=0.1, q=0.2)", ["q is given twice"]),
        ("uniform(0, 1, gird=3)", ["'gird'", "did you mean 'grid'"]),
        ("choice(a, b, q=3)", ["'q'", "'default', 'when'"]),
        ("normal(0, 0)", ["sd 0 must be above 0"]),
        ("lognormal(0, 200)", ["mean 0 and sd 200", "natural logarithm"]),
        ("normal(1e20, 1)", ["sd 1 is too small beside mean 1e+20"]),
        ("normal(0, 1, q=1e-9)", ["too close", "larger q"]),
        ("lognormal(100, 1e-9, q=1e29)", ["q 1e+29 is too small"]),
        ("logint(1, 9_007_199_254_740_991)", ["too close"]),
        ("int(0, 2_000_000_000_000_000_000)", ["2000000000000000001 levels", "2**53"]),
        ("uniform(1e15, 1000000000000001, q=0.125)", ["q 0.125 is too small"]),
        ("uniform(0, 1, when=sgd)", ["when is 'sgd'", "when={parent: value}"]),
        ("uniform(0, 1, when={a: 1, b: 2})", ["names 2 parameters", "exactly one"]),
        ("uniform(0, 1, when={a: []})", ["when a has no values"]),
        ("uniform(0, 1, when={a: 1, a: 2})", ["'a'", "once"]),
        ("uniform(0, 1, when={3: 1})", ["3", "text"]),
        ("unifrm(0, 1)", ["unifrm", "did you mean 'uniform'"]),
        ("randint(0, 10)", ["randint: use int(low, high)", "both bounds are inclusive"]),
        ("tune.lograndint(1, 10)", ["use logint(low, high)", "inclusive"]),
        ("quniform(0, 1, 0.1)", ["uniform(low, high, q=…)"]),
        ("qloguniform(0.1, 1, 0.1)", ["loguniform(low, high, q=…)"]),
        ("qrandint(0, 10, 2)", ["int(low, high, q=…)"]),
        ("randn(0, 1)", ["normal(mean, sd)"]),
        ("grid_search([1, 2])", ["choice(a, b, …)", "searcher=grid"]),
        ("categorical(a)", ["choice(a, b, …)"]),
        ("log_uniform(1, 2)", ["loguniform(low, high)"]),
        ("hp.choice('x', [1])", ["use choice(a, b, …)", "without 'hp.'"]),
        ("hp.loguniform(1, 2)", ["loguniform(low, high)", "not their logarithms"]),
        ("[16, 32]", ["list", "write choice(16, 32)"]),
        ("16, 32", ["write choice(16, 32)"]),
        ("choice(uniform(0, 1), 3)", ["uniform(…)", "cannot stand inside"]),
        ("choice(efficientnet-b0)", ["arithmetic", "quotes"]),
        ("choice(" * 9 + ")" * 9, ["9 brackets inside each other", "at most 8"]),
        ("two words", ["'two words' cannot be read", "quotes"]),
        ("", ["''"]),
    ],
)
def test_mistakes_are_told_with_value_expectation_and_remedy(text: str, parts: list[str]) -> None:
    message = complaint(text)
    for part in parts:
        assert part in message


def test_all_mistakes_of_one_domain_are_told_at_once() -> None:
    message = complaint("loguniform(a, -1, q=-1, grid=1, when=3, gird=2)")
    for part in ("low must be", "q -1", "grid 1", "when is 3", "'gird'"):
        assert part in message


def test_what_is_too_long_to_be_read_back_is_refused() -> None:
    for make in (lambda: choice("x" * 9990, "y"), lambda: uniform(0, 1, when={"p": ["y" * 9990]})):
        with pytest.raises(InvalidInput, match="more than 10000 characters"):
            make()
    with pytest.raises(InvalidInput) as caught:
        choice("a").index("x" * 10**6)
    assert len(str(caught.value)) < 500


def test_python_calls_are_told_the_same() -> None:
    with pytest.raises(InvalidInput, match=r"uniform: low 0\.1 is above high 0\.001: swap them"):
        uniform(0.1, 0.001)
    with pytest.raises(InvalidInput, match="<object>"):
        choice(object())
    with pytest.raises(InvalidInput, match="whole number"):
        integer(1, 2.5)  # type: ignore[arg-type]


HOSTILE = [
    "9**9**9", "choice(9**9**9)", "uniform(0, 10**400)", "int(0, 1" + "0" * 5000 + ")",
    "choice(0x" + "f" * 5000 + ")", "int(0, 0x" + "f" * 5000 + ")", "choice(1e999)", "choice(nan)",
    "choice(-inf)", "().__class__.__bases__", "choice(os.system)", "__import__('os').system('true')",
    "lambda: 1", "choice(lambda: 1)", "[x for x in y]", "choice(x for x in y)", "f'{1}'", "choice(f'{1}')",
    "choice(*a)", "choice(**a)", "(yield)", "await x", "a if b else c", "a := 1", "not a", "b'bytes'", "1j",
    "...", "uniform(0, 1).text()", "uniform(0, 1)(2)", "choice(a)[0]", "a\0b", "\0", "choice('\0')", "\ud800",
    "choice(\ud800)", "(" * 5000, "[" * 5000 + "]" * 5000, "choice(" * 100 + ")" * 100, "-" * 9000 + "1",
    "not " * 2000 + "1", "lambda:" * 1400 + "1", "a**" * 3000 + "1", "a." * 4000 + "b", "x" * 20_000,
    "choice(" + "a," * 9000 + ")", "f(" * 7 + ")" * 7, "{" * 8, "{1: 2}", "{**a}", "uniform(0, 1, when={**a})",
    "import os", "x = 1", "1; 2", "\n", "\t", "#", "choice(a", "choice a)", "choice('a)", "choice(‘a’)",
    "uniform(０, １)x", "choice([[[[[[1]]]]]])", "choice({1, 2})", "uniform(0, 1, default=[1])", "'" * 3,
    "{a: b for a in c}", "-true", "--1",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_an_invalid_input(text: str) -> None:
    message = complaint(text)
    assert len(message) < 1500


VALID = [
    "uniform(0, 1, q=0.1, grid=5, default=0.3, when={opt: [sgd, 'a b']})", "loguniform(1e-4, 1e-1)", "normal(0, 1)",
    "logint(1, 1_000, when={a.b: 3})", "choice(sgd, adam, default=adam)", "ordinal([1, 2], [3], none, true)",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        insert = draw(
            st.one_of(st.just(""), st.text(max_size=3), st.sampled_from(list("()[]{},.=:'\"-*_0e")), st.just(text))
        )
        text = text[:start] + insert + text[end:]
    return text


@settings(CHECKED, max_examples=400)
@given(st.one_of(mutated(), st.text(), st.text("()[]{}=,.:'\"\\ -+*0123456789enaiufloc\n#", max_size=40)))
def test_no_text_raises_anything_but_invalid_input(text: str) -> None:
    with suppress(InvalidInput):
        domain = parse_domain(text)
        if isinstance(domain, Numeric | Levelled):
            assert parsed(domain.text()) == domain


@CHECKED
@given(LEVELS, LEVELS, st.dictionaries(SCALARS, LEVELS, max_size=2))
def test_no_python_value_raises_anything_but_invalid_input(a: Any, b: Any, when: Any) -> None:
    for make in (uniform, loguniform, normal, lognormal, integer, logint):
        with suppress(InvalidInput):
            make(a, b)
        with suppress(InvalidInput):
            make(0, a, when=when)
        with suppress(InvalidInput):
            make(1, 2, q=a, grid=b, default=b)
    with suppress(InvalidInput):
        choice(a, b, default=a, when=when)
