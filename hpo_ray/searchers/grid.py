"""Grid search: every combination of the space's levels, once, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hpo_ray.searchers.base import Config, SpaceSearcher


class GridSearcher(SpaceSearcher):
    """All combinations; the last parameter varies fastest. Continuous parameters need ``grid=n``.

    ``tune.grid_search`` and ``tune.choice`` mean the same here.
    """

    _takes_grids = True
    _grid: Iterator[Config]

    def _space_set(self) -> None:
        assert self.space is not None  # called when it is set
        self._grid = self.space.grid()

    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        return next(self._grid, None)

    def _replayed(self, k: int, state: Mapping[str, Any]) -> None:
        next(self._grid, None)
