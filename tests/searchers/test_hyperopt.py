"""What TPE makes of trials that were stopped early: the order in which hyperopt is told of them, and its benchmark."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hyperopt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_ray.searchers import HyperoptSearcher
from hpo_ray.searchers import hyperopt as searchers_hyperopt
from hpo_ray.space import SearchSpace

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import search_stopped  # noqa: E402

SPACE = SearchSpace.parse({"x": "uniform(0, 1)", "lr": "loguniform(1e-4, 1)", "kind": "choice(a, b, c)"})
TRIALS = 14  # the first ten suggestions are random

Fact = tuple[str, float | None, float | None, str]  # whose, loss, fidelity, status


def begun(searcher_class: type[HyperoptSearcher] = HyperoptSearcher, seed: int = 0) -> HyperoptSearcher:
    """A searcher that has suggested trials "0" to "13" and knows nothing of them."""
    searcher = searcher_class(SPACE, metric="loss", mode="min", seed=seed)
    for k in range(TRIALS):
        searcher.suggest(str(k))
    return searcher


def tell(searcher: HyperoptSearcher, *facts: Fact) -> HyperoptSearcher:
    for trial_id, loss, fidelity, status in facts:
        searcher.observe(trial_id, searcher._configs[trial_id], loss, fidelity=fidelity, status=status)
    return searcher


def told(searcher: HyperoptSearcher) -> list[tuple[str, float]]:
    """Trial and loss as hyperopt is told them, where it is told one, at the next suggestion."""
    copy.deepcopy(searcher).suggest("next")
    again = copy.deepcopy(searcher)
    again.suggest("next")
    results = {trial_id: document["result"] for trial_id, document in again._documents.items()}
    return [(trial_id, result["loss"]) for trial_id, result in results.items() if "loss" in result]


def best_first(searcher: HyperoptSearcher) -> list[str]:
    return [trial_id for trial_id, _ in sorted(told(searcher), key=lambda pair: pair[1])]


def suggestions(searcher: HyperoptSearcher, n: int = 4) -> list[Any]:
    return [searcher.suggest(f"next {k}") for k in range(n)]


# The order


def test_a_stopped_trial_never_stands_before_one_that_went_further() -> None:
    searcher = tell(
        begun(),
        ("0", 1e-9, 1, "stopped"),
        ("1", 0.9, 27, "completed"),
        ("2", 0.5, 3, "stopped"),
        ("3", 0.4, 3, "running"),
        ("4", 0.8, 27, "completed"),
        ("5", 0.1, 1, "stopped"),
        ("6", 0.7, 9, "running"),
    )
    assert best_first(searcher) == ["4", "1", "6", "3", "2", "0", "5"]


def test_a_trial_climbs_as_it_trains_even_where_its_loss_rises() -> None:
    searcher = tell(begun(), ("0", 0.5, 3, "stopped"), ("1", 0.4, 3, "stopped"), ("2", 0.1, 1, "running"))
    assert best_first(searcher) == ["1", "0", "2"]
    assert best_first(tell(searcher, ("2", 0.45, 3, "running"))) == ["1", "2", "0"]
    assert best_first(tell(searcher, ("2", 0.9, 4, "running"))) == ["2", "1", "0"]


def test_a_retry_that_reports_less_training_again_takes_nothing_back() -> None:
    searcher = tell(begun(), ("0", 0.5, 9, "running"), ("1", 0.4, 3, "stopped"), ("2", 0.6, 9, "stopped"))
    before = told(searcher)
    assert told(tell(searcher, ("0", 2.0, 1, "running"), ("0", 1.5, 3, "running"))) == before
    assert best_first(tell(searcher, ("0", 0.7, 9, "running"))) == ["2", "0", "1"]  # at the same fidelity the latest


def test_a_failure_takes_all_back_and_a_retry_starts_anew() -> None:
    searcher = tell(begun(), ("0", 0.1, 9, "running"), ("1", 0.5, 3, "stopped"), ("0", None, None, "failed"))
    assert best_first(searcher) == ["1"]
    assert copy.deepcopy(searcher)._documents["0"]["result"] == {"status": hyperopt.STATUS_FAIL}
    assert best_first(tell(searcher, ("0", 0.1, 1, "running"))) == ["1", "0"]


def test_a_trial_that_ends_by_itself_is_compared_with_those_that_trained_the_longest() -> None:
    searcher = tell(begun(), ("0", 0.3, 12, "completed"), ("1", 0.2, 27, "completed"), ("2", 0.4, 27, "completed"))
    assert best_first(searcher) == ["1", "0", "2"]
    assert best_first(tell(searcher, ("3", 0.35, None, "completed"))) == ["1", "0", "3", "2"]


def test_a_completed_trial_of_an_earlier_shorter_run_counts_by_its_fidelity() -> None:
    searcher = tell(begun(), ("0", 0.5, 27, "completed"), ("1", 0.6, 9, "stopped"))
    searcher.observe("old/0", SPACE.sample(np.random.default_rng(0)), 0.1, fidelity=2, status="completed")
    searcher.observe("old/1", SPACE.sample(np.random.default_rng(1)), 0.4, fidelity=27, status="completed")
    assert best_first(searcher) == ["old/1", "0", "1", "old/0"]


facts = st.lists(
    st.tuples(
        st.integers(0, TRIALS - 1).map(str),
        st.sampled_from([0.1, 0.2, 0.3]),
        st.sampled_from([1, 3, 9, None]),
        st.sampled_from(["running", "stopped", "completed"]),
    ),
    max_size=20,
    unique_by=lambda fact: fact[0],
)


@given(facts, st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_in_which_trials_are_heard_of_does_not_matter(known: list[Fact], random: Any) -> None:
    shuffled = random.sample(known, len(known))
    one, two = tell(begun(), *known), tell(begun(), *shuffled)
    assert told(one) == told(two)
    assert suggestions(one, 2) == suggestions(two, 2)


def test_a_trial_has_one_document_however_often_it_is_heard_of() -> None:
    searcher = begun()
    for epoch in range(1, 10):
        tell(searcher, *((str(k), 1 / epoch, epoch, "running") for k in range(TRIALS)))
        tell(searcher, ("0", None, None, "failed"))
    suggestions(searcher, 2)
    assert [document["tid"] for document in searcher._documents.values()] == list(range(TRIALS + 2))


def test_of_many_trials_hyperopt_is_told_the_best_and_an_even_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchers_hyperopt, "MOST_TOLD", 60)
    searcher = HyperoptSearcher(SPACE, metric="loss", mode="min", seed=0)
    rng, n = np.random.default_rng(0), 300
    losses = np.round(rng.random(n - 20), 2)  # with ties; the last ones are still awaited
    for k in range(n):
        searcher.observe(str(k), SPACE.sample(rng), None, fidelity=None, status="running")
        if k < len(losses):
            searcher.observe(str(k), searcher._calls[-1][2], losses[k], fidelity=9, status="completed")
    trials, gamma = searcher._told()
    assert len(trials.tids) == 60
    assert trials.tids == sorted(trials.tids)
    best = math.ceil(0.25 * math.sqrt(n))
    known = {tid: loss for tid, loss in zip(trials.tids, trials.losses(), strict=True) if loss is not None}
    first = sorted(range(len(losses)), key=lambda k: (losses[k], k))[:best]
    assert set(first) <= known.keys()
    assert max(known[k] for k in first) <= min(place for k, place in known.items() if k not in first)
    assert math.ceil(gamma * math.sqrt(60)) == best
    rest = np.diff([tid for tid in trials.tids if tid not in first])
    assert rest.max() <= math.ceil((n - best) / (60 - best)) + best
    assert rest.mean() == pytest.approx(n / 55, rel=0.1)
    ranked = sorted(known, key=lambda tid: known[tid])
    assert [losses[tid] for tid in ranked] == sorted(losses[tid] for tid in ranked)
    assert suggestions(copy.deepcopy(searcher)) == suggestions(searcher)


# The suggestions


class Plain(HyperoptSearcher):
    """Tells hyperopt the last losses themselves."""

    def _rank(self, order: Any, names: Any) -> None:
        for trial_id, (*_, loss) in self._reached.items():
            self._documents[trial_id]["result"] = {"status": hyperopt.STATUS_OK, "loss": loss}


@pytest.mark.parametrize("fidelity", [None, 4.0])
def test_where_all_train_alike_it_is_plain_tpe(fidelity: float | None) -> None:
    def search(searcher_class: type[HyperoptSearcher], seed: int) -> list[Any]:
        searcher, configs = searcher_class(SPACE, metric="loss", mode="min", seed=seed), []
        for k in range(40):
            configs.append(searcher.suggest(str(k)))
            if k % 7 == 6:
                tell(searcher, (str(k), None, None, "failed"))
            elif k % 5 != 4:  # else it stays pending
                loss = round((configs[-1]["x"] - 0.3) ** 2, 2)  # with ties
                tell(searcher, (str(k), loss, fidelity, "completed"))
        return configs

    for seed in range(3):
        assert search(HyperoptSearcher, seed) == search(Plain, seed)


def test_low_losses_of_little_training_do_not_draw_the_search() -> None:
    """Early on large x looks best, at the end small x is: suggestions must go where the fully trained were good."""

    def near(searcher_class: type[HyperoptSearcher]) -> float:
        xs = []
        for seed in range(5):
            searcher = searcher_class(SPACE, metric="loss", mode="min", seed=seed)
            for k in range(40):
                x = searcher.suggest(str(k))["x"]
                early, late = 0.1 * (1 - x), 0.5 + x
                known = (str(k), early, 1, "stopped") if k % 4 else (str(k), late, 27, "completed")
                tell(searcher, known)
                xs += [x] if k >= 20 else []
        return float(np.mean(xs))

    assert near(HyperoptSearcher) < 0.35
    assert near(search_stopped.Last) > 0.5


def test_a_saved_searcher_goes_on_alike_when_trials_were_stopped(tmp_path: Path) -> None:
    searcher = tell(begun(), *((str(k), 1 / (k + 1), 3 ** (k % 4), "stopped") for k in range(TRIALS)))
    searcher.save(str(tmp_path / "state"))
    again = HyperoptSearcher(SPACE, metric="loss", mode="min", seed=9)
    again.restore(str(tmp_path / "state"))
    assert suggestions(again) == suggestions(searcher)


def test_losses_arrive_where_hyperopt_keeps_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where the package `bson` is installed."""
    known = [(str(k), 1 / (k + 1), 9, "completed") for k in range(TRIALS)]
    expected = suggestions(tell(begun(), *known))
    monkeypatch.setattr(hyperopt.base, "SONify", copy.deepcopy)
    assert suggestions(tell(begun(), *known)) == expected


