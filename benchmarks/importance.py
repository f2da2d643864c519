"""Parameter importances against exact ones: error, coverage of the stated 90 % interval, time; Optuna's forest beside.

    python benchmarks/importance.py [--seeds 50] [--n 500] [--noise 0,0.3] [--functions all] [--out …/importance.csv]

Configurations are drawn at random; `noise` is the standard deviation of what is added, as a share of the values' own.
`error`: the largest over a function's parameters and pairs, median and maximum over seeds; `coverage`: of the intervals
of all parameters and pairs; `worst`: of the one that is covered least; `large`: over shares above 0.02 only. Optuna
states no intervals, and of single parameters only, conditional ones left out. It needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_ray.results.importance import importance
from hpo_ray.space import SearchSpace

Config = dict[str, Any]
Shares = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Function:
    """One whose ANOVA decomposition is known; `shares` holds what is not 0, of parameters and of pairs."""

    name: str
    space: SearchSpace
    value: Callable[[Config], float]
    shares: Shares

    def expected(self) -> Shares:
        """Every parameter's and every pair's share."""
        names = self.space.names
        keys = [(a,) for a in names] + [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        return {key: self.shares.get(key, 0.0) for key in keys}

    def trials(self, n: int, seed: int, noise: float = 0.0) -> pd.DataFrame:
        """A frame of `n` random trials; `noise` as a share of the values' standard deviation."""
        rng = np.random.default_rng([seed, 7])
        configs = [self.space.sample(rng) for _ in range(n)]
        values = np.array([self.value(config) for config in configs])
        values = values + noise * values.std() * rng.standard_normal(n)
        frame = pd.DataFrame([{f"config/{key}": value for key, value in config.items()} for config in configs])
        return frame.assign(run="r", trial_id=[f"{i:04}" for i in range(n)], fidelity=1.0, loss=values)


def unit_floats(d: int) -> SearchSpace:
    return SearchSpace.parse({f"x{i}": "uniform(0, 1)" for i in range(d)})


def of_parts(parts: Shares) -> Shares:
    """Shares of given variances."""
    total = sum(parts.values())
    return {key: part / total for key, part in parts.items()}


def ishigami() -> Function:
    """Ishigami & Homma 1990, a = 7, b = 0.1: half of x2's effect hangs on x0."""

    def value(c: Config) -> float:
        a, b, x = (math.pi * (2 * c[name] - 1) for name in ("x0", "x1", "x2"))
        return math.sin(a) + 7 * math.sin(b) ** 2 + 0.1 * x**4 * math.sin(a)

    b, pi = 0.1, math.pi
    parts = {("x0",): 0.5 * (1 + b * pi**4 / 5) ** 2, ("x1",): 49 / 8, ("x0", "x2"): b**2 * pi**8 * (1 / 18 - 1 / 50)}
    return Function("ishigami", unit_floats(3), value, of_parts(parts))


def sobol_g() -> Function:
    """Sobol's g-function, a = (0, 1, 4.5, 9, 99), with a kink in every direction; 1 % is of three and more."""
    a = np.array([0, 1, 4.5, 9, 99])
    v = 1 / (3 * (1 + a) ** 2)
    whole = np.prod(1 + v) - 1
    shares = {(f"x{i}",): v[i] / whole for i in range(5)}
    shares |= {(f"x{i}", f"x{j}"): v[i] * v[j] / whole for i in range(5) for j in range(i + 1, 5)}

    def value(c: Config) -> float:
        return float(np.prod((np.abs(4 * np.array([c[f"x{i}"] for i in range(5)]) - 2) + a) / (1 + a)))

    return Function("sobol_g", unit_floats(5), value, shares)


def additive() -> Function:
    """A sum, one parameter without effect."""
    weights = (4, 3, 2, 1, 0)
    shares = {(f"x{i}",): w * w / 30 for i, w in enumerate(weights)}
    return Function("additive", unit_floats(5), lambda c: sum(w * c[f"x{i}"] for i, w in enumerate(weights)), shares)


def product() -> Function:
    """Nothing but an interaction, and two parameters without effect."""
    return Function("product", unit_floats(4), lambda c: (c["x0"] - 0.5) * (c["x1"] - 0.5), {("x0", "x1"): 1.0})


def mixed() -> Function:
    """A categorical that shifts and tilts the effect of a learning rate; a number of layers."""
    space = SearchSpace.parse({"kind": "choice(a, b, c)", "lr": "loguniform(1e-4, 1)", "layers": "int(1, 4)"})
    shift, tilt = np.array([-0.7, 0.0, 0.7]), np.array([2.0, 0.0, -1.0])

    def value(c: Config) -> float:
        k = "abc".index(c["kind"])
        return float(shift[k] + tilt[k] * (math.log10(c["lr"]) / 4 + 0.5) + 0.5 * c["layers"])

    parts: Shares = {("kind",): shift.var(), ("lr",): tilt.mean() ** 2 / 12, ("layers",): 0.25 * 1.25}
    return Function("mixed", space, value, of_parts({**parts, ("kind", "lr"): tilt.var() / 12}))


