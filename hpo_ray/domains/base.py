"""What both kinds of domain share: equality by their text form, membership, and the words for a condition.

Must not know: which kinds there are.
"""

from __future__ import annotations

import abc
from typing import TypeAlias

from hpo_ray.domains.levels import Level, bare, level_text
from hpo_ray.errors import InvalidInput

# A parent's name and its levels under which the child is active.
When: TypeAlias = tuple[str, tuple[Level, ...]]

MAX_GRID = 1_000_000  # points of a grid, of one domain and of a whole space
MAX_TEXT = 10_000  # characters of one domain


class DomainBase(abc.ABC):
    """Domains are equal, hashed and shown by their text form."""

    when: When | None

    @abc.abstractmethod
    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""

    @abc.abstractmethod
    def canonical(self, value: object) -> Level:
        """``value`` as the domain itself has it; InvalidInput if it is none of its values."""

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
        return isinstance(other, DomainBase) and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.text())

    def __repr__(self) -> str:
        return self.text()

    def _when_text(self) -> list[str]:
        """The condition as an argument in the text form; empty if there is none."""
        if self.when is None:
            return []
        parent, levels = self.when
        name = parent if all(map(bare, parent.split("."))) else repr(parent)
        single = len(levels) == 1 and not isinstance(levels[0], tuple)
        return [f"when={{{name}: {level_text(levels[0] if single else levels)}}}"]

    def condition_text(self) -> str:
        """The condition in words, for messages: ``optimizer = sgd or lars``."""
        parent, levels = self.when or ("", ())
        return f"{parent} = {' or '.join(map(level_text, levels))}"
