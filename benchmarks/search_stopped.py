"""What TPE should make of trials that ASHA stopped early: sweeps on learning curves, real and made up.

    HPO_RAY_TEST_DATA=shared/data python benchmarks/search_stopped.py [--seeds 2] [--tasks 7593,34539]
        [--sets plateau,crossing,accuracy,entropy] [--peers hyperopt,last,finished,bohb,bohb_all,shifted,random]

A sweep: four workers on a virtual clock, one epoch a tick; our ASHA (eta 3, first rung at epoch 1). The searcher is
told of every report as the driver tells it. Sets: `accuracy` and `entropy` are LCBench's 22 tasks (52 epochs, that
metric as a loss), their curves those of trees fitted to the tables; without the data they are left out. `plateau` and
`crossing` are eight tasks each of made-up curves (50 epochs) whose ranks at the first rung mislead. Seeds differ by
task.

A score is (true last loss of the configuration that the sweep would report - best known) / (the same of random search
after four full trainings, when one trial is complete: median of ten seeds). A sweep reports the lowest loss at the
highest rung, or end, that any of its trials has reached.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import hyperopt
import numpy as np
import pandas as pd
from search_curves import FILES, LOSSES, SPACE, VARIABLE, words
from search_quality import differences, save
from sklearn.ensemble import ExtraTreesRegressor

from hpo_ray.schedulers.rungs import Rungs, rung_levels
from hpo_ray.searchers import SEARCHERS, HyperoptSearcher, make
from hpo_ray.space import SearchSpace

WORKERS, ETA = 4, 3
# Epochs of a sweep, in full trainings; those after which random search gives the unit, and in how many seeds.
BUDGETS = (8, 16)
UNIT_BUDGET, UNIT_SEEDS = 4, 10
MADE_UP, MADE_UP_TASKS = ("plateau", "crossing"), 8

METRICS = {"accuracy": "val_accuracy", "entropy": "val_cross_entropy"}

Config = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One thing to search.

    Attributes:
        name: Its name, of its set too.
        space: Where to search.
        curves: Configurations -> their noise-free losses, a row each, after each epoch.
        max_t: Epochs.
        noise: Standard deviation of what is added to each loss before anyone sees it.
    """

    name: str
    space: SearchSpace
    curves: Callable[[list[Config]], np.ndarray]
    max_t: int
    noise: float = 0.0


# Tasks


def tables(folder: Path, metric: str, tasks: list[str] | None) -> list[Task]:
    """LCBench's curves, from trees of which each answers with whole curves."""
    configs = pd.read_parquet(folder / FILES[0]).set_index("config_id")
    columns = pd.read_parquet(folder / FILES[1], columns=["openml_task_id", "config_id", "epoch", metric])
    found = []
    for task, rows in columns.groupby("openml_task_id", observed=True):
        if tasks is None or str(task) in tasks:
            losses = rows.assign(loss=LOSSES[metric](rows[metric].to_numpy(dtype=float)))
            curves = losses.pivot(index="config_id", columns="epoch", values="loss")
            points = SPACE.encode(configs.loc[curves.index, list(SPACE.names)].to_dict("records"))[0]
            found.append(Task(f"{metric} {task}", SPACE, fitted(points, curves.to_numpy()), curves.shape[1]))
    return found


def fitted(points: np.ndarray, known: np.ndarray) -> Callable[[list[Config]], np.ndarray]:
    forest = ExtraTreesRegressor(50, min_samples_leaf=2, random_state=0).fit(points, known)

    def curves(configs: list[Config]) -> np.ndarray:
        # As `forest.predict`, whose checks take many times as long as one configuration does.
        x = SPACE.encode(configs)[0].astype(np.float32)
        return np.mean([tree.tree_.predict(x)[:, :, 0] for tree in forest.estimators_], axis=0)

    return curves


MADE_UP_SPACE = SearchSpace.parse(
    {
        "lr": "loguniform(1e-4, 1)",
        "momentum": "uniform(0, 0.99)",
        "width": "logint(16, 1024)",
        "dropout": "uniform(0, 0.8)",
        "frozen": "choice(yes, no)",
    }
)


def made_up(name: str, number: int) -> Task:
    """Task `number` of a set; where its optimum lies depends on the number."""
    rng = np.random.default_rng([number, *name.encode()])
    best, weights = rng.uniform(0.15, 0.85, 4), rng.uniform(0.5, 1.5, 4)
    best[0] = rng.uniform(0.2, 0.5)
    epochs = np.arange(1, 51)

    def plateau(x: np.ndarray, frozen: np.ndarray, bowl: np.ndarray) -> np.ndarray:
        """The larger the learning rate, the faster it falls; it ends lowest where that is small."""
        return 0.1 + 0.8 * bowl + 0.03 * frozen + 2.0 * np.exp(-epochs * 0.08 * 10 ** (3 * (x[0] - best[0])))

    def crossing(x: np.ndarray, frozen: np.ndarray, bowl: np.ndarray) -> np.ndarray:
        """What is frozen starts low and gains little; width helps late, and without dropout it overfits later still."""
        fall = np.where(frozen, 0.3, 1 + x[2]) * epochs ** np.where(frozen, -0.9, -0.5 - 0.4 * x[0])
        return 0.1 + 0.5 * bowl + 0.15 * frozen + fall + 0.4 * x[2] * (1 - x[3]) * (epochs / 50) ** 2

    def curves(configs: list[Config]) -> np.ndarray:
        x = MADE_UP_SPACE.encode(configs)[0].T[:4, :, None]
        frozen = np.array([[config["frozen"] == "yes"] for config in configs])
        bowl = np.sum((weights * (x.T - best) ** 2).T, axis=0)
        return {"plateau": plateau, "crossing": crossing}[name](x, frozen, bowl)

    return Task(f"{name} {number}", MADE_UP_SPACE, curves, 50, noise=0.01)


