"""The rule of asynchronous successive halving, as plain arithmetic: no Ray, no clock, no randomness.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA); the stopping variant of
Klein et al. 2020, "Model-based Asynchronous Hyperparameter and Neural Architecture Search", section 3.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What happened at a rung.

    Attributes:
        rung: The rung's fidelity.
        value: The loss recorded there (minimised).
        cutoff: The worst loss that is still kept among those recorded so far, this one included.
        kept: Whether the trial goes on.
        rank: This loss's place among them, from 1; ties by arrival.
        n: How many were recorded.
    """

    rung: float
    value: float
    cutoff: float
    kept: bool
    rank: int
    n: int


def rung_levels(*, grace_period: int, max_t: int, reduction_factor: int) -> list[int]:
    """Fidelities at which trials are compared: grace_period * reduction_factor^k below `max_t`, rising.

    >>> rung_levels(grace_period=1, max_t=27, reduction_factor=3)
    [1, 3, 9]
    """
    levels = []
    level = grace_period
    while level < max_t:
        levels.append(level)
        level *= reduction_factor
    return levels


class Rungs:
    """The values recorded at each rung; a function of the reports in the order they arrived."""

    def __init__(self, levels: Sequence[int], reduction_factor: int) -> None:
        """Args: rising fidelities, e.g. from `rung_levels`, and how many trials of which one is kept."""
        self.levels = list(levels)
        self._factor = reduction_factor
        # Values are kept by the fidelity they were measured at: a trial that reports every 5 epochs fills rung 3 at 5,
        # and is compared with others that did so, not with values from epoch 3.
        self._recorded: dict[tuple[int, float], list[float]] = {}
        self._reached: dict[str, int] = {}

    def decide(self, trial_id: str, fidelity: float, loss: float) -> Decision | None:
        """Record a report where it fills a rung, and decide there.

        A trial is kept iff its rank among the n losses at the rung, its own included and ties ranked by arrival, is
        at most max(1, floor(n / reduction_factor)). One report fills at most one rung: the highest it has reached.

        Args:
            trial_id: Whose report it is.
            fidelity: Where it was measured.
            loss: Minimised; finite.

        Returns:
            The decision; None where the report fills no rung.
        """
        index = bisect.bisect_right(self.levels, fidelity) - 1
        if index <= self._reached.get(trial_id, -1):
            return None
        self._reached[trial_id] = index
        losses = self._recorded.setdefault((index, fidelity), [])
        rank = bisect.bisect_right(losses, loss) + 1
        losses.insert(rank - 1, loss)
        allowed = max(1, math.floor(len(losses) / self._factor))
        return Decision(self.levels[index], loss, losses[allowed - 1], rank <= allowed, rank, len(losses))
