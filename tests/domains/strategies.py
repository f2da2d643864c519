"""Domains at random, and what the tests of text share."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

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
