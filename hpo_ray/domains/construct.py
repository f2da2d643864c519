"""The functions that make domains, and a check of everything given to them, all mistakes at once.

Must not know: other parameters (beyond the name in ``when``), the text form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from hpo_ray.domains.base import MAX_TEXT, When
from hpo_ray.domains.bounds import LABELS, check_levels, checked_grid, checked_lattice, checked_range, positive
from hpo_ray.domains.levelled import Levelled
from hpo_ray.domains.levels import UNSET, Level, LevelKey, Scalar, Unset, freeze, level_key, level_text
from hpo_ray.domains.messages import collecting, show, wrong
from hpo_ray.domains.numeric import SHAPES, Numeric
from hpo_ray.errors import InvalidInput, Problem

Domain: TypeAlias = Numeric | Levelled
_D = TypeVar("_D", Numeric, Levelled)

# How each function is written.
USAGE = {name: f"{name}({', '.join(LABELS[scale])})" for name, (_, scale) in SHAPES.items()}
USAGE |= {"choice": "choice(a, b, …)", "ordinal": "ordinal(small, medium, large, …)"}


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
    return make_number("uniform", low, high, q, grid, default, when)


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
    return make_number("loguniform", low, high, q, grid, default, when)


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
    return make_number("normal", mean, sd, q, grid, default, when)


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
    return make_number("lognormal", mean, sd, q, grid, default, when)


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
    return make_number("int", low, high, q, grid, default, when)


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
    return make_number("logint", low, high, q, grid, default, when)


def choice(*values: object, default: object = UNSET, when: Mapping[str, object] | None = None) -> Levelled:
    """One of the values, in no order: ``choice(a, b)`` or ``choice([a, b])``.

    Args:
        values: Text, numbers, true / false, None, or lists of these; a list or tuple comes back as a list.
        default: A value to try first.
        when: As for ``uniform``.

    Raises:
        InvalidInput: With every mistake found.
    """
    return make_levelled("choice", values, default, when)


def ordinal(*values: object, default: object = UNSET, when: Mapping[str, object] | None = None) -> Levelled:
    """One of the values, whose order matters: neighbours are alike. Arguments as for ``choice``."""
    return make_levelled("ordinal", values, default, when)


def make_number(
    name: str, first: object, second: object, q: object, grid: object, default: object, when: object
) -> Numeric:
    """The domain ``name(first, second, …)``, or an InvalidInput with all its mistakes."""
    kind, scale = SHAPES[name]
    whole, problems = kind == "int", list[Problem]()
    with collecting(problems, name):
        bounds = checked_range(name, first, second)
    step = points = condition = None
    with collecting(problems, name):
        step = None if q is None else positive(q, "q", whole)
    with collecting(problems, name):
        points = None if grid is None else checked_grid(grid)
    with collecting(problems, name):
        condition = _condition(when)
    if problems:
        raise InvalidInput(*problems)
    step = None if whole and step == 1 else step
    with collecting(problems, name):
        low, high = bounds[:2] if step is None else checked_lattice(bounds, step)
        domain = Numeric(kind, scale, low, high, *bounds[2:], step, points, UNSET, condition)
        check_levels(domain)
        return _finished(domain, default)
    raise InvalidInput(*problems)


def make_levelled(
    kind: Literal["choice", "ordinal"], given: Sequence[object], default: object, when: object
) -> Levelled:
    """The domain ``kind(*given)``, or an InvalidInput with all its mistakes."""
    lone = given[0] if len(given) == 1 else None
    values = list(lone) if isinstance(lone, list | tuple | range | np.ndarray) else list(given)
    problems, levels, condition = list[Problem](), dict[LevelKey, Level](), None
    for value in values:
        with collecting(problems, kind):
            level = freeze(value)
            if level_key(level) in levels:
                raise wrong(f"{level_text(level)} is given twice: remove one")
            levels[level_key(level)] = level
    with collecting(problems, kind):
        condition = _condition(when)
    if not values:
        problems.append(Problem(kind, f"no values: write {USAGE[kind]}"))
    domain = Levelled(kind, tuple(levels.values()), UNSET, condition)
    if levels:
        with collecting(problems, kind):
            domain = _finished(domain, default)
    if problems:
        raise InvalidInput(*problems)
    return domain


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


def _condition(when: object) -> When | None:
    """``{parent: value or values}`` as it is stored."""
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


def constant(value: object) -> Scalar:
    """``value`` as a parameter that is the same in every configuration; InvalidInput if it cannot be one."""
    if isinstance(value, Mapping):
        raise wrong("a mapping cannot be a parameter: give each of its keys a line of its own, such as model.depth")
    level = freeze(value)
    if isinstance(level, tuple) or len(level_text(level)) > MAX_TEXT:
        raise wrong(f"{show(value)} cannot be a constant: use a number or a shorter text")
    return level
