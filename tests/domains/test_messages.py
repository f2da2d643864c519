"""Messages stay short and are made in no time, whatever the values are."""

from __future__ import annotations

import itertools

import pytest

from hpo_ray.domains import choice
from hpo_ray.domains.messages import hint
from hpo_ray.errors import InvalidInput
from hpo_ray.space import SearchSpace


def test_a_hint_looks_at_the_beginnings_of_the_first_choices_only() -> None:
    endless = itertools.repeat("y" * 10**6)
    assert len(hint("x" * 10**6, endless)) < 200
    assert hint("x" * 10**6, ["x" * 10**6]) == f"did you mean '{'x' * 57}…'?"
    assert hint("adm", ["sgd", "adam"]) == "did you mean 'adam'?"


def test_long_levels_names_and_keys_make_no_long_message() -> None:
    wide = choice(*(letter * 1900 for letter in "abcde"))
    spaces = [{letter * 5000: "int(1, 2)" for letter in "abcdefgh"}, {"p": "int(1, 2, when={q: 1})", "r" * 5000: 3}]
    with pytest.raises(InvalidInput) as caught:
        wide.index("z" * 5000)
    assert len(str(caught.value)) < 600
    with pytest.raises(InvalidInput) as caught:
        SearchSpace.parse(spaces[0]).encode([{"z": 1}])
    assert max(len(problem.message) for problem in caught.value.problems if problem.key == "z") < 1000
    with pytest.raises(InvalidInput) as caught:
        SearchSpace.parse(spaces[1])
    assert len(str(caught.value)) < 600


def test_a_key_that_cannot_be_printed_is_a_mistake_like_any_other() -> None:
    assert not SearchSpace.parse({"a": "int(1, 2)"}).contains({"a": 1, 10**5000: 1})
    with pytest.raises(InvalidInput, match="too long to print"):
        SearchSpace.parse({10**5000: 1})  # type: ignore[dict-item]
