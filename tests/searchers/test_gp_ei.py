"""The GP-EI searcher alone and inside a plain Tuner: what goes in, what comes out, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.tune.search import Searcher

from hpo_ray.encoding import columns_of
from hpo_ray.gp import model
from hpo_ray.searchers import make
from hpo_ray.searchers.gp_ei import GPEISearcher
from hpo_ray.space import SearchSpace

MIXED = {
    "lr": "loguniform(1e-4, 1e-1)",
    "optimizer": "choice(sgd, adam, rmsprop)",
    "momentum": "uniform(0.0, 0.99, when={optimizer: [sgd, rmsprop]})",
    "layers": "int(1, 3)",
    "units": "logint(8, 64, q=8, when={layers: [2, 3]})",
    "width": "ordinal(1, 2, 4, when={layers: 3})",
}


def searcher_over(space: dict[str, str], seed: int = 0) -> GPEISearcher:
    return GPEISearcher(SearchSpace.parse(space), metric="loss", mode="min", seed=seed)


def evaluate(searcher: GPEISearcher, loss_of: Any, trials: int, start: int = 0) -> list[dict[str, Any]]:
    """One trial at a time; a loss of None is a failure."""
    configs = []
    for k in range(start, start + trials):
        config = searcher.suggest(f"{k:04d}")
        configs.append(config)
        loss = loss_of(config)
        status = "failed" if loss is None else "completed"
        searcher.observe(f"{k:04d}", config, loss, fidelity=None, status=status)
    return configs


def bowl(config: dict[str, Any]) -> float:
    return float((np.log10(config["lr"]) + 2) ** 2 + (config["optimizer"] != "adam") + config["layers"] / 10)


# Where it should get to


def test_it_finds_the_minimum_of_a_smooth_mixed_function() -> None:
    space = {"x": "uniform(-5, 10)", "y": "loguniform(1e-5, 1)", "n": "int(1, 20)", "kind": "choice(a, b, c)"}

    def loss(config: dict[str, Any]) -> float:
        offset = {"a": 0.0, "b": 1.0, "c": 2.0}[config["kind"]]
        return (config["x"] - 3) ** 2 / 10 + (np.log10(config["y"]) + 3) ** 2 + (config["n"] - 7) ** 2 / 50 + offset

    best = [min(loss(config) for config in evaluate(searcher_over(space, seed), loss, 40)) for seed in range(3)]
    assert np.median(best) < 0.02


def test_it_beats_random_search_on_a_conditional_space() -> None:
    def loss(config: dict[str, Any]) -> float:
        return bowl(config) + abs(config.get("momentum", 0.5) - 0.9) + abs(config.get("units", 64) - 32) / 64

    def best(name: str, seed: int) -> float:
        searcher = make(name, SearchSpace.parse(MIXED), metric="loss", mode="min", seed=seed)
        return min(map(loss, evaluate(searcher, loss, 40)))  # type: ignore[arg-type]

    assert np.mean([best("gp_ei", s) for s in range(4)]) < 0.7 * np.mean([best("random", s) for s in range(4)])


def test_failing_regions_are_left() -> None:
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}

    def loss(config: dict[str, Any]) -> float | None:
        return None if config["x"] > 0.5 else (config["y"] - 0.3) ** 2 - config["x"]  # the best is at the cliff

    configs = evaluate(searcher_over(space), loss, 40)
    assert sum(config["x"] > 0.6 for config in configs[-20:]) <= 6
    assert min(value for config in configs if (value := loss(config)) is not None) < -0.4


def test_huge_losses_do_not_spoil_the_scale() -> None:
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}

    def loss(config: dict[str, Any]) -> float:
        return 1e12 if config["x"] > 0.7 else (config["x"] - 0.4) ** 2 + (config["y"] - 0.3) ** 2

    assert min(map(loss, evaluate(searcher_over(space), loss, 35))) < 1e-3


def test_simultaneous_suggestions_differ() -> None:
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}
    searcher = searcher_over(space)
    evaluate(searcher, lambda c: float(np.sin(9 * c["x"]) + np.cos(7 * c["y"]) + c["x"] * c["y"]), 12)
    batch = np.array([[c["x"], c["y"]] for c in (searcher.suggest(f"p{i}") for i in range(8))])
    distances = np.linalg.norm(batch[:, None] - batch[None], axis=2)[np.triu_indices(8, 1)]
    assert distances.min() > 1e-4
    assert np.median(distances) > 0.05


# What it never does


def test_of_very_many_awaited_points_the_newest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time for a suggestion is bounded however many slots there are."""
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}

    def suggested(*awaited: list[float]) -> dict[str, Any]:
        searcher = searcher_over(space)
        rng = np.random.default_rng(1)
        for k, (x, y) in enumerate(rng.random((15, 2)).tolist()):
            searcher.replay(str(k), {"x": x, "y": y}, {})
            searcher.observe(
                str(k), {"x": x, "y": y}, (x - 0.3) ** 2 + (y - 0.6) ** 2, fidelity=None, status="completed"
            )
        for k, (x, y) in enumerate(awaited):
            searcher.replay(f"awaited {k}", {"x": x, "y": y}, {})
        return searcher.suggest("next")

    rng = np.random.default_rng(2)
    one, other, newest = (rng.random((20, 2)).tolist() for _ in range(3))
    assert suggested(*one, *newest) != suggested(*other, *newest)
    monkeypatch.setattr(model, "FULL", 20)
    assert suggested(*one, *newest) == suggested(*other, *newest)


