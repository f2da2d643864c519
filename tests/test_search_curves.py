"""The benchmark on learning-curve tables: it runs, answers as it says, and says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import search_curves  # noqa: E402

CONFIGS = [search_curves.SPACE.sample(np.random.default_rng(seed)) for seed in range(40)]
LOSSES = np.array([config["momentum"] for config in CONFIGS])


def run(*arguments: str, data: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != search_curves.VARIABLE} | {"OMP_NUM_THREADS": "1"}
    environment |= {search_curves.VARIABLE: data} if data else {}
    command = [sys.executable, str(ROOT / "benchmarks" / "search_curves.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_it_runs_on_the_tables(tmp_path: Path) -> None:
    data = os.environ.get(search_curves.VARIABLE)
    if not data or not (Path(data) / "lcbench-surrogate").is_dir():
        pytest.skip(f"{search_curves.VARIABLE} names no folder with lcbench-surrogate/")
    out = tmp_path / "made" / "curves.csv"
    # The model of GP-EI begins after twelve trials.
    options = ["--tasks", "7593", "--seeds", "2", "--trials", "14", "--metric", "val_cross_entropy", "--out", str(out)]
    done = run(*options, data=data)
    assert done.returncode == 0, done.stderr
    assert "gp_ei@14" in done.stdout
    table = pd.read_csv(out)
    assert set(table["peer"]) == {"gp_ei@14", "random@14", "random@42"}
    assert len(table) == 2 * 2 * 3
    assert (table["regret"] >= 0).all()
    best = table.set_index(["evaluation", "seed", "peer"])["best"].unstack()
    assert (best["random@42"] <= best["random@14"]).all()
    assert run("--tasks", "1", data=data).returncode == 2


def test_absent_data_is_named_and_exits_with_2(tmp_path: Path) -> None:
    nowhere, empty = run(), run(data=str(tmp_path))
    assert (nowhere.returncode, empty.returncode) == (2, 2)
    assert "set HPO_RAY_TEST_DATA or --data to the folder that holds lcbench-surrogate/" in nowhere.stderr
    assert f"{tmp_path / 'lcbench-surrogate'} lacks configs.parquet and curves.parquet" in empty.stderr
    assert "Traceback" not in nowhere.stderr + empty.stderr


def test_each_search_is_given_the_nearest_row_that_it_has_not_used() -> None:
    answer = search_curves.nearest(CONFIGS, LOSSES, searches=2)
    assert answer([CONFIGS[3], CONFIGS[5]])[0] == [CONFIGS[3], CONFIGS[5]]
    points, _ = search_curves.SPACE.encode(CONFIGS)
    second = int(np.argsort(np.linalg.norm(points - points[3], axis=1))[1])
    configs, losses = answer([CONFIGS[3], CONFIGS[3]])
    assert configs == [CONFIGS[second], CONFIGS[3]]
    assert losses.tolist() == [LOSSES[second], LOSSES[3]]


@pytest.mark.parametrize("name", ["gp_ei", "hyperopt", "random"])
def test_a_table_is_used_up_row_by_row_and_searches_do_not_mix(name: str) -> None:
    best = search_curves.search(
        name, "task", 2, 20, search_curves.nearest(CONFIGS[:20], LOSSES[:20], searches=2), moved=True
    )
    assert best[:, -1].tolist() == [LOSSES[:20].min()] * 2
    alone = search_curves.search(
        name, "task", 1, 20, search_curves.nearest(CONFIGS[:20], LOSSES[:20], searches=1), moved=True
    )
    assert alone[0].tolist() == best[0].tolist()


def test_a_replayed_row_is_all_that_the_searcher_knows() -> None:
    """Answers at the proposals themselves must give the same search whether they are replayed or observed."""

    def answer(proposals: list[search_curves.Config]) -> tuple[list[search_curves.Config], np.ndarray]:
        return proposals, np.array([(config["momentum"] - 0.4) ** 2 for config in proposals])

    plain, replayed = (search_curves.search("gp_ei", "task", 2, 16, answer, moved=moved) for moved in (False, True))
    assert plain.tolist() == replayed.tolist()


def test_the_trees_answer_as_the_forest_does() -> None:
    proposals = [search_curves.SPACE.sample(np.random.default_rng(seed)) for seed in range(100, 110)]
    configs, losses = search_curves.fitted(CONFIGS, LOSSES)(proposals)
    forest = search_curves.ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0)
    forest.fit(search_curves.SPACE.encode(CONFIGS)[0], LOSSES)
    assert configs == proposals
    assert losses == pytest.approx(forest.predict(search_curves.SPACE.encode(proposals)[0]), abs=1e-12)
