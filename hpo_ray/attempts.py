"""What an attempt at a trial is given, and what it means that Ray has lost one. Pure but for a look at its folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpo_ray.errors import InvalidInput, Problem, nearest
from hpo_ray.experiment import Experiment
from hpo_ray.history import TrialRecord
from hpo_ray.journal import encode

# How Ray (2.60) says that it killed a process because its node ran out of memory. Of every process that something has
# killed it says that this may have been "the OOM killer due to high memory usage".
RAY_OUT_OF_MEMORY = "killed due to the node running low on memory"


def trial_seed(seed: int, number: int) -> int:
    """A trial's own seed: a function of the run's seed and the trial's number, the same for every attempt."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])


def config_id(config: dict[str, Any]) -> str:
    """The same configuration has the same id, whatever its order or its run."""
    text = json.dumps(encode(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def folder_of(run_dir: Path, trial: TrialRecord, attempt: int) -> Path:
    """An attempt's own folder."""
    return run_dir / "trials" / trial.trial_id / f"attempt-{attempt}"


def next_number(run_dir: Path, trial: TrialRecord) -> int:
    """The number of a trial's next attempt: one whose folder no process has written to."""
    number = trial.attempt + (not math.isnan(trial.started_at))
    while folder_of(run_dir, trial, number).exists():
        number += 1
    return number


def gpus_of(experiment: Experiment, trial: TrialRecord) -> float:
    """The GPUs of a trial's next attempt."""
    return experiment.resources.gpus_per_trial if trial.gpus is None else trial.gpus


def seed_of(experiment: Experiment, trial: TrialRecord) -> int:
    """In a race the same for a repeat of every contender, whose differences are then of their own making."""
    return trial_seed(experiment.seed, int(trial.state.get("repeat", trial.trial_id)))


def spec_of(
    experiment: Experiment, run_dir: Path, trial: TrialRecord, checkpoints: Sequence[Path], stored: str = ""
) -> dict[str, Any]:
    """A trial's `TrialSpec` as plain data.

    Args:
        experiment: The run's.
        run_dir: The run's folder.
        trial: The trial, its `attempt` the one to come.
        checkpoints: What the attempt can start from, the newest first.
        stored: The URI that the run is kept at besides; empty: none.
    """
    return {
        "id": trial.trial_id,
        "config": experiment.trial_config(trial.config, trial.state.get("repeat")),
        "seed": seed_of(experiment, trial),
        "attempt": trial.attempt,
        "dir": str(folder_of(run_dir, trial, trial.attempt)),
        "cpus": max(1, int(experiment.resources.cpus_per_trial / experiment.resources.workers_per_trial)),
        "fidelity": experiment.fidelity,
        "metric": experiment.metric,
        "checkpoints": [str(path) for path in checkpoints],
        "micro_batches": trial.micro_batches,
        "timeout_s": experiment.retry.timeout_s,
        "workers": experiment.resources.workers_per_trial,
        "stored": stored,
    }


def bundles_of(experiment: Experiment, trial: TrialRecord) -> list[dict[str, float]]:
    """What Ray is to reserve for a trial's next attempt, worker by worker."""
    workers = experiment.resources.workers_per_trial
    total = {"CPU": experiment.resources.cpus_per_trial, "GPU": gpus_of(experiment, trial)}
    return [{name: amount / workers for name, amount in total.items()} for _ in range(workers)]


def lost(error: str, preempted: bool = False) -> dict[str, str]:
    """How an attempt ends whose process Ray has lost, by what Ray says; `preempted`: with its machine, on notice."""
    if preempted:
        return {"status": "failed", "reason": f"its machine was taken back; {error}", "cause": "preempted"}
    memory = RAY_OUT_OF_MEMORY in error
    status, cause = ("out_of_memory", "out_of_memory") if memory else ("failed", "lost")
    return {"status": status, "reason": error, "cause": cause}


def missing(experiment: Experiment, metrics: Mapping[str, float]) -> InvalidInput | None:
    """What a report lacks, as the mistake in the experiment that it is; None if it is complete."""
    wanted = {"metric": experiment.metric}
    if experiment.scheduler.name != "none":
        wanted["fidelity"] = experiment.fidelity or ""
    problems = [
        Problem(key, f"the objective does not report '{name}'; {nearest(name, metrics)}")
        for key, name in wanted.items()
        if name not in metrics
    ]
    return InvalidInput(*problems) if problems else None
