"""The winner of a noisy sweep by posterior mean against the winner by raw value: which is really better, and how sure.

    python benchmarks/best_pick.py [--seeds 200] [--trials 60] [--out …/best_pick.csv]

Random configurations of functions with a known optimum, noise of 0.1 to 1 standard deviations of the function's better
half. `regret`: true loss of the pick less the best true loss among the trials that completed, in those standard
deviations, mean over seeds; `difference`: posterior mean less raw value, paired, with its 95 % bootstrap interval;
`promised`: the pick's stated value less its true loss; `coverage`: of the stated 95 % interval. `stopped`: trials train
for up to 27 epochs and are stopped by ASHA; a value at epoch e is the true one, plus a bias that shrinks with e, plus
noise, four fifths of its variance the trial's own for good.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_ray.results.posterior import best
from hpo_ray.schedulers.rungs import Rungs, rung_levels
from hpo_ray.space import SearchSpace

Config = dict[str, Any]


def quadratic(c: Config) -> float:
    return (c["a"] - 0.3) ** 2 + 0.5 * (c["b"] - 0.6) ** 2 + 0.2 * (c["c"] - 0.5) ** 2


def branin(c: Config) -> float:
    a, b = 15 * c["a"] - 5, 15 * c["b"]
    return (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10


def steep(c: Config) -> float:
    """Diverges for large learning rates, as losses do."""
    x = np.log10(c["lr"])
    return 0.3 * (x + 2.2) ** 2 + 50 * max(0.0, x + 1.2) ** 2 + 0.2 * abs(c["b"] - 0.4)


def mixed(c: Config) -> float:
    shift = {"sgd": 0.3, "adam": 0.0, "adagrad": 0.15}[c["opt"]]
    return shift + (np.log10(c["lr"]) + 2.5 - shift) ** 2 * 0.3 + 0.05 * abs(c["layers"] - 3)


def space(**texts: str) -> SearchSpace:
    return SearchSpace.parse(texts)


UNIT, RATE = "uniform(0, 1)", "loguniform(1e-4, 1)"
TASKS: dict[str, tuple[Callable[[Config], float], SearchSpace]] = {
    "quadratic": (quadratic, space(a=UNIT, b=UNIT, c=UNIT)),
    "branin": (branin, space(a=UNIT, b=UNIT)),
    "steep": (steep, space(lr=RATE, b=UNIT)),
    "mixed": (mixed, space(opt="choice(sgd, adam, adagrad)", lr=RATE, layers="int(1, 5)")),
}


def sweep(task: str, seed: int, n: int, noise: float, *, stopped: bool) -> tuple[pd.DataFrame, np.ndarray, float]:
    """A frame of trials, their true losses, and the unit of noise."""
    function, domain = TASKS[task]
    rng = np.random.default_rng([seed, len(task)])
    configs = [domain.sample(rng) for _ in range(n)]
    true = np.array([function(config) for config in configs])
    unit = float(true[true <= np.median(true)].std())
    rows = [{f"config/{key}": value for key, value in config.items()} for config in configs]
    frame = pd.DataFrame(rows).assign(
        run="r", trial_id=[f"{i:04}" for i in range(n)], status="completed", fidelity=27.0
    )
    frame["config_id"] = frame["trial_id"]
    if not stopped:
        return frame.assign(loss=true + noise * unit * rng.standard_normal(n)), true, unit
    rungs = Rungs(rung_levels(grace_period=1, max_t=27, reduction_factor=3), 3)
    slow, luck = rng.uniform(0.8, 1.2, n), rng.standard_normal(n)
    for i in range(n):
        values = []
        for epoch in range(1, 28):
            shaken = noise * (np.sqrt(0.8) * luck[i] + np.sqrt(0.2) * rng.standard_normal())
            values.append(true[i] + unit * (3 * slow[i] / np.sqrt(epoch) + shaken))
            decision = rungs.decide(f"{i:04}", epoch, values[-1])
            if decision is not None and not decision.kept:
                frame.loc[i, ["status", "fidelity"]] = ["stopped", float(epoch)]
                break
        frame.loc[i, ["loss", "loss_best"]] = [values[-1], min(values)]
    return frame, true, unit


def measure(task: str, noise: float, seeds: int, n: int, *, stopped: bool) -> tuple[dict[str, Any], np.ndarray]:
    """One row of the table, and the paired differences."""
    rows = []
    for seed in range(seeds):
        frame, true, unit = sweep(task, seed, n, noise, stopped=stopped)
        found = best(frame, TASKS[task][1], "loss", seed=seed).set_index("rule")
        picks = {rule: true[int(found.loc[rule, "trial_id"])] for rule in found.index}
        finished = true[(frame["status"] == "completed").to_numpy()].min()
        end = 3 / np.sqrt(27) * unit if stopped else 0.0  # what is left of the bias, on average
        mean = found.loc["posterior mean"]
        rows.append(
            {
                "posterior": (picks["posterior mean"] - finished) / unit,
                "raw": (picks["raw value"] - finished) / unit,
                "promised": (mean["mean"] - end - picks["posterior mean"]) / unit,
                "promised_raw": (found.loc["raw value", "value"] - end - picks["raw value"]) / unit,
                "covered": float(mean["low"] <= picks["posterior mean"] + end <= mean["high"]),
            }
        )
    runs = pd.DataFrame(rows)
    difference = (runs["posterior"] - runs["raw"]).to_numpy()
    low, high = bootstrap(difference)
    row = {
        "task": task,
        "noise": noise,
        "trials": n,
        "seeds": seeds,
        "regret": runs["posterior"].mean(),
        "regret_raw": runs["raw"].mean(),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "promised": runs["promised"].mean(),
        "promised_raw": runs["promised_raw"].mean(),
        "coverage": runs["covered"].mean(),
    }
    return row, difference


def bootstrap(values: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """The mean's 95 % percentile interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--noise", type=lambda text: [float(word) for word in text.split(",")], default=[0.1, 0.3, 1.0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/best_pick.csv"))
    arguments = parser.parse_args()
    rows, differences = [], []
    plan = [(task, noise, False) for task in TASKS for noise in arguments.noise]
    plan += [(task, arguments.noise[-1], True) for task in TASKS]
    for task, noise, stopped in plan:
        row, difference = measure(task, noise, arguments.seeds, arguments.trials, stopped=stopped)
        rows.append({**row, "task": f"{task}, stopped" if stopped else task})
        differences.append(difference)
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1, float_format="%.3f"), flush=True)
    # A seed is the same draw on all tasks, so seeds are resampled, not runs.
    over = np.mean(differences, axis=0)
    low, high = bootstrap(over)
    table = pd.DataFrame(rows)
    rest = {"task": "all", "trials": arguments.trials, "seeds": arguments.seeds}
    rest |= {name: table[name].mean() for name in ("regret", "regret_raw", "promised", "promised_raw", "coverage")}
    table = pd.concat([table, pd.DataFrame([{**rest, "difference": over.mean(), "low": low, "high": high}])])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False)
    print(f"\n{table.to_string(index=False, float_format='%.3f')}\n\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
