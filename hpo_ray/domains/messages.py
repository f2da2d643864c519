"""How values stand in error messages, and how the mistakes of several places are brought together.

Must not know: what a level or a domain is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np

from hpo_ray.errors import InvalidInput, Problem, nearest


def wrong(*messages: str) -> InvalidInput:
    """An InvalidInput of these messages whose key the caller fills in (see ``collecting``)."""
    return InvalidInput(*(Problem("", message) for message in messages))


@contextmanager
def collecting(problems: list[Problem], key: str = "", after: str = "") -> Iterator[None]:
    """Moves the problems of an InvalidInput raised in the block to ``problems``.

    Args:
        problems: Receives them.
        key: Their new key; empty: they keep their own.
        after: What is added to their messages.
    """
    try:
        yield
    except InvalidInput as error:
        problems.extend(replace(p, key=key or p.key, message=p.message + after) for p in error.problems)


def number_text(number: float) -> str:
    """A number as users write it: 3 rather than 3.0."""
    return repr(int(number)) if isinstance(number, int) or (number.is_integer() and abs(number) < 1e6) else repr(number)


def show(value: object) -> str:
    """``value`` for an error message: at most 60 characters, never an exception."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | list | tuple | dict | None):
        return f"<{type(value).__name__}>"
    try:
        text = number_text(value) if type(value) in (int, float) else repr(value)  # type: ignore[arg-type]
    except (ValueError, RecursionError):  # Python refuses to print integers of more than 4300 digits
        text = "a value too long to print"
    return _short(text)


def name_text(name: object) -> str:
    """A parameter's name as the key of a message, also where it is not text."""
    return name if isinstance(name, str) else show(name)


def hint(given: str, choices: Iterable[str]) -> str:
    """The nearest of ``choices``; only the first thousand are compared, and the beginnings of long ones."""
    return nearest(_short(given), map(_short, islice(choices, 1000)))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
