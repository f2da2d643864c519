"""Functional ANOVA of functions drawn from a posterior: the variance that each parameter, and each pair, accounts for.

Numerical core of `hpo_ray.results.importance`; knows columns and draws, no frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from hpo_ray.encoding import level_shares
from hpo_ray.gp.columns import Array, Columns
from hpo_ray.gp.maximiser import sobol
from hpo_ray.results.surrogate import Draws, Surrogate

# Nodes of Gauss and Legendre's rule along a number, alone and in a pair; a number with as few levels has them all.
NODES, PAIR_NODES = 16, 8
# Points over which the other parameters are averaged out, alone and in a pair; powers of two, for Sobol's sequence.
OTHERS, PAIR_OTHERS = 128, 32
# Points over which the whole variance is taken.
WHOLE = 2048
# All pairs together take at most so many evaluations: with many parameters each has fewer points.
PAIR_BUDGET = 200_000


class Cube:
    """The unit cube over which parameters are averaged: the distribution that the space itself samples from."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self._surrogate = surrogate
        self._columns: Columns = surrogate.columns
        domains = list(surrogate.space.domains.values())
        self._shares = [
            None if levels is None else level_shares(domain)
            for levels, domain in zip(self._columns.levels, domains, strict=True)
        ]
        units = sobol(WHOLE, self._columns.d, [seed])
        self._points = np.stack([self._at(i, units[:, i]) for i in range(self._columns.d)], axis=1)

    def axis(self, i: int, count: int) -> tuple[Array, Array]:
        """Values of column `i` and their weights: all its levels if they are few, else Gauss and Legendre's nodes."""
        levels, shares = self._columns.levels[i], self._shares[i]
        if levels is not None and shares is not None and (len(levels) <= count or self._columns.categorical[i]):
            return levels, shares
        nodes, weights = np.polynomial.legendre.leggauss(count)
        return self._at(i, (nodes + 1.0) / 2.0), weights / 2.0

    def active(self) -> Array:
        """`d` shares of the cube in which each column is in use."""
        return np.asarray(self._columns.settle(self._points)[1].mean(axis=0))

    def whole(self, draws: Draws) -> Array:
        """`WHOLE x (1 + count)` values at points spread over the cube."""
        return draws(self._surrogate.features(*self._columns.settle(self._points)))

    def averaged(self, draws: Draws, kept: Sequence[int], values: Array, others: int, *, in_use: bool = False) -> Array:
        """`k x (1 + count)` averages over all other parameters.

        Args:
            draws: The functions.
            kept: `c` columns.
            values: `k x c`, where they are held.
            others: Over how many points the others go; the same for all `k`, so that what does not depend on `kept`
                cancels in differences.
            in_use: Whether the average is over the points only where the kept columns are in use; NaN where there are
                none.
        """
        rows = []
        step = max(1, 8192 // others)
        for start in range(0, len(values), step):
            some = values[start : start + step]
            x = np.tile(self._points[:others], (len(some), 1))
            x[:, kept] = np.repeat(some, others, axis=0)
            settled, used = self._columns.settle(x)
            counted = np.asarray(used[:, kept].all(axis=1)) if in_use else np.ones(len(x), dtype=bool)
            embedded = draws.embed(self._surrogate.features(settled, used)) * counted[:, None]
            counts = counted.reshape(len(some), others).sum(axis=1)
            sums = embedded.reshape(len(some), others, -1).sum(axis=1)
            rows.append(sums / np.where(counts > 0, counts, np.nan)[:, None])
        return np.asarray(np.vstack(rows) @ draws.weights + draws.mean)

    def _at(self, i: int, unit: Array) -> Array:
        """Column `i`'s values at shares of its distribution."""
        levels, shares = self._columns.levels[i], self._shares[i]
        if levels is None or shares is None:
            return unit
        places = np.searchsorted(np.cumsum(shares), unit, side="right")
        return np.asarray(levels[np.minimum(places, len(levels) - 1)])


def shares(cube: Cube, draws: Draws, d: int) -> tuple[Array, dict[tuple[int, int], Array], Array]:
    """The share of each parameter alone, of each pair beyond both alone, and the variance that they are shares of.

    Source: Hutter, Hoos & Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance", section 3
    (V_U / V of the marginals). They take marginals of a forest; here they are of draws from a Gaussian process (as
    Oakley & O'Hagan 2004, "Probabilistic sensitivity analysis of complex models", and Le Gratiet et al. 2014).

    Returns:
        `d x s`, and (i, j) -> `s`, in 0..1; `s` variances. The first of `s` is that of the posterior's mean.
    """
    whole = cube.whole(draws).var(axis=0)
    safe = np.where(whole > 0, whole, 1.0)
    alone = np.zeros((d, len(whole)))
    for i in range(d):
        values, weights = cube.axis(i, NODES)
        alone[i] = _variance(cube.averaged(draws, [i], values[:, None], OTHERS), weights)
    pairs: dict[tuple[int, int], Array] = {}
    count = d * (d - 1) // 2
    others = PAIR_OTHERS
    while others > 8 and count * PAIR_NODES**2 * others > PAIR_BUDGET:
        others //= 2
    for i, j in combinations(range(d), 2):
        (a, p), (b, q) = cube.axis(i, PAIR_NODES), cube.axis(j, PAIR_NODES)
        grid = np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)
        table = cube.averaged(draws, [i, j], grid, others).reshape(len(a), len(b), -1)
        rows, columns = np.tensordot(q, table, (0, 1)), np.tensordot(p, table, (0, 0))
        table = table - rows[:, None] - columns[None] + np.tensordot(p, rows, (0, 0))
        pairs[i, j] = np.einsum("i,j,ijs->s", p, q, table**2) / safe
    return alone / safe, pairs, whole


def _variance(table: Array, weights: Array) -> Array:
    centred = table - weights @ table
    return np.asarray(weights @ centred**2)
