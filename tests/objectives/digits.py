"""Digits by the packaged recipe; each report is first written down in a file that no driver ever touches."""

from __future__ import annotations

import json
import os
from typing import Any

from hpo_ray.experiment import DataConfig, ModelConfig, TrainingConfig
from hpo_ray.trainables import image_classification

# The variable that names the file.
TRUTH = "HPO_RAY_TRUTH"
EPOCHS = 9


class Witnessed:
    """A trial whose reports are written down before they are made."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def report(self, **arguments: Any) -> None:
        measured = {key: arguments[key] for key in ("epoch", "val_error", "val_loss")}
        line = json.dumps({"trial_id": self._trial.id, "attempt": self._trial.attempt, **measured}) + "\n"
        file = os.open(os.environ[TRUTH], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
        self._trial.report(**arguments)


def train(config: dict[str, Any], trial: Any) -> None:
    """Small batches make an epoch last long enough for a kill to fall into it."""
    sections = {
        "data": DataConfig(),
        "model": ModelConfig(arch="mlp", units=config["units"]),
        "training": TrainingConfig(lr=config["lr"], batch_size=8, optimizer=config["optimizer"], epochs=EPOCHS),
    }
    image_classification.train({name: section.model_dump() for name, section in sections.items()}, Witnessed(trial))
