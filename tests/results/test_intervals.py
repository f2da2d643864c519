"""Wilson's interval against its closed form."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from hpo_ray.results.intervals import wilson


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("errors", "n"), [(0, 10), (1, 1), (3, 360), (180, 360), (9, 360), (360, 360)])
def test_it_is_the_closed_form(errors: int, n: int, confidence: float) -> None:
    z, p = norm.ppf(0.5 + confidence / 2), errors / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(errors, n, confidence) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_a_known_value() -> None:
    """0 of 10: (0, 0.2775), as tabulated for Wilson's interval at 95 %."""
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)


@pytest.mark.parametrize(("errors", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(errors: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"k|n"):
        wilson(errors, n)
