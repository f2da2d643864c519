"""The searcher of a race: known configurations, each as often as it takes to tell which is best. It proposes no other.

Knows the statistics of `hpo_ray.results.racing`; nothing of how contenders were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpo_ray.searchers.base import Config, SpaceSearcher
from hpo_ray.space import SearchSpace

OVER = ("completed", "stopped", "failed", "out_of_memory")


class RaceSearcher(SpaceSearcher):
    """Repeats of each contender in turn, as long as it may still be best.

    Repeat r of every contender has the same seed and, for built-in trainables, the same fold: see
    `hpo_ray.attempts.spec_of`. A contender that is clearly beaten gets no more of them, and the race is over when one
    is left or all repeats are out.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        contenders: Mapping[str, Config],
        repeats: int,
        confidence: float,
        metric: str,
        mode: str,
        seed: int,
    ) -> None:
        """Make a searcher.

        Args:
            space: Which the contenders are of.
            contenders: Name -> configuration, at least two.
            repeats: Of each, at most.
            confidence: See `hpo_ray.results.racing.race`.
            metric: The reported key to compare by.
            mode: ``min`` or ``max``.
            seed: Without effect: nothing is drawn.
        """
        self._contenders = dict(contenders)
        self._repeats = repeats
        self._confidence = confidence
        self._scores: dict[tuple[str, int], float] = {}
        self._next: tuple[str, int] | None = None
        super().__init__(space, metric=metric, mode=mode, seed=seed)
        self._points, self._default_first = [], False

    def _propose(self, k: int, rng: np.random.Generator) -> Config | None:
        handed = [(state["contender"], state["repeat"]) for state in self._states.values()]
        alive = self._alive()
        left = [
            (repeat, place, name)
            for place, name in enumerate(self._contenders)
            for repeat in range(self._repeats)
            if name in alive and (name, repeat) not in handed
        ]
        if len(alive) < 2 or not left:
            return None
        repeat, _, name = min(left)
        self._next = (name, repeat)
        return self._contenders[name]

    def _state(self) -> dict[str, Any]:
        assert self._next is not None  # `_propose` has set it
        return {"contender": self._next[0], "repeat": self._next[1]}

    def _tell(
        self, trial_id: str, config: Config, loss: float | None, fidelity: float | None, status: str, se: float | None
    ) -> None:
        if status in OVER:
            state = self._states[trial_id]
            usable = loss is not None and status in ("completed", "stopped")
            self._scores[state["contender"], state["repeat"]] = float(loss) if usable and loss is not None else math.nan

    def _alive(self) -> set[str]:
        """The contenders that may still be best."""
        if not self._scores:
            return set(self._contenders)
        import pandas as pd

        from hpo_ray.results import racing

        rows = [(name, repeat, value) for (name, repeat), value in self._scores.items()]
        scores = pd.DataFrame(rows, columns=["config_id", "repeat", "value"])
        standing = racing.race(scores, planned=self._repeats, confidence=self._confidence)
        return set(self._contenders) - set(standing.dropped)
