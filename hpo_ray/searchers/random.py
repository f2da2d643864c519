"""Random search: every configuration is an independent draw from the space. The baseline to beat."""

from __future__ import annotations

import numpy as np

from hpo_ray.searchers.base import Config, SpaceSearcher


class RandomSearcher(SpaceSearcher):
    """Independent draws; see Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization"."""

    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        assert self.space is not None  # `suggest` has checked it
        return self.space.sample(rng)
