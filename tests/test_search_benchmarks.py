"""The search benchmarks: their tasks are what they say, their script runs, resumes and scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from hpo_ray.space import SearchSpace

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import search_peers  # noqa: E402
import search_quality  # noqa: E402
import search_tasks  # noqa: E402

REFERENCES = json.loads(search_quality.REFERENCES.read_text())
FUNCTIONS = [task for task in search_tasks.TASKS if task.best is not None]
named = pytest.mark.parametrize("task", search_tasks.TASKS, ids=lambda task: task.name)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the scripts; small matrices on several threads of a busy machine take seconds each."""
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize("task", FUNCTIONS, ids=lambda task: task.name)
def test_the_stated_optimum_is_attained_and_nothing_is_below(task: search_tasks.Task) -> None:
    assert task.space.contains(task.best)
    assert task.true(task.best) == pytest.approx(task.optimum, abs=1e-9)
    assert REFERENCES[task.name]["optimum"] == task.optimum
    rng = np.random.default_rng(0)
    x, _ = task.space.encode([task.best])
    near = task.space.decode(x + 0.02 * rng.standard_normal((300, x.shape[1])))
    losses = [task.true(config) for config in [*near, *(task.space.sample(rng) for _ in range(300))]]
    assert min(loss for loss in losses if loss is not None) >= task.optimum - 1e-9


def test_one_of_the_few_levels_is_best() -> None:
    [task] = search_tasks.select("few_levels")
    losses = sorted(task.true(config) for config in task.space.grid())
    assert len(losses) == task.space.size == 360
    assert losses[0] == task.optimum < losses[1]


@named
def test_every_task_has_references_and_finite_losses(task: search_tasks.Task) -> None:
    assert SearchSpace.parse(task.space.text()) == task.space
    medians = list(REFERENCES[task.name]["random"].values())
    assert medians == sorted(medians, reverse=True)
    assert medians[-1] > REFERENCES[task.name]["optimum"]
    rng = np.random.default_rng(1)
    losses = [task.true(task.space.sample(rng)) for _ in range(5)]
    assert all(loss is None or np.isfinite(loss) for loss in losses)
    assert (None in [task.true(task.space.sample(rng)) for _ in range(30)]) == (task.kind == "failing")


def test_the_script_writes_its_runs_and_does_not_repeat_them(tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, "benchmarks/search_quality.py", "--tasks", "diverging,few_levels", "--budget", "6"]
        out = ["--peers", "hyperopt,random", "--seeds", "2", "--out", str(tmp_path / "runs.csv")]
        return subprocess.run([*script, *out, *more], cwd=ROOT, capture_output=True, text=True, check=True)

    first = run("--workers", "1,3").stdout
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert (runs.groupby(["peer", "task", "seed", "workers"]).size() == 6).all()
    assert len(runs) == 6 * 2 * 2 * 2 * 2
    assert "score@5" in first
    assert "3 worker(s), paired difference" in first
    run("--workers", "1,3", "--seeds", "3")
    again = pd.read_csv(tmp_path / "runs.csv")
    assert len(again) == 6 * 2 * 2 * 2 * 3
    pd.testing.assert_frame_equal(again.head(len(runs)), runs)  # measured times too


class Fixed:
    """A peer that suggests what it is told to, and notes what it is told."""

    def __init__(self, *configs: dict[str, Any]) -> None:
        self.waiting, self.told = list(configs), []

    def suggest(self) -> tuple[None, dict[str, Any]] | None:
        return (None, self.waiting.pop(0)) if self.waiting else None

    def observe(self, handle: None, config: dict[str, Any], loss: float | None) -> None:
        self.told.append((config, loss))


def test_workers_end_in_the_order_of_the_clock_with_the_same_noise() -> None:
    [task] = search_tasks.select("noisy_plateau")
    configs = [task.space.sample(np.random.default_rng(i)) for i in range(6)]
    alone, together = Fixed(*configs), Fixed(*configs)
    rows = search_quality.search(alone, task, 0, 1, 6)
    search_quality.search(together, task, 0, 6, 6)
    assert [config for config, _ in alone.told] == configs
    assert [config for config, _ in together.told] != configs
    assert sorted(loss for _, loss in alone.told) == sorted(loss for _, loss in together.told)
    assert [row["value"] for row in rows] == [loss for _, loss in alone.told]
    assert [row["true"] for row in rows] == [task.true(config) for config in configs] != [row["value"] for row in rows]


def test_the_optimum_scores_0_a_failure_a_random_draw_and_an_exhausted_space_what_it_found() -> None:
    [task] = search_tasks.select("diverging")
    failing = {"lr": 10.0, "momentum": 0.9, "batch": 32, "clip": "off"}
    frames = []
    for seed, configs in enumerate(([failing] * 4 + [task.best], [failing] * 5, [task.best, task.best])):
        rows = search_quality.search(Fixed(*configs), task, seed, 1, 5)
        frames.append(pd.DataFrame(rows).assign(peer="fixed", task=task.name, seed=seed, workers=1, budget=5))
    scored = search_quality.scores(pd.concat(frames), REFERENCES)
    random = REFERENCES[task.name]["random"]
    draw = (random["1"] - task.optimum) / (random["5"] - task.optimum)
    assert scored["score"].tolist() == pytest.approx([0, draw, 0])
    assert scored["repeated"].tolist() == pytest.approx([0.6, 0.8, 0.5])


def test_paired_differences_find_a_difference_only_where_there_is_one() -> None:
    rows = [
        {"task": task, "seed": seed, "budget": 20, "peer": peer, "score": 1 + task / 10 + shift}
        for task in range(8)
        for seed in range(6)
        for peer, shift in (("ours", 0.0), ("worse", 0.4 + 0.05 * seed), ("same", 0.2 * (-1) ** (task + seed)))
    ]
    table = search_quality.differences(pd.DataFrame(rows), "ours").set_index("peer")
    assert table.loc["worse", "high"] < 0
    assert table.loc["same", "low"] < 0 < table.loc["same", "high"]
    assert table.loc["worse", "ours - peer"] == pytest.approx(-0.525)


def test_optuna_walks_conditional_spaces() -> None:
    pytest.importorskip("optuna")
    for task in search_tasks.select("conditional,mixed,finite,diverging"):
        peer = search_peers.resolve(["optuna_tpe"])["optuna_tpe"](task.space, 0)
        rows = search_quality.search(peer, task, 0, 2, 15)  # which checks that each lies in the space
        assert len(rows) == 15


def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_peers.importlib.util, "find_spec", lambda package: None)
    assert list(search_peers.resolve(["random", "optuna_gp"])) == ["random"]
    assert capsys.readouterr().out == "optuna_gp is left out: not installed: optuna, torch\n"
    with pytest.raises(SystemExit, match="no such peer: rndom"):
        search_peers.resolve(["rndom"])
    with pytest.raises(SystemExit, match="no such task: brannin"):
        search_tasks.select("hartmann6,brannin")