# Other ways to sort trials, for TPE


class Last(HyperoptSearcher):
    """The last loss, whatever its fidelity: what Ray's HyperOptSearch tells hyperopt."""

    def _tell(self, trial_id: str, config: Config, loss: Any, fidelity: Any, status: str, se: Any) -> None:
        super()._tell(trial_id, config, loss, None, status, se)


class Finished(HyperoptSearcher):
    """Only completed trials; all others count as the worst, as pending ones do."""

    def _tell(self, trial_id: str, config: Config, loss: Any, fidelity: Any, status: str, se: Any) -> None:
        super()._tell(trial_id, config, loss if status == "completed" else None, fidelity, status, se)


class Curves(HyperoptSearcher):
    """Keeps what each trial measured at every fidelity."""

    def _space_set(self) -> None:
        super()._space_set()
        self.curves: dict[str, dict[float, float]] = {}

    def _tell(self, trial_id: str, config: Config, loss: Any, fidelity: Any, status: str, se: Any) -> None:
        super()._tell(trial_id, config, loss, fidelity, status, se)
        if loss is not None:
            self.curves.setdefault(trial_id, {})[fidelity] = loss


class Bohb(Curves):
    """Falkner et al. 2018: only the highest fidelity with d + 1 values, or more; trials without one are left out."""

    ignores = True

    def _order(self) -> dict[str, tuple[float, ...]]:
        numbers: dict[float, int] = {}
        for curve in self.curves.values():
            for fidelity in curve:
                numbers[fidelity] = numbers.get(fidelity, 0) + 1
        fewest = len(self.space.dims) + 1
        fidelity = max((x for x, n in numbers.items() if n >= fewest), default=min(numbers, default=0))
        order = {trial_id: (curve[fidelity],) for trial_id, curve in self.curves.items() if fidelity in curve}
        for trial_id, document in self._documents.items():
            left_out = self.ignores and trial_id not in order
            document["state"] = hyperopt.JOB_STATE_ERROR if left_out else hyperopt.JOB_STATE_DONE
            document["result"] = {"status": "new"}
        return order


class BohbAll(Bohb):
    """As BOHB, but trials without a value there count as the worst."""

    ignores = False


class Shifted(Curves):
    """The last loss, and the median change of other trials from there to the highest fidelity, step by step."""

    def _order(self) -> dict[str, tuple[float, ...]]:
        ends = sorted({max(curve) for curve in self.curves.values()})
        shift, shifts = 0.0, {ends[-1]: 0.0} if ends else {}
        for low, high in reversed(list(pairwise(ends))):
            changes = [curve[high] - curve[low] for curve in self.curves.values() if high in curve and low in curve]
            shift += float(np.median(changes)) if changes else 0.0
            shifts[low] = shift
        return {trial_id: (curve[max(curve)] + shifts[max(curve)],) for trial_id, curve in self.curves.items()}


VARIANTS: dict[str, type[HyperoptSearcher]] = {
    "last": Last,
    "finished": Finished,
    "bohb": Bohb,
    "bohb_all": BohbAll,
    "shifted": Shifted,
}


# Sweeps


def sweep(searcher: Any, task: Task, seed: int, budgets: tuple[int, ...]) -> list[tuple[int, float, int]]:
    """For each of the rising `budgets`: itself, true last loss of what the sweep would report then, trials begun."""
    rungs = Rungs(rung_levels(grace_period=1, max_t=task.max_t, reduction_factor=ETA), ETA)
    marks = [*rungs.levels, task.max_t]
    reported: dict[int, tuple[float, float]] = {}  # rung or end -> lowest loss there, true last loss of its trial
    found, spent, begun = [], 0, 0
    running: list[tuple[int, int, int, Config, np.ndarray, np.ndarray]] = []

    def begin(clock: int) -> None:
        nonlocal begun
        config = searcher.suggest(f"{begun:04d}")
        [true] = task.curves([config])
        noise = task.noise * np.random.default_rng([seed, begun, *task.name.encode()]).standard_normal(task.max_t)
        heapq.heappush(running, (clock + 1, begun, 1, config, true, true + noise))
        begun += 1

    for _ in range(WORKERS):
        begin(0)
    while len(found) < len(budgets):
        clock, number, epoch, config, true, seen = heapq.heappop(running)
        loss, trial_id = float(seen[epoch - 1]), f"{number:04d}"
        spent += 1
        if epoch in marks:
            reported[epoch] = min(reported.get(epoch, (math.inf, math.inf)), (loss, float(true[-1])))
        if spent == budgets[len(found)] * task.max_t:
            found.append((budgets[len(found)], reported[max(reported)][1], begun))
        decision = rungs.decide(trial_id, epoch, loss)
        searcher.observe(trial_id, config, loss, fidelity=epoch, status="running")
        status = "stopped" if decision and not decision.kept else "completed" if epoch == task.max_t else "running"
        if status != "running":
            searcher.observe(trial_id, config, loss, fidelity=epoch, status=status)
            begin(clock)
        else:
            heapq.heappush(running, (clock + 1, number, epoch + 1, config, true, seen))
    return found


