"""What results mean: pure functions from the frames of `load_results` to frames.

Names are loaded on first use: some need scipy, which a command that only lists runs should not wait for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo_ray.results.accounts import cost, failures
    from hpo_ray.results.comparison import compare, curves, ranks
    from hpo_ray.results.correlation import fidelity_correlation
    from hpo_ray.results.importance import importance, partial_dependence
    from hpo_ray.results.posterior import best
    from hpo_ray.results.progress import incumbent
    from hpo_ray.results.racing import Standing, race
    from hpo_ray.results.rung_analysis import rung_survival, savings, stopped_chances

__all__ = [
    "Standing",
    "best",
    "compare",
    "cost",
    "curves",
    "failures",
    "fidelity_correlation",
    "importance",
    "incumbent",
    "partial_dependence",
    "race",
    "ranks",
    "rung_survival",
    "savings",
    "stopped_chances",
]

_HOME = {
    "Standing": "racing",
    "best": "posterior",
    "compare": "comparison",
    "cost": "accounts",
    "curves": "comparison",
    "failures": "accounts",
    "fidelity_correlation": "correlation",
    "importance": "importance",
    "incumbent": "progress",
    "partial_dependence": "importance",
    "race": "racing",
    "ranks": "comparison",
    "rung_survival": "rung_analysis",
    "savings": "rung_analysis",
    "stopped_chances": "rung_analysis",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpo_ray.results.analysis' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"hpo_ray.results.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
