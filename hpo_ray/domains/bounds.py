"""The checks on the numbers of a domain: low and high, mean and sd, q and the levels it makes, grid.

Must not know: defaults, conditions, text.
"""

from __future__ import annotations

import math
from fractions import Fraction

from hpo_ray.domains.base import MAX_GRID
from hpo_ray.domains.levels import exact, finite_number
from hpo_ray.domains.messages import collecting, number_text, show, wrong
from hpo_ray.domains.numeric import SHAPES, Numeric
from hpo_ray.domains.scales import NORMAL_REACH
from hpo_ray.errors import InvalidInput, Problem

LABELS = {"uniform": ("low", "high"), "log": ("low", "high"), "normal": ("mean", "sd"), "lognormal": ("mean", "sd")}
# A bin narrower than this share of the unit interval could not be told from its neighbours in float64.
_NARROWEST = 2.0**-49


def checked_range(name: str, first: object, second: object) -> tuple[float, float, float | None, float | None]:
    """Low, high, mean, sd of the two numbers of a domain; mean and sd are None except for the normals."""
    kind, scale = SHAPES[name]
    problems, (label_a, label_b) = list[Problem](), LABELS[scale]
    with collecting(problems):
        a = finite_number(first, label_a, kind == "int")
    with collecting(problems):
        b = positive(second, label_b, False) if label_b == "sd" else finite_number(second, label_b, kind == "int")
    if problems:
        raise InvalidInput(*problems)
    if label_b == "sd":
        return (*_normal_range(name, a, b), a, b)
    shown_a, shown_b = number_text(a), number_text(b)
    messages = []
    if a > b:
        messages.append(f"low {shown_a} is above high {shown_b}: swap them")
    if a == b:
        messages.append(f"low and high are both {shown_a}: write a constant, {shown_a}")
    if scale == "log" and min(a, b) <= 0:
        plain = "int" if kind == "int" else "uniform"
        messages.append(
            f"{'low' if a <= b else 'high'} {number_text(min(a, b))} must be above 0 on a log scale: "
            f"use a small positive bound, or {plain}({shown_a}, {shown_b})"
        )
    if kind == "float" and not math.isfinite(b - a):
        messages.append(f"{shown_a} to {shown_b} is wider than a float can hold: use closer bounds")
    if messages:
        raise wrong(*messages)
    return a, b, None, None


def _normal_range(name: str, mean: float, sd: float) -> tuple[float, float]:
    """Where the central 1 - 1e-9 mass lies."""
    low, high = mean - NORMAL_REACH * sd, mean + NORMAL_REACH * sd
    if name == "lognormal":
        low, high = (math.exp(place) if place < 709.7 else math.inf for place in (low, high))
        if low < 2.3e-308 or high == math.inf:
            raise wrong(
                f"mean {number_text(mean)} and sd {number_text(sd)} reach beyond what a float can hold: "
                "they are those of the natural logarithm"
            )
    if not math.isfinite(high - low):
        raise wrong(f"mean {number_text(mean)} and sd {number_text(sd)} reach beyond what a float can hold")
    if not low < high:
        raise wrong(f"sd {number_text(sd)} is too small beside mean {number_text(mean)}: write a constant")
    return low, high


def checked_lattice(bounds: tuple[float, float, float | None, float | None], q: float) -> tuple[float, float]:
    """First and last level of step ``q``: high must lie on the lattice; a normal's levels are multiples of q."""
    low, high, step = exact(bounds[0]), exact(bounds[1]), exact(q)
    where = f"{number_text(bounds[0])} to {number_text(bounds[1])}"
    if bounds[2] is not None:
        first, last = math.ceil(low / step), math.floor(high / step)
        if first >= last:
            raise wrong(f"q {number_text(q)} is too large: fewer than two multiples of it lie in {where}")
        return float(first * step), float(last * step)
    if step > (high - low) * Fraction(1_000_000_001, 1_000_000_000):
        raise wrong(f"q {number_text(q)} is larger than the range {where}")
    last_level = low + round((high - low) / step) * step
    whole = isinstance(bounds[0], int)
    closest = int(last_level) if whole else float(last_level)
    # Dust of binary arithmetic in a float bound is not a mistake.
    if abs(last_level - high) > (0 if whole else step / 1_000_000_000):
        shown = f"high {number_text(bounds[1])} is not low {number_text(bounds[0])} plus a multiple of "
        raise wrong(f"{shown}q {number_text(q)}: the nearest valid high is {number_text(closest)}")
    return bounds[0], closest


def check_levels(domain: Numeric) -> None:
    """Raises if levels are too close for float64, or fewer than the grid asks for."""
    levels = domain.levels
    if levels is None:
        return
    if levels > 2**53:
        raise wrong(f"{show(levels)} levels are more than 2**53, as many as a float can tell apart: use a larger q")
    # The bins' edges, too, must be numbers of their own, and not merely rounded to the next level.
    step, finest = float(domain.step), 8 * max(math.ulp(domain.low), math.ulp(domain.high), 1e-300)
    if domain.scale == "lognormal":  # what rounding the exponent makes of the value
        finest = max(finest, 16 * domain.high * math.ulp(abs(domain.mean or 0) + 7 * (domain.sd or 0)))
    if domain.kind == "float" and step < finest:
        raise wrong(f"q {number_text(step)} is too small beside the bounds: use a larger q")
    if domain.scale != "uniform" and min(domain.edge(1), 1 - domain.edge(levels - 1)) < _NARROWEST:
        raise wrong(f"levels {number_text(step)} apart are too close for a float on this scale: use a larger q")
    if domain.grid is not None and domain.grid > levels:
        raise wrong(f"grid {domain.grid} asks for more points than there are levels: use grid={levels} or leave it out")


def positive(value: object, what: str, whole: bool) -> float:
    number = finite_number(value, what, whole)
    if number <= 0:
        raise wrong(f"{what} {number_text(number)} must be above 0")
    return number


def checked_grid(value: object) -> int:
    number = int(finite_number(value, "grid", True))
    if not 2 <= number <= MAX_GRID:
        raise wrong(f"grid {show(number)} must be from 2 to {MAX_GRID}")
    return number
