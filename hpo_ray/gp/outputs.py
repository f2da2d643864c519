"""Losses as a Gaussian process likes them: centred, scaled, heavy tails tamed. Two ways of looking at them.

Must not know: inputs; how the model is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from hpo_ray.gp.columns import Array

# Candidate powers of Yeo & Johnson's transform; 1 changes nothing, less draws the upper tail in.
POWERS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)

# Values differ if they do by more than this share of the largest.
EQUAL = 1e-12
# Losses beyond this, or all below its inverse, are brought to size 1 before their squares are taken.
HUGE = 1e100

# The ways: as they are, and with the worse half by rank.
PLAIN, HALF_RANK = "plain", "half_rank"


@dataclass(frozen=True)
class Warped:
    """`n` transformed losses and the transform's slope at each (d output / d loss)."""

    z: Array
    slope: Array

    def then(self, other: Warped) -> Warped:
        """This transform followed by another."""
        return Warped(other.z, self.slope * other.slope)

    @property
    def log_jacobian(self) -> float:
        """log |dz/dy|, by which densities of z are turned into densities of y."""
        return float(np.log(np.maximum(self.slope, 1e-300)).sum())


def standardise(y: Array) -> Warped:
    """(y - mean)/sd; all 0 where all outputs are equal to rounding."""
    centre, spread = float(y.mean()), float(y.std())
    if not spread > EQUAL * _size(y):
        return Warped(np.zeros(len(y)), np.ones(len(y)))
    return Warped((y - centre) / spread, np.full(len(y), 1.0 / spread))


def yeo_johnson(z: Array, power: float) -> Warped:
    """Yeo & Johnson's power transform (2000, eq. 2.1), with its slope (1 + |z|)^±(power - 1)."""
    t = np.log1p(np.abs(z))
    p = np.where(z >= 0, power, 2.0 - power)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(p == 0, t, np.expm1(p * t) / np.where(p == 0, 1.0, p))
    return Warped(np.sign(z) * size, np.exp((p - 1.0) * t))


def by_rank(y: Array) -> Warped:
    """Normal quantiles of the ranks, ties averaged; the slope is that between neighbours."""
    z = ndtri(_middle_ranks(y))
    return Warped(z, _slopes(y, z))


def by_half_rank(y: Array) -> Warped:
    """Losses worse than the median moved to the normal quantiles of their ranks (Song et al. 2024, section 3.2).

    The better half stays as it is; its spread about the median sets the normal's. Where it has none, all go by rank.
    """
    median = float(np.median(y))
    good = y <= median
    spread = float(np.sqrt(np.mean((y[good] - median) ** 2)))
    if not spread > EQUAL * _size(y[good]):
        return by_rank(y)
    z = np.where(good, y, median + spread * np.maximum(ndtri(_middle_ranks(y)), 0.0))
    return Warped(z, np.where(good, 1.0, _slopes(y, z)))


def prepare(y: Array, way: str) -> Warped:
    """Losses seen one of the two ways, standardised; a power may follow."""
    if (size := _size(y)) > HUGE or 0 < size < 1 / HUGE:
        smaller = prepare(y / size, way)
        return Warped(smaller.z, np.minimum(smaller.slope, 1e300 * size) / size)  # losses below 1e-300 are no error
    if way == PLAIN:
        return standardise(y)
    first = by_half_rank(y)
    return first.then(standardise(first.z))


def with_power(prepared: Warped, power: float) -> Warped:
    """Prepared losses under a power, standardised again."""
    if power == 1.0:
        return prepared
    bent = prepared.then(yeo_johnson(prepared.z, power))
    return bent.then(standardise(bent.z))


def _middle_ranks(y: Array) -> Array:
    """Ranks as shares in (0, 1), ties averaged."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(counts) - counts / 2.0) / len(y))[inverse])


def _slopes(y: Array, z: Array) -> Array:
    """dz/dy between each value's neighbours; values equal to rounding count as that far apart."""
    values, first, inverse = np.unique(y, return_index=True, return_inverse=True)
    if len(values) < 2:
        return np.ones(len(y))
    around = np.arange(len(values))
    below, above = np.maximum(around - 1, 0), np.minimum(around + 1, len(values) - 1)
    rounding = EQUAL * np.maximum(np.abs(values[above]), np.abs(values[below]))
    gaps = np.maximum(values[above] - values[below], np.maximum(rounding, 1e-300))
    return np.asarray(((z[first][above] - z[first][below]) / gaps)[inverse])


def _size(y: Array) -> float:
    return float(np.abs(y).max(initial=0.0))