# Ray's own methods


@pytest.mark.usefixtures("ray_here")
def test_in_a_plain_tuner_only_trials_that_end_by_themselves_are_complete(tmp_path: Path) -> None:
    from ray import tune

    from hpo_ray.schedulers.asha import ASHAScheduler

    def objective(config: dict[str, Any]) -> None:
        for epoch in range(1, 5):
            tune.report({"loss": config["x"] + 1 / epoch})

    searcher = HyperoptSearcher()
    results = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=searcher,
            scheduler=ASHAScheduler(max_t=9, reduction_factor=2),
            num_samples=5,
            reuse_actors=True,
            max_concurrent_trials=1,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    reached = {result.config["x"]: result.metrics["training_iteration"] for result in results}
    assert {1, 4} <= set(reached.values())
    searcher.save(str(tmp_path / "state"))
    calls = json.loads((tmp_path / "state").read_text())["calls"]
    ends = {call[2]["x"]: call[5] for call in calls if call[0] == "observe" and call[5] != "running"}
    assert ends == {x: "completed" if epochs == 4 else "stopped" for x, epochs in reached.items()}


# The benchmark


@pytest.mark.parametrize("peer", ["hyperopt", *search_stopped.VARIANTS])
@pytest.mark.parametrize("name", search_stopped.MADE_UP)
def test_a_sweep_of_the_benchmark_runs(peer: str, name: str) -> None:
    task = search_stopped.made_up(name, 0)
    first, second = (
        search_stopped.sweep(search_stopped.searcher_of(peer, task.space, 1), task, 0, (2, 5)) for _ in range(2)
    )
    assert first == second
    assert [budget for budget, _, _ in first] == [2, 5]
    assert first[0][2] <= first[1][2]


def test_the_benchmark_says_what_it_lacks(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != search_stopped.VARIABLE} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "search_stopped.py"), "--sets", "accuracy"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "accuracy is left out: no lcbench-surrogate/" in done.stdout
    assert "Traceback" not in done.stderr