def test_a_finite_space_is_tried_once_each_and_then_it_says_so() -> None:
    space = SearchSpace.parse({"a": "choice(x, y, z)", "b": "int(1, 4)", "c": "ordinal(1, 2, when={a: x})"})
    searcher = GPEISearcher(space, metric="loss", mode="min")
    seen = []
    for k in range(100):
        config = searcher.suggest(str(k))
        if config == Searcher.FINISHED:
            break
        seen.append(json.dumps(config, sort_keys=True))
        searcher.observe(str(k), config, float(config["b"]), fidelity=None, status="completed")
    assert len(seen) == len(set(seen)) == space.size == 4 * (2 + 1 + 1)


def test_a_finite_space_ends_even_if_nothing_ever_succeeds() -> None:
    searcher = searcher_over({"a": "choice(x, y, z)", "b": "int(1, 2)"})
    ends = []
    for k in range(8):
        config = searcher.suggest(str(k))
        ends.append(config == Searcher.FINISHED)
        if not ends[-1]:
            searcher.observe(str(k), config, None, fidelity=None, status="failed")
    assert ends == [False] * 6 + [True] * 2


@pytest.mark.parametrize("se", [None, 1.0])
def test_a_finite_space_known_to_be_noisy_is_tried_again(se: float | None) -> None:
    searcher = searcher_over({"a": "int(1, 6)"})
    noise = np.random.default_rng(0)
    if se is None:  # nobody says so, but one configuration gave two losses
        searcher.add_evaluated_point({"a": 2}, 2.1)
        searcher.add_evaluated_point({"a": 2}, 1.8)
    for k in range(20):
        config = searcher.suggest(str(k))
        assert config != Searcher.FINISHED
        loss = config["a"] + noise.standard_normal()
        searcher.observe(str(k), config, loss, fidelity=None, status="completed", se=se)


def test_no_point_of_a_noise_free_objective_is_suggested_twice() -> None:
    space = {"x": "int(0, 30)", "y": "uniform(0, 1, q=0.05)", "z": "choice(a, b)"}
    configs = evaluate(searcher_over(space), lambda c: abs(c["x"] - 3) / 30 + (c["z"] == "a") + abs(c["y"] - 0.5), 60)
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == 60


