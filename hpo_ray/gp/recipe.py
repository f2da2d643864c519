"""What GP-EI is made of, so that an ablation can leave parts out one at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The parts of the searcher; all are in use unless someone measures what it is without one.

    Attributes:
        half_rank: Whether every other suggestion looks at losses with the worse half by rank.
        trend: Whether each parameter has an effect of its own, a polynomial.
        power: Whether a power transform is chosen by likelihood.
        noise_aware: Whether the incumbent is a mean, uncertain under noise, rather than the lowest observation.
        fantasies: Whether joint draws stand for what is pending, rather than its mean.
        local: Whether neighbours of the best points join the candidates.
        climb: Whether candidates are improved by gradients and single discrete moves.
        feasibility: Whether failures are learned.
    """

    half_rank: bool = True
    trend: bool = True
    power: bool = True
    noise_aware: bool = True
    fantasies: bool = True
    local: bool = True
    climb: bool = True
    feasibility: bool = True