def conditional() -> Function:
    """A momentum that counts with one optimizer of two, and so does half of what it does as a pair with it."""
    texts = {"optimizer": "choice(sgd, adam)", "momentum": "uniform(0, 1, when={optimizer: sgd})"}
    space = SearchSpace.parse({**texts, "lr": "loguniform(1e-4, 1)"})

    def value(c: Config) -> float:
        inside = 3 * (c["momentum"] - 0.5) + 0.6 if c["optimizer"] == "sgd" else 0.0
        return inside + 2 * math.log10(c["lr"]) / 4

    tilt = 0.25 * 9 / 12
    parts: Shares = {("optimizer",): 0.09, ("momentum",): tilt, ("optimizer", "momentum"): tilt, ("lr",): 4 / 12}
    return Function("conditional", space, value, of_parts(parts))


FUNCTIONS = {make.__name__: make for make in (ishigami, sobol_g, additive, product, mixed, conditional)}


def ours(function: Function, trials: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Estimates beside what is expected, a row for each parameter and pair."""
    found = importance(trials, function.space, "loss", seed=seed)
    expected = {frozenset(key): share for key, share in function.expected().items()}
    pairs = found[["parameter", "with"]].to_numpy().tolist()
    keys = [frozenset(name for name in pair if isinstance(name, str)) for pair in pairs]
    return found.assign(key=keys, expected=[expected[key] for key in keys])


def optunas(function: Function, trials: pd.DataFrame, seed: int) -> dict[str, float]:
    """Optuna's fANOVA of the same trials, main effects only; nothing of conditional parameters."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {
        "kind": CategoricalDistribution(["a", "b", "c"]),
        "optimizer": CategoricalDistribution(["sgd", "adam"]),
        "lr": FloatDistribution(1e-4, 1, log=True),
        "layers": IntDistribution(1, 4),
    }
    names = [dim.name for dim in function.space.dims if dim.parent is None]
    used = {name: distributions.get(name, FloatDistribution(0, 1)) for name in names}
    study = optuna.create_study()
    for row in trials.to_dict("records"):
        params = {name: row[f"config/{name}"] for name in names}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=used, value=row["loss"]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False))


def measure(function: Function, n: int, noise: float, seeds: int, *, peer: bool) -> dict[str, Any]:
    """One row of the table."""
    tables, errors, spent = [], [], [0.0, 0.0]
    for seed in range(seeds):
        trials = function.trials(n, seed, noise)
        start = time.process_time()
        table = ours(function, trials, seed)
        spent[0] += time.process_time() - start
        tables.append(table.assign(seed=seed))
        if peer:
            start = time.process_time()
            theirs = optunas(function, trials, seed)
            spent[1] += time.process_time() - start
            errors.append(max(abs(share - function.expected()[name,]) for name, share in theirs.items()))
    runs = pd.concat(tables)
    runs["error"] = (runs["importance"] - runs["expected"]).abs()
    runs["covered"] = runs["expected"].between(runs["low"], runs["high"])
    largest, alone = runs.groupby("seed")["error"].max(), runs[runs["with"].isna()]
    row = {
        "function": function.name,
        "noise": noise,
        "n": n,
        "seeds": seeds,
        "error": largest.median(),
        "error_max": largest.max(),
        "coverage": runs["covered"].mean(),
        "worst": runs.groupby("key")["covered"].mean().min(),
        "large": runs[runs["expected"] > 0.02]["covered"].mean(),
        "width": (runs["high"] - runs["low"]).mean(),
        "main_error": alone.groupby("seed")["error"].max().median(),
        "cpu_s": spent[0] / seeds,
    }
    if peer:
        row |= {"optuna_main_error": np.median(errors), "optuna_cpu_s": spent[1] / seeds}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--noise", type=lambda text: [float(word) for word in text.split(",")], default=[0.0, 0.3])
    parser.add_argument("--functions", default="all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/importance.csv"))
    arguments = parser.parse_args()
    names = list(FUNCTIONS) if arguments.functions == "all" else arguments.functions.split(",")
    peer = importlib.util.find_spec("optuna") is not None
    if not peer:
        print("optuna is left out: it is not installed")
    rows = []
    for noise in arguments.noise:
        for name in names:
            rows.append(measure(FUNCTIONS[name](), arguments.n, noise, arguments.seeds, peer=peer))
            print(
                pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.3f", header=len(rows) == 1), flush=True
            )
    table = pd.DataFrame(rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False)
    print(f"\n{table.to_string(index=False, float_format='%.3f')}\n\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
