"""What one hyperparameter may be: its domain, the domain's text form, its map to the unit interval.

Must not know: other parameters (beyond the name in ``when``), Ray, configuration files.
Text is read through ``ast`` and an allow-list of nodes; nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import enum
import keyword
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
from scipy.special import ndtr, ndtri

from hpo_ray.errors import InvalidInput, Problem, nearest


class Unset(enum.Enum):
    """Says "no default was given", because None may itself be a level."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
Level: TypeAlias = "str | int | float | bool | tuple[Level, ...] | None"
Scalar: TypeAlias = str | int | float | bool | None
When: TypeAlias = tuple[str, tuple[Level, ...]]
Scale: TypeAlias = Literal["uniform", "log", "normal", "lognormal"]

MAX_GRID = 1_000_000  # points of a grid, of one domain and of a whole space
MAX_TEXT = 10_000  # characters of one domain
_TAIL = 0.5e-9  # mass cut off at each end of a normal
_Z = float(-ndtri(_TAIL))
# A bin narrower than this share of the unit interval could not be told from its neighbours in float64.
_NARROWEST = 2.0**-49
_SHAPES: Final[dict[str, tuple[Literal["float", "int"], Scale]]] = {
    "uniform": ("float", "uniform"),
    "loguniform": ("float", "log"),
    "normal": ("float", "normal"),
    "lognormal": ("float", "lognormal"),
    "int": ("int", "uniform"),
    "logint": ("int", "log"),
}
_NAMES = {shape: name for name, shape in _SHAPES.items()}
_LABELS = {"uniform": ("low", "high"), "log": ("low", "high"), "normal": ("mean", "sd"), "lognormal": ("mean", "sd")}
_USAGE = {name: f"{name}({', '.join(_LABELS[scale])})" for name, (_, scale) in _SHAPES.items()}
_USAGE |= {"choice": "choice(a, b, …)", "ordinal": "ordinal(small, medium, large, …)"}
_WORDS: Final[dict[str, bool | float | None]] = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
}


def wrong(*messages: str) -> InvalidInput:
    """An InvalidInput of these messages whose key the caller fills in (see ``collecting``)."""
    return InvalidInput(*(Problem("", message) for message in messages))


@contextmanager
def collecting(problems: list[Problem], key: str = "") -> Iterator[None]:
    """Moves the problems of an InvalidInput raised in the block to ``problems``, renamed to ``key`` if given."""
    try:
        yield
    except InvalidInput as error:
        problems.extend(replace(problem, key=key or problem.key) for problem in error.problems)


def show(value: object) -> str:
    """``value`` for an error message: at most 60 characters, never an exception."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | list | tuple | dict | None):
        return f"<{type(value).__name__}>"
    try:
        text = _number_text(value) if type(value) in (int, float) else repr(value)  # type: ignore[arg-type]
    except (ValueError, RecursionError):  # Python refuses to print integers of more than 4300 digits
        text = "a value too long to print"
    return text if len(text) <= 60 else text[:57] + "…"


def exact(number: float) -> Fraction:
    """The decimal that is printed for ``number``, as a fraction: what the user meant by 0.1."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(float(number)))


def thaw(level: Level) -> object:
    """A level as the user's function gets it: a tuple is how a list is stored, so it comes back as a list."""
    return [thaw(item) for item in level] if isinstance(level, tuple) else level


def level_key(level: object) -> tuple[str, object]:
    """Type and value: what tells 1, 1.0 and True apart, which Python calls equal. Lists and tuples are the same."""
    if isinstance(level, list | tuple):
        return "list", tuple(map(level_key, level))
    return type(level).__name__, level


def level_text(level: Level) -> str:
    """A level in the text form; a string is bare where that is safe, else quoted."""
    if isinstance(level, tuple):
        return f"[{', '.join(map(level_text, level))}]"
    if level is None or isinstance(level, bool):
        return str(level).lower()
    if isinstance(level, str) and _bare(level) and level.lower() not in _WORDS:
        return level
    return repr(level)