def searcher_of(peer: str, space: SearchSpace, seed: int) -> Any:
    if peer in VARIANTS:
        return VARIANTS[peer](space, metric="loss", mode="min", seed=seed)
    return make(peer, space, metric="loss", mode="min", seed=seed)


def compare(task: Task, peers: list[str], seeds: int) -> pd.DataFrame:
    """One row a peer, seed and budget: best, trials, cpu_s and score."""
    rows, units = [], []
    for seed in range(max(seeds, UNIT_SEEDS)):
        # A seed's luck on one task must not be its luck on the others.
        number = int(np.random.default_rng([seed, *task.name.encode()]).integers(2**31))
        units.append(sweep(searcher_of("random", task.space, number), task, seed, (UNIT_BUDGET,))[0][1])
        for peer in peers if seed < seeds else []:
            start = time.process_time()
            found = sweep(searcher_of(peer, task.space, number), task, seed, BUDGETS)
            spent = time.process_time() - start
            rows += [(task.name, seed, peer, budget, best, trials, spent) for budget, best, trials in found]
    table = pd.DataFrame(rows, columns=["task", "seed", "peer", "budget", "best", "trials", "cpu_s"])
    rng = np.random.default_rng(0)
    known = min(table["best"].min(), task.curves([task.space.sample(rng) for _ in range(2000)])[:, -1].min())
    return table.assign(known=known, score=(table["best"] - known) / (np.median(units) - known))


def show(table: pd.DataFrame, ours: str) -> None:
    peers = list(table["peer"].unique())
    scores = table.pivot_table(index="peer", columns="budget", values="score").loc[peers]
    trials = table[table["budget"] == BUDGETS[-1]].groupby("peer")["trials"].mean()
    print(scores.assign(trials=trials, cpu_s=table.groupby("peer")["cpu_s"].mean()).to_string(float_format="%.2f"))
    for rival in [peer for peer in (ours, "last", "random") if peer in peers]:
        against = differences(table, rival)
        numbers = 0.0 - against[[f"{rival} - peer", "high", "low"]].to_numpy()
        against["text"] = [f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" for mean, low, high in numbers]
        print(f"\npeer - {rival}, paired, with its 95 % interval; below 0: the peer is better")
        print(against.pivot(index="peer", columns="budget", values="text").reindex(peers).dropna().to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get(VARIABLE) or None, help=f"default: {VARIABLE}")
    parser.add_argument("--sets", type=words, default=[*MADE_UP, *METRICS])
    parser.add_argument("--tasks", type=words, help="OpenML's numbers, with commas; default: all 22")
    parser.add_argument("--peers", type=words, default=["hyperopt", *VARIANTS, "random"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_stopped.csv"))
    arguments = parser.parse_args()
    if wrong := set(arguments.peers) - {*VARIANTS, *SEARCHERS}:
        parser.error(f"no such peer: {', '.join(sorted(wrong))}; there are {', '.join([*VARIANTS, *SEARCHERS])}")
    if "random" not in arguments.peers:
        parser.error("--peers must name random")
    if wrong := set(arguments.sets) - {*MADE_UP, *METRICS}:
        parser.error(f"no such set: {', '.join(sorted(wrong))}; there are {', '.join([*MADE_UP, *METRICS])}")
    found = []
    for name in arguments.sets:
        if name in METRICS:
            folder = Path(arguments.data or ".") / "lcbench-surrogate"
            if not arguments.data or not all((folder / file).is_file() for file in FILES):
                print(f"{name} is left out: no lcbench-surrogate/ in the folder that {VARIABLE} or --data names")
                continue
            tasks = tables(folder, METRICS[name], arguments.tasks)
        else:
            tasks = [made_up(name, number) for number in range(MADE_UP_TASKS)]
        for task in tasks:
            found.append(compare(task, arguments.peers, arguments.seeds).assign(set=name))
            print(f"{time.process_time():.0f} CPU s: {task.name}", flush=True)
            save(pd.concat(found, ignore_index=True), arguments.out)
    if not found:
        raise SystemExit("no task is left")
    runs = pd.concat(found)
    together = [("all", runs)] if runs["set"].nunique() > 1 else []
    for name, table in [*runs.groupby("set", sort=False), *together]:
        seeds = f"{table['task'].nunique()} tasks, {arguments.seeds} seeds"
        print(f"\n== {name}, {seeds}: mean score after so many full trainings")
        show(table, arguments.peers[0])
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
