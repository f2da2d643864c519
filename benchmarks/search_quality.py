"""How good the configuration is that a searcher finds: ours and peers on the tasks of `search_tasks.py`.

    python benchmarks/search_quality.py [--seeds 10] [--workers 1,8] [--budget 100] [--minutes 60] [--ablate all]

A score is (true loss of the configuration observed best - optimum) / (random search's median at the same budget -
optimum): 1 is random search, 0 the optimum. The noise and the evaluations' durations are the same for every peer. With
W workers, W suggestions are pending and a virtual clock says which ends next. Runs that --out holds are not repeated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import heapq
import json
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from search_peers import Peer, resolve, variants
from search_tasks import TASKS, Task, select

REFERENCES = Path(__file__).with_name("search_references.json")
BUDGETS = (20, 50, 100)
RUN = ["peer", "task", "seed", "workers"]


def stream(task: Task, seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number, *task.name.encode()])


def search(peer: Peer, task: Task, seed: int, workers: int, budget: int) -> list[dict[str, Any]]:
    """One search: a row an evaluation, in the order in which they end; a finite space may be exhausted early."""
    noises = task.noise * stream(task, seed, 0).standard_normal(budget)
    durations = np.exp(0.5 * stream(task, seed, 1).standard_normal(budget))
    clock, asked, running, rows, seen = 0.0, 0, [], [], set()
    while True:
        while asked < budget and len(running) < workers:
            start = time.process_time()
            proposal = peer.suggest()
            spent = time.process_time() - start
            if proposal is None:
                budget = asked
                break
            if not task.space.contains(proposal[1]):
                raise ValueError(f"{proposal[1]} is outside the space")
            heapq.heappush(running, (clock + durations[asked], asked, *proposal, spent))
            asked += 1
        if not running:
            return rows
        clock, number, handle, config, spent = heapq.heappop(running)
        true = task.true(config)
        value = None if true is None else true + float(noises[number])
        start = time.process_time()
        peer.observe(handle, config, value)
        spent += time.process_time() - start
        key = json.dumps(config, sort_keys=True)
        losses = dict(zip(("value", "true"), np.array([value, true], dtype=float), strict=True))  # None as NaN
        rows.append({"i": len(rows), **losses, "cpu_ms": 1e3 * spent, "repeated": key in seen})
        seen.add(key)


def observed_best(value: np.ndarray, true: np.ndarray, nothing: float) -> float:
    """The true loss of what was observed best; `nothing` where all failed (NaN)."""
    return nothing if np.isnan(value).all() else float(true[np.nanargmin(value)])


# References


def reference(task: Task, draws: int, searches: int = 400) -> dict[str, Any]:
    """A task's optimum and the medians of random search, whose searches draw from one pool of configurations."""
    rng = np.random.default_rng(list(task.name.encode()))
    pool = [task.space.sample(rng) for _ in range(draws)]
    true = np.array([task.true(config) for config in pool], dtype=float)
    order = np.array([rng.choice(draws, BUDGETS[-1], replace=False) for _ in range(searches)])
    value = true[order] + task.noise * rng.standard_normal(order.shape)
    nothing = float(np.nanmedian(true))
    found = {
        budget: [observed_best(v, t, nothing) for v, t in zip(value[:, :budget], true[order][:, :budget], strict=True)]
        for budget in (1, 5, 10, *BUDGETS)
    }
    optimum = task.optimum if task.optimum is not None else refined(task, [pool[i] for i in np.argsort(true)[:10]], rng)
    return {"optimum": optimum, "random": {str(budget): float(f"{np.median(x):.6g}") for budget, x in found.items()}}


def refined(task: Task, starts: list[dict[str, Any]], rng: np.random.Generator, steps: int = 100) -> float:
    """The best loss that small random steps lead to from any of `starts`."""
    losses = []
    for config in starts:
        best = task.true(config)
        for width in np.geomspace(0.2, 0.005, steps):
            x, _ = task.space.encode([config])
            moved = rng.random(x.shape) < 0.5
            x = x + moved * width * rng.standard_normal(x.shape)
            redrawn = task.space.encode([task.space.sample(rng)])[0]
            choices = np.array([dim.kind == "choice" for dim in task.space.dims])
            x = np.where(choices & (rng.random(x.shape) < 0.1), redrawn, x)
            [tried] = task.space.decode(x)
            loss = task.true(tried)
            if loss is not None and loss < best:
                config, best = tried, loss
        losses.append(best)
    return float(min(losses))


