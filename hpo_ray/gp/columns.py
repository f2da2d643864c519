"""The shape of a point: which columns are continuous, discrete or categorical, and which are active when.

Must not know: parameters' names, models. A point has numbers in [0, 1], and for a categorical its level's index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# A number with more levels than this is treated as continuous, and rounded by whoever decodes the point; a space with
# no more points than this is looked through whole.
MANY_LEVELS = 1000

# Each number's own effect on the loss is held to be a polynomial: the weights of Legendre's of degree 1, 2, 3, 4.
LEGENDRE = (1.0, 0.5, 0.25, 0.125)
# The owner of a feature that is no coordinate of the kernel but a basis function of the trend.
TREND = -1


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        levels: Its permitted values, ascending (0, 1, … for a categorical); None: continuous in [0, 1].
        categorical: Whether its levels have no order.
        parent: The column that decides whether this one is active; None: it always is.
        when: The parent's levels, by place, under which this column is active.
    """

    levels: tuple[float, ...] | None = None
    categorical: bool = False
    parent: int | None = None
    when: frozenset[int] = frozenset()


class Columns:
    """`d` columns, and what follows from them for `n x d` points."""

    def __init__(self, columns: Sequence[Column], *, trend: bool = True) -> None:
        """Take the columns together; without `trend` there are no basis functions among the features."""
        self.columns = tuple(columns)
        self.d = len(self.columns)
        self.levels = [None if c.levels is None else np.array(c.levels, dtype=np.float64) for c in self.columns]
        self.continuous = np.array([c.levels is None for c in self.columns], dtype=bool)
        self.categorical = np.array([c.categorical for c in self.columns], dtype=bool)
        self.discrete = [i for i, c in enumerate(self.columns) if c.levels is not None and len(c.levels) > 1]
        # A column that is not in use stands at this value, as the search space's encoding has it.
        self.rest = np.where(self.categorical, 0.0, 0.5)
        self._all: Array | None = None
        self._order = self._parents_first()
        # Where each column's coordinates start, and which column each feature is of.
        self.widths = [len(c.levels or ()) if c.categorical else 1 for c in self.columns]
        self._starts = np.concatenate([[0], np.cumsum(self.widths)[:-1]]).astype(int)
        self._numeric = np.flatnonzero(~self.categorical)
        self._numeric_coordinates = self._starts[self._numeric]
        coordinates = np.repeat(np.arange(self.d), self.widths)
        one_hot = len(coordinates) - len(self._numeric)
        self._trend = trend
        basis = np.full(trend * (len(LEGENDRE) * len(self._numeric) + one_hot), TREND)
        self.owner: Integers = np.concatenate([coordinates, basis])

    @cached_property
    def conditional(self) -> bool:
        """Whether any column depends on another."""
        return any(c.parent is not None for c in self.columns)

    @cached_property
    def finite(self) -> bool:
        """Whether there are finitely many points."""
        return not self.continuous.any()

    def enumerate(self, limit: int = MANY_LEVELS) -> Array | None:
        """All settled points, once each; None if combinations, active or not, are more than `limit`."""
        levels = [values for values in self.levels if values is not None]
        if len(levels) < self.d or math.prod(map(len, levels)) > limit:
            return None
        if self._all is None:
            grids = np.meshgrid(*levels, indexing="ij")
            self._all = np.unique(self.settle(np.stack([g.ravel() for g in grids], axis=1))[0], axis=0)
        return self._all

    def snap(self, x: Array) -> Array:
        """`n x d` points moved to permitted values, whether in use or not."""
        x = np.clip(x, 0.0, np.where(self.categorical, np.inf, 1.0))
        for i, levels in enumerate(self.levels):
            if levels is not None:
                x[:, i] = levels[self.places(x[:, i], i)]
        return x

    def active(self, x: Array) -> Mask:
        """`n x d`: which entries of snapped points are in use."""
        used = np.ones(x.shape, dtype=bool)
        if self.conditional:
            for i in self._order:
                column = self.columns[i]
                if column.parent is not None:
                    places = self.places(x[:, column.parent], column.parent)
                    used[:, i] = used[:, column.parent] & np.isin(places, list(column.when))
        return used

    def settle(self, x: Array) -> tuple[Array, Mask]:
        """`n x d` snapped points with unused entries at rest, and which are in use: equal rows are equal points."""
        x = self.snap(x)
        if not self.conditional:
            return x, np.ones(x.shape, dtype=bool)
        used = self.active(x)
        return np.where(used, x, self.rest), used

    def from_unit(self, unit: Array) -> Array:
        """`n x d` points at coordinates of the unit cube: each level of a categorical has an equal share of its
        coordinate, a number is the nearest of its levels.
        """
        x = unit.copy()
        for i in np.flatnonzero(self.categorical):
            k = self.widths[i]
            x[:, i] = np.minimum(np.floor(unit[:, i] * k), k - 1)
        return self.snap(x)

    def features(self, x: Array, used: Mask) -> Array:
        """`n x p` numbers in which the model sees settled points: coordinates for the kernel, then the trend's basis.

        A number is its own coordinate, and four basis functions: its Legendre polynomials of degree 1 to 4. A
        categorical of k levels has k one-hot coordinates over √2, so that two levels are 1 apart in square (the Hamming
        distance), and the same as basis functions. Out of use all but a number's coordinate are 0.
        """
        coordinates = self._coordinates(x, used)
        if not self._trend:
            return coordinates
        t, on = 2.0 * x[:, self._numeric] - 1.0, used[:, self._numeric]
        basis = [weight * value * on for weight, value in zip(LEGENDRE, _legendre(t), strict=True)]
        if self.categorical.any():
            basis.append(np.delete(coordinates, self._numeric_coordinates, axis=1))
        return np.hstack([coordinates, *basis])

    def pull_back(self, gradient: Array, x: Array, used: Mask) -> Array:
        """`n x d` derivatives by the numbers, from `n x p` derivatives by the features; 0 for what cannot move."""
        g = np.zeros((len(gradient), self.d))
        count = len(self._numeric)
        by_number = gradient[:, self._numeric_coordinates]
        slopes = _legendre_slopes(2.0 * x[:, self._numeric] - 1.0) if self._trend else ()
        for degree, (weight, slope) in enumerate(zip(LEGENDRE, slopes, strict=False)):
            start = sum(self.widths) + degree * count
            by_number = by_number + 2.0 * weight * slope * gradient[:, start : start + count]
        g[:, self._numeric] = by_number
        return np.where(used & self.continuous, g, 0.0)

    def places(self, values: Array, i: int) -> Integers:
        """Which level of the discrete column i each of `n` values is nearest to."""
        levels = self.levels[i]
        assert levels is not None  # only asked of discrete columns
        if self.categorical[i]:
            return np.clip(np.rint(values), 0, len(levels) - 1).astype(np.int64)
        return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)

    def _coordinates(self, x: Array, used: Mask) -> Array:
        if not self.categorical.any():
            return x
        f = np.zeros((len(x), sum(self.widths)))
        f[:, self._numeric_coordinates] = x[:, self._numeric]
        rows = np.arange(len(x))
        for i in np.flatnonzero(self.categorical):
            f[rows, self._starts[i] + x[:, i].astype(int)] = used[:, i] / np.sqrt(2.0)
        return f

    def _parents_first(self) -> list[int]:
        depth: dict[int, int] = {}

        def find(i: int) -> int:
            parent = self.columns[i].parent
            if i not in depth:
                depth[i] = 0 if parent is None else find(parent) + 1
            return depth[i]

        return sorted(range(self.d), key=find)


def _legendre(t: Array) -> tuple[Array, Array, Array, Array]:
    """Legendre's polynomials of degree 1 to 4 on [-1, 1]."""
    s = t * t
    return t, 1.5 * s - 0.5, (2.5 * s - 1.5) * t, (4.375 * s - 3.75) * s + 0.375


def _legendre_slopes(t: Array) -> tuple[Array, Array, Array, Array]:
    """Their derivatives."""
    s = t * t
    return np.ones_like(t), 3.0 * t, 7.5 * s - 1.5, (17.5 * s - 7.5) * t
