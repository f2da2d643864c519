"""What the functions that make domains refuse, from Python."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray.domains import choice, integer, logint, lognormal, loguniform, normal, uniform
from hpo_ray.errors import InvalidInput
from tests.domains.strategies import CHECKED, LEVELS, SCALARS


def test_python_calls_are_told_the_same() -> None:
    with pytest.raises(InvalidInput, match=r"uniform: low 0\.1 is above high 0\.001: swap them"):
        uniform(0.1, 0.001)
    with pytest.raises(InvalidInput, match="<object>"):
        choice(object())
    with pytest.raises(InvalidInput, match="whole number"):
        integer(1, 2.5)  # type: ignore[arg-type]


def test_what_is_too_long_to_be_read_back_is_refused() -> None:
    for make in (lambda: choice("x" * 9990, "y"), lambda: uniform(0, 1, when={"p": ["y" * 9990]})):
        with pytest.raises(InvalidInput, match="more than 10000 characters"):
            make()
    with pytest.raises(InvalidInput) as caught:
        choice("a").index("x" * 10**6)
    assert len(str(caught.value)) < 500


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
