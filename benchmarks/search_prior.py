"""How soon a run's best value is reached again by a searcher that knows the run, and by one that starts cold.

    python benchmarks/search_prior.py [--seeds 10] [--first 20] [--cap 60] [--searchers gp_ei,hyperopt]

A first run has --first trials, one of the task's parameters held at a fixed value. Then trials are counted until one
is at least as good as its best; none within --cap counts as --cap + 1. Three ways of knowing that run:

    extended   the same searcher goes on; cold: a fresh one on the same space
    told       a fresh searcher, another seed, the same space, told of the run; cold: the same, told nothing
    re-spaced  as told, on a new space: half of one parameter's range, on its scale, about the run's best, and the held
               parameter searched too, its default the held value; trials of the run that lie outside are left out

Cold searchers have the seed of `told` and `re-spaced`, and the space of the one that they are compared with.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from search_quality import differences, save
from search_tasks import TASKS, Task

from hpo_ray.prior import carry
from hpo_ray.searchers import SEARCHERS, make
from hpo_ray.searchers.base import SpaceSearcher
from hpo_ray.space import SearchSpace

Config = dict[str, Any]
Losses = list[tuple[Config, float]]


@dataclass(frozen=True)
class Held:
    """What a first run does not search: `name`, held at `value`; and `narrowed`, whose range is halved after it."""

    name: str
    value: Any
    narrowed: str


# Chosen beforehand: a value such as one has without a search, where a model is trained scikit-learn's own.
HELD = {
    "hartmann6": Held("x5", 0.5, "x0"),
    "training_loss": Held("warmup", 0.0, "lr"),
    "mixed": Held("patch", 4, "x"),
    "tree_cancer": Held("max_features", 1.0, "ccp_alpha"),
    "mlp_digits": Held("momentum", 0.9, "lr"),
}


@lru_cache
def images() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    return tuple(train_test_split(x / 16, y, train_size=600, test_size=400, random_state=0, stratify=y))


def mlp_digits(config: Config) -> float:
    """Validation cross-entropy of a small network after five epochs of SGD."""
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier

    train, valid, labels, truth = images()
    rates = {"learning_rate_init": config["lr"], "momentum": config["momentum"], "alpha": config["alpha"]}
    sizes = {"batch_size": config["batch_size"], "hidden_layer_sizes": config["units"], "max_iter": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five epochs are not meant to converge
        model = MLPClassifier(solver="sgd", random_state=0, **rates, **sizes).fit(train, labels)
    # Where training diverged the weights are not finite; all labels equally likely is what a user would be left with.
    try:
        return min(float(log_loss(truth, model.predict_proba(valid))), 10.0)
    except ValueError:
        return 10.0


MLP_SPACE = {
    "lr": "loguniform(1e-4, 1)",
    "momentum": "uniform(0, 0.99)",
    "alpha": "loguniform(1e-6, 1)",
    "batch_size": "logint(8, 256)",
    "units": "logint(8, 128)",
}
MLP = Task("mlp_digits", "real", SearchSpace.parse(MLP_SPACE), mlp_digits)
CHOSEN = {task.name: task for task in [*TASKS, MLP] if task.name in HELD}


def spaces(task: Task) -> tuple[SearchSpace, Callable[[Config], SearchSpace]]:
    """The first run's space, and what it becomes once its best configuration is known."""
    texts, held = dict(task.space.text()), HELD[task.name]
    first = {name: text for name, text in texts.items() if name != held.name}

    def second(best: Config) -> SearchSpace:
        domain = task.space.domains[held.narrowed]
        low = min(max(domain.to_unit(best[held.narrowed]) - 0.25, 0.0), 0.5)
        bounds = f"{domain.from_unit(low)!r}, {domain.from_unit(low + 0.5)!r}"
        narrowed = f"{texts[held.narrowed].partition('(')[0]}({bounds})"
        added = f"{texts[held.name][:-1]}, default={held.value})"
        return SearchSpace.parse({**texts, held.narrowed: narrowed, held.name: added})

    return SearchSpace.parse(first), second


def searcher_of(name: str, space: SearchSpace, seed: int, known: Iterable[tuple[Config, float]] = ()) -> SpaceSearcher:
    searcher = make(name, space, metric="loss", mode="min", seed=seed)
    for number, (config, loss) in enumerate(known):
        searcher.observe(f"run/{number:04d}", config, loss, fidelity=None, status="completed")
    return searcher


def search(searcher: SpaceSearcher, loss: Callable[[Config], float], trials: range, target: float = -np.inf) -> Losses:
    """Trials with these numbers, one after another, until one is at `target` or below."""
    found: Losses = []
    for k in trials:
        config = searcher.suggest(f"{k:04d}")
        if not isinstance(config, dict):
            raise RuntimeError("the space is exhausted")
        found.append((config, loss(config)))
        searcher.observe(f"{k:04d}", config, found[-1][1], fidelity=None, status="completed")
        if found[-1][1] <= target:
            break
    return found


