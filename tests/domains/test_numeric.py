"""Numbers: their levels, their grids, and what belongs to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from hpo_ray.domains import Numeric, choice, integer, logint, loguniform, normal, uniform
from hpo_ray.errors import InvalidInput
from tests.domains.strategies import CHECKED, UNITS, finite_numbers, lattices, parsed


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


def test_membership_of_numbers() -> None:
    assert integer(1, 3).contains(2.0)
    assert integer(1, 3).contains(np.int32(3))
    for value in (0, 4, 2.5, True, "2", None, math.nan, math.inf, [2], 10**400):
        assert not integer(1, 3).contains(value)
    assert uniform(0, 1).contains(1)
    assert not uniform(0, 1).contains(math.nextafter(1, 2))