# Scores


def scores(runs: pd.DataFrame, references: dict[str, Any]) -> pd.DataFrame:
    """One row a run and budget: columns of `RUN`, budget, score."""
    rows = []
    for key, run in runs.groupby(RUN, sort=False):
        known = references[key[1]]
        random = {int(budget): median for budget, median in known["random"].items()}
        asked = run["budget"].iloc[0]
        for budget in [b for b in BUDGETS if b <= asked] or [max(b for b in random if b <= asked)]:
            head = run.nsmallest(budget, "i")
            true = observed_best(head["value"].to_numpy(), head["true"].to_numpy(), random[1])
            score = (true - known["optimum"]) / (random[budget] - known["optimum"])
            rows.append((*key, budget, score, head["repeated"].mean()))
    return pd.DataFrame(rows, columns=[*RUN, "budget", "score", "repeated"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a peer: at each budget the mean over tasks with its standard error, the median task, the mean rank."""
    tasks = table.pivot_table(index="task", columns=["budget", "peer"], values="score")
    columns: dict[str, Any] = {"seeds": table.groupby("peer")["seed"].nunique()}
    columns["tasks"] = table.groupby("peer")["task"].nunique()
    columns["repeated"] = table.groupby("peer")["repeated"].mean().map("{:.1%}".format)
    for budget in tasks.columns.unique("budget"):
        each = tasks[budget]
        columns[f"score@{budget}"], columns[f"se@{budget}"] = each.mean(), each.sem()
        columns[f"median@{budget}"] = each.median()
        columns[f"rank@{budget}"] = each.dropna().rank(axis=1).mean()
    return pd.DataFrame(columns).sort_values(f"score@{budget}")


def differences(table: pd.DataFrame, ours: str, draws: int = 2000) -> pd.DataFrame:
    """Our mean score minus each peer's on the runs that both have; 95 % by bootstrap over tasks, and seeds in them."""
    rng, rows = np.random.default_rng(0), []
    runs = table.pivot_table(index=["task", "seed"], columns=["budget", "peer"], values="score")
    for budget, peer in runs.columns:
        if peer == ours or (budget, ours) not in runs:
            continue
        pairs = (runs[budget, ours] - runs[budget, peer]).dropna()
        each = [group.to_numpy() for _, group in pairs.groupby("task")]
        if not each:
            continue
        # resampled[t, j]: task t's mean over resampled seeds, should it be the j-th task drawn.
        size = (len(each), draws)
        resampled = np.array([x[rng.integers(len(x), size=(*size, len(x)))].mean(-1) for x in each])
        drawn = rng.integers(len(each), size=size)
        means = resampled[drawn, np.arange(len(each))[:, None], np.arange(draws)].mean(0)
        low, high = np.percentile(means, (2.5, 97.5))
        mean = np.mean([x.mean() for x in each])
        rows.append(
            {"budget": budget, "peer": peer, f"{ours} - peer": mean, "low": low, "high": high, "runs": len(pairs)}
        )
    return pd.DataFrame(rows)


def show(runs: pd.DataFrame, ours: str) -> None:
    references = json.loads(REFERENCES.read_text())
    lowest = runs.groupby("task")["true"].min()
    for name in lowest.index[lowest < [references[name]["optimum"] - 1e-9 for name in lowest.index]]:
        known = references[name]["optimum"]
        print(f"{name}: {lowest[name]:.9g} is below the best known, {known:.9g}: enter it in {REFERENCES.name}")
    for workers, table in scores(runs, references).groupby("workers"):
        budget = table["budget"].max()
        each = table[table["budget"] == budget].pivot_table(index="task", columns="peer", values="score")
        print(f"\n{workers} worker(s): score, lower is better; 1 is random search, 0 the optimum")
        print(summary(table).to_string(float_format="%.3f"))
        print(f"\n{workers} worker(s), score of each task after {budget} evaluations")
        print(each.reindex([task.name for task in TASKS if task.name in each.index]).to_string(float_format="%.3f"))
        against = differences(table, ours)
        if len(against):
            print(f"\n{workers} worker(s), paired difference with its 95 % interval; below 0: {ours} is better")
            print(against.to_string(index=False, float_format="%.3f"))


# Runs


def load(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=[*RUN, "budget", "i"])
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def save(runs: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    if path.suffix == ".csv":
        runs.to_csv(partial, index=False)
    else:
        runs.to_parquet(partial, index=False)
    partial.replace(path)


def collect(arguments: argparse.Namespace, tasks: list[Task], makers: dict[str, Any]) -> pd.DataFrame:
    """All runs asked for, those of --out included; seed by seed, so that a cut leaves whole rounds."""
    runs, start, saved = load(arguments.out), time.monotonic(), time.monotonic()
    plan = [
        (name, task, seed, workers)
        for seed in range(arguments.seeds)
        for task in tasks
        for workers in arguments.workers
        for name in makers
    ]
    longest = runs.groupby(RUN)["budget"].max().to_dict()
    try:
        for name, task, seed, workers in plan:
            key = (name, task.name, seed, workers)
            if longest.get(key, 0) >= arguments.budget:
                continue
            if time.monotonic() - start > 60 * arguments.minutes:
                print(f"time is up before seed {seed}, {task.name}, {workers} worker(s), {name}")
                break
            try:
                # A seed's luck on one task must not be its luck on the others.
                peer = makers[name](task.space, int(stream(task, seed, 2).integers(2**31)))
                rows = search(peer, task, seed, workers, arguments.budget)
            except Exception:
                print(
                    f"FAILED: seed {seed}, {task.name}, {workers} worker(s), {name}\n{traceback.format_exc(limit=-3)}"
                )
                continue
            new = pd.DataFrame(rows).assign(**dict(zip(RUN, key, strict=True)), budget=arguments.budget)
            shorter = (runs[RUN] == list(key)).all(axis=1)
            runs = pd.concat([runs[~shorter], new], ignore_index=True) if len(runs) else new
            if time.monotonic() - saved > 30:
                saved = time.monotonic()
                save(runs, arguments.out)
                print(f"{time.monotonic() - start:.0f} s: up to seed {seed}, {task.name}, {name}", flush=True)
    finally:
        save(runs, arguments.out)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="names and kinds, with commas")
    parser.add_argument("--peers", default="gp_ei,hyperopt,random,optuna_tpe,optuna_gp", help="ours first")
    parser.add_argument("--ablate", help="fields of GP-EI's recipe to flip (or name=value), with commas; all")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1])
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after this long")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_quality.parquet"))
    parser.add_argument("--references", action="store_true", help=f"compute {REFERENCES.name} anew, and nothing else")
    arguments = parser.parse_args()
    tasks = select(arguments.tasks)
    if arguments.references:
        found = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
        for task in tasks:
            found[task.name] = reference(task, draws=40_000 if task.best else 4_000)
            print(task.name, found[task.name], flush=True)
        lines = [f"{json.dumps(task.name)}: {json.dumps(found[task.name])}" for task in TASKS if task.name in found]
        REFERENCES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    names = ["gp_ei", *variants(arguments.ablate)] if arguments.ablate else arguments.peers.split(",")
    makers = resolve(names)
    if not makers:
        raise SystemExit("no peer is left")
    runs = collect(arguments, tasks, makers)
    asked = runs["peer"].isin(makers) & runs["task"].isin([task.name for task in tasks])
    asked &= runs["workers"].isin(arguments.workers) & (runs["seed"] < arguments.seeds)
    asked &= runs["i"] < arguments.budget
    if not asked.any():
        raise SystemExit("no run to show")
    show(runs[asked].assign(budget=arguments.budget), next(iter(makers)))
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
