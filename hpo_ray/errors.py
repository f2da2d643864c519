"""What can go wrong, as a small tree, and how each mistake is worded.

    HpoRayError
    ├── InvalidInput      the user's input is wrong; nothing was started   (exit code 2)
    └── RunFailed         the run started and could not go on              (exit code 1)
        └── RayLost       … because Ray itself died: to be resumed

Knows nothing of configuration, Ray or the screen.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One mistake: which key, what is wrong with it, where it stands.

    Attributes:
        key: Dotted name as the user writes it, e.g. ``scheduler.max_t``.
        message: What was given, what was expected, the nearest valid choice.
        source: The file or ``command line`` the value came from; empty if unknown.
    """

    key: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f"  [{self.source}]" if self.source else "")

    def at(self, source: str) -> Problem:
        """The same problem with its source filled in, unless it already has one."""
        return self if self.source else replace(self, source=source)


class HpoRayError(Exception):
    """Base of every error that hpo_ray raises on purpose."""

    exit_code = 1


class InvalidInput(HpoRayError):
    """The user's input is wrong. Carries every mistake found, not the first one only."""

    exit_code = 2

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


class RunFailed(HpoRayError):
    """The run started but could not go on. What was journalled before stays readable, in `run_dir` if there is one."""

    run_dir: Path | None = None


class RayLost(RunFailed):
    """Ray's own processes died, or its cluster went away. The run can be resumed as it is."""


def nearest(given: object, choices: Iterable[str]) -> str:
    """A hint that names the closest valid choice, or all of them where none is close.

    Args:
        given: What the user wrote.
        choices: The valid names.

    Returns:
        ``"did you mean 'adam'?"`` or ``"choose one of 'adam', 'sgd'"``.
    """
    names = sorted(set(choices))
    text = str(given)[:60]

    def likeness(name: str) -> float:
        """Where one begins with the other, mostly an ending was forgotten or added."""
        begins = bool(text) and (name.startswith(text) or text.startswith(name))
        return difflib.SequenceMatcher(None, text, name).ratio() + 0.05 * begins

    best = max(names, key=likeness, default="")
    if best and likeness(best) >= 0.6:
        return f"did you mean '{best}'?"
    shown = ", ".join(f"'{name}'" for name in names[:12]) + (", …" if len(names) > 12 else "")
    return f"choose one of {shown}" if names else "no names are valid here"