def compare(name: str, task: Task, seed: int, first: int, cap: int) -> list[dict[str, Any]]:
    """One row a way of knowing the first run: the trials to its best with it, and without."""
    held = HELD[task.name]
    before, after = spaces(task)
    own, other = (int(x) for x in np.random.default_rng([seed, *task.name.encode()]).integers(2**31, size=2))

    def loss(config: Config) -> float:
        return task.true({held.name: held.value, **config})

    def count(searcher: SpaceSearcher, start: int = 0) -> int:
        found = search(searcher, loss, range(start, start + cap), target)
        return len(found) if found[-1][1] <= target else cap + 1

    searcher = searcher_of(name, before, own)
    run = search(searcher, loss, range(first))
    best, target = min(run, key=lambda pair: pair[1])
    space = after(best)
    carried = [(*carry(config, {held.name: held.value}, space), value) for config, value in run]
    inside = [(config, value) for config, said, value in carried if not said]
    cold, cold_after = count(searcher_of(name, before, other)), count(searcher_of(name, space, other))
    warm = {
        "extended": (count(searcher, first), cold, first),
        "told": (count(searcher_of(name, before, other, run)), cold, first),
        "re-spaced": (count(searcher_of(name, space, other, inside)), cold_after, len(inside)),
    }
    keys = {"searcher": name, "task": task.name, "seed": seed, "target": target}
    return [{**keys, "way": way, "known": n, "warm": w, "cold": c} for way, (w, c, n) in warm.items()]


def summary(table: pd.DataFrame, cap: int) -> pd.DataFrame:
    """One row a searcher and way; differences with their 95 % interval by bootstrap over tasks, and seeds in them."""
    rows = []
    for (name, way), pairs in table.groupby(["searcher", "way"], sort=False):
        long = pairs.melt(["task", "seed"], ["warm", "cold"], "peer", "score").assign(budget=0)
        [against] = differences(long, "warm").to_dict("records")
        means, medians = pairs[["warm", "cold"]].mean(), pairs[["warm", "cold"]].median()
        signs = np.sign(pairs["warm"] - pairs["cold"]).value_counts()
        row: dict[str, Any] = {"searcher": name, "way": way, "known": f"{pairs['known'].mean():.1f}"}
        row |= {f"{peer} mean (median)": f"{means[peer]:.1f} ({medians[peer]:.1f})" for peer in ("warm", "cold")}
        row["warm - cold"] = f"{against['warm - peer']:.1f} ({against['low']:.1f} to {against['high']:.1f})"
        row["fewer / as many / more"] = " / ".join(str(signs.get(sign, 0)) for sign in (-1, 0, 1))
        row["not reached"] = " / ".join(str((pairs[peer] > cap).sum()) for peer in ("warm", "cold"))
        rows.append(row)
    return pd.DataFrame(rows)


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searchers", type=words, default=["gp_ei", "hyperopt"])
    parser.add_argument("--tasks", type=words, default=list(CHOSEN), help=f"with commas; of {', '.join(CHOSEN)}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=20, help="trials of the first run")
    parser.add_argument("--cap", type=int, default=60, help="most trials to its best value")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_prior.csv"))
    arguments = parser.parse_args()
    if wrong := set(arguments.searchers) - set(SEARCHERS) or set(arguments.tasks) - set(CHOSEN):
        parser.error(f"unknown: {', '.join(sorted(wrong))}; there are {', '.join([*SEARCHERS, *CHOSEN])}")
    rows: list[dict[str, Any]] = []
    for name in arguments.searchers:
        for task in arguments.tasks:
            for seed in range(arguments.seeds):
                rows += compare(name, CHOSEN[task], seed, arguments.first, arguments.cap)
            save(pd.DataFrame(rows), arguments.out)
            print(f"{time.process_time():.0f} CPU s: {name}, {task}", flush=True)
    table = pd.DataFrame(rows)
    print(f"\nmean trials to the best value of a run of {arguments.first}, {arguments.seeds} seeds a task: warm / cold")
    means = table.groupby(["searcher", "task", "way"], sort=False)[["warm", "cold"]].mean()
    texts = means["warm"].map("{:.1f}".format) + " / " + means["cold"].map("{:.1f}".format)
    print(texts.unstack("way")[list(table["way"].unique())].to_string())
    print("\nall tasks; known: trials that inform the searcher; a difference below 0: warm is faster (95 % interval)")
    print(summary(table, arguments.cap).to_string(index=False))
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
