"""What every searcher must do, ours and those to come: one line in `SEARCHERS` and these tests run on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from hpo_ray.errors import InvalidInput
from hpo_ray.searchers import SEARCHERS, make
from hpo_ray.space import SearchSpace

SPACE = SearchSpace.parse(
    {
        "lr": "loguniform(1e-4, 1e-1, grid=3)",
        "optimizer": "choice(sgd, adam, rmsprop)",
        "momentum": "uniform(0.0, 0.99, grid=2, when={optimizer: [sgd, rmsprop]})",
        "layers": "int(1, 3)",
        "units": "logint(8, 64, q=8, when={layers: [2, 3]})",
        "width": "ordinal(1, 2, 4, when={layers: 3})",
        "epochs": 5,
    }
)


def new(name: str, seed: int = 0, **options: Any) -> Any:
    return make(name, SPACE, metric="loss", mode="min", seed=seed, **options)


def loss_of(config: dict[str, Any]) -> float:
    return float((np.log10(config["lr"]) + 2) ** 2 + (config["optimizer"] != "adam") + config["layers"] / 10)


def drive(searcher: Any, trials: int, start: int = 0) -> list[dict[str, Any]]:
    """Suggest and observe, one at a time."""
    configs = []
    for k in range(start, start + trials):
        config = searcher.suggest(f"{k:04d}")
        configs.append(config)
        searcher.observe(f"{k:04d}", config, loss_of(config), fidelity=1.0, status="running")
        searcher.observe(f"{k:04d}", config, loss_of(config), fidelity=1.0, status="completed")
    return configs


@pytest.fixture(params=sorted(SEARCHERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def class_of(name: str) -> Any:
    module, _, attribute = SEARCHERS[name].partition(":")
    return getattr(import_module(module), attribute)


EVERY_KIND = {
    "float": "uniform(-1, 1, grid=2)",
    "float_q": "uniform(0, 1, q=0.25, grid=2)",
    "float_log": "loguniform(1e-6, 1, grid=2)",
    "bell": "normal(0, 1, grid=2)",
    "log_bell": "lognormal(0, 1, grid=2)",
    "whole": "int(-3, 3, grid=2)",
    "whole_log": "logint(1, 100000, grid=2)",
    "kind": "choice(a, [1, 2], none, 3)",
    "flag": "choice(true, false)",
    "size": "ordinal(s, m, l)",
    "inner": "int(1, 3, grid=2, when={flag: true})",
    "deep": "uniform(0, 1, grid=2, when={inner: [1, 3]})",
    "constant": 5,
}


def test_every_kind_of_domain_is_served(name: str) -> None:
    space = SearchSpace.parse(EVERY_KIND)
    searcher = make(name, space, metric="loss", mode="min", seed=1)
    for k in range(25):
        config = searcher.suggest(f"{k:04d}")
        assert config is not None
        assert space.contains(config)
        loss = abs(config["float"]) + (config["size"] != "m") + config["float_log"]
        searcher.observe(f"{k:04d}", config, float(loss), fidelity=None, status="completed")


def test_many_may_be_pending_at_once(name: str) -> None:
    searcher, waiting = new(name), []
    for k in range(30):
        waiting.append((f"{k:04d}", searcher.suggest(f"{k:04d}")))
        assert SPACE.contains(waiting[-1][1])
        if len(waiting) == 8:
            trial_id, config = waiting.pop(k % 3)  # out of order
            searcher.observe(trial_id, config, loss_of(config), fidelity=1.0, status="completed")


def test_a_journal_replayed_in_order_gives_the_same_searcher(name: str) -> None:
    """Through JSON, as the journal keeps it: suggestions with their state, and observations, failures among them."""

    def go(searcher: Any, numbers: range) -> Iterator[list[Any]]:
        for k in numbers:
            config = searcher.suggest(f"{k:04d}")
            yield ["suggested", f"{k:04d}", config, searcher.state_of(f"{k:04d}")]
            if k % 5 != 4:  # else it stays pending
                failed = k % 7 == 6
                loss, status = (None, "failed") if failed else (loss_of(config), "completed")
                searcher.observe(f"{k:04d}", config, loss, fidelity=1.0, status=status)
                yield ["observed", f"{k:04d}", config, loss, status]

    whole = new(name, seed=2)
    first = list(go(whole, range(22)))
    expected = list(go(whole, range(22, 34)))
    again = new(name, seed=2)
    for event, *fields in json.loads(json.dumps(first)):
        if event == "suggested":
            again.replay(*fields)
        else:
            trial_id, config, loss, status = fields
            again.observe(trial_id, config, loss, fidelity=1.0, status=status)
    assert list(go(again, range(22, 34))) == expected


def test_max_is_min_with_the_sign_turned(name: str) -> None:
    """Through Ray's own methods, where the sign is turned once."""

    def suggestions(mode: str) -> list[dict[str, Any]]:
        searcher = make(name, SPACE, metric="score", mode=mode, seed=3)
        configs = []
        for k in range(20):
            config = searcher.suggest(f"{k:04d}")
            assert config is not None
            configs.append(config)
            score = loss_of(config) * (1 if mode == "min" else -1)
            searcher.on_trial_complete(f"{k:04d}", {"score": score, "training_iteration": 1})
        return configs

    assert suggestions("min") == suggestions("max")


