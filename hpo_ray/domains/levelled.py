"""Choices and ordinals: one of a few values, and their places in [0, 1].

Must not know: how users' arguments are checked (see ``construct``), what the parent in ``when`` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpo_ray.domains.base import DomainBase, When
from hpo_ray.domains.levels import UNSET, Level, LevelKey, Unset, freeze, level_key, level_text, thaw
from hpo_ray.domains.messages import hint, show, wrong
from hpo_ray.domains.scales import bin_at, bin_centre, clip


@dataclass(frozen=True, eq=False, repr=False)
class Levelled(DomainBase):
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
    def _places(self) -> dict[LevelKey, int]:
        return {level_key(level): index for index, level in enumerate(self.values)}

    def text(self) -> str:
        """The canonical text form; parsing it gives an equal domain."""
        # A lone list would be read as the list of levels.
        lone = len(self.values) == 1 and isinstance(self.values[0], tuple)
        arguments = [level_text(self.values)] if lone else [level_text(level) for level in self.values]
        arguments += [] if isinstance(self.default, Unset) else [f"default={level_text(self.default)}"]
        return f"{self.kind}({', '.join([*arguments, *self._when_text()])})"

    def index(self, value: object) -> int:
        """The place of ``value`` among the levels, from 0.

        Raises:
            InvalidInput: It is none of them; the message names the nearest.
        """
        level = freeze(value, "the value")
        index = self._places.get(level_key(level))
        if index is None:
            texts = (other if isinstance(other, str) else level_text(other) for other in self.values)
            raise wrong(f"{show(value)} is none of the values: {hint(level_text(level), texts)}")
        return index

    def canonical(self, value: object) -> Level:
        """The level that equals ``value``, lists stored as tuples; InvalidInput if there is none."""
        return self.values[self.index(value)]

    def to_unit(self, value: object) -> float:
        """The centre of the level's bin; the bins are equal shares of [0, 1] in the order given."""
        return bin_centre(self.index(value), self.levels)

    def place(self, unit: float) -> int:
        """Which level's bin holds ``unit``, which is clipped to [0, 1]."""
        return bin_at(clip(unit), self.levels)

    def from_unit(self, unit: float) -> object:
        """The value whose bin holds ``unit``, as the user gave it; a tuple as a list."""
        return thaw(self.values[self.place(unit)])

    def grid_values(self) -> list[object]:
        """All values, in order, as the user gave them."""
        return list(map(thaw, self.values))
