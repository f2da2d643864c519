"""Numbers: continuous, or on a lattice of levels; their places in [0, 1] and their grids.

Must not know: how users' arguments are checked (see ``construct``), what the parent in ``when`` is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, Literal, TypeAlias

from hpo_ray.domains.base import MAX_GRID, DomainBase, When
from hpo_ray.domains.levels import UNSET, Unset, exact, finite_number
from hpo_ray.domains.messages import number_text, show, wrong
from hpo_ray.domains.scales import Even, Log, Normal, Scale, bin_at, bin_centre, clip

Kind: TypeAlias = Literal["float", "int"]
ScaleName: TypeAlias = Literal["uniform", "log", "normal", "lognormal"]

# The function's name -> what it makes.
SHAPES: Final[dict[str, tuple[Kind, ScaleName]]] = {
    "uniform": ("float", "uniform"),
    "loguniform": ("float", "log"),
    "normal": ("float", "normal"),
    "lognormal": ("float", "lognormal"),
    "int": ("int", "uniform"),
    "logint": ("int", "log"),
}
_NAMES = {shape: name for name, shape in SHAPES.items()}


@dataclass(frozen=True, eq=False, repr=False)
class Numeric(DomainBase):
    """A number: continuous, or on a lattice of finitely many levels (every int, and floats with ``q``).

    Made by ``uniform``, ``loguniform``, ``normal``, ``lognormal``, ``integer`` and ``logint``, which check it.

    Attributes:
        kind: "float" or "int".
        scale: On which scale values are evenly likely, or the distribution's name.
        low: Smallest value. For a normal the clip at its central 1 - 1e-9 mass, or the first level inside.
        high: Largest value, likewise; inclusive.
        mean: Of a normal, or of the natural logarithm of a lognormal; else None.
        sd: Likewise.
        q: Distance of the levels, ``low, low + q, …, high``; None for a continuous float and for an int's 1.
        grid: Points under grid search; None for all levels.
        default: The value to try first, or ``UNSET``.
        when: The parent's name and its values under which this parameter is active; None for always.
    """

    kind: Kind
    scale: ScaleName
    low: float
    high: float
    mean: float | None = None
    sd: float | None = None
    q: float | None = None
    grid: int | None = None
    default: float | Unset = UNSET
    when: When | None = None

    @cached_property
    def levels(self) -> int | None:
        """How many values there are; None for a continuous float."""
        return None if self.step == 0 else self._nearest_index(self.high) + 1

    @cached_property
    def _first(self) -> Fraction:
        if self.q is None or self.mean is None:
            return exact(self.low)
        # A normal's levels are the multiples of q, of which low is a rounded one.
        return round(exact(self.low) / self.step) * self.step

    @cached_property
    def step(self) -> Fraction:
        """Distance of the levels; 0 for a continuous float."""
        return Fraction(int(self.kind == "int")) if self.q is None else exact(self.q)

    def _nearest_index(self, number: float) -> int:
        """The place among the levels, from 0, of the one closest to ``number``."""
        if self.kind == "int":
            step = int(self.q or 1)
            return (2 * (round(number) - int(self.low)) + step) // (2 * step)
        return round((exact(number) - self._first) / self.step)

    def level(self, index: int) -> float:
        """Level ``index``, 0 <= index < levels: ``low + index * q`` in exact decimals (0.3, never 3 * 0.1)."""
        if self.kind == "int":
            return int(self.low) + index * int(self.q or 1)
        return float(self._first + index * self.step)

    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""
        bounds = (self.low, self.high) if self.mean is None or self.sd is None else (self.mean, self.sd)
        options = [] if self.q is None else [f"q={number_text(self.q)}"]
        options += [] if self.grid is None else [f"grid={self.grid}"]
        options += [] if isinstance(self.default, Unset) else [f"default={number_text(self.default)}"]
        arguments = [*map(number_text, bounds), *options, *self._when_text()]
        return f"{_NAMES[self.kind, self.scale]}({', '.join(arguments)})"

    def canonical(self, value: object) -> float:
        """``value`` as this domain's own number: an int for an int, the exact level for a lattice.

        Raises:
            InvalidInput: It is no value of this domain; the message names the nearest one.
        """
        number = finite_number(value, "the value", self.kind == "int")
        if not self.low <= number <= self.high:
            side, bound = ("below low", self.low) if number < self.low else ("above high", self.high)
            raise wrong(f"{show(value)} is {side} {number_text(bound)} of {self.text()}")
        if self.levels is None:
            return number
        closest = self.level(self._nearest_index(number))
        # Arithmetic in binary, such as 3 * 0.1, leaves dust around a level.
        if number == closest or (self.kind == "float" and abs(number - closest) <= 1e-9 * self.step):
            return closest
        raise wrong(f"{show(value)} is between the levels of {self.text()}: the nearest is {number_text(closest)}")

    def to_unit(self, value: object) -> float:
        """Where ``value`` lies in [0, 1]; for a level the centre of its bin.

        ``from_unit`` brings back the same int or level. A float comes back within 1e-12 of itself (down to 1e-290 of
        the range), with two exceptions that float64 forces on any map to [0, 1], whose numbers near 1 are 1.1e-16
        apart: on a range with a negative bound, and for a normal, the error is 1e-12 of max(|low|, |high|); and a
        value further than 4 sd above a normal's mean comes back that closely only if ``from_unit`` made it, else
        within 2e-8 sd (sd of the logarithm for a lognormal).

        Raises:
            InvalidInput: ``value`` is outside the domain.
        """
        number = self.canonical(value)
        if self.levels is None:
            return 0.0 if number <= self.low else 1.0 if number >= self.high else clip(self._scale.share(number))
        index = self._nearest_index(number)
        if self.scale == "uniform":
            return bin_centre(index, self.levels)
        return (self.edge(index) + self.edge(index + 1)) / 2

    def from_unit(self, unit: float) -> float:
        """The value at ``unit``, which is clipped to [0, 1]; never outside [low, high], both ends exact."""
        unit = clip(unit)
        if self.levels is None:
            if unit in (0.0, 1.0):
                return self.high if unit else self.low
            return min(max(self._scale.number(unit), self.low), self.high)
        if self.scale == "uniform":
            return self.level(bin_at(unit, self.levels))
        # No bin is so narrow that rounding could pick another (``construct`` has seen to it).
        index = math.floor((self._scale.number(unit) - self.low) / (self.q or 1) + 0.5)
        return self.level(min(max(index, 0), self.levels - 1))

    def edge(self, index: int) -> float:
        """Share of the lower edge of bin ``index``, ``low + (index - 1/2) q``; of ``levels``: 1."""
        if index == 0 or index == self.levels:
            return float(index > 0)
        return self._scale.share(self.low + (index - 0.5) * (self.q or 1))

    @cached_property
    def _scale(self) -> Scale:
        """What the unit interval covers: low to high, and half a bin more at each end of a lattice."""
        half = float(self.step) / 2
        start, end = self.low - half, self.high + half
        if self.scale == "uniform":
            return Even(start, end)
        if self.scale == "log":  # where a bin that reaches to zero or below has no length
            return Log(max(start, self.low / 2), end)
        ends = None if self.q is None else (start, end)
        return Normal(self.mean or 0, self.sd or 1, self.scale == "lognormal", ends)

    def grid_values(self) -> list[float]:
        """The points of a grid search, ascending and distinct.

        With ``grid`` that many, evenly spread on the domain's scale from low to high (for a normal: the centres of
        bins of equal mass); without it all levels.

        Raises:
            InvalidInput: A continuous float without ``grid``, or more than a million levels.
        """
        if self.grid is None:
            if self.levels is None:
                raise wrong(f"a float under grid search needs grid=n, e.g. {self.text()[:-1]}, grid=5)")
            if self.levels > MAX_GRID:
                raise wrong(f"{self.levels} levels are too many for a grid: e.g. {self.text()[:-1]}, grid=5)")
            return [self.level(index) for index in range(self.levels)]
        tails, last = self.scale in ("normal", "lognormal"), self.grid - 1
        units = [Fraction(2 * i + 1, 2 * self.grid) if tails else Fraction(i, last) for i in range(self.grid)]
        if self.levels is not None:
            return [self.level(index) for index in self._spread(units, self.levels)]
        if self.scale == "uniform":
            length = exact(self.high) - self._first
            return list(dict.fromkeys(float(self._first + length * unit) for unit in units))
        # 15 digits: 0.001 rather than 0.0010000000000000002
        points = [float(f"{self.from_unit(float(unit)):.15g}") for unit in units]
        return list(dict.fromkeys(min(max(point, self.low), self.high) for point in points))

    def _spread(self, units: Sequence[Fraction], levels: int) -> list[int]:
        """Distinct indices of the levels at ``units``, pushed apart where neighbours coincide."""
        if self.scale == "uniform":
            indices = [round(unit * (levels - 1)) for unit in units]
        else:
            # Next to the points of a continuous domain: for logint(1, 1000) 1, 10, 100, 1000; the bins say 1, 6, 79.
            smooth = Numeric("float", self.scale, self.low, self.high, self.mean, self.sd)
            indices = [self._nearest_index(smooth.from_unit(float(unit))) for unit in units]
        for i in range(1, len(indices)):
            indices[i] = max(indices[i], indices[i - 1] + 1)
        for i in range(1, len(indices) + 1):
            indices[-i] = min(indices[-i], levels - i)
        return indices
