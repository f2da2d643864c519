"""Does random search beat a grid of the same size when only some hyperparameters matter?

    python experiments/random_vs_grid.py            # about three minutes on two processors
    python experiments/random_vs_grid.py --trials 8 --seeds 1 --epochs 1

After Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization": a grid tries few values of each
parameter, random search a new value of every parameter in every trial. Task: a multilayer perceptron on the bundled
digits, no early stopping; learning rate, momentum and batch size are searched. The outcome is in experiments/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import hpo_ray


def sweep(searcher: str, side: int, seed: int, epochs: int, folder: Path) -> pd.DataFrame:
    """One sweep's trials: `side`^3 configurations of three parameters."""
    space = {
        "lr": f"loguniform(1e-3, 1.0, grid={side})",
        "momentum": f"uniform(0.0, 0.99, grid={side})",
        "batch_size": f"logint(8, 256, grid={side})",
    }
    run = hpo_ray.run(
        "mlp",
        space,
        searcher=searcher,
        scheduler="none",
        trials=side**3,
        seed=seed,
        out=folder / f"{searcher}-{seed}",
        overrides=[f"training.epochs={epochs}"],
    )
    return run.frame().assign(searcher=searcher, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=27, help="configurations a sweep; rounded to a cube")
    parser.add_argument("--seeds", type=int, default=3, help="random sweeps; a grid has only one")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    side = max(2, round(arguments.trials ** (1 / 3)))
    with tempfile.TemporaryDirectory() as folder:
        plan = [("grid", 0), *(("random", seed) for seed in range(arguments.seeds))]
        frames = [sweep(searcher, side, seed, arguments.epochs, Path(folder)) for searcher, seed in plan]
    trials = pd.concat(frames)
    sweeps = trials.groupby(["searcher", "seed"])
    table = sweeps["val_error_best"].agg(trials="count", best_val_error="min", median_val_error="median")
    print(table.assign(learning_rates_tried=sweeps["config/lr"].nunique()).round(4).to_string())


if __name__ == "__main__":
    main()
