"""The models of one configuration: one, or one for each fold of a cross-validation and each repeat.

They are trained side by side, an epoch each in turn, and report their mean: so a configuration is stopped, saved and
resumed as a whole. Knows no trial and no Ray; imports no torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# What is summed over children rather than averaged.
_COSTS = ("epoch_s",)
_SAME = ("epoch", "unreadable")
# What is also reported of each child.
_OF_EACH = ("val_error",)


@dataclass(frozen=True)
class Child:
    """One of a configuration's models.

    Attributes:
        fold: Which fold it is validated on, from 0.
        repeat: Which repeat, from 0; each divides the images anew, and has its own seed.
        folds: How many folds there are; 1: the images are divided as they were loaded.
        repeats: How many repeats.
    """

    fold: int = 0
    repeat: int = 0
    folds: int = 1
    repeats: int = 1

    @property
    def alone(self) -> bool:
        """Whether it is the configuration's only one."""
        return self.folds == self.repeats == 1

    def seed(self, trial: int) -> int:
        """The seed of its weights, batches and augmentation, a function of the trial's."""
        if self.alone:
            return trial
        return int(np.random.SeedSequence([trial, self.fold, self.repeat]).generate_state(1, np.uint32)[0])

    def folder(self, checkpoint: Path) -> Path:
        """Where its state lies in a checkpoint."""
        return checkpoint if self.alone else checkpoint / f"fold-{self.fold}-repeat-{self.repeat}"


ALONE = Child()


class _Saving(Protocol):
    def save(self, folder: Path) -> None: ...


def of(config: Mapping[str, Any]) -> list[Child]:
    """The children of a configuration with ``folds`` and ``repeats`` (default 1 each), or the one that it names."""
    folds, repeats = int(config.get("folds", 1)), int(config.get("repeats", 1))
    if "child" in config:
        fold, repeat = config["child"]
        return [Child(fold, repeat, folds, max(repeats, 2))]
    return [Child(fold, repeat, folds, repeats) for repeat in range(repeats) for fold in range(folds)]


def merged(rows: Mapping[Child, Mapping[str, float]]) -> dict[str, float]:
    """One report of all children's.

    Means of what they measured, with ``<metric>_se``, the standard error of the mean (deviation with n - 1 over the
    root of n; folds share training images, so it is somewhat too small: Bengio & Grandvalet 2004), the sum of their
    seconds, and of each child ``val_error_f<fold>_r<repeat>``. A child alone reports as it is.
    """
    children = list(rows)
    if len(children) == 1:
        return dict(rows[children[0]])
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = [rows[child].get(name, 0.0) for child in children]
        if name in _COSTS:
            found[name] = sum(values)
        elif name in _SAME:
            found[name] = max(values)
        else:
            found[name] = sum(values) / len(values)
    for name in ("train_loss", "val_loss", "val_error", "val_accuracy"):
        if name in found:
            found[f"{name}_se"] = _standard_error([rows[child][name] for child in children])
    for child in children:
        for name in found.keys() & set(_OF_EACH):
            found[f"{name}_f{child.fold}_r{child.repeat}"] = rows[child][name]
    return found


def save(children: Mapping[Child, _Saving], folder: Path) -> None:
    """Saves all of them into one checkpoint."""
    for child, training in children.items():
        own = child.folder(folder)
        own.mkdir(exist_ok=True)
        training.save(own)


def _standard_error(values: list[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))
