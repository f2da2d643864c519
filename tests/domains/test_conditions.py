"""Parameters that depend on each other: what is active, how it is counted, and what mistakes are told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.space import Dim, SearchSpace, choice, uniform


def complaint(mapping: Mapping[Any, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        SearchSpace.parse(mapping)
    return str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "parts"),
    [
        ({"lr": "uniform(0.1, 0.001)"}, ["space.lr: low 0.1 is above high 0.001: swap them"]),
        ({"n": [16, 32]}, ["space.n: ", "write choice(16, 32)"]),
        ({"n": "[16, 32]"}, ["space.n: ", "write choice(16, 32)"]),
        ({"n": "randint(1, 9)"}, ["space.n: randint: use int(low, high); both bounds are inclusive"]),
        ({"m": {"depth": 3}}, ["space.m: a mapping", "model.depth"]),
        ({"m": object()}, ["space.m: ", "<object>"]),
        ({"m": math.nan}, ["space.m: ", "finite"]),
        ({3: "int(1, 2)"}, ["space.3: ", "must be text"]),
        ({"": "int(1, 2)"}, ["must be text"]),
        ({"a": "int(1, 2, when={opt: x})", "optim": "choice(x, y)"}, ["space.a: when names 'opt'", "mean 'optim'"]),
        ({"a": "int(1, 2, when={a: 1})"}, ["space.a: when names a itself"]),
        ({"a": "int(1, 2, when={b: 0.5})", "b": "uniform(0, 1)"}, ["space.a: when names b", "continuous", "levels"]),
        ({"a": "int(1, 2, when={b: adm})", "b": "choice(adam, sgd)"}, ["space.a: when b: 'adm'", "mean 'adam'"]),
        ({"a": "int(1, 2, when={b: [0, 3, 9]})", "b": "int(1, 4)"}, ["0 is below low 1", "9 is above high 4"]),
        ({"a": "int(1, 2, when={b: 1.0})", "b": "choice(1, 2)"}, ["space.a: when b: 1"]),
        ({"a": "int(1, 2, when={b: sgd})", "b": "sgd"}, ["space.a: when names b", "constant 'sgd'"]),
        ({"a": "int(1, 2, when={b: 1})", "b": "int(1, 2, when={a: 1})"}, ["circle", "a needs b needs a"]),
    ],
)
def test_mistakes_are_told_with_key_value_and_remedy(mapping: dict[Any, Any], parts: list[str]) -> None:
    message = complaint(mapping)
    assert len(message.splitlines()) == (2 if parts[0] == "0 is below low 1" else 1)
    for part in parts:
        assert part in message


def test_all_mistakes_of_all_keys_are_told_at_once() -> None:
    message = complaint({
        "a": "uniform(2, 1, q=-1)",
        "b": "int(1, 2, when={c: 1})",
        "c": "unifrm(0, 1)",
        "d": "int(1, 2, when={zz: 1})",
        "e": "choice(x, when={f: x})",
        "f": "choice(x, when={g: x})",
        "g": "choice(x, when={e: x})",
        "h": "choice(x, when={g: x})",
    })  # fmt: skip
    lines = message.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["space.a", "space.a", "space.c", "space.d", "space.e"]
    assert "e needs f needs g needs e" in message  # once; h only hangs on the circle; b's parent is broken already


def test_the_prefix_names_the_keys() -> None:
    with pytest.raises(InvalidInput, match=r"^model\.space\.x: "):
        SearchSpace.parse({"x": "uniform(2, 1)"}, prefix="model.space")


def test_a_child_may_come_before_its_parent_and_a_grandparent_decides() -> None:
    space = SearchSpace.parse({
        "c": "int(1, 2, when={b: y})",
        "b": "choice(x, y, when={a: 3})",
        "a": "int(1, 3)",
    })  # fmt: skip
    assert space.contains({"a": 1})
    assert not space.contains({"a": 1, "b": "y"})
    assert not space.contains({"a": 1, "c": 1})
    assert space.contains({"a": 3, "b": "x"})
    assert space.contains({"a": 3, "b": "y", "c": 2})
    assert space.size == 2 + 1 + 2
    assert list(space.decode([[0.9, 1, 0.9]])[0]) == ["c", "b", "a"]


def test_an_inactive_parent_is_not_mistaken_for_the_value_none() -> None:
    space = SearchSpace.parse({
        "a": "choice(x, y)",
        "b": "choice(none, 1, when={a: x})",
        "c": "int(1, 2, when={b: none})",
    })  # fmt: skip
    assert space.decode([[1, 0, 0.1]]) == [{"a": "y"}]
    assert space.decode([[0, 0, 0.1]]) == [{"a": "x", "b": None, "c": 1}]
    assert space.size == 1 + 2 + 1


def test_domains_of_python_can_be_conditional_too() -> None:
    space = SearchSpace.parse({"opt": choice("sgd", "adam"), "m": uniform(0, 1, when={"opt": "sgd"})})
    assert space.dims[1] == Dim("m", "float", None, "opt", ("sgd",))


def test_giant_spaces_are_counted_without_being_enumerated() -> None:
    wide = SearchSpace.parse({f"p{i}": "int(0, 9007199254740991)" for i in range(20)})
    assert wide.size == 2 ** (53 * 20)
    parent = SearchSpace.parse({"n": "int(1, 1000000000000)", "m": "int(0, 9, when={n: [1, 5]})"})
    assert parent.size == 10**12 - 2 + 20


def test_a_grid_with_a_thinned_parent_counts_only_the_levels_it_visits() -> None:
    space = SearchSpace.parse({"n": "int(0, 100, grid=3)", "m": "int(0, 9, when={n: [50, 51]})"})
    assert len(list(space.grid())) == 2 + 10
    assert space.size == 99 + 20
    full = SearchSpace.parse({"n": "int(0, 100, grid=3)", "m": "int(1, 1000000, when={n: 51})"})
    assert list(full.grid()) == [{"n": 0}, {"n": 50}, {"n": 100}]  # m, never visited, does not make it too large


def test_keywords_of_python_are_names_and_levels() -> None:
    texts = {"pool": "choice(global, local)", "is": "int(1, 2, when={pool: global})", "a.in": "int(1, 2, when={is: 2})"}
    space = SearchSpace.parse(texts)
    assert space.text() == texts
    assert space.dims[1] == Dim("is", "int", 2, "pool", ("global",))
