"""A directory as Ray Tune leaves it, of any size, without the hours that Ray would take.

One small real Ray run is the template: its state file, its trials' files, its rows. Each further trial is the
template's `Trial` with its own identity, written with Ray's own `get_json_state`, and rows that differ in their
measured numbers only. What Ray's loaders read is thus what Ray wrote, field for field. Pickles, TensorBoard files and
the CSV, which they do not read while `result.json` is there, are left out.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.cloudpickle
from ray import tune
from ray.tune.experiment import Trial


def objective(config: dict[str, Any]) -> None:
    for epoch in (1, 2):
        tune.report({"epoch": epoch, "train_loss": config["lr"], "val_error": config["lr"] / epoch, "lr": config["lr"]})


def template(folder: Path) -> Path:
    """A real run of two trials with two reports each; returns its directory."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its workers need not find this file
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        tune.Tuner(
            objective,
            param_space={"lr": tune.loguniform(1e-5, 1), "layers": tune.randint(1, 5), "optimizer": "adam"},
            tune_config=tune.TuneConfig(metric="val_error", mode="min", num_samples=2, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder), name="template", verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    return folder / "template"


def enlarge(source: Path, folder: Path, trials: int, reports: int) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Write `folder` as Ray would have after `trials` trials of `reports` reports.

    Returns:
        For each trial its configuration and its rows, `reports x 4`: epoch, train_loss, val_error, lr.
    """
    [state_file] = source.glob("experiment_state-*.json")
    state = json.loads(state_file.read_text())
    known = Trial.from_json_state(state["trial_data"][0][0], stub=True)
    known.restore_run_metadata(state["trial_data"][0][1])
    last = known.last_result
    row = json.loads((source / known.storage.trial_dir_name / "result.json").read_text().splitlines()[-1])
    rng = np.random.default_rng(0)
    state["trial_data"], made = [], []
    folder.mkdir()
    for number in range(trials):
        config = {"lr": float(rng.uniform(1e-5, 1)), "layers": int(rng.integers(1, 5)), "optimizer": "adam"}
        identity = f"{last['trial_id'].split('_')[0]}_{number:05d}"
        name = f"objective_{identity}_{number + 1}_layers={config['layers']},lr={config['lr']:.4f}_2026-11-21_20-15-08"
        values = np.column_stack([np.arange(1, reports + 1), rng.random((reports, 3))])
        (folder / name).mkdir()
        with (folder / name / "result.json").open("w") as file:
            for epoch, *measured in values.tolist():
                row.update(zip(("train_loss", "val_error", "lr"), measured, strict=True))
                iteration = int(epoch)
                row.update(epoch=iteration, training_iteration=iteration, iterations_since_restore=iteration)
                row.update(trial_id=identity, config=config, time_total_s=0.1 * iteration)
                file.write(json.dumps(row) + "\n")
        (folder / name / "params.json").write_text(json.dumps(config, indent=2, sort_keys=True))
        trial = copy.copy(known)
        trial.trial_id, trial.config, trial.relative_logdir, trial._state_json = identity, config, name, None
        trial.evaluated_params = config
        trial.storage = copy.copy(known.storage)
        trial.storage.trial_dir_name = name
        trial.storage.experiment_dir_name = folder.name
        trial.run_metadata = copy.copy(known.run_metadata)
        trial.run_metadata._cached_json = None
        trial.run_metadata.last_result = {**row, "done": True}
        state["trial_data"].append(trial.get_json_state())
        made.append((config, values))
    (folder / state_file.name).write_text(json.dumps(state))
    (folder / "tuner.pkl").write_bytes((source / "tuner.pkl").read_bytes())
    return made
