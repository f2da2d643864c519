"""GP-EI after 25 trials against random search after 75, on LCBench's tables (surrogate values, 52nd and last epoch).

    HPO_RAY_TEST_DATA=shared/data python benchmarks/search_curves.py [--seeds 20] [--trials 25] [--tasks 7593,34539]
        [--searchers gp_ei,random,hyperopt] [--evaluations table,fit] [--metric val_accuracy|val_cross_entropy]

The folder holds `lcbench-surrogate/{configs,curves}.parquet`: 22 tasks of 300 configurations with 7 parameters each.
There are two ways to answer a proposal. `table`: by the nearest row not yet used in this search, which the searcher
takes for what it suggested; no row is used twice. `fit`: by extremely randomised trees fitted to the table, at the
proposal itself. Random search has three times the trials, the same seeds and the same answers. Seeds differ by task.

Regret is best loss - best known: the table's best row; for `fit`, the best of the rows, of 10,000 random configurations
and of all searches. Differences are in units of (random search's median after --trials - best known) on that task.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from search_quality import differences, save
from sklearn.ensemble import ExtraTreesRegressor

from hpo_ray.searchers import SEARCHERS, make
from hpo_ray.space import SearchSpace

# LCBench's ranges; the scales are those on which the table's rows are spread evenly: weight decay's is not a log.
SPACE = SearchSpace.parse(
    {
        "batch_size": "logint(16, 512)",
        "learning_rate": "loguniform(1e-4, 1e-1)",
        "momentum": "uniform(0.1, 0.99)",
        "weight_decay": "uniform(1e-5, 1e-1)",
        "num_layers": "int(1, 5)",
        "max_units": "logint(64, 1024)",
        "max_dropout": "uniform(0, 1)",
    }
)
LOSSES = {"val_accuracy": lambda accuracy: 1 - accuracy / 100, "val_cross_entropy": lambda entropy: entropy}
EVALUATIONS = ("table", "fit")
VARIABLE = "HPO_RAY_TEST_DATA"
FILES = ("configs.parquet", "curves.parquet")

Config = dict[str, Any]
# Proposals, one a search -> the configurations that are evaluated, and their losses.
Answer = Callable[[list[Config]], tuple[list[Config], np.ndarray]]


def load(folder: Path, metric: str) -> dict[str, tuple[list[Config], np.ndarray]]:
    """Task -> its configurations and their losses after the last epoch."""
    configs = pd.read_parquet(folder / FILES[0]).set_index("config_id")
    curves = pd.read_parquet(folder / FILES[1], columns=["openml_task_id", "config_id", "epoch", metric])
    tasks = {}
    for task, rows in curves[curves["epoch"] == curves["epoch"].max()].groupby("openml_task_id", observed=True):
        losses = LOSSES[metric](rows[metric].to_numpy(dtype=float))
        tasks[str(task)] = configs.loc[rows["config_id"], list(SPACE.names)].to_dict("records"), losses
    return tasks


def nearest(configs: list[Config], losses: np.ndarray, searches: int) -> Answer:
    """Answers with the nearest row, in the unit cube, that the search has not used."""
    (points, _), free = SPACE.encode(configs), np.ones((searches, len(configs)), dtype=bool)

    def answer(proposals: list[Config]) -> tuple[list[Config], np.ndarray]:
        distances = ((SPACE.encode(proposals)[0][:, None] - points) ** 2).sum(axis=-1)
        rows = np.where(free, distances, np.inf).argmin(axis=1)
        free[np.arange(searches), rows] = False
        return [configs[row] for row in rows], losses[rows]

    return answer


def fitted(configs: list[Config], losses: np.ndarray) -> Answer:
    """Answers at the proposals themselves, from trees fitted to the rows."""
    forest = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0).fit(SPACE.encode(configs)[0], losses)

    def answer(proposals: list[Config]) -> tuple[list[Config], np.ndarray]:
        # As `forest.predict`, whose checks take ten times as long as a few proposals do.
        points = SPACE.encode(proposals)[0].astype(np.float32)
        return proposals, np.mean([tree.tree_.predict(points)[:, 0] for tree in forest.estimators_], axis=0)

    return answer


def search(name: str, task: str, seeds: int, trials: int, answer: Answer, moved: bool) -> np.ndarray:
    """The lowest loss so far, `seeds x trials`; the searches go side by side. `moved`: answers are for other points."""
    numbers = [int(np.random.default_rng([seed, *task.encode()]).integers(2**31)) for seed in range(seeds)]
    searchers = [make(name, SPACE, metric="loss", mode="min", seed=number) for number in numbers]
    losses = np.empty((seeds, trials))
    for k in range(trials):
        # An answer for another point: a copy is asked, and the searcher replays that point as its own suggestion.
        asked = [copy.deepcopy(each) for each in searchers] if moved and name != "random" else searchers
        configs, losses[:, k] = answer([each.suggest(f"{k:04d}") for each in asked])
        for each, other, config, loss in zip(searchers, asked, configs, losses[:, k], strict=True):
            if each is not other:
                each.replay(f"{k:04d}", config, other.state_of(f"{k:04d}"))
            each.observe(f"{k:04d}", config, float(loss), fidelity=None, status="completed")
    return np.minimum.accumulate(losses, axis=1)


def compare(arguments: argparse.Namespace, evaluation: str, task: str, rows: tuple[list[Config], np.ndarray]) -> Any:
    """One row a searcher, number of trials and seed: best, regret and score."""
    (configs, losses), found, few = rows, {}, arguments.trials
    lowest = losses.min()
    if evaluation == "fit":
        answer, rng = fitted(configs, losses), np.random.default_rng(0)
        lowest = answer([*configs, *(SPACE.sample(rng) for _ in range(10_000))])[1].min()
    for name in arguments.searchers:
        if evaluation == "table":
            answer = nearest(configs, losses, arguments.seeds)
        trials = 3 * few if name == "random" else few
        best = search(name, task, arguments.seeds, trials, answer, moved=evaluation == "table")
        found |= {f"{name}@{trials}": best[:, trials - 1] for trials in sorted({few, trials})}
    known = min(lowest, *(best.min() for best in found.values()))
    unit = np.median(found[f"random@{few}"]) - known
    keys = {"evaluation": evaluation, "metric": arguments.metric, "task": task}
    frames = [pd.DataFrame({**keys, "seed": range(arguments.seeds), "peer": x, "best": found[x]}) for x in found]
    table = pd.concat(frames, ignore_index=True).assign(known=known, regret=lambda rows: rows["best"] - known)
    # Where half of the random searches find the best known, there is no unit: the task is left out of the scores.
    return table.assign(score=table["regret"] / unit if unit > 0 else np.nan)


def show(table: pd.DataFrame, ours: str, rival: str) -> None:
    peers = list(table["peer"].unique())
    each = table.pivot_table(index="task", columns="peer", values="regret")[peers]
    pairs = table.pivot(index=["task", "seed"], columns="peer", values="best")
    wins = pairs.ge(pairs[ours], axis=0)  # ours at least as good as a peer
    each["share"] = wins[rival].groupby("task").mean()
    each.loc["mean"] = each.mean()
    print(f"mean regret of each task; share: of the pairs, those with {ours} at least as good as {rival}")
    print(each.to_string(float_format="%.4f"))
    against = differences(table.assign(budget=0), ours).drop(columns="budget").set_index("peer")
    against["at least as good"] = wins.mean()
    against["equal"] = pairs.eq(pairs[ours], axis=0).mean()
    against["tasks"] = each.drop(index="mean")[peers].ge(each.drop(index="mean")[ours], axis=0).sum()
    print(f"\npaired difference with its 95 % interval, below 0: {ours} is better; shares of the pairs; and the number")
    print(f"of {len(each) - 1} tasks whose mean regret is at least as low")
    print(against.reindex([peer for peer in peers if peer != ours]).to_string(float_format="%.3f"))


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get(VARIABLE) or None, help=f"default: {VARIABLE}")
    parser.add_argument("--metric", choices=list(LOSSES), default="val_accuracy")
    parser.add_argument("--evaluations", type=words, default=list(EVALUATIONS))
    parser.add_argument("--searchers", type=words, default=["gp_ei", "random"], help="ours first")
    parser.add_argument("--tasks", type=words, help="OpenML's numbers, with commas; default: all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=25, help="random search has three times as many")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_curves.csv"))
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error(f"no data: set {VARIABLE} or --data to the folder that holds lcbench-surrogate/")
    folder = Path(arguments.data) / "lcbench-surrogate"
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        parser.error(f"no data: {folder.resolve()} lacks {' and '.join(missing)}; see {VARIABLE} and --data")
    if wrong := set(arguments.evaluations) - set(EVALUATIONS) or set(arguments.searchers) - set(SEARCHERS):
        parser.error(f"unknown: {', '.join(sorted(wrong))}; there are {', '.join([*EVALUATIONS, *SEARCHERS])}")
    if "random" not in arguments.searchers[1:]:
        parser.error("--searchers must name ours first, and random after it")
    tasks = load(folder, arguments.metric)
    if wrong := set(arguments.tasks or []) - set(tasks):
        parser.error(f"no such task: {', '.join(sorted(wrong))}; there are {', '.join(tasks)}")
    found = []
    for evaluation in arguments.evaluations:
        for task in arguments.tasks or tasks:
            found.append(compare(arguments, evaluation, task, tasks[task]))
            print(f"{time.process_time():.0f} CPU s: {evaluation}, task {task}", flush=True)
            save(pd.concat(found, ignore_index=True), arguments.out)
    for evaluation, table in pd.concat(found).groupby("evaluation", sort=False):
        print(f"\n== {evaluation}: {arguments.metric} as a loss, {arguments.seeds} seeds")
        show(table, f"{arguments.searchers[0]}@{arguments.trials}", f"random@{3 * arguments.trials}")
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