def freeze(value: object, what: str = "a value", depth: int = 0) -> Level:
    """``value`` as a level: numpy scalars become Python's, lists and tuples become tuples.

    Args:
        value: Text, a finite number, true / false, None, or lists of them, four deep at most.
        what: What the value is, for the message.
        depth: Lists around this value.

    Raises:
        InvalidInput: For anything else.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and depth < 4:
        return tuple(freeze(item, what, depth + 1) for item in value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise wrong(f"{what} is {show(value)}: it must be finite")
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**64:
        raise wrong(f"{what} is {show(value)}: whole numbers go to 2**64")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | str):  # of exactly these types, so that an enum's member is stored as its value
        return int(value) if isinstance(value, int) else str.__str__(value)
    raise wrong(f"{what} is {show(value)}: it must be text, a number, true, false, none or a list of these")


class _Named:
    """What both kinds of domain share: they are equal, hashed and shown by their text form."""

    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""
        raise NotImplementedError

    def canonical(self, value: object) -> Level:
        """``value`` as the domain itself has it; InvalidInput if it is none of its values."""
        raise NotImplementedError

    def contains(self, value: object) -> bool:
        """Whether ``value`` belongs here. A whole float counts as an int, but True is no number.

        For levels type and value count, 1 is not 1.0; lists and tuples are the same.
        """
        try:
            self.canonical(value)
        except InvalidInput:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.text())

    def __repr__(self) -> str:
        return self.text()


@dataclass(frozen=True, eq=False, repr=False)
class Numeric(_Named):
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

    kind: Literal["float", "int"]
    scale: Scale
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
        return None if self._step == 0 else self._nearest_index(self.high) + 1

    @cached_property
    def _first(self) -> Fraction:
        if self.q is None or self.mean is None:
            return exact(self.low)
        # A normal's levels are the multiples of q, of which low is a rounded one.
        return round(exact(self.low) / self._step) * self._step

    @cached_property
    def _step(self) -> Fraction:
        """Distance of the levels; 0 for a continuous float."""
        return Fraction(int(self.kind == "int")) if self.q is None else exact(self.q)

    def _nearest_index(self, number: float) -> int:
        """The place among the levels, from 0, of the one closest to ``number``."""
        if self.kind == "int":
            step = int(self.q or 1)
            return (2 * (round(number) - int(self.low)) + step) // (2 * step)
        return round((exact(number) - self._first) / self._step)

    def level(self, index: int) -> float:
        """Level ``index``, 0 <= index < levels: ``low + index * q`` in exact decimals (0.3, never 3 * 0.1)."""
        if self.kind == "int":
            return int(self.low) + index * int(self.q or 1)
        return float(self._first + index * self._step)

    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""
        bounds = (self.low, self.high) if self.mean is None or self.sd is None else (self.mean, self.sd)
        options = [] if self.q is None else [f"q={_number_text(self.q)}"]
        options += [] if self.grid is None else [f"grid={self.grid}"]
        options += [] if isinstance(self.default, Unset) else [f"default={_number_text(self.default)}"]
        arguments = [*map(_number_text, bounds), *options, *_when_text(self.when)]
        return f"{_NAMES[self.kind, self.scale]}({', '.join(arguments)})"

    def canonical(self, value: object) -> float:
        """``value`` as this domain's own number: an int for an int, the exact level for a lattice.

        Raises:
            InvalidInput: It is no value of this domain; the message names the nearest one.
        """
        number = _number(value, "the value", self.kind == "int")
        if not self.low <= number <= self.high:
            side, bound = ("below low", self.low) if number < self.low else ("above high", self.high)
            raise wrong(f"{show(value)} is {side} {_number_text(bound)} of {self.text()}")
        if self.levels is None:
            return number
        closest = self.level(self._nearest_index(number))
        # Arithmetic in binary, such as 3 * 0.1, leaves dust around a level.
        if number == closest or (self.kind == "float" and abs(number - closest) <= 1e-9 * self._step):
            return closest
        raise wrong(f"{show(value)} is between the levels of {self.text()}: the nearest is {_number_text(closest)}")

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
            return 0.0 if number <= self.low else 1.0 if number >= self.high else _clip(self._measure(number))
        index = self._nearest_index(number)
        if self.scale == "uniform":
            return _centre(index, self.levels)
        return (self._edge(index) + self._edge(index + 1)) / 2

    def from_unit(self, unit: float) -> float:
        """The value at ``unit``, which is clipped to [0, 1]; never outside [low, high], both ends exact."""
        unit = _clip(unit)
        if self.levels is None:
            if unit in (0.0, 1.0):
                return self.high if unit else self.low
            return min(max(self._position(unit), self.low), self.high)
        if self.scale == "uniform":
            return self.level(_bin(unit, self.levels))
        return self.level(self._index(unit))

    def _index(self, unit: float) -> int:
        """The level whose bin holds ``unit``; no bin is so narrow that rounding could pick another (_check_levels)."""
        index = math.floor((self._position(unit) - self.low) / (self.q or 1) + 0.5)
        return min(max(index, 0), (self.levels or 1) - 1)

    def _edge(self, index: int) -> float:
        """Unit measure of the lower edge of bin ``index``, ``low + (index - 1/2) q``; of ``levels``: 1."""
        if index == 0 or index == self.levels:
            return float(index > 0)
        return self._measure(self.low + (index - 0.5) * (self.q or 1))

    @cached_property
    def _span(self) -> tuple[float, float]:
        """What the unit interval covers: low to high, and half a bin more at each end of a lattice.

        On a log scale a bin that reaches to zero or below has no length, so the first starts at low / 2 at the least.
        """
        half = float(self._step) / 2
        start, end = self.low - half, self.high + half
        return (max(start, self.low / 2) if self.scale == "log" else start), end

    @cached_property
    def _log_length(self) -> float:
        return self._log_ratio(self._span[1])

    def _log_ratio(self, number: float) -> float:
        """Logarithm of ``number`` over the start of the span, precise too where the two are close."""
        start, end = self._span
        return math.log1p((number - start) / start) if end / 1e300 < start else math.log(number) - math.log(start)

    @cached_property
    def _normal_part(self) -> tuple[float, float, float, float]:
        """Mass below the span, mass above it, mass of it, and where to change tails: at the mean if it is inside."""
        if self.q is None:
            return _TAIL, _TAIL, 1 - 2 * _TAIL, 0.5
        z_start, z_end = self._z(self._span[0]), self._z(self._span[1])
        below, above = float(ndtr(z_start)), float(ndtr(-z_end))
        if z_start >= 0:  # each difference is taken in the tail where it does not cancel
            return below, above, float(ndtr(-z_start)) - above, -1.0
        if z_end <= 0:
            return below, above, float(ndtr(z_end)) - below, 2.0
        return below, above, 1 - below - above, (0.5 - below) / (1 - below - above)

    def _z(self, number: float) -> float:
        place = math.log(number) if self.scale == "lognormal" else number
        return (place - (self.mean or 0)) / (self.sd or 1)

    def _measure(self, number: float) -> float:
        """The share of the span that lies below ``number``."""
        start, end = self._span
        if self.scale == "uniform":
            return (number - start) / (end - start)
        if self.scale == "log":
            return self._log_ratio(number) / self._log_length
        below, above, mass, _ = self._normal_part
        z = self._z(number)
        return (float(ndtr(z)) - below) / mass if z < 0 else 1 - (float(ndtr(-z)) - above) / mass

    def _position(self, unit: float) -> float:
        """Inverse of ``_measure``."""
        start, end = self._span
        if self.scale == "uniform":
            return start + unit * (end - start)
        if self.scale == "log":
            reach = unit * self._log_length
            return start + start * math.expm1(reach) if end / 1e300 < start else math.exp(math.log(start) + reach)
        below, above, mass, middle = self._normal_part
        if unit == middle:  # exactly, where ndtri leaves 1e-16
            z = 0.0
        else:
            z = float(ndtri(below + unit * mass)) if unit < middle else -float(ndtri(above + (1 - unit) * mass))
        place = (self.mean or 0) + (self.sd or 1) * z
        return math.exp(place) if self.scale == "lognormal" else place

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


@dataclass(frozen=True, eq=False, repr=False)
class Levelled(_Named):
    """One of a few values: unordered ("choice") or in the order given ("ordinal"); made by these functions.

    Attributes:
        kind: "choice" or "ordinal".
        values: At least one level, told apart by type and value; a list is stored as a tuple.
        default: The level to try first, or ``UNSET``.
        when: The parent's name and its values under which this parameter is active; None for always.
    """

    kind: Literal["choice", "ordinal"]
    values: tuple[Level, ...]
    default: Level | Unset = UNSET
    when: When | None = None

    @property
    def levels(self) -> int:
        """How many values there are."""
        return len(self.values)

    @cached_property
    def _places(self) -> dict[tuple[str, object], int]:
        return {level_key(level): index for index, level in enumerate(self.values)}

    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""
        # A lone list would be read as the list of levels.
        lone = len(self.values) == 1 and isinstance(self.values[0], tuple)
        arguments = [level_text(self.values)] if lone else [level_text(level) for level in self.values]
        arguments += [] if isinstance(self.default, Unset) else [f"default={level_text(self.default)}"]
        return f"{self.kind}({', '.join([*arguments, *_when_text(self.when)])})"

    def index(self, value: object) -> int:
        """The place of ``value`` among the levels, from 0.

        Raises:
            InvalidInput: It is none of them; the message names the nearest.
        """
        level = freeze(value, "the value")
        index = self._places.get(level_key(level))
        if index is None:
            raise wrong(f"{show(value)} is none of the values: {nearest(level_text(level)[:60], self._texts())}")
        return index

    def _texts(self) -> list[str]:
        return [level if isinstance(level, str) else level_text(level) for level in self.values]

    def canonical(self, value: object) -> Level:
        """The level that equals ``value``, lists stored as tuples; InvalidInput if there is none."""
        return self.values[self.index(value)]

    def to_unit(self, value: object) -> float:
        """The centre of the level's bin; the bins are equal shares of [0, 1] in the order given."""
        return _centre(self.index(value), self.levels)

    def place(self, unit: float) -> int:
        """Which level's bin holds ``unit``, which is clipped to [0, 1]."""
        return _bin(_clip(unit), self.levels)

    def from_unit(self, unit: float) -> object:
        """The value whose bin holds ``unit``, as the user gave it; a tuple as a list."""
        return thaw(self.values[self.place(unit)])

    def grid_values(self) -> list[object]:
        """All values, in order, as the user gave them."""
        return list(map(thaw, self.values))


