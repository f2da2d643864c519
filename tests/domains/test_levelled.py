"""Choices and ordinals: levels come back as they were given, and are told apart by type and value."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from hpo_ray.domains import Levelled, choice
from tests.domains.strategies import CHECKED, identity, levelled


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


def test_types_tell_levels_apart() -> None:
    domain = choice(1, 1.0, True, "1")
    assert domain.levels == 4
    assert [domain.index(value) for value in (1, 1.0, True, "1")] == [0, 1, 2, 3]
    assert choice(0, 1) != choice(False, True)
    assert choice(0, 1).contains(np.int64(1))
    assert not choice(0, 1).contains(True)
    assert not choice(0, 1).contains(1.0)
    assert len({choice(0, 1), choice(0, 1), choice(0.0, 1.0)}) == 2
