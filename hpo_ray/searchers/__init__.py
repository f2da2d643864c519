"""Searchers by name. To add one: a file here, a line in `SEARCHERS`, a YAML in `conf/searcher/`.

The classes can be imported from here, each from its own file when it is asked for:
``from hpo_ray.searchers import GPEISearcher``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_ray.searchers.base import SpaceSearcher
    from hpo_ray.searchers.gp_ei import GPEISearcher
    from hpo_ray.searchers.grid import GridSearcher
    from hpo_ray.searchers.hyperopt import HyperoptSearcher
    from hpo_ray.searchers.random import RandomSearcher
    from hpo_ray.space import SearchSpace

SEARCHERS: dict[str, str] = {
    "random": "hpo_ray.searchers.random:RandomSearcher",
    "grid": "hpo_ray.searchers.grid:GridSearcher",
    "gp_ei": "hpo_ray.searchers.gp_ei:GPEISearcher",
    "hyperopt": "hpo_ray.searchers.hyperopt:HyperoptSearcher",
}

__all__ = ["SEARCHERS", "GPEISearcher", "GridSearcher", "HyperoptSearcher", "RandomSearcher", "make"]


def __getattr__(name: str) -> Any:
    for path in SEARCHERS.values():
        module, _, attribute = path.partition(":")
        if attribute == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make(name: str, space: SearchSpace, *, metric: str, mode: str, seed: int) -> SpaceSearcher:
    """The searcher of that name over `space`; the space's default configuration, if it has one, comes first."""
    searcher_class = __getattr__(SEARCHERS[name].partition(":")[2])
    searcher: SpaceSearcher = searcher_class(space, metric=metric, mode=mode, seed=seed)
    return searcher
