"""How an interval of numbers is laid out along [0, 1]: in equal bins, evenly, by logarithms, by a normal's mass.

Must not know: domains, levels. A scale maps a number to the share of the interval below it, and back.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from scipy.special import ndtr, ndtri

TAIL = 0.5e-9  # mass cut off at each end of a normal
NORMAL_REACH = float(-ndtri(TAIL))  # in standard deviations


def clip(unit: float) -> float:
    """``unit``, or the nearer end of [0, 1] if it lies outside."""
    return min(max(float(unit), 0.0), 1.0)


def bin_at(unit: float, bins: int) -> int:
    """Which of ``bins`` equal parts of [0, 1] holds ``unit``; in whole numbers, so exact up to 2**53 bins."""
    numerator, denominator = unit.as_integer_ratio()
    return min(numerator * bins // denominator, bins - 1)


def bin_centre(index: int, bins: int) -> float:
    """The centre of one of ``bins`` equal parts of [0, 1]."""
    centre = (2 * index + 1) / (2 * bins)
    # With 2**53 bins the centre lies between two floats and may round up into the next bin.
    return centre if bin_at(centre, bins) == index else math.nextafter(centre, 0)


class Even:
    """Every number from start to end is equally likely."""

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end

    def share(self, number: float) -> float:
        """The share of the interval below ``number``."""
        return (number - self._start) / (self._end - self._start)

    def number(self, share: float) -> float:
        """Inverse of ``share``."""
        return self._start + share * (self._end - self._start)


class Log:
    """Every order of magnitude from start > 0 to end is equally likely."""

    def __init__(self, start: float, end: float) -> None:
        self._start = start
        self._narrow = end / 1e300 < start  # the ratio of two numbers of the interval is finite
        self._length = self._ratio(end)

    def share(self, number: float) -> float:
        """The share of the interval below ``number``."""
        return self._ratio(number) / self._length

    def number(self, share: float) -> float:
        """Inverse of ``share``."""
        start, reach = self._start, share * self._length
        return start + start * math.expm1(reach) if self._narrow else math.exp(math.log(start) + reach)

    def _ratio(self, number: float) -> float:
        """Logarithm of ``number`` over the start, precise too where the two are close."""
        start = self._start
        return math.log1p((number - start) / start) if self._narrow else math.log(number) - math.log(start)


class Normal:
    """Numbers, or with ``log`` their logarithms, are as likely as under a normal distribution."""

    def __init__(self, mean: float, sd: float, log: bool, ends: tuple[float, float] | None) -> None:
        """Between two ends, or from one cut-off tail to the other."""
        self._mean, self._sd, self._log = mean, sd, log
        # Mass below, above, and of the interval; where to change tails: at the mean if it is inside.
        self._below, self._above, self._mass, self._middle = TAIL, TAIL, 1 - 2 * TAIL, 0.5
        if ends:
            z_start, z_end = map(self._z, ends)
            below, above = self._below, self._above = float(ndtr(z_start)), float(ndtr(-z_end))
            if z_start >= 0:  # each difference is taken in the tail where it does not cancel
                self._mass, self._middle = float(ndtr(-z_start)) - above, -1.0
            elif z_end <= 0:
                self._mass, self._middle = float(ndtr(z_end)) - below, 2.0
            else:
                self._mass, self._middle = 1 - below - above, (0.5 - below) / (1 - below - above)

    def share(self, number: float) -> float:
        """The share of the interval's mass below ``number``."""
        z = self._z(number)
        return (
            (float(ndtr(z)) - self._below) / self._mass if z < 0 else 1 - (float(ndtr(-z)) - self._above) / self._mass
        )

    def number(self, share: float) -> float:
        """Inverse of ``share``."""
        if share == self._middle:  # exactly, where ndtri leaves 1e-16
            z = 0.0
        elif share < self._middle:
            z = float(ndtri(self._below + share * self._mass))
        else:
            z = -float(ndtri(self._above + (1 - share) * self._mass))
        place = self._mean + self._sd * z
        return math.exp(place) if self._log else place

    def _z(self, number: float) -> float:
        return ((math.log(number) if self._log else number) - self._mean) / self._sd


Scale: TypeAlias = Even | Log | Normal
