"""The single values a parameter may take: how they are stored, told apart and written.

Must not know: domains. A value is a number, or a level: text, number, boolean, None or a list of these.
"""

from __future__ import annotations

import enum
import math
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np

from hpo_ray.domains.messages import show, wrong


class Unset(enum.Enum):
    """Says "no default was given", because None may itself be a level."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
Level: TypeAlias = "str | int | float | bool | tuple[Level, ...] | None"
LevelKey: TypeAlias = tuple[str, object]
Scalar: TypeAlias = str | int | float | bool | None

# What these words mean in text, in any case.
WORDS: Final[dict[str, bool | float | None]] = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
}


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


def thaw(level: Level) -> object:
    """A level as the user's function gets it: a tuple is how a list is stored, so it comes back as a list."""
    return [thaw(item) for item in level] if isinstance(level, tuple) else level


def level_key(level: object) -> LevelKey:
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
    if isinstance(level, str) and bare(level) and level.lower() not in WORDS:
        return level
    return repr(level)


def bare(text: str) -> bool:
    """Whether ``text`` is read as one word without quotes (see ``syntax``, which lets Python's keywords be words)."""
    return text.isascii() and text.isidentifier() and text not in ("True", "False", "None")


def exact(number: float) -> Fraction:
    """The decimal that is printed for ``number``, as a fraction: what the user meant by 0.1."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(float(number)))


def finite_number(value: object, what: str, whole: bool) -> float:
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