VALUES = st.one_of(
    st.floats(-1e12, 1e12),
    st.sampled_from([0.0, 1e-12, 1e12, -1e12, 1.0, 1.0, 1.0, float("nan"), float("inf"), None]),
)
DOMAINS = {
    "constant": "choice(only)",
    "single": "ordinal(3)",
    "flag": "choice(true, false)",
    "letter": "choice(a, b, c, d)",
    "inner": "choice(p, q, when={letter: [a, b]})",
    "deep": "uniform(0, 1, when={inner: p})",
    "size": "ordinal(1, 2, 4)",
    "count": "logint(1, 100000)",
    "q": "uniform(0, 1, q=0.25)",
    "lr": "loguniform(1e-8, 1)",
    "bell": "normal(0, 1)",
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_observed_suggestions_stay_valid(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(DOMAINS)), min_size=1, unique=True))
    if "deep" in names:
        names += [name for name in ("letter", "inner") if name not in names]
    if "inner" in names and "letter" not in names:
        names.append("letter")
    space = SearchSpace.parse({name: DOMAINS[name] for name in names})
    searcher = GPEISearcher(space, metric="loss", mode="min", seed=data.draw(st.integers(0, 3)))
    same = data.draw(VALUES)
    constant = data.draw(st.booleans())
    for k in range(data.draw(st.integers(1, 16))):
        config = searcher.suggest(str(k))
        if config == Searcher.FINISHED:
            break
        assert space.contains(config)
        if data.draw(st.integers(0, 5)) == 0:
            continue  # stays pending
        value = same if constant else data.draw(VALUES)
        status = "failed" if value is None else data.draw(st.sampled_from(["completed", "stopped", "running"]))
        fidelity = data.draw(st.sampled_from([None, 1.0, 3.0]))
        se = data.draw(st.sampled_from([None, 0.0, 1.0, float("nan")]))
        searcher.observe(str(k), config, value, fidelity=fidelity, status=status, se=se)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_the_losses_does_not_matter(scale: float) -> None:
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}

    def loss(config: dict[str, Any]) -> float:
        return scale * ((config["x"] - 0.4) ** 2 + (config["y"] - 0.3) ** 2)

    assert min(map(loss, evaluate(searcher_over(space), loss, 25))) < 1e-3 * scale


def test_fifty_dimensions_work() -> None:
    space = {f"x{i}": "uniform(0, 1)" for i in range(50)}
    configs = evaluate(searcher_over(space), lambda c: sum((c[f"x{i}"] - 0.3) ** 2 for i in range(50)), 25)
    losses = [sum((c[f"x{i}"] - 0.3) ** 2 for i in range(50)) for c in configs]
    assert min(losses[10:]) < min(losses[:8])


def test_a_space_of_constants_is_suggested_once() -> None:
    searcher = GPEISearcher(SearchSpace.parse({"epochs": 3}), metric="loss", mode="min")
    assert searcher.suggest("0") == {"epochs": 3}
    assert searcher.suggest("1") == Searcher.FINISHED


# What it is told


def test_max_is_the_mirror_of_min() -> None:
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}
    found = {}
    for mode, sign in (("min", 1.0), ("max", -1.0)):
        searcher = GPEISearcher(SearchSpace.parse(space), metric="m", mode=mode)
        found[mode] = []
        for k in range(15):
            config = searcher.suggest(str(k))
            found[mode].append(config)
            result = {"m": sign * (config["x"] - 0.3) ** 2, "training_iteration": 1}
            searcher.on_trial_complete(str(k), result)
    assert found["min"] == found["max"]


@pytest.mark.parametrize("offset", [5, -5])
def test_low_fidelities_inform_without_deceiving(offset: float) -> None:
    """Half of the trials stop early, where all losses are 5 worse, or better: the best place is found all the same."""
    searcher = searcher_over({"x": "uniform(0, 1)", "y": "uniform(0, 1)"})
    final = []
    for k in range(36):
        config = searcher.suggest(str(k))
        value = (config["x"] - 0.3) ** 2 + (config["y"] - 0.8) ** 2
        searcher.observe(str(k), config, value + offset, fidelity=1.0, status="running")
        if k % 2:
            searcher.observe(str(k), config, value + offset, fidelity=1.0, status="stopped")
        else:
            final.append(value)
            searcher.observe(str(k), config, value, fidelity=27.0, status="completed")
    assert min(final) < 0.01


def test_known_standard_errors_are_used() -> None:
    """One very lucky but very uncertain value does not draw the search to its place."""

    def near(se: float | None) -> float:
        searcher = searcher_over({"x": "uniform(0, 1)"}, seed=1)
        for i, x in enumerate(np.linspace(0, 1, 12)):
            lucky = i == 9
            loss = -1.0 if lucky else (x - 0.3) ** 2
            searcher.observe(
                f"p{i}", {"x": float(x)}, loss, fidelity=None, status="completed", se=se if lucky else 1e-3
            )
        picks = [searcher.suggest(f"k{k}") for k in range(8, 16)]
        return float(np.mean([abs(c["x"] - 9 / 11) < 0.1 for c in picks]))

    assert near(1e-3) > near(5.0)


def test_points_from_elsewhere_replace_the_start() -> None:
    searcher = searcher_over({"x": "uniform(0, 1)", "y": "uniform(0, 1)"})
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.random(2)
        searcher.add_evaluated_point({"x": x, "y": y}, (x - 0.3) ** 2 + (y - 0.6) ** 2)
    config = searcher.suggest("0000")
    assert abs(config["x"] - 0.3) < 0.15
    assert abs(config["y"] - 0.6) < 0.15