def test_a_finite_space_is_exhausted_cleanly(name: str) -> None:
    """It ends with Ray's word for that, or goes on with configurations of the space; it never fails."""
    space = SearchSpace.parse({"a": "choice(x, y)", "b": "int(1, 3)"})
    searcher = make(name, space, metric="loss", mode="min", seed=0)
    for k in range(20):
        config = searcher.suggest(f"{k:04d}")
        if config == Searcher.FINISHED:
            assert k >= 6
            break
        assert config is not None
        assert space.contains(config)
        searcher.observe(f"{k:04d}", config, float(config["b"]), fidelity=None, status="completed")


def test_suggestions_lie_in_the_space_and_carry_its_constants(name: str) -> None:
    for config in drive(new(name), 30):
        assert SPACE.contains(config)
        assert config["epochs"] == 5


def test_the_same_seed_suggests_the_same(name: str) -> None:
    assert drive(new(name, seed=3), 25) == drive(new(name, seed=3), 25)


def test_another_seed_suggests_something_else(name: str) -> None:
    if name == "grid":
        pytest.skip("a grid has no randomness")
    assert drive(new(name, seed=3), 5) != drive(new(name, seed=4), 5)


def test_global_randomness_is_neither_used_nor_touched(name: str) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = drive(new(name), 15)
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    assert drive(new(name), 15) == first


def test_a_saved_searcher_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    whole = new(name, seed=5)
    expected = drive(whole, 30)
    first = new(name, seed=5)
    drive(first, 18)
    first.save(str(tmp_path / "state"))
    second = new(name, seed=5)
    second.restore(str(tmp_path / "state"))
    assert drive(second, 12, start=18) == expected[18:]


def test_failures_nan_and_unfinished_trials_do_no_harm(name: str) -> None:
    searcher = new(name)
    for k in range(30):
        config = searcher.suggest(f"{k:04d}")
        assert SPACE.contains(config)
        if k % 3 == 0:
            searcher.observe(f"{k:04d}", config, None, fidelity=None, status="failed")
        elif k % 3 == 1:
            searcher.observe(f"{k:04d}", config, float("nan"), fidelity=1.0, status="failed")
        # else: never heard of again


def test_given_points_come_first(name: str) -> None:
    points = SPACE.decode(np.zeros((1, len(SPACE.dims))))
    searcher = class_of(name)(SPACE, metric="loss", mode="min", points_to_evaluate=points)
    assert searcher.suggest("0000") == points[0]


def test_a_point_outside_the_space_is_refused(name: str) -> None:
    point = {**SPACE.sample(np.random.default_rng(0)), "lr": 7.0}
    with pytest.raises(InvalidInput, match="lr"):
        class_of(name)(SPACE, metric="loss", mode="min", points_to_evaluate=[point])


@pytest.mark.usefixtures("ray_here")
def test_it_serves_a_plain_tuner_with_rays_own_space(name: str, tmp_path: Path) -> None:
    from ray import tune

    def objective(config: dict[str, Any]) -> None:
        tune.report({"score": -((config["x"] - 2) ** 2)})

    searcher = class_of(name)()
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"x": tune.randint(0, 5)},
        tune_config=tune.TuneConfig(
            metric="score", mode="max", search_alg=searcher, num_samples=5, reuse_actors=True, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert len(results) == 5
    assert not results.errors
    assert {result.config["x"] for result in results} <= {0, 1, 2, 3, 4}


def test_a_grid_ends_and_holds_every_combination_once() -> None:
    searcher = new("grid")
    seen = []
    while (config := searcher.suggest(str(len(seen)))) != Searcher.FINISHED:
        seen.append(tuple(sorted(config.items())))
    assert len(set(seen)) == len(seen) == 3 * (2 + 1 + 2) * (1 + 8 + 8 * 3)


def test_tpe_beats_random_search_on_a_mostly_continuous_space() -> None:
    space = SearchSpace.parse(
        {
            "lr": "loguniform(1e-4, 1e-1)",
            "momentum": "uniform(0.0, 0.99, when={optimizer: [sgd, rmsprop]})",
            "optimizer": "choice(sgd, adam, rmsprop)",
            "dropout": "uniform(0, 1)",
        }
    )

    def loss(config: dict[str, Any]) -> float:
        distance = abs(np.log10(config["lr"]) + 2.5) + abs(config.get("momentum", 0.0) - 0.9)
        return float(distance + abs(config["dropout"] - 0.2) + (config["optimizer"] != "sgd") * 0.3)

    def best(name: str, seed: int) -> float:
        searcher = make(name, space, metric="loss", mode="min", seed=seed)
        losses = []
        for k in range(60):
            config = searcher.suggest(f"{k:04d}")
            losses.append(loss(config))
            searcher.observe(f"{k:04d}", config, losses[-1], fidelity=None, status="completed")
        return min(losses)

    seeds = range(8)
    assert np.mean([best("hyperopt", s) for s in seeds]) < 0.75 * np.mean([best("random", s) for s in seeds])
