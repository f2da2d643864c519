"""The winner of a run, tried once on the part of the data that no choice was made on. Needs a Ray session."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from hpo_ray import credentials
from hpo_ray.experiment import Experiment
from hpo_ray.history import History
from hpo_ray.storage import carrying
from hpo_ray.storage.store import Store
from hpo_ray.trainables import TRAINABLES


def try_winner(experiment: Experiment, history: History) -> dict[str, Any]:
    """The winner's error on the test part; empty where the trainable has none.

    The best of N on its own validation set flatters itself; this is the number to quote. It runs as a Ray task,
    where the trials ran and the data is. A failure here is noted, never raised: the sweep's result stands.
    """
    module, best = TRAINABLES[experiment.trainable.name].module, history.best()
    if not module or best is None:
        return {}
    trial, row = best
    path = trial.checkpoints.get((row.attempt, row.fidelity))
    if path is None:
        return {}
    import ray

    resources = experiment.resources
    device = "cuda" if resources.gpus_per_trial > 0 else "cpu"
    config, pieces = experiment.trial_config(trial.config), trial.micro_batches
    name, variables = (history.stored, path), credentials.of_driver()
    try:
        task = ray.remote(_errors_on_test).options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)
        test = ray.get(task.remote(module, config, str(history.run_dir / path), device, pieces, name, variables))
    except Exception as error:
        return {"test_failure": " ".join(str(error).split())[-500:]}
    return {"test": test}


def _errors_on_test(
    module: str,
    config: dict[str, Any],
    checkpoint: str,
    device: str,
    pieces: int,
    stored: tuple[str, str],
    variables: dict[str, str],
) -> dict[str, Any]:
    """Runs as a Ray task, perhaps not where the checkpoint was saved; `stored`: the run's URI, and its path there."""
    os.environ.update(variables)
    if stored[0] and not Path(checkpoint).is_dir():
        carrying.pull(Store(stored[0]), stored[1], Path(checkpoint))
    result: dict[str, Any] = importlib.import_module(module).errors_on_test(config, Path(checkpoint), device, pieces)
    return result
