"""Importances and slices against closed forms; what is conditional, constant, missing or failed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.results.dtypes import inferred
from hpo_ray.results.importance import importance, partial_dependence
from hpo_ray.results.surrogate import config_of
from hpo_ray.space import SearchSpace

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import importance as bench

SQUARE = SearchSpace.parse({"x": "uniform(0, 1)", "y": "uniform(0, 1)"})


def trials_of(space: SearchSpace, n: int, value: object, seed: int = 0, **rest: object) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    configs = [space.sample(rng) for _ in range(n)]
    frame = pd.DataFrame([{f"config/{key}": each for key, each in config.items()} for config in configs])
    losses = [value(config) for config in configs] if callable(value) else value
    return frame.assign(run="r", trial_id=[f"{i:04}" for i in range(n)], fidelity=1.0, loss=losses, **rest)


@pytest.mark.parametrize("name", bench.FUNCTIONS)
def test_stated_decompositions_are_those_of_the_functions(name: str) -> None:
    """Main effects and the whole variance by Monte Carlo, conditional means by binning."""
    function = bench.FUNCTIONS[name]()
    trials = function.trials(40_000, seed=1)
    total = trials["loss"].var()
    for key, share in function.expected().items():
        if len(key) == 1 and function.space.domains[key[0]].when is None:
            column = trials[f"config/{key[0]}"]
            bins = pd.qcut(column, 40, labels=False) if column.dtype.kind == "f" else column
            means = trials.groupby(bins)["loss"].transform("mean")
            assert means.var() / total == pytest.approx(share, abs=0.02)
    assert sum(function.expected().values()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["ishigami", "mixed", "conditional"])
def test_shares_are_near_and_covered(name: str) -> None:
    function = bench.FUNCTIONS[name]()
    found = bench.ours(function, function.trials(150, seed=3, noise=0.1), seed=3)
    assert (found["importance"] - found["expected"]).abs().max() < 0.1
    assert found["expected"].between(found["low"], found["high"]).mean() >= 0.8
    assert found["importance"].between(found["low"], found["high"]).all()
    assert found["importance"].sum() <= 1 + 1e-9
    assert found["importance"].is_monotonic_decreasing


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", bench.FUNCTIONS)
def test_at_500_trials_shares_are_within_a_twentieth_and_intervals_cover(name: str, noise: float) -> None:
    row = bench.measure(bench.FUNCTIONS[name](), 500, noise, 50, peer=False)
    assert row["error"] <= 0.05
    assert row["coverage"] >= 0.8
    assert row["large"] >= 0.8
    if not noise:
        assert row["error_max"] <= 0.05
        assert row["worst"] >= 0.8


def test_the_order_of_parameters_and_trials_hardly_matters() -> None:
    function = bench.FUNCTIONS["mixed"]()
    trials = function.trials(80, seed=4)
    turned = SearchSpace.parse(dict(reversed(function.space.text().items())))
    one, two = (
        bench.ours(replace(function, space=space), frame, 0).set_index("key")["importance"]
        for space, frame in ((function.space, trials), (turned, trials.sample(frac=1, random_state=0)))
    )
    assert one.to_dict() == pytest.approx(two[one.index].to_dict(), abs=0.05)


def test_maximising_changes_nothing() -> None:
    trials = trials_of(SQUARE, 30, lambda c: c["x"] ** 2 + 0.3 * c["y"])
    one, two = (
        importance(trials, SQUARE, "loss"),
        importance(trials.assign(loss=-trials["loss"]), SQUARE, "loss", "max"),
    )
    pd.testing.assert_frame_equal(one, two)


def test_shares_of_a_child_count_over_the_whole_space() -> None:
    function = bench.FUNCTIONS["conditional"]()
    found = importance(function.trials(60, seed=0), function.space, "loss")
    alone = found[found["with"].isna()].set_index("parameter")
    assert alone.loc["lr", "active"] == 1
    assert alone.loc["momentum", "active"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("losses", "note"),
    [
        ([1.0, 1.0, 1.0], "the same value"),
        ([1.0, np.nan, np.inf], "1 of 3 trials"),
        ([np.nan] * 3, "0 of 3 trials"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is_given(losses: list[float], note: str) -> None:
    found = importance(trials_of(SQUARE, 3, losses), SQUARE, "loss")
    assert len(found) == 3
    shares = found[["importance", "low", "high"]].to_numpy()
    assert np.isnan(shares).all() if note.endswith("of 3 trials") else not shares.any()
    assert note in found.attrs["note"]


def test_noise_alone_is_told() -> None:
    found = importance(trials_of(SQUARE, 60, np.random.default_rng(2).standard_normal(60)), SQUARE, "loss")
    assert "the parameters predict" in found.attrs["note"]
    assert (found["high"] - found["low"]).max() > 0.3


def test_configurations_come_back_from_a_frame_with_all_that_can_be_missing_in_it() -> None:
    space = SearchSpace.parse(
        {
            "act": "choice(none, relu)",
            "units": "int(1, 9, when={act: relu})",
            "groups": "choice(1, none, when={act: relu})",
            "norm": "choice(true, false, none)",
            "shape": "choice([1, 2], [3], when={norm: none})",
            "x": "uniform(0, 1)",
        }
    )
    rng = np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(60)]
    columns = {f"config/{name}": inferred([config.get(name) for config in configs]) for name in space.names}
    assert [config_of(row, space) for _, row in pd.DataFrame(columns).iterrows()] == configs


def test_one_parameter_has_it_all_and_failed_trials_are_left_out() -> None:
    space = SearchSpace.parse({"kind": "choice(a, b, c)"})
    trials = trials_of(space, 20, lambda c: "abc".index(c["kind"]) ** 2)
    trials.loc[3, "loss"] = np.nan
    found = importance(trials, space, "loss")
    assert found["importance"].tolist() == pytest.approx([1.0], abs=0.02)
    assert found.attrs["trials"] == 19


def test_one_that_diverged_does_not_hide_the_others_when_tamed() -> None:
    def loss(c: dict[str, float]) -> float:
        return c["x"] + (1e6 if c["y"] > 0.97 else 0.0)

    trials = trials_of(SQUARE, 80, loss, seed=1)
    assert (trials["loss"] > 1e5).any()
    plain, tamed = (importance(trials, SQUARE, "loss", tamed=tamed) for tamed in (False, True))
    share = [f[f["with"].isna()].set_index("parameter").loc["x", "importance"] for f in (plain, tamed)]
    assert share[0] < 0.2
    assert share[1] > 2 * share[0]


def test_mistakes_are_named() -> None:
    trials = trials_of(SQUARE, 5, lambda c: c["x"])
    with pytest.raises(InvalidInput, match="did you mean 'loss'"):
        importance(trials, SQUARE, "los")
    with pytest.raises(InvalidInput, match="'minimum' is no mode"):
        importance(trials, SQUARE, "loss", "minimum")
    with pytest.raises(InvalidInput, match="lies in this space"):
        importance(trials, SearchSpace.parse({"z": "uniform(0, 1)"}), "loss")
    with pytest.raises(InvalidInput, match="not in the search space; choose one of 'x', 'y'"):
        partial_dependence(trials, SQUARE, "loss", "z")
    with pytest.raises(InvalidInput, match="two different"):
        partial_dependence(trials, SQUARE, "loss", ("x", "x"))


def test_a_slice_is_the_average_over_the_others() -> None:
    trials = trials_of(SQUARE, 80, lambda c: 4 * (c["x"] - 0.5) ** 2 + 2 * c["x"] * c["y"])
    found = partial_dependence(trials, SQUARE, "loss", "x")
    x = found["config/x"].to_numpy()
    expected = 4 * (x - 0.5) ** 2 + x
    assert len(found) == 25
    assert found["mean"].to_numpy() == pytest.approx(expected, abs=0.05)
    assert ((found["low"] - 0.03 <= expected) & (expected <= found["high"] + 0.03)).all()
    mirrored = partial_dependence(trials.assign(loss=-trials["loss"]), SQUARE, "loss", "x", "max")
    assert mirrored["mean"].to_numpy() == pytest.approx(-found["mean"].to_numpy(), abs=1e-6)


def test_a_contour_of_a_conditional_parameter_is_where_it_is_in_use() -> None:
    function = bench.FUNCTIONS["conditional"]()
    trials = function.trials(80, seed=0)
    found = partial_dependence(trials, function.space, "loss", ("optimizer", "momentum"))
    assert set(found["config/optimizer"]) == {"sgd"}
    expected = 3 * (found["config/momentum"] - 0.5) + 0.6 - 1
    assert found["mean"].to_numpy() == pytest.approx(expected.to_numpy(), abs=0.1)
    alone = partial_dependence(trials, function.space, "loss", "momentum")
    assert np.ptp(alone["mean"]) == pytest.approx(3, abs=0.15)


def test_few_levels_are_all_shown() -> None:
    function = bench.FUNCTIONS["mixed"]()
    found = partial_dependence(function.trials(60, seed=0), function.space, "loss", ("kind", "layers"))
    assert found["config/kind"].tolist() == [kind for kind in "abc" for _ in range(4)]
    assert found["config/layers"].tolist() == [1, 2, 3, 4] * 3
