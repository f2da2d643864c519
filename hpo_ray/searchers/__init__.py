"""Searchers by name. To add one: a file here, a line in `SEARCHERS`, a YAML in `conf/searcher/`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo_ray.searchers.base import SpaceSearcher
    from hpo_ray.space import SearchSpace

SEARCHERS: dict[str, str] = {
    "random": "hpo_ray.searchers.random:RandomSearcher",
    "grid": "hpo_ray.searchers.grid:GridSearcher",
    "hyperopt": "hpo_ray.searchers.hyperopt:HyperoptSearcher",
}


def make(name: str, space: SearchSpace, *, metric: str, mode: str, seed: int) -> SpaceSearcher:
    """The searcher of that name over `space`; the space's default configuration, if it has one, comes first."""
    module, _, attribute = SEARCHERS[name].partition(":")
    searcher_class = getattr(importlib.import_module(module), attribute)
    default = space.default_config()
    points = [default] if default is not None and name != "grid" else None
    searcher: SpaceSearcher = searcher_class(space, metric=metric, mode=mode, seed=seed, points_to_evaluate=points)
    return searcher