Domain: TypeAlias = Numeric | Levelled
_D = TypeVar("_D", Numeric, Levelled)


def uniform(
    low: float,
    high: float,
    *,
    q: float | None = None,
    grid: int | None = None,
    default: float | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A float from low to high, every value equally likely.

    Args:
        low: Smallest value.
        high: Largest value, inclusive; with ``q`` it must be a whole number of steps above low.
        q: Only the values low, low + q, …; default: all.
        grid: Points under grid search, at least 2.
        default: A value to try first.
        when: ``{parent: value}`` or ``{parent: [value, …]}``: only active under these values of that parameter.

    Raises:
        InvalidInput: With every mistake found.
    """
    return _numeric("uniform", low, high, q, grid, default, when)


def loguniform(
    low: float,
    high: float,
    *,
    q: float | None = None,
    grid: int | None = None,
    default: float | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A float from low > 0 to high, every order of magnitude equally likely. Options as for ``uniform``."""
    return _numeric("loguniform", low, high, q, grid, default, when)


def normal(
    mean: float,
    sd: float,
    *,
    q: float | None = None,
    grid: int | None = None,
    default: float | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A normally distributed float, clipped to its central 1 - 1e-9 mass (mean ± 6.11 sd).

    With ``q`` the multiples of q inside. Other options as for ``uniform``.
    """
    return _numeric("normal", mean, sd, q, grid, default, when)


def lognormal(
    mean: float,
    sd: float,
    *,
    q: float | None = None,
    grid: int | None = None,
    default: float | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A float whose natural logarithm is ``normal(mean, sd)``, clipped alike. Options as for ``normal``."""
    return _numeric("lognormal", mean, sd, q, grid, default, when)


def integer(
    low: int,
    high: int,
    *,
    q: int | None = None,
    grid: int | None = None,
    default: int | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A whole number, both bounds inclusive; ``int(low, high)`` in text. Options as for ``uniform``."""
    return _numeric("int", low, high, q, grid, default, when)


def logint(
    low: int,
    high: int,
    *,
    q: int | None = None,
    grid: int | None = None,
    default: int | Unset = UNSET,
    when: Mapping[str, object] | None = None,
) -> Numeric:
    """A whole number >= 1 on a log scale, both bounds inclusive. Options as for ``uniform``."""
    return _numeric("logint", low, high, q, grid, default, when)


def choice(*values: object, default: object = UNSET, when: Mapping[str, object] | None = None) -> Levelled:
    """One of the values, in no order: ``choice(a, b)`` or ``choice([a, b])``.

    Args:
        values: Text, numbers, true / false, None, or lists of these; a list or tuple comes back as a list.
        default: A value to try first.
        when: As for ``uniform``.

    Raises:
        InvalidInput: With every mistake found.
    """
    return _levelled("choice", values, default, when)


def ordinal(*values: object, default: object = UNSET, when: Mapping[str, object] | None = None) -> Levelled:
    """One of the values, whose order matters: neighbours are alike. Arguments as for ``choice``."""
    return _levelled("ordinal", values, default, when)


def _numeric(
    name: str, first: object, second: object, q: object, grid: object, default: object, when: object
) -> Numeric:
    """The domain ``name(first, second, …)``, or an InvalidInput with all its mistakes."""
    kind, scale = _SHAPES[name]
    whole, problems = kind == "int", list[Problem]()
    with collecting(problems, name):
        bounds = _range(name, first, second)
    step = points = condition = None
    with collecting(problems, name):
        step = None if q is None else _positive(q, "q", whole)
    with collecting(problems, name):
        points = None if grid is None else _grid(grid)
    with collecting(problems, name):
        condition = _condition(when)
    if problems:
        raise InvalidInput(*problems)
    step = None if whole and step == 1 else step
    with collecting(problems, name):
        low, high = bounds[:2] if step is None else _lattice(bounds, step)
        domain = Numeric(kind, scale, low, high, *bounds[2:], step, points, UNSET, condition)
        _check_levels(domain)
        return _finished(domain, default)
    raise InvalidInput(*problems)


def _finished(domain: _D, default: object) -> _D:
    """The domain with its default, if that is one of its values and the text form can be read back."""
    if not isinstance(default, Unset):
        try:
            domain = replace(domain, default=domain.canonical(default))
        except InvalidInput as error:
            raise wrong(*(f"default: {problem.message}" for problem in error.problems)) from None
    if len(domain.text()) > MAX_TEXT:
        raise wrong(f"its values take more than {MAX_TEXT} characters: use fewer or shorter ones")
    return domain


def _range(name: str, first: object, second: object) -> tuple[float, float, float | None, float | None]:
    """Low, high, mean, sd of the two numbers of a domain; mean and sd are None except for the normals."""
    kind, scale = _SHAPES[name]
    problems, (label_a, label_b) = list[Problem](), _LABELS[scale]
    with collecting(problems):
        a = _number(first, label_a, kind == "int")
    with collecting(problems):
        b = _positive(second, label_b, False) if label_b == "sd" else _number(second, label_b, kind == "int")
    if problems:
        raise InvalidInput(*problems)
    if label_b == "sd":
        return (*_normal_range(name, a, b), a, b)
    shown_a, shown_b = _number_text(a), _number_text(b)
    messages = []
    if a > b:
        messages.append(f"low {shown_a} is above high {shown_b}: swap them")
    if a == b:
        messages.append(f"low and high are both {shown_a}: write a constant, {shown_a}")
    if scale == "log" and min(a, b) <= 0:
        plain = "int" if kind == "int" else "uniform"
        messages.append(
            f"{'low' if a <= b else 'high'} {_number_text(min(a, b))} must be above 0 on a log scale: "
            f"use a small positive bound, or {plain}({shown_a}, {shown_b})"
        )
    if kind == "float" and not math.isfinite(b - a):
        messages.append(f"{shown_a} to {shown_b} is wider than a float can hold: use closer bounds")
    if messages:
        raise wrong(*messages)
    return a, b, None, None


def _normal_range(name: str, mean: float, sd: float) -> tuple[float, float]:
    """Where the central 1 - 1e-9 mass lies."""
    low, high = mean - _Z * sd, mean + _Z * sd
    if name == "lognormal":
        low, high = (math.exp(place) if place < 709.7 else math.inf for place in (low, high))
        if low < 2.3e-308 or high == math.inf:
            raise wrong(
                f"mean {_number_text(mean)} and sd {_number_text(sd)} reach beyond what a float can hold: "
                "they are those of the natural logarithm"
            )
    if not math.isfinite(high - low):
        raise wrong(f"mean {_number_text(mean)} and sd {_number_text(sd)} reach beyond what a float can hold")
    if not low < high:
        raise wrong(f"sd {_number_text(sd)} is too small beside mean {_number_text(mean)}: write a constant")
    return low, high


def _lattice(bounds: tuple[float, float, float | None, float | None], q: float) -> tuple[float, float]:
    """First and last level of step ``q``: high must lie on the lattice; a normal's levels are multiples of q."""
    low, high, step = exact(bounds[0]), exact(bounds[1]), exact(q)
    where = f"{_number_text(bounds[0])} to {_number_text(bounds[1])}"
    if bounds[2] is not None:
        first, last = math.ceil(low / step), math.floor(high / step)
        if first >= last:
            raise wrong(f"q {_number_text(q)} is too large: fewer than two multiples of it lie in {where}")
        return float(first * step), float(last * step)
    if step > (high - low) * Fraction(1_000_000_001, 1_000_000_000):
        raise wrong(f"q {_number_text(q)} is larger than the range {where}")
    last_level = low + round((high - low) / step) * step
    whole = isinstance(bounds[0], int)
    closest = int(last_level) if whole else float(last_level)
    # Dust of binary arithmetic in a float bound is not a mistake.
    if abs(last_level - high) > (0 if whole else step / 1_000_000_000):
        shown = f"high {_number_text(bounds[1])} is not low {_number_text(bounds[0])} plus a multiple of "
        raise wrong(f"{shown}q {_number_text(q)}: the nearest valid high is {_number_text(closest)}")
    return bounds[0], closest


def _check_levels(domain: Numeric) -> None:
    """Raises if levels are too close for float64, or fewer than the grid asks for."""
    levels = domain.levels
    if levels is None:
        return
    if levels > 2**53:
        raise wrong(f"{show(levels)} levels are more than 2**53, as many as a float can tell apart: use a larger q")
    # The bins' edges, too, must be numbers of their own, and not merely rounded to the next level.
    step, finest = float(domain._step), 8 * max(math.ulp(domain.low), math.ulp(domain.high), 1e-300)
    if domain.scale == "lognormal":  # what rounding the exponent makes of the value
        finest = max(finest, 16 * domain.high * math.ulp(abs(domain.mean or 0) + 7 * (domain.sd or 0)))
    if domain.kind == "float" and step < finest:
        raise wrong(f"q {_number_text(step)} is too small beside the bounds: use a larger q")
    if domain.scale != "uniform" and min(domain._edge(1), 1 - domain._edge(levels - 1)) < _NARROWEST:
        raise wrong(f"levels {_number_text(step)} apart are too close for a float on this scale: use a larger q")
    if domain.grid is not None and domain.grid > levels:
        raise wrong(f"grid {domain.grid} asks for more points than there are levels: use grid={levels} or leave it out")


def _levelled(kind: Literal["choice", "ordinal"], given: Sequence[object], default: object, when: object) -> Levelled:
    """The domain ``kind(*given)``, or an InvalidInput with all its mistakes."""
    lone = given[0] if len(given) == 1 else None
    values = list(lone) if isinstance(lone, list | tuple | range | np.ndarray) else list(given)
    problems, levels, condition = list[Problem](), dict[tuple[str, object], Level](), None
    for value in values:
        with collecting(problems, kind):
            level = freeze(value)
            if level_key(level) in levels:
                raise wrong(f"{level_text(level)} is given twice: remove one")
            levels[level_key(level)] = level
    with collecting(problems, kind):
        condition = _condition(when)
    if not values:
        problems.append(Problem(kind, f"no values: write {_USAGE[kind]}"))
    domain = Levelled(kind, tuple(levels.values()), UNSET, condition)
    if levels:
        with collecting(problems, kind):
            domain = _finished(domain, default)
    if problems:
        raise InvalidInput(*problems)
    return domain


def _condition(when: object) -> When | None:
    if when is None:
        return None
    if not isinstance(when, Mapping):
        raise wrong(f"when is {show(when)}: write when={{parent: value}}")
    if len(when) != 1:
        raise wrong(f"when names {len(when)} parameters: name exactly one, when={{parent: value}}")
    [(parent, given)] = when.items()
    if not isinstance(parent, str) or not 0 < len(parent) <= 200:
        raise wrong(f"when names the parameter {show(parent)}: it must be text")
    values = given if isinstance(given, list | tuple) else [given]
    levels = {level_key(level): level for level in (freeze(value, f"when {parent}") for value in values)}
    if not levels:
        raise wrong(f"when {parent} has no values: write when={{{parent}: value}}")
    return parent, tuple(levels.values())


def _number(value: object, what: str, whole: bool) -> float:
    """``value`` as a finite Python float, or int if ``whole``."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"{what} must be a {'whole ' if whole else ''}number, not {show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise wrong(f"{what} is {show(value)}: it must be finite")
    if not whole:
        return number + 0.0  # -0.0 becomes 0.0
    if int(value) != value:
        raise wrong(f"{what} {show(value)} is not a whole number: the nearest is {round(value)}")
    return int(value)


def _positive(value: object, what: str, whole: bool) -> float:
    number = _number(value, what, whole)
    if number <= 0:
        raise wrong(f"{what} {_number_text(number)} must be above 0")
    return number


def _grid(value: object) -> int:
    number = int(_number(value, "grid", True))
    if not 2 <= number <= MAX_GRID:
        raise wrong(f"grid {show(number)} must be from 2 to {MAX_GRID}")
    return number


def _clip(unit: float) -> float:
    return min(max(float(unit), 0.0), 1.0)


def _bin(unit: float, bins: int) -> int:
    """Which of ``bins`` equal parts of [0, 1] holds ``unit``; in whole numbers, so exact up to 2**53 bins."""
    numerator, denominator = unit.as_integer_ratio()
    return min(numerator * bins // denominator, bins - 1)


def _centre(index: int, bins: int) -> float:
    centre = (2 * index + 1) / (2 * bins)
    # With 2**53 bins the centre lies between two floats and may round up into the next bin.
    return centre if _bin(centre, bins) == index else math.nextafter(centre, 0)


def _number_text(number: float) -> str:
    return repr(int(number)) if isinstance(number, int) or (number.is_integer() and abs(number) < 1e6) else repr(number)


def _bare(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def _when_text(when: When | None) -> list[str]:
    if when is None:
        return []
    parent, levels = when
    name = parent if all(_bare(part) for part in parent.split(".")) else repr(parent)
    single = len(levels) == 1 and not isinstance(levels[0], tuple)
    return [f"when={{{name}: {level_text(levels[0] if single else levels)}}}"]


# From text to domains: needs of the above only what Python users call, `_numeric` and `_levelled`.

_MAX_DEPTH = 8  # brackets inside brackets; Python's own parser may take exponential time beyond
_NODES = {
    "BinOp": "arithmetic",
    "Attribute": "a dotted name",
    "Lambda": "a lambda",
    "JoinedStr": "an f-string",
    "ListComp": "a comprehension",
    "GeneratorExp": "a comprehension",
    "Dict": "a mapping",
}
_INCLUSIVE = "both bounds are inclusive"
_FOREIGN = {
    "randint": f"int(low, high); {_INCLUSIVE}",
    "uniformint": f"int(low, high); {_INCLUSIVE}",
    "suggest_int": f"int(low, high); {_INCLUSIVE}",
    "lograndint": f"logint(low, high); {_INCLUSIVE}",
    "qrandint": f"int(low, high, q=…); {_INCLUSIVE}",
    "qlograndint": f"logint(low, high, q=…); {_INCLUSIVE}",
    "quniform": "uniform(low, high, q=…)",
    "qloguniform": "loguniform(low, high, q=…)",
    "hp.loguniform": "loguniform(low, high), with the values themselves, not their logarithms",
    "log_uniform": "loguniform(low, high), with the values themselves, not their logarithms",
    "randn": "normal(mean, sd)",
    "qrandn": "normal(mean, sd, q=…)",
    "qnormal": "normal(mean, sd, q=…)",
    "qlognormal": "lognormal(mean, sd, q=…)",
    "float": "uniform(low, high)",
    "suggest_float": "uniform(low, high)",
    "bool": "choice(true, false)",
    "boolean": "choice(true, false)",
    "categorical": "choice(a, b, …)",
    "suggest_categorical": "choice(a, b, …)",
    "pchoice": "choice(a, b, …)",
    "grid_search": "choice(a, b, …), and searcher=grid",
    "sample_from": "when={parent: value} for what depends on another parameter",
}


def parse_domain(text: str) -> Domain | Scalar:
    """What a piece of text says: a domain, or a constant.

    Args:
        text: ``loguniform(1e-4, 1e-1)``, ``choice(sgd, adam)``, …, or a scalar: a number, a bare or quoted word,
            true, false, null, none.

    Raises:
        InvalidInput: With every mistake found in it; the key is left empty.
    """
    node = _expression(text)
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        raise wrong(list_hint([_value(item) for item in node.elts]))
    level = freeze(_value(node))
    return None if isinstance(level, tuple) else level  # no list gets here; the check is for the type only


def list_hint(values: Sequence[object]) -> str:
    """What to say about a list where a domain should stand."""
    try:
        return f"a list does not say how to search it: write {choice(list(values)).text()}"
    except InvalidInput:
        return "a list does not say how to search it: write choice(a, b)"


def _expression(text: str) -> ast.expr:
    """The syntax tree of one expression; InvalidInput for whatever Python's parser makes of hostile text."""
    if len(text) > MAX_TEXT:
        raise wrong(f"{len(text)} characters are too many: at most {MAX_TEXT}")
    depth = deepest = 0
    for bracket in re.findall(r"[([{]|[)\]}]", re.sub(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", "", text)):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        raise wrong(f"{show(text)} has {deepest} brackets inside each other: at most {_MAX_DEPTH}")
    try:
        with warnings.catch_warnings():  # of doubtful escapes and the like: the text is data, not code
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        reason = error.msg
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        reason = str(error) or "it is nested too deeply"
    raise wrong(
        f"{show(text)} cannot be read ({reason}): write e.g. uniform(0, 1), choice(a, b) or a number, "
        "and put quotes around text that is not one word"
    )


def _value(node: ast.expr) -> object:
    """The plain value a node stands for: scalars, bare words, lists."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id.lower(), node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _value(node.operand) if isinstance(node.operand, ast.Constant | ast.Name) else None
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Call):
        raise wrong(f"{_dotted(node.func) or 'a call'}(…) cannot stand inside another domain: give it a key of its own")
    what = _NODES.get(type(node).__name__, "this expression")
    raise wrong(f"{what} is not a value: write a number or a word, and quotes around other text, 'like-this'")


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` of nested attribute nodes; empty if it is anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _mapping(node: ast.expr) -> object:
    """The value of ``when=``: ``{parent: value}``, whose key may be dotted."""
    if not isinstance(node, ast.Dict):
        return _value(node)
    found: dict[object, object] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        if key_node is None:
            raise wrong("** is not allowed here: write when={parent: value}")
        key = _dotted(key_node) or _value(key_node)
        if not isinstance(key, str) or key in found:
            raise wrong(f"when names the parameter {show(key)}: it must be text, once")
        found[key] = _value(value_node)
    return found


def _call(node: ast.Call) -> Domain:
    """The domain that ``name(…)`` says."""
    name = _dotted(node.func)
    name = "int" if name == "integer" else name
    if name not in _USAGE:
        raise wrong(_unknown(name))
    labels = _LABELS[_SHAPES[name][1]] if name in _SHAPES else ()
    allowed = (*labels, "q", "grid", "default", "when") if labels else ("default", "when")
    problems, given, arguments = list[Problem](), list[object](), dict[str, object]()
    for item in node.args:
        with collecting(problems):
            given.append(_value(item))
    readable = not problems
    for item_keyword in node.keywords:
        with collecting(problems):
            key = item_keyword.arg or "**"
            if key not in allowed:
                raise wrong(f"{name} has no keyword {show(key)}: {nearest(key[:60], allowed)}")
            if key in arguments or key in labels[: len(given)]:
                raise wrong(f"{key} is given twice")
            arguments[key] = _mapping(item_keyword.value) if key == "when" else _value(item_keyword.value)
    domain: Domain | None = None
    if readable:  # despite a wrong keyword, so that all other mistakes are found too
        with collecting(problems):
            domain = _made(name, given, arguments)
    if domain is None or problems:
        raise InvalidInput(*problems)
    return domain


def _made(name: str, given: Sequence[object], named: Mapping[str, object]) -> Domain:
    """The domain that the constructor ``name`` makes of these positional and keyword arguments."""
    default, when = named.get("default", UNSET), named.get("when")
    if name in _SHAPES:
        labels = _LABELS[_SHAPES[name][1]]
        both = [*given, *(named[label] for label in labels[len(given) :] if label in named)]
        if len(both) != 2:
            raise wrong(f"{name} takes {' and '.join(labels)}, not {len(both)} values: {_USAGE[name]}")
        return _numeric(name, both[0], both[1], named.get("q"), named.get("grid"), default, when)
    return _levelled("choice" if name == "choice" else "ordinal", given, default, when)


def _unknown(name: str) -> str:
    """What to write instead of a function that is not ours."""
    short = name.rpartition(".")[2]
    shown = show(name).strip("'") or "this"
    if name in _FOREIGN or short in _FOREIGN:
        return f"{shown}: use {_FOREIGN.get(name) or _FOREIGN[short]}"
    if short in _USAGE:
        return f"{shown}: use {_USAGE[short]}, without '{shown.removesuffix(short)}'"
    return f"{shown} is not a domain: {nearest(short[:60], _USAGE)}"
