"""Training in plain torch, also for notebooks: ``from hpo_ray.training import fit``. Importing it imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo_ray.training.lr_finder import range_test
    from hpo_ray.training.trainer import Fit, Options, fit

__all__ = ["Fit", "Options", "fit", "range_test"]

_HOME = {"Fit": "trainer", "Options": "trainer", "fit": "trainer", "range_test": "lr_finder"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpo_ray.training' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"hpo_ray.training.{_HOME[name]}"), name)
    globals()[name] = value
    return value