def test_a_missing_metric_is_said() -> None:
    searcher = GPEISearcher(SearchSpace.parse({"x": "uniform(0, 1)"}))
    searcher.suggest("0")
    with pytest.raises(ValueError, match="metric="):
        searcher.on_trial_complete("0", {"loss": 1.0, "training_iteration": 1})


# Going on later


@pytest.mark.parametrize("slots", [1, 3])
def test_a_restored_search_suggests_the_same(slots: int, tmp_path: Path) -> None:
    def drive(searcher: GPEISearcher, first: int, last: int, open_trials: list[Any]) -> list[dict[str, Any]]:
        suggested = []
        for k in range(first, last):
            config = searcher.suggest(f"{k:04d}")
            suggested.append(config)
            open_trials.append((f"{k:04d}", config))
            if len(open_trials) >= slots:
                trial_id, done = open_trials.pop(0)
                failed = done["layers"] == 2 and k % 3 == 0
                loss = None if failed else bowl(done)
                status = "failed" if failed else "completed"
                searcher.observe(trial_id, done, loss, fidelity=1.0 + (k > 20), status=status)
        return suggested

    whole = searcher_over(MIXED, seed=4)
    expected = drive(whole, 0, 40, [])
    first, waiting = searcher_over(MIXED, seed=4), []
    drive(first, 0, 23, waiting)
    first.save(str(tmp_path / "searcher.json"))
    second = searcher_over(MIXED, seed=4)
    second.restore(str(tmp_path / "searcher.json"))
    assert drive(second, 23, 40, waiting) == expected[23:]


def test_its_state_is_small_json() -> None:
    searcher = searcher_over(MIXED)
    evaluate(searcher, bowl, 20)
    text = json.dumps(searcher.state_of("0019"))
    assert 0 < len(text) < 2000


@pytest.mark.usefixtures("ray_here")
def test_it_serves_a_plain_tuner_with_rays_asha_on_a_conditional_space(tmp_path: Path) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def objective(config: dict[str, Any]) -> None:
        for epoch in range(1, 10):
            worse = (
                (np.log10(config["lr"]) + 2) ** 2
                + (config["optimizer"] != "adam")
                + abs(config.get("momentum", 0.9) - 0.9)
            )
            tune.report({"loss": float(worse + 1 / epoch), "training_iteration": epoch})

    space = SearchSpace.parse(MIXED)
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 0.5}),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=GPEISearcher(space, metric="loss", mode="min", seed=0),
            scheduler=ASHAScheduler(max_t=9, grace_period=1, reduction_factor=3),
            num_samples=24,
            max_concurrent_trials=4,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert len(results) == 24
    assert not results.errors
    assert all(space.contains(result.config) for result in results)
    assert results.get_best_result().metrics["loss"] < 1.0


def test_columns_have_the_very_coordinates_of_the_encoding() -> None:
    space = SearchSpace.parse(MIXED)
    columns = columns_of(space)
    configs = [space.sample(np.random.default_rng(i)) for i in range(50)]
    x, active = space.encode(configs)
    settled, used = columns.settle(x)
    assert (settled == x).all()
    assert (used == active).all()
    assert space.decode(settled) == configs


# Odd orders, and spaces at their limits


