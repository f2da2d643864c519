"""hpo_ray: hyperparameter experiments for deep learning on Ray.

Which configuration, how sure, at what cost. Names are loaded on first use, so that importing this package stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hpo_ray.api import Run, confirm, refit, resume, run
    from hpo_ray.errors import HpoRayError, InvalidInput, RunFailed
    from hpo_ray.experiment import Experiment
    from hpo_ray.results.frame import load_results
    from hpo_ray.space import SearchSpace
    from hpo_ray.trainables.trial import Trial

__all__ = [
    "Experiment",
    "HpoRayError",
    "InvalidInput",
    "Run",
    "RunFailed",
    "SearchSpace",
    "Trial",
    "confirm",
    "load_results",
    "refit",
    "resume",
    "run",
]

_HOME = {
    "Experiment": "hpo_ray.experiment",
    "HpoRayError": "hpo_ray.errors",
    "InvalidInput": "hpo_ray.errors",
    "Run": "hpo_ray.api",
    "RunFailed": "hpo_ray.errors",
    "SearchSpace": "hpo_ray.space",
    "Trial": "hpo_ray.trainables.trial",
    "confirm": "hpo_ray.api",
    "load_results": "hpo_ray.results.frame",
    "refit": "hpo_ray.api",
    "resume": "hpo_ray.api",
    "run": "hpo_ray.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpo_ray' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
