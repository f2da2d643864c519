"""The text form: it gives the same domain back, and what each mistake is told."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given

from hpo_ray.domains import Levelled, Numeric, choice, integer, loguniform, normal, ordinal, parse_domain, uniform
from tests.domains.strategies import ANY, CHECKED, complaint, parsed


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
