"""Search spaces: conditions against a reference written out by hand, arrays, grids, Ray, and what mistakes are told."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo_ray.errors import InvalidInput
from hpo_ray.space import Dim, SearchSpace, choice, integer, loguniform, uniform

CHECKED = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
SPACE = {
    "momentum": "uniform(0, 0.9, q=0.3, when={optimizer: [sgd, lars]})",
    "optimizer": "choice(sgd, adam, lars)",
    "lr": "loguniform(1e-4, 1e-1, grid=3)",
    "epochs": 5,
    "depth": "ordinal(2, 4, 8, when={momentum: [0.3, 0.9]})",
    "widths": "choice([64, 64], [128], default=[128])",
    "name": "'a run'",
}


def complaint(mapping: Mapping[Any, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        SearchSpace.parse(mapping)
    return str(caught.value)


def key(config: Mapping[str, object]) -> str:
    return json.dumps(config, sort_keys=True)


@st.composite
def forests(draw: st.DrawFn, continuous: bool = False) -> dict[str, str]:
    """Spaces of up to seven parameters in any order, conditional ones among them, in text form."""
    levels: dict[str, list[object]] = {}
    space: dict[str, str] = {}
    for i in range(draw(st.integers(1, 7))):
        name = f"p{i}"
        kind = draw(st.sampled_from(["choice", "ordinal", "int", "q", *(["float"] if continuous else [])]))
        count = draw(st.integers(2 if kind in ("int", "q") else 1, 4))
        condition = ""
        if levels and draw(st.booleans()):
            parent = draw(st.sampled_from(sorted(levels)))
            values = draw(st.lists(st.sampled_from(levels[parent]), min_size=1, unique=True))
            condition = f"when={{{parent}: {json.dumps(values)}}}"
        values, text = {
            "choice": ([f"v{k}" for k in range(count)], f"choice({', '.join(f'v{k}' for k in range(count))}"),
            "ordinal": (list(range(count)), f"ordinal({', '.join(map(str, range(count)))}"),
            "int": (list(range(3, 3 + count)), f"int(3, {2 + count}"),
            "q": ([k / 10 for k in range(1, count + 1)], f"uniform(0.1, {count / 10}, q=0.1"),
            "float": ([], "loguniform(1e-3, 1"),
        }[kind]
        if values:
            levels[name] = values
        space[name] = f"{text}{', ' if condition else ''}{condition})"
    names = draw(st.permutations(sorted(space)))
    return {name: space[name] for name in names}


def active_by_hand(texts: Mapping[str, str], config: Mapping[str, object]) -> set[str]:
    """Which parameters should be active, by looking the conditions up in the text."""
    active: set[str] = set()
    for _ in texts:  # a chain is no longer than this
        for name, text in texts.items():
            _, _, condition = text.partition("when={")
            parent, _, values = condition.rstrip("})").partition(": ")
            if not condition or (parent in active and config[parent] in json.loads(values)):
                active.add(name)
    return active


# Samples and arrays


def test_a_sample_holds_constants_and_active_parameters_in_the_users_order() -> None:
    space = SearchSpace.parse(SPACE)
    rng = np.random.default_rng(0)
    seen = Counter()
    for _ in range(300):
        config = space.sample(rng)
        assert config["epochs"] == 5
        assert config["name"] == "a run"
        assert list(config) == [name for name in SPACE if name in config]
        assert ("momentum" in config) == (config["optimizer"] != "adam")
        assert ("depth" in config) == (config.get("momentum") in (0.3, 0.9))
        assert config["widths"] in ([64, 64], [128])
        assert space.contains(config)
        json.dumps(config)
        seen[config["optimizer"], config.get("momentum"), config.get("depth")] += 1
    assert len(seen) == 1 + 2 * (2 + 2 * 3)


def test_the_same_seed_gives_the_same_values_whatever_is_active() -> None:
    space = SearchSpace.parse(SPACE)
    first = [space.sample(np.random.default_rng([7, k])) for k in range(50)]
    assert first == [space.sample(np.random.default_rng([7, k])) for k in range(50)]
    # One number per dimension, active or not: a rewritten condition leaves all other values as they were.
    free = SearchSpace.parse({**SPACE, "momentum": "uniform(0, 0.9, q=0.3)"})
    rng_a, rng_b = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(50):
        a, b = space.sample(rng_a), free.sample(rng_b)
        assert [a[name] for name in ("optimizer", "lr", "widths")] == [
            b[name] for name in ("optimizer", "lr", "widths")
        ]
        assert a.get("momentum", b["momentum"]) == b["momentum"]
    assert rng_a.random() == rng_b.random()


def test_samples_are_uniform_over_the_levels() -> None:
    space = SearchSpace.parse({"a": "int(1, 4)", "b": "choice(x, y)", "c": "loguniform(1e-4, 1)"})
    rng = np.random.default_rng(1)
    configs = [space.sample(rng) for _ in range(4000)]
    for name, expected in (("a", 1000), ("b", 2000)):
        assert all(abs(n - expected) < 150 for n in Counter(config[name] for config in configs).values())
    decades = Counter(math.floor(math.log10(config["c"])) for config in configs)
    assert all(abs(decades[decade] - 1000) < 150 for decade in (-4, -3, -2, -1))


@CHECKED
@given(forests(continuous=True), st.integers(0, 2**32))
def test_activity_agrees_with_the_text(texts: dict[str, str], seed: int) -> None:
    space = SearchSpace.parse(texts)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        config = space.sample(rng)
        assert set(config) == active_by_hand(texts, config)
        _, active = space.encode([config])
        assert [name for name, used in zip(space.names, active[0], strict=True) if used] == list(config)


@CHECKED
@given(forests(continuous=True), st.integers(0, 2**32))
def test_encode_and_decode_are_inverse(texts: dict[str, str], seed: int) -> None:
    space = SearchSpace.parse(texts)
    rng = np.random.default_rng(seed)
    configs = [space.sample(rng) for _ in range(5)]
    x, active = space.encode(configs)
    assert x.shape == active.shape == (5, len(space))
    assert (x.dtype, active.dtype) == (np.float64, np.bool_)
    for config, back in zip(configs, space.decode(x), strict=True):
        assert list(back) == list(config)
        for name, value in config.items():
            exact = space.domains[name].levels is not None
            assert back[name] == (value if exact else pytest.approx(value, rel=1e-12))
            assert type(back[name]) is type(value)
    for column, dim in enumerate(space.dims):
        idle = 0.0 if dim.kind == "choice" else 0.5
        assert (x[~active[:, column], column] == idle).all()
        top = (dim.levels or 0) - 1 if dim.kind == "choice" else 1
        assert ((x[:, column] >= 0) & (x[:, column] <= top)).all()


def test_columns() -> None:
    space = SearchSpace.parse(SPACE)
    assert space.dims == (
        Dim("momentum", "float", 4, "optimizer", ("sgd", "lars")),
        Dim("optimizer", "choice", 3),
        Dim("lr", "float", None),
        Dim("depth", "ordinal", 3, "momentum", (0.3, 0.9)),
        Dim("widths", "choice", 2),
    )
    assert space.names == ("momentum", "optimizer", "lr", "depth", "widths")
    assert len(space) == 5
    config = {"optimizer": "lars", "momentum": 0.3, "lr": 1e-4, "depth": 8, "widths": [128]}
    x, active = space.encode([config, {"optimizer": "adam", "lr": 1e-1, "widths": [64, 64], "epochs": 5}])
    np.testing.assert_allclose(x, [[0.375, 2, 0, 5 / 6, 1], [0.5, 1, 1, 0.5, 0]])
    assert active.tolist() == [[True] * 5, [False, True, True, False, True]]
    assert space.encode([])[0].shape == (0, 5)
    assert space.decode(np.empty((0, 5))) == []


def test_decode_clips_and_drops_what_is_inactive() -> None:
    space = SearchSpace.parse(SPACE)
    [high, low] = space.decode([[9, 9, 9, 9, 9], [-9, 0.9, -9, -9, -9]])
    assert high == {"momentum": 0.9, "optimizer": "lars", "lr": 0.1, "epochs": 5, "depth": 8, "widths": [128],
                    "name": "a run"}  # fmt: skip
    assert low == {"optimizer": "adam", "lr": 1e-4, "epochs": 5, "widths": [64, 64], "name": "a run"}
    for wrong in ([[0.5] * 4], [0.5] * 5, [[math.nan] * 5]):
        with pytest.raises(ValueError, match=r"shape|NaN"):
            space.decode(wrong)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"optimizer": "adam", "lr": 0.01}, ["widths: no value", "choice([64, 64], [128]"]),
        ({"optimizer": "adm", "lr": 0.01, "widths": [128]}, ["optimizer: 'adm'", "did you mean 'adam'"]),
        ({"optimizer": "adam", "lr": 2, "widths": [128]}, ["lr: 2 is above high 0.1"]),
        ({"optimizer": "adam", "lr": "x", "widths": [128]}, ["lr: ", "'x'", "number"]),
        ({"optimizer": "adam", "lr": 0.01, "widths": [1]}, ["widths: [1]"]),
        ({"optimizer": "adam", "lr": 0.01, "widths": [128], "rate": 3}, ["rate: 3", "unknown parameter"]),
        ({"optimizer": "adam", "lr": 0.01, "widths": [128], "epochs": 6}, ["epochs: 6", "constant 5"]),
        ({"optimizer": "adam", "lr": 0.01, "widths": [128], "epochs": 5.0}, ["epochs: 5", "constant 5"]),
        ({"optimizer": "adam", "lr": 0.01, "widths": [128], "momentum": 0.3}, ["momentum: 0.3", "sgd or lars"]),
        ({"optimizer": "sgd", "lr": 0.01, "widths": [128], "momentum": 0.4}, ["momentum: 0.4", "nearest is 0.3"]),
        ({"optimizer": "sgd", "lr": 0.01, "widths": [128], "momentum": 0.3}, ["depth: no value"]),
    ],
)
def test_a_configuration_outside_the_space_is_told_why(config: dict[str, object], parts: list[str]) -> None:
    space = SearchSpace.parse(SPACE)
    assert not space.contains(config)
    with pytest.raises(InvalidInput) as caught:
        space.encode([config])
    assert len(caught.value.problems) == 1
    for part in parts:
        assert part in str(caught.value)


def test_all_wrong_values_of_all_configurations_are_told() -> None:
    space = SearchSpace.parse({"a": "int(1, 3)", "b": "uniform(0, 1)"})
    with pytest.raises(InvalidInput) as caught:
        space.encode([{"a": 1, "b": 0}, {"a": 9, "b": 8}, {"b": 1}])
    assert [problem.key for problem in caught.value.problems] == ["a", "b", "a"]
    assert "(configuration 1)" in str(caught.value)
    assert "(configuration 2)" in str(caught.value)


def test_the_default_configuration() -> None:
    space = SearchSpace.parse(SPACE)
    assert space.default_config() == {"momentum": 0.6, "optimizer": "sgd", "lr": pytest.approx(10**-2.5), "epochs": 5,
                                      "widths": [128], "name": "a run"}  # fmt: skip
    assert SearchSpace.parse({"a": "int(1, 3)", "b": 2}).default_config() is None
    none = SearchSpace.parse({"a": "choice(x, none, default=none)", "b": "uniform(0, 1)"})
    assert none.default_config() == {"a": None, "b": 0.5}


# Size and grid


@CHECKED
@given(forests())
def test_the_size_is_the_number_of_different_grid_points(texts: dict[str, str]) -> None:
    space = SearchSpace.parse(texts)
    configs = list(space.grid())
    assert len({key(config) for config in configs}) == len(configs) == space.size
    assert all(space.contains(config) for config in configs)
    assert configs == list(space.grid())
    # By brute force: all combinations, inactive values struck out, duplicates removed.
    everything = itertools.product(*(domain.grid_values() for domain in space.domains.values()))
    rows = (dict(zip(space.names, values, strict=True)) for values in itertools.islice(everything, 3000))
    assert {key({n: row[n] for n in active_by_hand(texts, row)}) for row in rows} <= {key(c) for c in configs}


def test_the_last_parameter_varies_fastest() -> None:
    space = SearchSpace.parse({"a": "choice(x, y)", "b": "int(1, 2, when={a: y})", "c": "uniform(0, 1, grid=2)"})
    assert list(space.grid()) == [
        {"a": "x", "c": 0.0},
        {"a": "x", "c": 1.0},
        {"a": "y", "b": 1, "c": 0.0},
        {"a": "y", "b": 1, "c": 1.0},
        {"a": "y", "b": 2, "c": 0.0},
        {"a": "y", "b": 2, "c": 1.0},
    ]
    assert space.size is None
    assert list(SearchSpace.parse({"k": 3}).grid()) == [{"k": 3}]


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


def test_a_grid_that_cannot_be_is_refused_at_once() -> None:
    space = SearchSpace.parse(
        {"lr": "loguniform(1e-4, 1)", "x": "normal(0, 1)", "n": "int(0, 10000000)", "m": "int(1, 2)"}
    )
    with pytest.raises(InvalidInput) as caught:
        space.grid()
    assert [problem.key for problem in caught.value.problems] == ["space.lr", "space.x", "space.n"]
    assert "a float under grid search needs grid=n, e.g. loguniform(0.0001, 1, grid=5)" in str(caught.value)
    with pytest.raises(InvalidInput, match="1030301000 configurations, at most 1000000"):
        SearchSpace.parse({"a": "int(0, 100)", "b": "int(0, 100)", "c": "int(0, 100)", "d": "int(1, 1000)"}).grid()


# Text, equality


@CHECKED
@given(forests(continuous=True))
def test_text_gives_the_same_space_back(texts: dict[str, str]) -> None:
    space = SearchSpace.parse({**texts, "k": 1.0, "s": "'a b'", "t": True, "u": None})
    again = SearchSpace.parse(json.loads(json.dumps(space.text())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.dims == space.dims
    assert SearchSpace.parse(again.text()).text() == space.text()
    assert copy.deepcopy(space) == pickle.loads(pickle.dumps(space)) == space


def test_spaces_differ_in_values_types_and_order() -> None:
    space = SearchSpace.parse({"a": "int(1, 2)", "k": 1})
    assert space == SearchSpace.parse({"a": integer(1, 2), "k": "1"})
    for other in ({"a": "int(1, 3)", "k": 1}, {"a": "int(1, 2)", "k": True}, {"a": "int(1, 2)", "k": 1.0},
                  {"k": 1, "a": "int(1, 2)"}, {"a": "int(1, 2)"}):  # fmt: skip
        assert space != SearchSpace.parse(other)
    assert space != "a"


def test_string_constants_survive_the_text_form() -> None:
    for value in ("adam", "none", "nan", "uniform(0, 1)", "3", "", "a 'b' \"c\"\n", "/data/x", "ﬁ"):
        space = SearchSpace({"s": value})
        assert SearchSpace.parse(space.text()) == space
        assert space.sample(np.random.default_rng(0)) == {"s": value}


def test_values_may_be_text_domains_or_constants() -> None:
    space = SearchSpace.parse(
        {"lr": loguniform(1e-3, 1), "n": "int(1, 2)", "w": np.float64(0.5), "b": False, "c": None}
    )
    assert space.names == ("lr", "n")
    assert space.constants == {"w": 0.5, "b": False, "c": None}
    assert space.text() == {"lr": "loguniform(0.001, 1)", "n": "int(1, 2)", "w": 0.5, "b": False, "c": None}


# Mistakes


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


# Ray


def test_from_ray_reads_every_kind_of_domain() -> None:
    from ray import tune

    space = SearchSpace.from_ray({
        "u": tune.uniform(-1, 2),
        "qu": tune.quniform(0.2, 0.8, 0.2),
        "lu": tune.loguniform(1e-4, 1e-1),
        "qlu": tune.qloguniform(0.1, 1, 0.1),
        "n": tune.randn(1, 2),
        "qn": tune.qrandn(0, 1, 0.5),
        "i": tune.randint(0, 10),
        "q1": tune.qrandint(0, 10, 1),
        "qi": tune.qrandint(3, 11, 4),
        "li": tune.lograndint(1, 100),
        "qli": tune.qlograndint(2, 20, 2),
        "c": tune.choice(["a", 1, None, [1, 2]]),
        "g": tune.grid_search([3, 4]),
        "one": tune.randint(5, 6),
        "k": 3,
        "s": "uniform(0, 1)",
        "l": [64, 64],
    })  # fmt: skip
    assert space.text() == {
        "u": "uniform(-1, 2)",
        "qu": "uniform(0.2, 0.8, q=0.2)",
        "lu": "loguniform(0.0001, 0.1)",
        "qlu": "loguniform(0.1, 1, q=0.1)",
        "n": "normal(1, 2)",
        "qn": "normal(0, 1, q=0.5)",
        "i": "int(0, 9)",
        "q1": "int(0, 9)",
        "qi": "int(4, 8, q=4)",
        "li": "logint(1, 99)",
        "qli": "logint(2, 20, q=2)",
        "c": "choice(a, 1, none, [1, 2])",
        "g": "choice(3, 4)",
        "one": 5,
        "k": 3,
        "s": "'uniform(0, 1)'",
        "l": "choice([[64, 64]])",
    }


def test_from_ray_names_what_has_no_counterpart() -> None:
    from ray import tune

    with pytest.raises(InvalidInput) as caught:
        SearchSpace.from_ray({
            "f": tune.sample_from(lambda: 3),
            "m": {"depth": tune.randint(1, 3)},
            "o": tune.choice([object()]),
            "ok": tune.uniform(0, 1),
        })  # fmt: skip
    assert [problem.key for problem in caught.value.problems] == ["space.f", "space.m", "space.o"]
    assert "sample_from" in str(caught.value)
    assert "when={parent: value}" in str(caught.value)


def test_there_and_back_through_ray() -> None:
    texts = {
        "u": "uniform(-1, 2)", "qu": "uniform(0, 1, q=0.1)", "lu": "loguniform(0.0001, 0.1)", "n": "normal(1, 2)",
        "qlu": "loguniform(0.1, 1, q=0.1)", "qn": "normal(0, 1, q=0.5)", "i": "int(0, 9)", "qi": "int(4, 12, q=4)",
        "li": "logint(1, 99)", "qli": "logint(2, 20, q=2)", "c": "choice(a, 1, none, [1, 2])", "k": 3, "s": "word",
    }  # fmt: skip
    space = SearchSpace.parse(texts)
    converted = space.to_ray()
    assert SearchSpace.from_ray(converted) == space
    for name, domain in space.domains.items():
        if name not in ("u", "lu", "n"):  # Ray draws the same levels, and no others
            drawn = converted[name].sample(size=4000, random_state=np.random.default_rng(0))
            values = {json.dumps(domain.canonical(value)) for value in drawn}
            assert values <= {json.dumps(value) for value in domain.grid_values()}
            assert name == "qn" or len(values) == domain.levels
    assert SearchSpace.from_ray(SearchSpace.parse({"o": "ordinal(1, 2)"}).to_ray()) == SearchSpace({"o": choice(1, 2)})


def test_to_ray_names_what_ray_cannot_say() -> None:
    space = SearchSpace.parse({
        "a": "choice(x, y)",
        "b": "int(1, 2, when={a: x})",
        "c": "lognormal(0, 1)",
        "d": "int(1, 7, q=3)",
        "e": "uniform(0, 1, when={a: y})",
    })  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        space.to_ray()
    assert [problem.key for problem in caught.value.problems] == ["space.b", "space.c", "space.d", "space.e"]
    assert "only active with a = x" in str(caught.value)


def test_the_space_does_not_import_ray() -> None:
    code = (
        "import sys; from hpo_ray.space import SearchSpace as S; S.from_ray({'a': 1}); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_domains_of_python_can_be_conditional_too() -> None:
    space = SearchSpace.parse({"opt": choice("sgd", "adam"), "m": uniform(0, 1, when={"opt": "sgd"})})
    assert space.dims[1] == Dim("m", "float", None, "opt", ("sgd",))
