"""Ray's nested `param_space`: taken apart on the way in, put together on the way out, whatever the searcher."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from hpo_ray.errors import InvalidInput
from hpo_ray.searchers import SEARCHERS
from hpo_ray.searchers.grid import GridSearcher
from hpo_ray.searchers.nested import Nesting, flatten, nest
from hpo_ray.searchers.random import RandomSearcher
from hpo_ray.space import choice, uniform

KEYS = st.one_of(st.sampled_from(["a", "b", "a.b", "a/b", "grid_search", "", "."]), st.text(max_size=3), st.integers())
LEAVES = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
TREES = st.recursive(LEAVES, lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=12)


def nested_space() -> dict[str, Any]:
    """Levels only where a grid must serve it too."""
    return {
        "model": {
            "layers": tune.randint(1, 4),
            "act": tune.choice(["relu", "tanh"]),
            "width": 64,
            "head": {"bias": tune.choice([True, False]), "bounds": (0, math.inf), "hooks": [{"name": "clip"}]},
            "extras": {},
        },
        "a.b": tune.choice([1, 2]),
        "labels": {0: "cat", 1: "dog"},
        "limit": math.inf,
        "const": 3,
    }


def assert_has_the_shape(config: dict[str, Any]) -> None:
    space = nested_space()
    found, expected = flatten(config), flatten(space)
    assert list(found) == list(expected)
    for path, value in expected.items():
        if not isinstance(value, tune.search.sample.Domain):
            assert found[path] == value
            assert type(found[path]) is type(value)
    assert config["model"]["layers"] in (1, 2, 3)
    assert config["model"]["act"] in ("relu", "tanh")


def new(name: str, *args: Any, **options: Any) -> Any:
    module, _, attribute = SEARCHERS[name].partition(":")
    return getattr(import_module(module), attribute)(*args, **options)


def drive(searcher: Any, trials: int, start: int = 0) -> list[dict[str, Any]]:
    """As Ray does it."""
    configs = []
    for k in range(start, start + trials):
        configs.append(searcher.suggest(f"{k:04d}"))
        searcher.on_trial_complete(f"{k:04d}", {"loss": configs[-1]["model"]["layers"], "training_iteration": 1})
    return configs


@pytest.fixture(params=sorted(SEARCHERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@settings(deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_there_and_back(tree: dict[Any, Any]) -> None:
    assert nest(flatten(tree)) == tree


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), TREES, max_size=4))
def test_a_configuration_comes_back_in_the_shape_of_its_space(tree: dict[Any, Any]) -> None:
    try:
        nesting = Nesting(tree)
    except InvalidInput as error:
        assert "two parameters have this name" in str(error)
        return
    assert nesting.nested(nesting.entries) == tree
    assert nesting.flat(tree) == nesting.entries
    assert nesting.flat(nesting.entries) == nesting.entries


def test_suggestions_have_the_shape_and_all_constants(name: str) -> None:
    searcher = new(name)
    assert searcher.set_search_properties("loss", "min", nested_space())
    for config in drive(searcher, 12):
        assert_has_the_shape(config)


def test_subclasses_see_flat_configurations() -> None:
    told: list[Any] = []

    class Watcher(RandomSearcher):
        def _tell(self, trial_id: str, config: dict[str, Any], *rest: Any) -> None:
            told.append(config)

    searcher = Watcher(nested_space(), metric="loss", mode="min")
    config = searcher.suggest("0")
    searcher.observe("0", config, 1.0, fidelity=None, status="completed")
    searcher.on_trial_complete("0", {"loss": 1.0})
    searcher.add_evaluated_point(config, 1.0)
    assert len(told) == 4
    assert all(one == told[0] for one in told)
    assert {"model.layers", "model.act", "model.head.bias", "model.width", "a.b", "labels.0"} <= told[0].keys()
    assert searcher.space is not None
    assert searcher.space.contains(told[0])
    assert searcher.space.names == ("model.layers", "model.act", "model.head.bias", "a.b")


def test_every_domain_of_rays_may_stand_below() -> None:
    space = {
        "uniform": tune.uniform(-1, 2),
        "quniform": tune.quniform(0.2, 0.8, 0.2),
        "loguniform": tune.loguniform(1e-4, 1e-1),
        "qloguniform": tune.qloguniform(0.1, 1, 0.1),
        "randint": tune.randint(0, 10),
        "qrandint": tune.qrandint(3, 12, 3),
        "lograndint": tune.lograndint(1, 100),
        "qlograndint": tune.qlograndint(2, 20, 2),
        "choice": tune.choice(["a", 1, None, [1, 2]]),
        "randn": tune.randn(1, 2),
        "qrandn": tune.qrandn(0, 1, 0.5),
    }
    for name in ("random", "hyperopt"):
        searcher = new(name, {"deep": {"er": space}}, metric="loss", mode="min")
        for k in range(14):
            config = searcher.suggest(str(k))
            assert list(config) == ["deep"]
            assert list(config["deep"]) == ["er"]
            assert list(config["deep"]["er"]) == list(space)
            for key, value in config["deep"]["er"].items():
                assert key in ("randn", "qrandn") or space[key].is_valid(value), key
            searcher.on_trial_complete(str(k), {"loss": config["deep"]["er"]["uniform"]})


def test_given_points_may_be_nested_or_flat(name: str) -> None:
    nested = {"model": {"layers": 2, "act": "tanh", "head": {"bias": False}}, "a.b": 2}
    flat = {"model.layers": 3, "model.act": "relu", "model.head.bias": True, "a.b": 1}
    searcher = new(name, points_to_evaluate=[nested, flat])
    searcher.set_search_properties("loss", "min", nested_space())
    first, second = drive(searcher, 2)
    assert (first["model"]["layers"], first["model"]["act"], first["a.b"]) == (2, "tanh", 2)
    assert (second["model"]["layers"], second["model"]["act"], second["a.b"]) == (3, "relu", 1)
    assert first["model"]["head"] == {"bias": False, "bounds": (0, math.inf), "hooks": [{"name": "clip"}]}
    assert first["model"]["extras"] == {}
    assert (first["const"], first["limit"], first["labels"]) == (3, math.inf, {0: "cat", 1: "dog"})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": {"layers": 7, "act": "relu", "head": {"bias": True}}}, "model.layers"),
        ({"model": {"layers": 1, "head": {"bias": True}}}, "model.act"),
        ({"model": {"layers": 1, "act": "relu", "head": {"bias": True, "depth": 3}}}, "model.head.depth"),
        ({"const": 4}, "const"),
        ({"limit": 4}, "limit"),
    ],
)
def test_a_point_outside_is_refused_under_its_own_name(change: dict[str, Any], key: str) -> None:
    point = {"model": {"layers": 1, "act": "relu", "head": {"bias": True}}, "a.b": 1}
    assert RandomSearcher(nested_space(), points_to_evaluate=[point]).suggest("0") is not None
    with pytest.raises(InvalidInput) as caught:
        RandomSearcher(nested_space(), points_to_evaluate=[{**point, **change}])
    assert [problem.key for problem in caught.value.problems] == [key]


def test_a_saved_searcher_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    options = {"metric": "loss", "mode": "min", "seed": 5}
    point = {"model": {"layers": 2, "act": "tanh", "head": {"bias": False}}, "a.b": 2}
    first, second = (new(name, nested_space(), points_to_evaluate=[point], **options) for _ in range(2))
    expected = drive(new(name, nested_space(), points_to_evaluate=[point], **options), 20)
    drive(first, 14)
    first.observe("elsewhere", expected[3], 1.0, fidelity=None, status="completed")
    first.save(str(tmp_path / "state"))
    second.restore(str(tmp_path / "state"))
    assert drive(second, 6, start=14) == drive(first, 6, start=14)


def test_a_grid_search_is_refused_by_who_samples(name: str) -> None:
    space = {
        "lr": tune.grid_search([1, 2]),
        "model": {"act": tune.grid_search(["relu", "tanh"]), "sizes": [tune.grid_search([1])]},
    }
    searcher = new(name)
    with pytest.raises(InvalidInput) as caught:
        searcher.set_search_properties("loss", "min", space)
    problems = {problem.key: problem.message for problem in reversed(caught.value.problems)}
    if name == "grid":
        assert list(problems) == ["space.model.sizes"]  # a grid in a list is nothing that a space can hold
        return
    assert problems.keys() == {"space.lr", "space.model.act", "space.model.sizes"}
    assert problems["space.model.act"] == (
        f"tune.grid_search is given, but {type(searcher).__name__} samples: use tune.choice(['relu', 'tanh']), "
        "or leave search_alg out so that Tune runs the grid"
    )


def test_the_grid_searcher_takes_a_grid_search() -> None:
    searcher = GridSearcher({"model": {"act": tune.grid_search(["relu", "tanh"])}, "n": tune.grid_search([1, 2])})
    configs = [searcher.suggest(str(k)) for k in range(4)]
    assert configs == [{"model": {"act": act}, "n": n} for act in ("relu", "tanh") for n in (1, 2)]
    assert searcher.suggest("4") == searcher.FINISHED


def test_mistakes_are_named_by_path() -> None:
    with pytest.raises(InvalidInput) as caught:
        RandomSearcher({"model": {"f": tune.sample_from(lambda: 3), "x": tune.choice([object()])}})
    assert [problem.key for problem in caught.value.problems] == ["space.model.f", "space.model.x"]
    with pytest.raises(InvalidInput, match=r"space\.a\.b: two parameters have this name"):
        RandomSearcher({"a": {"b": tune.uniform(0, 1)}, "a.b": tune.uniform(0, 1)})
    with pytest.raises(InvalidInput, match=r"space\.sizes: a value is <Integer>"):
        RandomSearcher({"sizes": [tune.randint(1, 3), 4]})


def test_our_text_and_objects_nest_as_well() -> None:
    searcher = RandomSearcher({"model": {"layers": "int(1, 3)", "act": "relu"}, "lr": "loguniform(1e-4, 1e-1)"})
    config = searcher.suggest("0")
    assert config is not None
    assert config["model"]["layers"] in (1, 2, 3)
    assert config["model"]["act"] == "relu"
    with pytest.raises(InvalidInput, match=r"space\.model\.act: a list does not say how to search it"):
        RandomSearcher({"model": {"act": ["relu", "tanh"]}})


def test_a_dictionary_stays_where_nothing_in_it_is_active() -> None:
    space = {
        "optimizer": choice("sgd", "adam"),
        "sgd": {"momentum": uniform(0, 1, when={"optimizer": "sgd"})},
        "lr": tune.uniform(0, 1),
    }
    searcher = new("hyperopt", space, metric="loss", mode="min")
    seen = set()
    for k in range(12):
        config = searcher.suggest(str(k))
        assert config.keys() == space.keys()
        assert ("momentum" in config["sgd"]) == (config["optimizer"] == "sgd")
        seen.add(config["optimizer"])
        searcher.observe(str(k), config, config["lr"], fidelity=None, status="completed")
    assert seen == {"sgd", "adam"}


def test_a_suggestion_belongs_to_who_got_it() -> None:
    searcher = RandomSearcher(nested_space())
    one = searcher.suggest("0")
    assert one is not None
    one["model"]["head"]["hooks"].append("mine")
    one["model"]["extras"]["mine"] = 1
    two = searcher.suggest("1")
    assert two is not None
    assert_has_the_shape(two)


def test_constants_of_the_tuner_go_beside_a_space_of_ones_own() -> None:
    searcher = RandomSearcher({"model": {"layers": tune.randint(1, 4)}})
    assert not searcher.set_search_properties("loss", "max", {"model": {"width": 64}})  # Ray goes on, and merges
    assert (searcher.metric, searcher.mode) == ("loss", "max")


@pytest.mark.usefixtures("ray_here")
def test_a_tuner_runs_a_nested_space(tmp_path: Path) -> None:
    data = np.arange(3)  # Tune shows the searcher a placeholder for it

    def objective(config: dict[str, Any]) -> None:
        assert config["model"]["data"].tolist() == [0, 1, 2]
        assert config["model"]["shape"] == (2, 2)
        assert (config["model"]["width"], config["model"]["extras"], config["const"]) == (64, {}, 3)
        tune.report({"score": config["model"]["layers"] + (config["model"]["act"] == "relu") + 0 * config["lr"]})

    searcher = RandomSearcher()
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={
            "lr": tune.loguniform(1e-4, 1e-1),
            "model": {
                "layers": tune.randint(1, 4),
                "act": tune.choice(["relu", "tanh"]),
                "width": 64,
                "data": data,
                "shape": (2, 2),
                "extras": {},
            },
            "const": 3,
        },
        tune_config=tune.TuneConfig(
            metric="score", mode="max", search_alg=searcher, num_samples=3, reuse_actors=True, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert len(results) == 3
    assert not results.errors
    for result in results:
        assert result.config is not None
        assert result.config["model"]["layers"] in (1, 2, 3)
        assert result.config["model"]["act"] in ("relu", "tanh")
        assert 1e-4 <= result.config["lr"] <= 1e-1


@pytest.mark.usefixtures("ray_here")
def test_a_tuner_passes_the_refusal_of_a_grid_on(tmp_path: Path) -> None:
    tuner = tune.Tuner(
        lambda config: None,
        param_space={"model": {"act": tune.grid_search(["relu", "tanh"])}},
        tune_config=tune.TuneConfig(metric="score", mode="max", search_alg=RandomSearcher()),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    with pytest.raises(InvalidInput, match=r"space\.model\.act: tune\.grid_search is given, but RandomSearcher"):
        tuner.fit()
