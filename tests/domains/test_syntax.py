"""How text is read: Python's keywords are words, and hostile text gives an InvalidInput and nothing else."""

from __future__ import annotations

import keyword
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_ray.domains import Levelled, Numeric, choice, ordinal, parse_domain, uniform
from hpo_ray.errors import InvalidInput
from tests.domains.strategies import CHECKED, complaint, parsed

KEYWORDS = sorted(set(keyword.kwlist) - {"True", "False", "None"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice(global, local)", choice("global", "local")),
        ("ordinal(pass, raise, is, default=is)", ordinal("pass", "raise", "is", default="is")),
        ("choice([in, not], global_0, global)", choice(["in", "not"], "global_0", "global")),
        ("uniform(0, 1, when={pool: global})", uniform(0, 1, when={"pool": "global"})),
        ("uniform(0, 1, when={model.class: [if, else]})", uniform(0, 1, when={"model.class": ["if", "else"]})),
        ("choice(if, 'a is b', \"not\")", choice("if", "a is b", "not")),
        (r"choice('it\'s if', in)", choice("it's if", "in")),
        ("choice('''it's or''', in)", choice("it's or", "in")),
        ("choice(or, # it's or\n and)", choice("or", "and")),
        ("choice(True, None, true_, yield)", choice(True, None, "true_", "yield")),
        ("choice(ifs, _if, if1, éif)", choice("ifs", "_if", "if1", "éif")),
        ("lambda", "lambda"),
    ],
)
def test_keywords_of_python_are_words(text: str, expected: object) -> None:
    domain = parse_domain(text)
    assert domain == expected
    if isinstance(domain, Numeric | Levelled):
        assert parsed(domain.text()) == domain


@pytest.mark.parametrize("word", KEYWORDS)
def test_every_keyword_comes_back(word: str) -> None:
    assert parse_domain(word) == word
    domain = choice(word, f"{word}_0", f"{word} {word}", when={f"{word}.{word}": [word]})
    assert parsed(domain.text()) == domain
    assert domain.text().startswith(f"choice({word}, {word}_0, '{word} {word}', when={{{word}.{word}: {word}}}")


@pytest.mark.parametrize(
    "text",
    ["choice(global local)", "choice(global 'x')", "choice('x' global)", "choice(global'x')", "choice(global.x)"],
)
def test_a_keyword_joins_nothing(text: str) -> None:
    complaint(text)


def test_a_keyword_may_be_wrong_as_any_word_may() -> None:
    assert "uniform has no keyword 'lambda'" in complaint("uniform(0, 1, lambda=3)")
    assert "import is not a domain" in complaint("import(1)")


HOSTILE = [
    "9**9**9", "choice(9**9**9)", "uniform(0, 10**400)", "int(0, 1" + "0" * 5000 + ")",
    "choice(0x" + "f" * 5000 + ")", "int(0, 0x" + "f" * 5000 + ")", "choice(1e999)", "choice(nan)",
    "choice(-inf)", "().__class__.__bases__", "choice(os.system)", "__import__('os').system('true')",
    "lambda: 1", "choice(lambda: 1)", "[x for x in y]", "choice(x for x in y)", "f'{1}'", "choice(f'{1}')",
    "choice(*a)", "choice(**a)", "await x", "a if b else c", "a := 1", "not a", "b'bytes'", "1j",
    "...", "uniform(0, 1).text()", "uniform(0, 1)(2)", "choice(a)[0]", "a\0b", "\0", "choice('\0')", "\ud800",
    "choice(\ud800)", "(" * 5000, "[" * 5000 + "]" * 5000, "choice(" * 100 + ")" * 100, "-" * 9000 + "1",
    "not " * 2000 + "1", "lambda:" * 1400 + "1", "a**" * 3000 + "1", "a." * 4000 + "b", "x" * 20_000,
    "choice(" + "a," * 9000 + ")", "f(" * 7 + ")" * 7, "{" * 8, "{1: 2}", "{**a}", "uniform(0, 1, when={**a})",
    "import os", "x = 1", "1; 2", "\n", "\t", "#", "choice(a", "choice a)", "choice('a)", "choice(‘a’)",
    "uniform(０, １)x", "choice([[[[[[1]]]]]])", "choice({1, 2})", "uniform(0, 1, default=[1])", "'" * 3,
    "{a: b for a in c}", "-true", "--1", "choice(1if a else b)", "_0 if " * 1400, "f'{" + "f(" * 90 + ")" * 90 + "}'",
    "choice(Rf'''{1}''')", '"' + '\\"' * 4990, "''' " * 1999, "if" + "'" * 5000, "choice(if=1, if=1)", "when={**if}",
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
        pieces = ["", *"()[]{},.=:'\"-*_0e#", *KEYWORDS, "f'", text]
        insert = draw(st.one_of(st.text(max_size=3), st.sampled_from(pieces)))
        text = text[:start] + insert + text[end:]
    return text


@settings(CHECKED, max_examples=400)
@given(st.one_of(mutated(), st.text(), st.text("()[]{}=,.:'\"\\ -+*0123456789enaiufloc\n#", max_size=40)))
def test_no_text_raises_anything_but_invalid_input(text: str) -> None:
    with suppress(InvalidInput):
        domain = parse_domain(text)
        if isinstance(domain, Numeric | Levelled):
            assert parsed(domain.text()) == domain
