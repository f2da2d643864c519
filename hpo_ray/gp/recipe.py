"""What GP-EI is made of, so that an ablation can leave parts out one at a time."""

from __future__ import annotations

from dataclasses import dataclass

from hpo_ray.gp.outputs import HALF_RANK, PLAIN, RANK


@dataclass(frozen=True)
class Recipe:
    """The parts of the searcher.

    Attributes:
        ways: How losses are looked at; suggestions take the ways in turn.
        trend: Whether each parameter has an effect of its own, a polynomial.
        power: Whether a power transform is chosen by likelihood.
        noise_aware: Whether the incumbent is uncertain under noise, rather than the lowest observation.
        fantasies: How many joint draws stand for what is pending (even); 0: its mean alone.
        local: Whether neighbours of the best points join the candidates.
        climb: Whether candidates are improved by gradients and single discrete moves.
        feasibility: Whether failures are learned.
        design: Points of the space-filling start; 0: 2 d, from 6 to 12.
    """

    ways: tuple[str, ...] = (PLAIN, HALF_RANK, RANK)
    trend: bool = True
    power: bool = True
    noise_aware: bool = True
    fantasies: int = 16
    local: bool = True
    climb: bool = True
    feasibility: bool = True
    design: int = 0
