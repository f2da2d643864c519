"""Does random search beat a grid of the same size when only some hyperparameters matter?

    python experiments/random_vs_grid.py            # about three minutes on two processors
    python experiments/random_vs_grid.py --trials 9 --seeds 1

After Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization": a grid tries few values of each
parameter, random search a new value of every parameter in every trial. Task: a multilayer perceptron on the bundled
digits, 3 epochs a trial, no early stopping. The outcome is logged in experiments/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import hpo_ray

FIXED = [
    "experiment=mlp",
    "training.epochs=3",
    "training.optimizer=sgd",
    "~space.units",
    "~space.layers",
    "~space.activation",
]


def grid_side(trials: int) -> int:
    """The largest side of a cube of at most `trials` points (three parameters are searched)."""
    return max(side for side in range(2, trials) if side**3 <= max(trials, 8))


def sweep(searcher: str, trials: int, seed: int, folder: Path) -> pd.DataFrame:
    """One sweep's trials."""
    side = grid_side(trials)
    space = [
        f"space.lr=loguniform(1e-3, 1.0, grid={side})",
        f"space.momentum=uniform(0.0, 0.99, grid={side})",
        f"space.batch_size=logint(8, 256, grid={side})",
    ]
    run = hpo_ray.run(
        "mlp",
        searcher=searcher,
        scheduler="none",
        trials=side**3,
        seed=seed,
        out=folder / f"{searcher}-{seed}",
        overrides=[*FIXED[1:], *space],
    )
    return run.frame().assign(searcher=searcher, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=27, help="configurations a sweep, rounded down to a cube")
    parser.add_argument("--seeds", type=int, default=3, help="random sweeps; the grid has only one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frames = [sweep("grid", arguments.trials, 0, Path(folder))]
        frames += [sweep("random", arguments.trials, seed, Path(folder)) for seed in range(arguments.seeds)]
    trials = pd.concat(frames)
    best = trials.groupby(["searcher", "seed"])["val_error_best"].agg(["count", "min", "median"])
    print(best.rename(columns={"count": "trials", "min": "best val_error", "median": "median val_error"}).round(4))
    for searcher, group in trials.groupby("searcher"):
        print(f"{searcher}: {group['config/lr'].nunique()} learning rates tried in {len(group)} trials")


if __name__ == "__main__":
    main()
