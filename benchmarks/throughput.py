"""Trials a second against plain Ray Tune: trivial objectives, one report each, the same work in one go.

    python benchmarks/throughput.py [--trials 500] [--slots 2] [--profile] [--out benchmarks/results/throughput.csv]

Plain Tune runs with its default settings and the same resources; the floor is a pool of as many Ray actors that are
handed one call after another, and nothing else. Figures are wall seconds of the whole sweep, Ray's own start left out
of all (Ray is started once, before). Only ratios mean anything on a shared machine. --profile: where our driver's time
goes, instead of the comparison.
"""

from __future__ import annotations

import argparse
import cProfile
import platform
import pstats
import tempfile
import time
from pathlib import Path

import pandas as pd
import ray
from ray import tune

import hpo_ray
from hpo_ray.session import ray_session


def hpo_ray_objective(config: dict, trial: hpo_ray.Trial) -> None:
    trial.report(loss=config["x"])


def tune_objective(config: dict) -> None:
    tune.report({"loss": config["x"]})


def time_hpo_ray(trials: int, slots: int, folder: Path) -> float:
    start = time.perf_counter()
    run = hpo_ray.run(
        hpo_ray_objective, {"x": "uniform(0, 1)"}, searcher="random", trials=trials, slots=slots, out=folder / "run"
    )
    elapsed = time.perf_counter() - start
    frame = run.frame()
    if not (frame["status"] == "completed").all() or len(frame) != trials:
        raise SystemExit(f"hpo_ray finished {len(frame)} of {trials} trials: {frame['status'].value_counts()}")
    return elapsed


def time_pool(trials: int, slots: int) -> float:
    """Warm: the actors are there before the clock starts."""

    @ray.remote(num_cpus=1)
    class Slot:
        def run(self, x: float) -> float:
            return x

    pool = ray.util.ActorPool([Slot.remote() for _ in range(slots)])
    list(pool.map(lambda slot, x: slot.run.remote(x), range(slots)))
    start = time.perf_counter()
    done = list(pool.map_unordered(lambda slot, x: slot.run.remote(x), range(trials)))
    elapsed = time.perf_counter() - start
    if len(done) != trials:
        raise SystemExit(f"the pool finished {len(done)} of {trials} calls")
    return elapsed


def profile(trials: int, slots: int, folder: Path) -> None:
    """Where the driver's time goes, by the function's own time and by what it called."""
    profiler = cProfile.Profile()
    profiler.runcall(time_hpo_ray, trials, slots, folder)
    for order, lines in (("tottime", 25), ("cumtime", 60)):
        pstats.Stats(profiler).sort_stats(order).print_stats(lines)


def time_tune(trials: int, slots: int, folder: Path) -> float:
    start = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(tune_objective, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    elapsed = time.perf_counter() - start
    if len(results) != trials or results.errors:
        raise SystemExit(f"plain Tune finished {len(results)} of {trials} trials")
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.csv"))
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with ray_session(address=None, cpus=arguments.slots, gpus=0):
            if arguments.profile:
                profile(arguments.trials, arguments.slots, Path(folder))
                return
            pool = time_pool(arguments.trials, arguments.slots)
            ours = time_hpo_ray(arguments.trials, arguments.slots, Path(folder))
        ray.init(num_cpus=arguments.slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        plain = time_tune(arguments.trials, arguments.slots, Path(folder))
        ray.shutdown()
    for name, seconds in (("pool of actors", pool), ("hpo_ray", ours), ("ray.tune, default settings", plain)):
        rows.append(
            {
                "what": name,
                "trials": arguments.trials,
                "slots": arguments.slots,
                "wall_s": round(seconds, 2),
                "trials_per_s": round(arguments.trials / seconds, 2),
                "ratio": round(plain / seconds, 2),
            }
        )
    table = pd.DataFrame(rows)
    table["ray"], table["python"] = ray.__version__, platform.python_version()
    print(table.to_string(index=False))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