def test_a_trial_that_fails_after_a_report_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its row is taken out of a model that has already grown over it, in a restored search as well."""
    space = {"x": "uniform(0, 1)", "y": "uniform(0, 1)"}

    def loss(config: dict[str, Any]) -> float:
        return (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2

    def go(searcher: GPEISearcher, first: int, last: int) -> list[dict[str, Any]]:
        suggested = []
        for k in range(first, last):
            config = searcher.suggest(f"{k:04d}")
            suggested.append(config)
            searcher.observe(f"{k:04d}", config, loss(config), fidelity=None, status="running")
            if k >= 2:  # two later it ends, one way or the other
                trial_id, before = f"{k - 2:04d}", searcher._configs[f"{k - 2:04d}"]
                failed = k % 5 == 0
                searcher.observe(trial_id, before, None, fidelity=None, status="failed" if failed else "completed")
        return suggested

    whole = searcher_over(space)
    expected = go(whole, 0, 60)
    for stop in (41, 42, 43, 47, 53):
        first = searcher_over(space)
        go(first, 0, stop)
        first.save(str(tmp_path / "state"))
        second = GPEISearcher(metric="loss", mode="min", seed=0)
        second.restore(str(tmp_path / "state"))  # before it knows its space
        second.set_search_properties("loss", "min", SearchSpace.parse(space))
        assert go(second, stop, 60) == expected[stop:]


@pytest.mark.parametrize("domain", ["logint(1, 100000)", "int(1, 2000)"])
def test_whole_numbers_without_end_are_not_repeated_either(domain: str) -> None:
    configs = evaluate(searcher_over({"n": domain}), lambda config: float(config["n"]), 30)
    assert len({config["n"] for config in configs}) == 30


def test_large_whole_numbers_out_of_use_do_not_hide_a_repeat() -> None:
    space = {"kind": "choice(a, b)", "n": "int(1, 5000, when={kind: b})", "z": "int(1, 3)"}
    configs = evaluate(searcher_over(space), lambda config: config["z"] + 10.0 * (config["kind"] == "b"), 25)
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == 25


def test_a_finite_space_ends_with_its_last_point_and_not_before() -> None:
    searcher = searcher_over({"a": "int(0, 31)", "b": "int(0, 63)"})
    for a in range(32):
        for b in range(64):
            if (a * 64 + b) % 200:
                searcher.add_evaluated_point({"a": a, "b": b}, float(a + b))
    seen = []
    while (config := searcher.suggest(str(len(seen)))) != Searcher.FINISHED:
        seen.append((config["a"], config["b"]))
        searcher.observe(str(len(seen) - 1), config, 1.0, fidelity=None, status="completed")
    assert len(seen) == len(set(seen)) == 11


def test_a_tiny_noisy_space_goes_on() -> None:
    searcher = searcher_over({"a": "choice(x, y, z)"})
    for k in range(10):
        config = searcher.suggest(str(k))
        assert config != Searcher.FINISHED
        searcher.observe(str(k), config, float(k % 3), fidelity=None, status="completed", se=1.0)


def test_reports_that_come_late_or_for_less_training_change_nothing() -> None:
    searcher = searcher_over({"x": "uniform(0, 1)"})
    config = searcher.suggest("0")
    searcher.observe("0", config, 1.0, fidelity=9.0, status="running")
    searcher.observe("0", config, 7.0, fidelity=1.0, status="running")
    searcher.observe("0", config, 1.0, fidelity=9.0, status="completed")
    searcher.observe("0", config, 0.5, fidelity=12.0, status="running")
    ledger = searcher._ledger
    assert ledger.loss(ledger.measured).tolist() == [1.0]
    assert not len(ledger.pending)


def test_numbers_of_any_make_can_be_saved(tmp_path: Path) -> None:
    searcher = searcher_over({"x": "uniform(0, 1)", "n": "int(1, 3)"})
    config = searcher.suggest("0")
    config["n"] = np.int64(config["n"])
    searcher.observe("0", config, np.float32(0.3), fidelity=np.int64(1), status="completed", se=np.float32(0.1))  # type: ignore[arg-type]
    searcher.save(str(tmp_path / "state"))


def test_the_spaces_default_comes_first() -> None:
    assert searcher_over({"x": "uniform(0, 1, default=0.25)"}).suggest("0") == {"x": 0.25}


@pytest.mark.usefixtures("ray_here")
def test_a_tuner_goes_on_from_a_saved_searcher_with_the_same_suggestions(tmp_path: Path) -> None:
    from ray import tune

    def objective(config: dict[str, Any]) -> None:
        tune.report({"loss": (config["x"] - 0.3) ** 2 + (config["net"]["layers"] - 2) ** 2})

    def tuned(searcher: GPEISearcher, samples: int, name: str) -> list[dict[str, Any]]:
        results = tune.Tuner(
            tune.with_resources(objective, {"cpu": 1}),
            param_space={"x": tune.uniform(0, 1), "net": {"layers": tune.randint(1, 6)}},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                search_alg=searcher,
                num_samples=samples,
                max_concurrent_trials=1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), name=name, verbose=0),
        ).fit()
        return [result.config for result in results]

    expected = tuned(GPEISearcher(seed=1), 16, "whole")
    first = GPEISearcher(seed=1)
    assert tuned(first, 9, "first") == expected[:9]
    first.save(str(tmp_path / "searcher.json"))
    second = GPEISearcher(seed=1)
    second.restore(str(tmp_path / "searcher.json"))
    assert tuned(second, 7, "second") == expected[9:]
