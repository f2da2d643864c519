"""Search spaces: samples and activity against a reference written out by hand, arrays, grids, text."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo_ray.errors import InvalidInput
from hpo_ray.space import Dim, SearchSpace, integer, loguniform

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
