"""Where the rungs are; what is decided there is in test_simulation.py."""

from __future__ import annotations

import pytest

from hpo_ray.schedulers.rungs import rung_levels


@pytest.mark.parametrize(
    ("grace", "max_t", "factor", "expected"),
    [(1, 27, 3, [1, 3, 9]), (2, 100, 4, [2, 8, 32]), (5, 5, 2, []), (1, 28, 3, [1, 3, 9, 27]), (1, 1, 3, [])],
)
def test_levels(grace: int, max_t: int, factor: int, expected: list[int]) -> None:
    assert rung_levels(grace_period=grace, max_t=max_t, reduction_factor=factor) == expected
